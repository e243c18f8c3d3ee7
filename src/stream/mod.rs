#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Streams: queues of device work, owned or borrowed.
//!
//! Every engine uses [`Stream`], most by [`Stream::borrow_with_owner`].
//!
//! ```text
//! Stream::new, with_priority   owned: destroyed when dropped; its work still completes
//! Stream::from_raw             owned from here on
//! Stream::borrow_raw           another owner's; nothing happens when dropped
//! Stream::borrow_with_owner    another owner's, which is kept alive
//! Stream::legacy, per_thread   the context's default streams; nothing to destroy
//! ```
//!
//! However many objects borrow one stream, it is one: they share its number, its timeline and a
//! pool's view of it. [`Context::forget_stream`] ends that before the stream is destroyed by its
//! owner.
//!
//! A stream keeps its context. Work of one stream runs in order; between streams only events order
//! it, see [`Stream::record`] and [`Stream::wait_event`].

mod batch;
mod borrow;
mod callback;
#[cfg(feature = "cuda-driver-sys")]
mod compat;
mod copy;
mod kind;
mod order;
mod parts;

use core::fmt;
use core::ptr;

use wharf_sys::Api;
use wharf_sys::bindings::CUstream;

pub use batch::Transfer;
pub(crate) use callback::run_host_function;
pub use kind::StreamKind;
pub(crate) use parts::{HostRange, parts};

pub use crate::driver::{CaptureStatus, StreamId};
use crate::driver::{Context, ContextScope, RawStream};
#[cfg(doc)]
use crate::error::CudaError;
use crate::error::Error;
use crate::profile;
use crate::timeline::{Tail, Ticket, TicketRef, Timeline};

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
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
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
    /// The handle as it was given: the legacy stream has two.
    raw: RawStream,
    /// The stream's progress, shared by all its objects.
    timeline: Timeline,
    context: Context,
    is_owned: bool,
    is_ended: bool,
}

impl Stream {
    /// Creates a stream of default priority that is independent of the legacy default stream.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::OUT_OF_MEMORY`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamCreate")]
    pub fn new(context: &Context) -> Result<Self, Error> {
        context.driver().sweep();
        let _scope = context.make_current()?;
        let mut raw: CUstream = ptr::null_mut();
        let flags = StreamKind::NonBlocking.flags();
        // SAFETY: `raw` is valid for writes for the whole call and the context is current.
        unsafe { context.driver().api().stream_create.call(&raw mut raw, flags) }?;
        Ok(Self::created(raw, context))
    }

    /// Creates a stream; a lower `priority` is served first.
    ///
    /// A `priority` outside [`Context::stream_priorities`] is moved to the nearer end. It is a hint
    /// for kernels and has no effect on copies.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], such as [`CudaError::OUT_OF_MEMORY`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamCreateWithPriority")]
    pub fn with_priority(
        priority: i32,
        kind: StreamKind,
        context: &Context,
    ) -> Result<Self, Error> {
        context.driver().sweep();
        let _scope = context.make_current()?;
        let mut raw: CUstream = ptr::null_mut();
        let api = context.driver().api();
        // SAFETY: `raw` is valid for writes for the whole call and the context is current.
        unsafe { api.stream_create_with_priority.call(&raw mut raw, kind.flags(), priority) }?;
        Ok(Self::created(raw, context))
    }

    /// Names the stream in the view of a profiler, where the feature `nvtx` is on and one is
    /// attached.
    pub fn set_name(&self, name: &str) {
        profile::name_stream(self.raw.0, name);
    }

    /// A ticket for everything submitted so far.
    ///
    /// Makes no driver call, except that the first tickets of a context pin a page of host memory,
    /// which serves 1024 streams.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the page could not be pinned.
    /// * [`Error::OtherThread`]: this is the default stream of another thread.
    #[inline]
    pub fn ticket(&self) -> Result<Ticket, Error> {
        self.timeline.ticket()
    }

    /// As [`ticket`](Self::ticket), borrowed from this object: it costs a few loads, and no
    /// reference is counted.
    ///
    /// # Errors
    ///
    /// As [`ticket`](Self::ticket).
    #[inline]
    pub fn ticket_ref(&self) -> Result<TicketRef<'_>, Error> {
        self.timeline.ticket_ref()
    }

    /// Puts a marker into the stream, so that tickets issued so far complete right behind their
    /// work, without being asked.
    ///
    /// Returns whether there is one now: not while the stream is captured, or while another thread
    /// is putting one in. It costs two driver calls. Call it behind work that will be waited for,
    /// see [`Ticket`]; at the end of a step, memory used by the step is known to be free as soon as
    /// it is.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused; no ticket is lost, and the next marker serves it.
    ///
    /// # References
    ///
    /// [Stream memory
    /// operations](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEMOP.html)
    #[doc(alias = "cuStreamWriteValue64")]
    pub fn mark(&self) -> Result<bool, Error> {
        self.timeline()?.mark()
    }

    /// How far the stream has come: one timeline for all objects of the stream, see [`StreamId`].
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the page of its completion word could not be pinned.
    /// * [`Error::OtherThread`]: this is the default stream of another thread.
    #[inline]
    pub fn timeline(&self) -> Result<&Timeline, Error> {
        if !self.timeline.is_ready() {
            self.timeline.equip()?;
        }
        Ok(&self.timeline)
    }

    /// As [`timeline`](Self::timeline), where nothing has to be made for it or looked into.
    #[inline]
    pub(crate) fn ready_timeline(&self) -> Option<&Timeline> {
        self.timeline.is_ready().then_some(&self.timeline)
    }

    /// The number of the stream, never used twice in the process. Makes no driver call.
    ///
    /// To compare streams, compare this: a driver gives a handle again.
    #[inline]
    pub fn id(&self) -> StreamId {
        self.timeline.stream_id()
    }

    /// The end of the stream's work, to be asked for when this object may be gone. No driver call.
    pub(crate) fn tail(&self) -> Tail {
        self.timeline.tail()
    }

    /// The context that it belongs to.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The driver's handle. It stays usable as long as this stream is held.
    pub fn as_raw(&self) -> CUstream {
        self.raw.0
    }

    /// Gives the handle away. Its new owner destroys that of an owned stream, which is forgotten
    /// here unless other objects borrow it.
    pub fn into_raw(mut self) -> CUstream {
        if std::mem::take(&mut self.is_owned) {
            self.is_ended = true;
            self.timeline.leave();
            self.timeline.close_if_unheld();
        }
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

    /// Refuses a stream that the calling thread must not use, before anything is submitted.
    ///
    /// # Errors
    ///
    /// * [`Error::OtherThread`]: it is the default stream of another thread.
    /// * [`Error::StreamForgotten`]: it was forgotten.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.timeline.check()
    }

    /// Makes the stream's context current, if the calling thread may use the stream.
    #[inline]
    pub(crate) fn enter(&self) -> Result<ContextScope<'_>, Error> {
        self.check()?;
        self.context.enter()
    }

    /// Makes one call of the driver's with the stream's handle, in its context.
    #[inline]
    fn submit(&self, call: impl FnOnce(&Api, CUstream) -> Result<(), Error>) -> Result<(), Error> {
        let _scope = self.enter()?;
        call(self.context.driver().api(), self.as_raw())
    }

    /// A stream of this crate's making.
    fn created(raw: CUstream, context: &Context) -> Self {
        Self {
            raw: RawStream(raw),
            timeline: Timeline::of_new(raw, context),
            context: context.clone(),
            is_owned: true,
            is_ended: false,
        }
    }

    fn give_back(&mut self) -> Result<(), Error> {
        if core::mem::replace(&mut self.is_ended, true) {
            return Ok(());
        }
        if !self.is_owned {
            self.timeline.leave();
            return Ok(());
        }
        // Before the handle goes: what waits for the stream needs its last marker.
        let marked = self.timeline.close();
        self.timeline.leave();
        let _scope = self.context.enter()?;
        // SAFETY: this owner's handle, destroyed once: it had not ended.
        let destroyed = unsafe { self.context.driver().api().stream_destroy.call(self.as_raw()) };
        marked.and(destroyed)
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Stream");
        out.field("raw", &self.as_raw()).field("owned", &self.is_owned).finish_non_exhaustive()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.context.release().note(self.context.driver(), outcome);
        self.context.driver().sweep();
    }
}
