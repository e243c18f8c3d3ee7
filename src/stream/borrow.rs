#![expect(unsafe_code, reason = "handles of others become streams")]
//! Streams that other code owns, by their handles.

use std::any::Any;
use std::sync::Arc;

use wharf_sys::bindings::CUstream;
use wharf_sys::constants::{STREAM_LEGACY, STREAM_PER_THREAD};

use super::Stream;
use crate::driver::{Context, RawStream};
use crate::error::Error;
use crate::timeline::{Owner, Timeline};

impl Stream {
    /// The context's legacy default stream, which waits for its blocking streams and is waited
    /// for by them.
    pub fn legacy(context: &Context) -> Self {
        Self::known(STREAM_LEGACY, context, None)
    }

    /// The default stream of the calling thread.
    ///
    /// The handle means another stream on another thread, so every call of the result on another
    /// thread is [`Error::OtherThread`], before anything is submitted. Drop it on its own thread,
    /// which puts a marker behind what it was used for: after the thread's end that is not
    /// possible, and memory that was dropped in the meantime is leaked rather than reused.
    pub fn per_thread(context: &Context) -> Self {
        Self::known(STREAM_PER_THREAD, context, None)
    }

    /// Takes over the stream `raw`, which may be borrowed already.
    ///
    /// # Safety
    ///
    /// * `raw` is a stream of `context`, and not a default stream.
    /// * Nothing else destroys it.
    /// * As [`borrow_raw`](Self::borrow_raw), of streams that had the handle before.
    ///
    /// It may have work, and may be capturing.
    pub unsafe fn from_raw(raw: CUstream, context: &Context) -> Self {
        let mut stream = Self::known(raw, context, None);
        stream.is_owned = true;
        stream
    }

    /// Borrows the stream `raw` from its owner.
    ///
    /// Null is the legacy default stream. Borrowing a stream that is known, since an object, a
    /// ticket or a pool refers to it, makes no driver call and allocates nothing: the result is the
    /// same stream, with the same [number](Self::id) and [timeline](Self::timeline).
    ///
    /// # Safety
    ///
    /// * `raw` is a stream of `context`, or a default stream.
    /// * It is not destroyed as long as the result is used.
    /// * Before it is destroyed, [`Context::forget_stream`] is called with it, unless every ticket,
    ///   pool, tier and set of buffers that has seen it is gone. They put markers into it until
    ///   then, and would take a new stream with its handle for it.
    /// * It is not forgotten while another thread is inside a call with the result.
    pub unsafe fn borrow_raw(raw: CUstream, context: &Context) -> Self {
        Self::known(raw, context, None)
    }

    /// Borrows the stream `raw`, and keeps `owner` as long as anything may use the handle: the
    /// result, or a ticket or pool that has seen it. [`Context::forget_stream`] gives it back
    /// before.
    ///
    /// An owner that is kept already, by another object of the stream, is kept instead.
    ///
    /// # Safety
    ///
    /// * `raw` is a stream of `context`, or a default stream.
    /// * It is not destroyed before `owner` is dropped.
    /// * It is not forgotten while another thread is inside a call with the result.
    pub unsafe fn borrow_with_owner(
        raw: CUstream,
        owner: Arc<dyn Any + Send + Sync>,
        context: &Context,
    ) -> Self {
        Self::known(raw, context, Some(owner))
    }

    /// An object of the stream that a handle names.
    fn known(raw: CUstream, context: &Context, owner: Option<Owner>) -> Self {
        Self {
            raw: RawStream(raw),
            timeline: Timeline::of(raw, context, owner),
            context: context.clone(),
            is_owned: false,
            is_ended: false,
        }
    }
}

impl Context {
    /// Forgets the stream `raw`, which its owner is about to destroy. Returns whether it was known.
    ///
    /// Puts a last marker into it if something waits for it, and lets go of the handle and of what
    /// was kept with it; a stream that gets the same handle later is another one. Of objects that
    /// borrow it, every further call is
    /// [`Error::StreamForgotten`]. Only this context and its clones forget it, not a [`Context`]
    /// that was borrowed or retained separately.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused the last marker. The stream is forgotten, and memory
    /// that it used is leaked rather than reused.
    pub fn forget_stream(&self, raw: CUstream) -> Result<bool, Error> {
        self.driver().check_fork()?;
        match Timeline::known(raw, self) {
            Some(timeline) => timeline.close().map(|()| true),
            None => Ok(false),
        }
    }
}
