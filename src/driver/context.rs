#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Contexts: retained or borrowed, never created.

use core::fmt;
use core::ops::RangeInclusive;
use core::ptr;
use std::any::Any;
use std::sync::Arc;

use wharf_sys::bindings::{CUcontext, CUctx_st, CUdevice};

use super::streams::Streams;
use super::words::Words;
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
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
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
    streams: Streams,
    words: Words,
    /// The owner that keeps a borrowed context alive.
    _owner: Option<Arc<dyn Any + Send + Sync>>,
}

impl Context {
    /// Retains the primary context of `device`, the one that the CUDA runtime also uses.
    ///
    /// It is released with the last clone. When that was the last reference in the process,
    /// the driver resets the context with all that is in it; if this waits for outstanding
    /// work the reference does not say, so a latency-critical thread leaves it to another.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::OUT_OF_MEMORY`]: the driver cannot make the
    /// context.
    ///
    /// # References
    ///
    /// [Primary context
    /// management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html)
    #[doc(alias = "cuDevicePrimaryCtxRetain")]
    pub fn retain(device: &Device) -> Result<Self, Error> {
        let _range = range!("context::retain");
        device.driver().sweep();
        let mut raw: CUcontext = ptr::null_mut();
        // SAFETY: `raw` is valid for writes for the whole call.
        unsafe {
            device.driver().api().device_primary_ctx_retain.call(&raw mut raw, device.as_raw())
        }?;
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

    /// Borrows the context `raw` from its owner.
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
        driver.sweep();
        let _scope = ContextScope::make_current(driver, raw)?;
        Ok(Self::with(raw, current_device(driver)?, false))
    }

    /// Borrows the context `raw`, and keeps `owner` until the last clone, and all that was made
    /// from one, is gone.
    ///
    /// # Errors
    ///
    /// As [`borrow_raw`](Self::borrow_raw); `owner` is dropped.
    ///
    /// # Safety
    ///
    /// `raw` is a context of `driver`, and is not destroyed before `owner` is dropped.
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    pub unsafe fn borrow_with_owner(
        raw: CUcontext,
        owner: Arc<dyn Any + Send + Sync>,
        driver: &Driver,
    ) -> Result<Self, Error> {
        // SAFETY: the result is dropped below, and `owner` keeps the context until then.
        let borrowed = unsafe { Self::borrow_raw(raw, driver) }?;
        Ok(Self::with_owner(raw, borrowed.device().clone(), false, Some(owner)))
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
    /// Not beside captures: where a stream of the context is captured, the driver refuses, and the
    /// capture is invalid from then on. Wait for single streams, events or tickets there.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: work failed, or a stream of the context is capturing
    /// ([`CudaError::STREAM_CAPTURE_UNSUPPORTED`]).
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    #[doc(alias = "cuCtxSynchronize")]
    pub fn synchronize(&self) -> Result<(), Error> {
        let _range = range!("context::synchronize");
        let _scope = self.make_current()?;
        // SAFETY: no argument; the context is current.
        unsafe { self.driver().api().ctx_synchronize.call() }
    }

    /// The priorities that a stream can have, from the greatest to the least: a lower number is a
    /// higher priority.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Context management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__CTX.html)
    #[doc(alias = "cuCtxGetStreamPriorityRange")]
    pub fn stream_priorities(&self) -> Result<RangeInclusive<i32>, Error> {
        let _scope = self.make_current()?;
        let (mut least, mut greatest) = (0, 0);
        // SAFETY: both are valid for writes for the whole call.
        unsafe {
            self.driver()
                .api()
                .ctx_get_stream_priority_range
                .call(&raw mut least, &raw mut greatest)
        }?;
        Ok(greatest..=least)
    }

    /// Lets this context's device use memory of `other`'s device that is not mapped: what is
    /// allocated whole, as where a device has no virtual memory management. Memory of a
    /// [`DeviceMemoryResource`](crate::memory::DeviceMemoryResource) that is mapped is given to
    /// peers by [`DeviceOptions::peers`](crate::memory::DeviceOptions::peers).
    ///
    /// It holds until one of the contexts ends. To enable it again does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::PEER_ACCESS_UNSUPPORTED`]: the devices do not reach
    /// each other.
    ///
    /// # References
    ///
    /// [Peer access](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PEER__ACCESS.html)
    #[doc(alias = "cuCtxEnablePeerAccess")]
    pub fn enable_peer(&self, other: &Self) -> Result<(), Error> {
        let _scope = self.make_current()?;
        // SAFETY: a context that is alive, and no flag.
        let enabled = unsafe { self.driver().api().ctx_enable_peer_access.call(other.as_raw(), 0) };
        match enabled {
            Err(error) if error.code() == Some(CudaError::PEER_ACCESS_ALREADY_ENABLED) => Ok(()),
            enabled => enabled,
        }
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

    /// How many callbacks of this context's streams have panicked: those of
    /// [`Stream::add_callback`](crate::Stream::add_callback), not the functions of
    /// [`launch_host_func`](crate::Stream::launch_host_func), for which nothing is kept to count
    /// with.
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
    /// [Primary context
    /// management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html)
    #[doc(alias = "cuDevicePrimaryCtxRelease")]
    pub fn close(self) -> Result<(), Error> {
        self.driver().sweep();
        Arc::into_inner(self.0).map_or(Ok(()), |mut inner| inner.give_back())
    }

    pub(crate) fn release(&self) -> &Arc<Release> {
        &self.0.release
    }

    /// The streams that something knows.
    pub(crate) fn streams(&self) -> &Streams {
        &self.0.streams
    }

    /// The words that the device writes for streams.
    pub(crate) fn words(&self) -> &Words {
        &self.0.words
    }

    fn with(raw: CUcontext, device: Device, owned: bool) -> Self {
        Self::with_owner(raw, device, owned, None)
    }

    fn with_owner(
        raw: CUcontext,
        device: Device,
        owned: bool,
        owner: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        // A context does not count as a user of the driver: what waits to be dropped may hold it.
        device.driver().deferred_list().leave();
        Self(Arc::new(Inner {
            raw: RawContext(raw),
            device,
            owned,
            release: Arc::default(),
            streams: Streams::default(),
            words: Words::default(),
            _owner: owner,
        }))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Context");
        out.field("raw", &self.as_raw())
            .field("device", self.device())
            .field("owned", &self.0.owned);
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
        let words = self.words.close(self.device.driver(), self.raw.0);
        if !core::mem::take(&mut self.owned) {
            return words;
        }
        let api = self.device.driver().api();
        // SAFETY: retained once in `retain`, released once: `owned` was taken.
        let released = unsafe { api.device_primary_ctx_release.call(self.device.as_raw()) };
        words.and(released)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.release.note(self.device.driver(), outcome);
        // The device's own drop leaves.
        self.device.driver().deferred_list().join();
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
