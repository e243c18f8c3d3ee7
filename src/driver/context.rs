#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Contexts: retained or borrowed, never created.

use core::fmt;
use core::ptr;
use std::sync::Arc;

use wharf_sys::bindings::{CUcontext, CUctx_st, CUdevice};

use super::{ContextScope, Device, Driver, Release};
use crate::error::{CudaError, Error};
use crate::profile::range;

/// A context of a device: what streams, events and memory belong to.
///
/// Cheap to clone; the clones are one context. May be used from any thread: each call makes it
/// current for its own duration, and a thread that stays with it [enters](Context::enter) it once.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// use wharf::Context;
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let scope = context.enter()?;
/// assert_eq!(Context::current(&driver)?.map(|current| current.as_raw()), Some(context.as_raw()));
/// drop(scope);
/// assert!(Context::current(&driver)?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    raw: RawContext,
    device: Device,
    owned: bool,
    release: Arc<Release>,
}

impl Context {
    /// Retains the primary context of `device`, the one that the CUDA runtime also uses.
    ///
    /// It is released with the last clone. When that was the last reference in the process,
    /// the driver resets the context with all that is in it; whether this waits for outstanding
    /// work the reference does not say, so a latency-critical thread leaves it to another.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::OUT_OF_MEMORY`]: the driver cannot make the
    /// context.
    ///
    /// # References
    ///
    /// [Primary context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html)
    #[doc(alias = "cuDevicePrimaryCtxRetain")]
    pub fn retain(device: &Device) -> Result<Self, Error> {
        let _range = range!("wharf::context::retain");
        let mut raw: CUcontext = ptr::null_mut();
        // SAFETY: `raw` is valid for writes for the whole call.
        unsafe { device.driver().api().device_primary_ctx_retain.call(&raw mut raw, device.as_raw()) }?;
        Ok(Self::with(raw, device.clone(), true))
    }

    /// Borrows the context that is current on the calling thread, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    #[doc(alias = "cuCtxGetCurrent")]
    pub fn current(driver: &Driver) -> Result<Option<Self>, Error> {
        let raw = current(driver)?;
        if raw.is_null() {
            return Ok(None);
        }
        Ok(Some(Self::with(raw, current_device(driver)?, false)))
    }

    /// Borrows the context `raw`, which somebody else owns.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::INVALID_CONTEXT`]: the driver does not know `raw`.
    ///
    /// # Safety
    ///
    /// * `raw` is a context of `driver`.
    /// * It is not destroyed as long as a clone of the result, or what was made from one, is
    ///   used.
    ///
    /// It need not be current, here or later.
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    pub unsafe fn borrow_raw(raw: CUcontext, driver: &Driver) -> Result<Self, Error> {
        if raw.is_null() {
            let call = driver.api().ctx_set_current.name();
            return Err(Error::Driver { call, code: CudaError::INVALID_CONTEXT });
        }
        let _scope = ContextScope::enter_raw(driver, raw)?;
        Ok(Self::with(raw, current_device(driver)?, false))
    }

    /// Makes the context current on this thread until the result is dropped.
    ///
    /// Inside, calls on this context's objects find it current without asking the driver.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::CONTEXT_IS_DESTROYED`]: the driver cannot use
    /// the context.
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    #[doc(alias = "cuCtxSetCurrent")]
    pub fn enter(&self) -> Result<ContextScope<'_>, Error> {
        ContextScope::enter_raw(self.driver(), self.as_raw())
    }

    /// Waits for all work of the context.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: work failed, or a stream of the context is capturing.
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    #[doc(alias = "cuCtxSynchronize")]
    pub fn synchronize(&self) -> Result<(), Error> {
        let _range = range!("wharf::context::synchronize");
        let _scope = self.enter()?;
        // SAFETY: no argument; the context is current.
        unsafe { self.driver().api().ctx_synchronize.call() }
    }

    /// The range of stream priorities, least and greatest; a lower number is a higher
    /// priority.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    #[doc(alias = "cuCtxGetStreamPriorityRange")]
    pub fn stream_priorities(&self) -> Result<(i32, i32), Error> {
        let _scope = self.enter()?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: both are valid for writes for the whole call.
        unsafe { self.driver().api().ctx_get_stream_priority_range.call(&raw mut least, &raw mut greatest) }?;
        Ok((least, greatest))
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The driver.
    pub fn driver(&self) -> &Driver {
        self.0.device.driver()
    }

    /// The driver's handle. It stays usable as long as this context is held.
    pub fn as_raw(&self) -> CUcontext {
        self.0.raw.0
    }

    /// How many errors drops have met in this context. Each left something undestroyed.
    pub fn drop_errors(&self) -> u64 {
        self.0.release.errors()
    }

    /// How many callbacks of this context's streams have panicked.
    pub fn callback_panics(&self) -> u64 {
        self.0.release.panics()
    }

    /// Gives up this clone. The last clone of a retained context releases it.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused the release. Nothing is tried again.
    ///
    /// # References
    ///
    /// [Primary context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html)
    #[doc(alias = "cuDevicePrimaryCtxRelease")]
    pub fn close(self) -> Result<(), Error> {
        Arc::into_inner(self.0).map_or(Ok(()), |mut inner| inner.give_back())
    }

    pub(crate) fn release(&self) -> &Arc<Release> {
        &self.0.release
    }

    fn with(raw: CUcontext, device: Device, owned: bool) -> Self {
        Self(Arc::new(Inner { raw: RawContext(raw), device, owned, release: Arc::default() }))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Context");
        out.field("raw", &self.as_raw()).field("device", self.device()).field("owned", &self.0.owned);
        out.finish_non_exhaustive()
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        self.as_raw() == other.as_raw()
    }
}

impl Eq for Context {}

impl Inner {
    fn give_back(&mut self) -> Result<(), Error> {
        if !core::mem::take(&mut self.owned) {
            return Ok(());
        }
        let api = self.device.driver().api();
        // SAFETY: retained once in `retain`, released once: `owned` was taken.
        unsafe { api.device_primary_ctx_release.call(self.device.as_raw()) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.release.note(self.device.driver(), outcome);
    }
}

/// The driver's handle of a context.
struct RawContext(*mut CUctx_st);

// SAFETY: a context belongs to no thread: any thread may make it current (Driver API,
// cuCtxSetCurrent), and several at once.
unsafe impl Send for RawContext {}
// SAFETY: as above; the driver's functions may be called from several threads at once (CUDA
// programming guide: the driver API is thread-safe).
unsafe impl Sync for RawContext {}

/// The calling thread's current context, or null.
pub(super) fn current(driver: &Driver) -> Result<CUcontext, Error> {
    let mut raw: CUcontext = ptr::null_mut();
    // SAFETY: `raw` is valid for writes for the whole call.
    unsafe { driver.api().ctx_get_current.call(&raw mut raw) }?;
    Ok(raw)
}

/// The device of the calling thread's current context.
fn current_device(driver: &Driver) -> Result<Device, Error> {
    let mut raw: CUdevice = 0;
    // SAFETY: `raw` is valid for writes for the whole call.
    unsafe { driver.api().ctx_get_device.call(&raw mut raw) }?;
    Device::with_raw(driver, raw)
}
