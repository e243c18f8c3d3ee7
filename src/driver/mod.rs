#![expect(unsafe_code, reason = "the function table is filled from C and called from here")]
//! The driver's objects with owners: what lives as long as what.
//!
//! ```text
//! Driver ────────── the function table, and the library behind it
//!    ^
//!    ├── Device ─── an ordinal and its handle; nothing to release
//!    │
//!    ├── Context ── retained (released with the last clone) or borrowed
//!    │      ^
//!    │      ├── ContextScope ── the context is current on this thread
//!    │      ├── Event, EventPool
//!    │      └── Stream (see the module `stream`)
//! ```
//!
//! An arrow is a strong reference: an event keeps its context, a context its driver, so no
//! handle outlives what it belongs to.
//!
//! # Current contexts
//!
//! The driver acts on the calling thread's current context. Every call here makes its own
//! context current and restores the previous one: one query when it is current already, three
//! calls when it is not, none inside a [`ContextScope`] of the same context. A thread that works
//! on one context enters it once.
//!
//! # Errors and drop
//!
//! A call that fails has created nothing. A drop cannot fail, so what the driver answers to
//! it goes to the [hook](Driver::on_drop_error) and to [`Context::drop_errors`]; the handle is
//! then leaked, never used again. Every owner also has a `close` that returns the error.
//! Destroying a stream or an event does not wait for the device.

mod attribute;
mod capture_mode;
#[cfg(feature = "cuda-driver-sys")]
pub mod compat;
mod context;
pub(crate) mod deferred;
mod device;
mod event;
mod event_pool;
mod release;
mod scope;

use core::ffi::{c_int, c_void};
use core::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use wharf_sys::{Api, Row};

pub use attribute::DeviceAttribute;
pub use capture_mode::RelaxedCapture;
pub use context::Context;
use deferred::Deferred;
pub use device::{Device, Uuid};
pub(crate) use event::ready;
pub use event::{Event, EventKind};
pub use event_pool::EventPool;
pub use release::DropErrorHook;
pub(crate) use release::Release;
pub use scope::ContextScope;

use crate::error::{CudaError, Error, LoadError};
use crate::profile::range;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A loaded and initialised CUDA driver.
///
/// Cheap to clone; the clones share one function table. May be used from any thread.
///
/// # Examples
///
/// ```no_run
/// let driver = wharf::Driver::load()?;
/// for device in driver.devices()? {
///     println!("{}: {}", device.ordinal(), device.name()?);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Driver(Arc<Inner>);

struct Inner {
    api: Api,
    hook: OnceLock<DropErrorHook>,
    /// What graphs kept alive and the driver has given up.
    deferred: Arc<Deferred>,
    /// Captures that were begun here and have not ended.
    captures: AtomicUsize,
}

impl Driver {
    /// Loads the system's driver and initialises it.
    ///
    /// The library is the one that the environment variable `WHARF_LIBCUDA` names, or
    /// `libcuda.so.1`, or `libcuda.so`. It stays loaded for the life of the process.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Library`], [`LoadError::NotCuda`], [`LoadError::TooOld`],
    ///   [`LoadError::Missing`]: no library can be used; the error says what to do.
    /// * [`LoadError::NoDevice`]: the driver works and there is no device.
    /// * [`LoadError::Init`]: the driver refused to start.
    ///
    /// # References
    ///
    /// [Initialization](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__INITIALIZE.html)
    #[doc(alias = "cuInit")]
    pub fn load() -> Result<Self, LoadError> {
        let _range = range!("wharf::driver::load");
        Api::load().and_then(Self::start)
    }

    /// Loads the driver from the library at `path` and initialises it.
    ///
    /// # Errors
    ///
    /// As [`Driver::load`].
    ///
    /// # References
    ///
    /// [Initialization](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__INITIALIZE.html)
    pub fn load_from(path: impl AsRef<Path>) -> Result<Self, LoadError> {
        let _range = range!("wharf::driver::load");
        Api::load_from(path.as_ref()).and_then(Self::start)
    }

    /// Takes the driver's functions from `resolve` and initialises it.
    ///
    /// `resolve` is asked once for each row of [`wharf_sys::ROWS`] and returns null for what
    /// it does not have.
    ///
    /// # Errors
    ///
    /// * [`LoadError::Missing`]: `resolve` has no address for a required row.
    /// * [`LoadError::NoDevice`], [`LoadError::Init`]: as [`Driver::load`].
    ///
    /// # Safety
    ///
    /// * What `resolve` returns for a row is null or a function with the signature that the
    ///   row's name and version have in NVIDIA's `cudaTypedefs.h`.
    /// * The functions stay callable for the life of the process.
    pub unsafe fn from_fns(resolve: impl FnMut(&Row) -> *mut c_void) -> Result<Self, LoadError> {
        // SAFETY: the caller's promise is the callee's precondition.
        unsafe { Api::from_fns(resolve) }.and_then(Self::start)
    }

    /// The function table, for calls that have no method here.
    pub fn api(&self) -> &Api {
        &self.0.api
    }

    /// The CUDA version that the driver supports, as 1000 * major + 10 * minor.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Version management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__VERSION.html)
    #[doc(alias = "cuDriverGetVersion")]
    pub fn version(&self) -> Result<u32, Error> {
        let mut version: c_int = 0;
        // SAFETY: `version` is valid for writes for the whole call.
        unsafe { self.api().driver_get_version.call(&raw mut version) }?;
        Ok(version.unsigned_abs())
    }

    /// The number of devices; their ordinals count from 0.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Device management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    #[doc(alias = "cuDeviceGetCount")]
    pub fn device_count(&self) -> Result<i32, Error> {
        let mut count: c_int = 0;
        // SAFETY: `count` is valid for writes for the whole call.
        unsafe { self.api().device_get_count.call(&raw mut count) }?;
        Ok(count)
    }

    /// The device with this ordinal.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::INVALID_DEVICE`]: there is none.
    ///
    /// # References
    ///
    /// [Device management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html)
    #[doc(alias = "cuDeviceGet")]
    pub fn device(&self, ordinal: i32) -> Result<Device, Error> {
        Device::new(self, ordinal)
    }

    /// All devices, in the order of their ordinals.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    pub fn devices(&self) -> Result<Vec<Device>, Error> {
        (0..self.device_count()?).map(|ordinal| self.device(ordinal)).collect()
    }

    /// Sets the function that hears of errors that a drop met, such as a handle that could not
    /// be destroyed. Without one they are only counted, see [`Context::drop_errors`].
    ///
    /// [`CudaError::DEINITIALIZED`], which a drop at process exit meets, is not reported.
    ///
    /// # Errors
    ///
    /// The hook is set once; a later `hook` comes back.
    pub fn on_drop_error(&self, hook: DropErrorHook) -> Result<(), DropErrorHook> {
        self.0.hook.set(hook)
    }

    /// Drops what destroyed graphs kept alive, and returns how many owners that was.
    ///
    /// The driver says that a graph is gone where it may not be called, so what the graph kept alive
    /// waits for the next call that makes, instantiates or destroys a graph, or for this one. What
    /// waits keeps this driver's table; nothing waits longer than somebody makes such calls.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused to free the thread of other captures' restrictions;
    /// nothing was dropped.
    pub fn drop_deferred(&self) -> Result<usize, Error> {
        if self.0.deferred.is_empty() {
            return Ok(0);
        }
        let _relaxed = self.relax_capture()?;
        Ok(self.0.deferred.drain())
    }

    fn start(api: Api) -> Result<Self, LoadError> {
        // SAFETY: the reference asks only that the flags are 0.
        unsafe { api.init.call(0) }.map_err(refused)?;
        let deferred = Arc::new(Deferred::new());
        let driver =
            Self(Arc::new(Inner { api, hook: OnceLock::new(), deferred, captures: AtomicUsize::new(0) }));
        match driver.device_count().map_err(refused)? {
            0 => Err(LoadError::NoDevice),
            _ => Ok(driver),
        }
    }

    /// Counts a capture, before it begins.
    pub(crate) fn begin_capture(&self) {
        self.0.captures.fetch_add(1, Relaxed);
    }

    /// Counts one less, when it has ended or did not begin.
    pub(crate) fn end_capture(&self) {
        self.0.captures.fetch_sub(1, Relaxed);
    }

    /// Whether a capture is open that was begun here, by any thread. Whoever may use the capturing stream
    /// knows of its beginning, and so sees it counted.
    #[inline]
    pub(crate) fn may_be_capturing(&self) -> bool {
        self.0.captures.load(Relaxed) != 0
    }

    pub(crate) fn deferred(&self) -> &Arc<Deferred> {
        &self.0.deferred
    }

    pub(crate) fn drop_error_hook(&self) -> Option<DropErrorHook> {
        self.0.hook.get().copied()
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("version", &self.version().ok()).finish_non_exhaustive()
    }
}

/// A driver that works and has no device is told from one that does not work.
fn refused(error: Error) -> LoadError {
    match error.code() {
        Some(CudaError::NO_DEVICE) => LoadError::NoDevice,
        _ => LoadError::Init(error),
    }
}
