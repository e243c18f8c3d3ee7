#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Events: points in a stream that others wait for.

use core::ffi::c_uint;
use core::fmt;
use core::ptr;

use wharf_sys::bindings::{CUevent, CUevent_flags, CUevent_st};

use super::Context;
use super::event_pool::Home;
use crate::error::{CudaError, Error};

/// The abilities of an event besides ordering work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Orders work, and a waiting host thread spins. The fastest.
    #[default]
    Ordering,
    /// Orders work, and a waiting host thread sleeps.
    BlockingWait,
    /// Also carries a time, see [`Event::elapsed_since`].
    Timing,
}

impl EventKind {
    fn flags(self) -> c_uint {
        match self {
            Self::Ordering => CUevent_flags::CU_EVENT_DISABLE_TIMING.0,
            Self::BlockingWait => {
                CUevent_flags::CU_EVENT_DISABLE_TIMING.0 | CUevent_flags::CU_EVENT_BLOCKING_SYNC.0
            }
            Self::Timing => CUevent_flags::CU_EVENT_DEFAULT.0,
        }
    }
}

/// A point in a stream's work, once a stream [records](crate::Stream::record) it.
///
/// Keeps its context. Dropped, it goes back to its [`EventPool`](super::EventPool) or is
/// destroyed; neither waits for the device. May be used from any thread.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::{Event, Stream, driver::EventKind};
///
/// let (producer, consumer) = (Stream::new(&context)?, Stream::new(&context)?);
/// let ready = Event::new(&context, EventKind::Ordering)?;
/// producer.record(&ready)?;
/// consumer.wait_event(&ready)?;
/// consumer.synchronize()?;
/// assert!(ready.query()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Event {
    raw: RawEvent,
    kind: EventKind,
    context: Context,
    home: Option<Home>,
}

impl Event {
    /// Creates an event.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::OUT_OF_MEMORY`]: the driver refused.
    ///
    /// # References
    ///
    /// [Event management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    #[doc(alias = "cuEventCreate")]
    pub fn new(context: &Context, kind: EventKind) -> Result<Self, Error> {
        let _scope = context.make_current()?;
        let mut raw: CUevent = ptr::null_mut();
        // SAFETY: `raw` is valid for writes for the whole call and the context is current.
        unsafe { context.driver().api().event_create.call(&raw mut raw, kind.flags()) }?;
        Ok(Self { raw: RawEvent(raw), kind, context: context.clone(), home: None })
    }

    /// Takes over the event `raw`, which was created with the flags of `kind`.
    ///
    /// # Safety
    ///
    /// * `raw` is an event of `context`, and nothing else destroys it.
    /// * Its flags are those of `kind`.
    ///
    /// It may be pending.
    pub unsafe fn from_raw(raw: CUevent, kind: EventKind, context: &Context) -> Self {
        Self { raw: RawEvent(raw), kind, context: context.clone(), home: None }
    }

    /// Whether the work up to the last record is done. An event that was never recorded is.
    ///
    /// It does not disturb captures of other streams. Where the last record was itself captured,
    /// asking is an error, and may invalidate that capture. Two driver calls more than
    /// `cuEventQuery`, for that.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: work failed, or the last record was captured
    /// ([`CudaError::CAPTURED_EVENT`]).
    ///
    /// # References
    ///
    /// [Event management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    #[doc(alias = "cuEventQuery")]
    pub fn query(&self) -> Result<bool, Error> {
        let _relaxed = self.context.driver().relax_capture()?;
        self.query_relaxed()
    }

    /// As [`query`](Self::query), by a caller that has relaxed the thread's capture mode.
    pub(crate) fn query_relaxed(&self) -> Result<bool, Error> {
        let _scope = self.context.enter()?;
        // SAFETY: the event is alive.
        ready(unsafe { self.context.driver().api().event_query.call(self.as_raw()) })
    }

    /// Waits until the work up to the last record is done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: work failed, or the last record was captured
    /// ([`CudaError::CAPTURED_EVENT`]).
    ///
    /// # References
    ///
    /// [Event management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    #[doc(alias = "cuEventSynchronize")]
    pub fn synchronize(&self) -> Result<(), Error> {
        let _scope = self.context.enter()?;
        // SAFETY: the event is alive.
        unsafe { self.context.driver().api().event_synchronize.call(self.as_raw()) }
    }

    /// The time from `earlier` to this event in milliseconds, to about half a microsecond.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::INVALID_HANDLE`]: one was never recorded, or is
    ///   not of [`EventKind::Timing`].
    /// * [`Error::Driver`] with [`CudaError::NOT_READY`]: one is pending.
    ///
    /// # References
    ///
    /// [Event management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    #[doc(alias = "cuEventElapsedTime")]
    pub fn elapsed_since(&self, earlier: &Self) -> Result<f32, Error> {
        let _scope = self.context.enter()?;
        let mut time: f32 = 0.0;
        let api = self.context.driver().api();
        // SAFETY: `time` is valid for writes for the whole call and both events are alive.
        unsafe { api.event_elapsed_time.call(&raw mut time, earlier.as_raw(), self.as_raw()) }?;
        Ok(time)
    }

    /// The abilities of the event.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The context that it belongs to.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The driver's handle. It stays usable as long as this event is held.
    pub fn as_raw(&self) -> CUevent {
        self.raw.0
    }

    /// Gives the handle away, to be destroyed by the caller.
    pub fn into_raw(mut self) -> CUevent {
        self.take_raw()
    }

    /// Destroys the event, or gives it back to its pool. Does not wait for the device.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused; the handle is leaked.
    ///
    /// # References
    ///
    /// [Event management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    #[doc(alias = "cuEventDestroy")]
    pub fn close(mut self) -> Result<(), Error> {
        self.give_back()
    }

    pub(super) fn in_pool(mut self, home: Home) -> Self {
        self.home = Some(home);
        self
    }

    fn take_raw(&mut self) -> CUevent {
        self.home = None;
        core::mem::replace(&mut self.raw.0, ptr::null_mut())
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let home = self.home.take();
        let raw = self.take_raw();
        if raw.is_null() || home.is_some_and(|home| home.keep(raw)) {
            return Ok(());
        }
        let _scope = self.context.enter()?;
        // SAFETY: this owner's handle, taken above, so destroyed once.
        unsafe { self.context.driver().api().event_destroy.call(raw) }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Event");
        out.field("raw", &self.as_raw()).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.context.release().note(self.context.driver(), outcome);
    }
}

/// The driver's handle of an event.
struct RawEvent(*mut CUevent_st);

// SAFETY: an event belongs to a context, not to a thread; the driver's functions may be
// called from any.
unsafe impl Send for RawEvent {}
// SAFETY: as above; calls on one event from several threads at once are the driver's to
// order, it is thread-safe.
unsafe impl Sync for RawEvent {}

/// "Not ready" is an answer, not an error.
pub(crate) fn ready(outcome: Result<(), Error>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(CudaError::NOT_READY) => Ok(false),
        Err(error) => Err(error),
    }
}
