#![expect(unsafe_code, reason = "the function table is filled from C and called from here")]
//! The driver's objects with owners: what lives as long as what.
//!
//! Every engine uses [`Driver`], [`Context`] and [`Context::enter`]. [`Event`] and [`EventPool`]
//! are for engines that order streams by wharf; the rest answers special questions.
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
//! The driver acts on the calling thread's current context. Every call here makes its own context
//! current and restores the previous one: one query when it is current already, three calls when it
//! is not, none inside a [`ContextScope`] of the same context, unless the call creates something. A
//! thread that works on one context enters it once.
//!
//! # Errors and drop
//!
//! A call that fails has created nothing. A drop cannot fail, so what the driver answers to
//! it goes to the [hook](Driver::on_drop_error) and to [`Context::drop_errors`]; the handle is
//! then leaked, never used again. Every owner also has a `close` that returns the error.
//! Destroying a stream or an event does not wait for the device.

mod attribute;
mod capture_elsewhere;
mod capture_mode;
#[cfg(feature = "cuda-driver-sys")]
pub mod compat;
mod context;
pub(crate) mod deferred;
mod device;
mod ends;
mod event;
mod event_pool;
mod raw_stream;
mod release;
mod scope;
mod streams;
mod words;
mod work;

use core::ffi::{c_int, c_void};
use core::fmt;
use std::path::Path;
use std::sync::Arc;

use wharf_sys::{Api, Row};

pub use attribute::DeviceAttribute;
pub use capture_elsewhere::CaptureElsewhere;
pub use capture_mode::RelaxedCapture;
pub use context::Context;
use deferred::Deferred;
pub use device::{ComputeCapability, Device, Uuid};
pub use ends::DeferredError;
pub(crate) use event::ready;
pub use event::{Event, EventKind};
pub use event_pool::EventPool;
pub use raw_stream::CaptureStatus;
pub(crate) use raw_stream::{RawStream, capture_status};
use release::DropErrorHook;
pub use release::HookAlreadySet;
pub(crate) use release::Release;
pub use scope::ContextScope;
pub use streams::StreamId;
pub(crate) use streams::StreamKey;
pub(crate) use words::{HomeWord, SharedWord, Word, WordPage};

use crate::error::{CudaError, Error, LoadError};
use crate::profile::range;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, AtomicUsize};

/// A loaded and initialised CUDA driver.
///
/// Cheap to clone; the clones share one function table. May be used from any thread.
///
/// # Taking it down
///
/// Each object keeps what it needs, so most may be dropped in any order. Graphs are the exception:
/// what they keep alive, such as the memory of a step's inputs, the driver gives up on a thread of
/// its own, some time after the last of them is destroyed. To unload a model:
///
/// 1. drop its graphs, and destroy those of the engine that were given owners;
/// 2. drop its sets, pools, tiers and streams;
/// 3. [`wait_deferred`](Self::wait_deferred), or [`wait_deferred_until`](Self::wait_deferred_until)
///    if other graphs stay;
/// 4. drop the context. A [borrowed](crate::Context::borrow_raw) one may then be destroyed.
///
/// Without the third step what comes late is dropped by the next call that creates or drops
/// something, at the latest by the drop of the last `Driver` and [`Device`]. If those are gone,
/// too, a short-lived thread of the name `wharf-deferred` drops it, so an engine holds one `Driver`
/// for its life.
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// use std::time::Duration;
/// use wharf::graph::GraphDefinition;
/// use wharf::{Context, Stream};
///
/// let context = Context::retain(&driver.device(0)?)?;
/// let stream = Stream::new(&context)?;
/// let mut graph = GraphDefinition::new(&context)?;
/// graph.keep_alive(vec![0_u8; 1024])?;
/// let mut model = graph.instantiate()?;
/// model.launch(&stream)?;
/// stream.synchronize()?;
///
/// drop(model);
/// drop(stream);
/// driver.wait_deferred(Duration::from_secs(10))?;
/// assert_eq!(driver.deferred(), 0);
/// drop(context);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
pub struct Driver(Arc<Inner>);

struct Inner {
    api: Api,
    hook: OnceLock<DropErrorHook>,
    /// Owners that the driver has given up for graphs; counts the values of `Driver`.
    deferred: Arc<Deferred>,
    /// Captures that were begun here, or announced, and have not ended.
    captures: AtomicUsize,
    /// Whether calls inside scopes ask which context is current.
    verifies_scopes: AtomicBool,
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
        let _range = range!("driver::load");
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
        let _range = range!("driver::load");
        Api::load_from(path.as_ref()).and_then(Self::start)
    }

    /// Initialises the driver of a function table, such as softcuda's.
    ///
    /// A value of [`Api`] is only made of a library that was loaded or by a promise, so there is
    /// none to give here.
    ///
    /// # Errors
    ///
    /// [`LoadError::NoDevice`], [`LoadError::Init`]: as [`Driver::load`].
    ///
    /// # Examples
    ///
    /// ```
    /// let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// let _bound = machine.bind();
    /// let driver = wharf::Driver::from_api(machine.api()?)?;
    /// assert_eq!(driver.device_count()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # References
    ///
    /// [Initialization](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__INITIALIZE.html)
    pub fn from_api(api: Api) -> Result<Self, LoadError> {
        Self::start(api)
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
    #[inline]
    pub fn api(&self) -> &Api {
        &self.0.api
    }

    /// Whether this is the process that loaded the driver: in a forked child every call is an
    /// error.
    ///
    /// A load and no system call. Calls of this crate check it themselves; it is for work that
    /// touches pinned memory, which a child does not have, without a call.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`]: this process is a fork of the one that loaded the driver.
    #[inline]
    pub fn check_fork(&self) -> Result<(), Error> {
        self.api().check_fork()
    }

    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.api().is_forked()
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

    fn start(api: Api) -> Result<Self, LoadError> {
        // SAFETY: the reference asks only that the flags are 0.
        unsafe { api.init.call(0) }.map_err(refused)?;
        let driver = Self(Arc::new_cyclic(|driver| Inner {
            api,
            hook: OnceLock::new(),
            deferred: Arc::new(Deferred::of(driver.clone())),
            captures: AtomicUsize::new(0),
            verifies_scopes: AtomicBool::new(false),
        }));
        match driver.device_count().map_err(refused)? {
            0 => Err(LoadError::NoDevice),
            _ => Ok(driver),
        }
    }

    pub(crate) fn deferred_list(&self) -> &Arc<Deferred> {
        &self.0.deferred
    }

    /// One more user of a driver.
    fn joined(inner: Arc<Inner>) -> Self {
        inner.deferred.join();
        Self(inner)
    }
}

impl Clone for Driver {
    fn clone(&self) -> Self {
        Self::joined(Arc::clone(&self.0))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if self.0.deferred.leave() {
            // What keeps the driver now, if anything, waits here. An error is that of a driver that
            // is going away, or of a forked child.
            _ = self.drop_deferred();
        }
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
