#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Streams: queues of device work, owned or borrowed.
//!
//! ```text
//! Stream::new, with_priority   owned: destroyed when dropped; its work still completes
//! Stream::from_raw             owned from here on
//! Stream::borrow_raw           somebody else's; nothing happens when dropped
//! Stream::legacy, per_thread   the context's default streams; nothing to destroy
//! ```
//!
//! A stream keeps its context. Work of one stream runs in order; between streams only events order
//! it, see [`Stream::record`] and [`Stream::wait_event`].

mod batch;
mod callback;
#[cfg(feature = "cuda-driver-sys")]
mod compat;
mod copy;

use core::ffi::{c_int, c_uint};
use core::fmt;
use core::ptr;
use std::sync::OnceLock;

use wharf_sys::bindings::{CUevent_wait_flags, CUstream, CUstream_flags, CUstream_st, CUstreamCaptureStatus};
use wharf_sys::constants::{STREAM_LEGACY, STREAM_PER_THREAD};

pub use batch::Transfer;
pub(crate) use callback::run_host_function;

use crate::driver::{Context, Event, ready};
#[cfg(doc)]
use crate::error::CudaError;
use crate::error::Error;
use crate::profile;
use crate::timeline::{Ticket, Timeline};

/// How a stream stands to the context's legacy default stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Independent of it.
    #[default]
    NonBlocking,
    /// Its work and the legacy stream's wait for each other.
    Blocking,
}

impl StreamKind {
    fn flags(self) -> c_uint {
        match self {
            Self::NonBlocking => CUstream_flags::CU_STREAM_NON_BLOCKING.0,
            Self::Blocking => CUstream_flags::CU_STREAM_DEFAULT.0,
        }
    }
}

/// Whether work submitted to a stream runs or is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaptureStatus {
    /// It runs.
    Inactive,
    /// It is recorded into a graph.
    Active,
    /// An error has spoilt the recording; the capture must be ended.
    Invalidated,
}

/// A queue of device work.
///
/// May be used from any thread; calls from several threads are ordered by the driver. Dropping an
/// owned stream does not wait: its work completes, then the driver frees it.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
///
/// let stream = Stream::new(&context)?;
/// stream.add_callback(|outcome| assert!(outcome.is_ok()))?;
/// stream.synchronize()?;
/// assert!(stream.query()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stream {
    raw: RawStream,
    /// Made with the first ticket.
    timeline: OnceLock<Timeline>,
    context: Context,
    owned: bool,
}

impl Stream {
    /// Creates a stream of default priority that is independent of the legacy default stream.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::OUT_OF_MEMORY`]: the driver cannot.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamCreate")]
    pub fn new(context: &Context) -> Result<Self, Error> {
        let _scope = context.enter()?;
        let mut raw: CUstream = ptr::null_mut();
        let flags = StreamKind::NonBlocking.flags();
        // SAFETY: `raw` is valid for writes for the whole call and the context is current.
        unsafe { context.driver().api().stream_create.call(&raw mut raw, flags) }?;
        Ok(Self::with(raw, context, true))
    }

    /// Creates a stream; a lower `priority` is served first.
    ///
    /// A `priority` outside [`Context::stream_priorities`] is moved to the nearer end. It is a hint
    /// for kernels and has no effect on copies.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::OUT_OF_MEMORY`]: the driver cannot.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamCreateWithPriority")]
    pub fn with_priority(priority: i32, kind: StreamKind, context: &Context) -> Result<Self, Error> {
        let _scope = context.enter()?;
        let mut raw: CUstream = ptr::null_mut();
        let api = context.driver().api();
        // SAFETY: `raw` is valid for writes for the whole call and the context is current.
        unsafe { api.stream_create_with_priority.call(&raw mut raw, kind.flags(), priority) }?;
        Ok(Self::with(raw, context, true))
    }

    /// Names the stream in the view of a profiler, where the feature `nvtx` is on and one is attached.
    pub fn set_name(&self, name: &str) {
        profile::name_stream(self.raw.0, name);
    }

    /// The context's legacy default stream, which waits for its blocking streams and is waited
    /// for by them.
    pub fn legacy(context: &Context) -> Self {
        Self::with(STREAM_LEGACY, context, false)
    }

    /// The default stream of whichever thread makes a call.
    ///
    /// The value means another stream on another thread, so it is for calls on one thread only.
    pub fn per_thread(context: &Context) -> Self {
        Self::with(STREAM_PER_THREAD, context, false)
    }

    /// Takes over the stream `raw`.
    ///
    /// # Safety
    ///
    /// * `raw` is a stream of `context`, and not a default stream.
    /// * Nobody else destroys it.
    ///
    /// It may have work, and may be capturing.
    pub unsafe fn from_raw(raw: CUstream, context: &Context) -> Self {
        Self::with(raw, context, true)
    }

    /// Borrows the stream `raw`, which somebody else owns.
    ///
    /// # Safety
    ///
    /// * `raw` is a stream of `context`, or a default stream.
    /// * It is not destroyed as long as the result is used.
    pub unsafe fn borrow_raw(raw: CUstream, context: &Context) -> Self {
        Self::with(raw, context, false)
    }

    /// Whether all work submitted so far is done.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_UNSUPPORTED`]: the stream is
    ///   capturing, and the capture is now invalid.
    /// * [`Error::Driver`]: work failed.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamQuery")]
    pub fn query(&self) -> Result<bool, Error> {
        let _scope = self.context.enter()?;
        // SAFETY: the stream is alive.
        ready(unsafe { self.context.driver().api().stream_query.call(self.as_raw()) })
    }

    /// Waits until all work submitted so far is done.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_UNSUPPORTED`]: the stream is
    ///   capturing, and the capture is now invalid.
    /// * [`Error::Driver`]: work failed.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamSynchronize")]
    pub fn synchronize(&self) -> Result<(), Error> {
        let _scope = self.context.enter()?;
        // SAFETY: the stream is alive.
        unsafe { self.context.driver().api().stream_synchronize.call(self.as_raw()) }
    }

    /// Records in `event` the work submitted so far, in place of what it held.
    ///
    /// On a capturing stream the record is captured: the event then stands for a point in the
    /// graph and cannot be queried.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::INVALID_HANDLE`]: `event` is of another context.
    ///
    /// # References
    ///
    /// [Event management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    #[doc(alias = "cuEventRecord")]
    pub fn record(&self, event: &Event) -> Result<(), Error> {
        let _scope = self.context.enter()?;
        // SAFETY: event and stream are alive.
        unsafe { self.context.driver().api().event_record.call(event.as_raw(), self.as_raw()) }
    }

    /// Makes work submitted from here on wait, on the device, for what `event` holds now.
    ///
    /// Later records do not change what is waited for, and the event may be dropped at once.
    /// It may be of another context.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_ISOLATION`]: the stream is capturing
    /// and `event` was recorded outside the capture.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamWaitEvent")]
    pub fn wait_event(&self, event: &Event) -> Result<(), Error> {
        let _scope = self.context.enter()?;
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT.0;
        let api = self.context.driver().api();
        // SAFETY: event and stream are alive.
        unsafe { api.stream_wait_event.call(self.as_raw(), event.as_raw(), flags) }
    }

    /// Whether the stream is capturing.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_IMPLICIT`]: this is the legacy default
    /// stream and a blocking stream of the context is capturing; the capture stays valid.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamIsCapturing")]
    pub fn capture_status(&self) -> Result<CaptureStatus, Error> {
        let _scope = self.context.enter()?;
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let api = self.context.driver().api();
        // SAFETY: the stream is alive and `status` is valid for writes for the whole call.
        unsafe { api.stream_is_capturing.call(self.as_raw(), &raw mut status) }?;
        Ok(match status {
            CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => CaptureStatus::Inactive,
            CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE => CaptureStatus::Active,
            _ => CaptureStatus::Invalidated,
        })
    }

    /// How the stream stands to the legacy default stream.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamGetFlags")]
    pub fn kind(&self) -> Result<StreamKind, Error> {
        let _scope = self.context.enter()?;
        let mut flags: c_uint = 0;
        // SAFETY: the stream is alive and `flags` is valid for writes for the whole call.
        unsafe { self.context.driver().api().stream_get_flags.call(self.as_raw(), &raw mut flags) }?;
        let independent = flags & StreamKind::NonBlocking.flags() != 0;
        Ok(if independent { StreamKind::NonBlocking } else { StreamKind::Blocking })
    }

    /// The priority; a lower number is served first.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamGetPriority")]
    pub fn priority(&self) -> Result<i32, Error> {
        let _scope = self.context.enter()?;
        let mut priority: c_int = 0;
        let api = self.context.driver().api();
        // SAFETY: the stream is alive and `priority` is valid for writes for the whole call.
        unsafe { api.stream_get_priority.call(self.as_raw(), &raw mut priority) }?;
        Ok(priority)
    }

    /// A ticket for everything submitted so far.
    ///
    /// The first one of a stream pins a page of host memory; later ones make no driver call.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the page could not be pinned.
    /// * [`Error::Driver`] with [`CudaError::INVALID_HANDLE`]: this is the default stream of another
    ///   thread.
    pub fn ticket(&self) -> Result<Ticket, Error> {
        self.timeline()?.ticket()
    }

    /// Puts a marker into the stream, so that tickets issued so far complete without anybody asking.
    ///
    /// Whether there is one now: not while the stream is captured, or while another thread is
    /// putting one in. Nobody needs to call it; at the end of a step it costs two driver calls, and
    /// memory used by the step is known to be free as soon as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused; no ticket is lost, and the next marker serves it.
    ///
    /// # References
    ///
    /// [Stream memory operations](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html)
    #[doc(alias = "cuStreamWriteValue64")]
    pub fn mark(&self) -> Result<bool, Error> {
        self.timeline()?.mark()
    }

    /// How far the stream has come. Made at the first use of this object for one stream.
    ///
    /// Two objects that borrow one stream have a timeline each.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the page of its completion word could not be pinned.
    #[inline]
    pub fn timeline(&self) -> Result<&Timeline, Error> {
        if let Some(timeline) = self.timeline.get() {
            return Ok(timeline);
        }
        let made = Timeline::new(self.as_raw(), &self.context)?;
        Ok(self.timeline.get_or_init(|| made))
    }

    /// The context that it belongs to.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The driver's handle. It stays usable as long as this stream is held.
    pub fn as_raw(&self) -> CUstream {
        self.raw.0
    }

    /// Gives the handle away. Whoever takes that of an owned stream destroys it.
    pub fn into_raw(mut self) -> CUstream {
        self.owned = false;
        self.as_raw()
    }

    /// Destroys an owned stream, without waiting for its work; a borrowed one is left as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused; the handle is leaked.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamDestroy")]
    pub fn close(mut self) -> Result<(), Error> {
        self.give_back()
    }

    fn with(raw: CUstream, context: &Context, owned: bool) -> Self {
        Self { raw: RawStream(raw), timeline: OnceLock::new(), context: context.clone(), owned }
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let marked = self.timeline.take().map_or(Ok(()), |timeline| timeline.close());
        if !core::mem::take(&mut self.owned) {
            return marked;
        }
        let _scope = self.context.enter()?;
        // SAFETY: this owner's handle, destroyed once: `owned` was taken.
        let destroyed = unsafe { self.context.driver().api().stream_destroy.call(self.as_raw()) };
        marked.and(destroyed)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Stream");
        out.field("raw", &self.as_raw()).field("owned", &self.owned).finish_non_exhaustive()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.context.release().note(self.context.driver(), outcome);
    }
}

/// The driver's handle of a stream.
struct RawStream(*mut CUstream_st);

// SAFETY: a stream belongs to a context, not to a thread; the driver's functions may be
// called from any. The per-thread handle is a constant that each thread reads as its own.
unsafe impl Send for RawStream {}
// SAFETY: as above; submissions from several threads at once are the driver's to order, it
// is thread-safe.
unsafe impl Sync for RawStream {}
