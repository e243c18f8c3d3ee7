#![expect(unsafe_code, reason = "a step is kept beside the set that it points to")]
//! Steps and readers that own their share of the set: for tasks, other threads, and callers without
//! lifetimes.
//!
//! They are the borrowed ones with a share beside the borrow, so that the code is one. A field that
//! keeps something comes last, and goes with what is made of the step: [`Staged`], [`Reader`].

use std::sync::Arc;

use super::buffers::InputBuffers;
use super::error::StageError;
use super::reader::Reader;
use super::shared::Shared;
use super::staged::Staged;
use super::step::Step;
use crate::stream::Stream;

impl<Tag> InputBuffers<Tag> {
    /// Begins a step that owns its share of the set: [`begin`](Self::begin), and
    /// [`Step::into_owned`].
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use std::thread;
    /// use wharf::Stream;
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
    /// let inputs = inputs.buckets([4, 8]).build()?;
    /// let ids = inputs.slot_id::<i32>("ids")?;
    /// let mut step = inputs.begin_owned(5, 1)?;
    /// let worker = thread::spawn(move || {
    ///     step.write(ids).fill(7);
    ///     step
    /// });
    /// let stream = Stream::new(&context)?;
    /// worker.join().unwrap().submit(&stream)?;
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn begin_owned(
        &self,
        tokens: usize,
        requests: usize,
    ) -> Result<Step<'static, Tag>, StageError> {
        Ok(self.begin(tokens, requests)?.into_owned())
    }
}

impl<Tag> Step<'_, Tag> {
    /// The same step with a share of its set, or of its [embedded](super::Embedded) graphs: it goes
    /// to tasks and threads, and is submitted or dropped there. What [`submit`](Self::submit)
    /// returns has the share next. Costs a count of references; no driver call.
    ///
    /// The set ends with the last of its handles and shares, where that is dropped; it waits for
    /// the device as described at [`InputBuffers`].
    #[inline]
    pub fn into_owned(self) -> Step<'static, Tag> {
        let Self { shared, claim, bucket, written, tag, keep } = self;
        let keep = keep.unwrap_or_else(|| shared.share());
        // SAFETY: a set does not move, and the step keeps it until its other fields are dropped.
        // All that is made of the step keeps it as well.
        let shared = unsafe { &*Arc::as_ptr(&keep) };
        // SAFETY: the ring is that set's.
        let claim = unsafe { claim.outlive() };
        let bucket = bucket.map(|bucket| &shared.plan.buckets[bucket.index]);
        let keep = Some(keep);
        Step { shared, claim, bucket, written, tag, keep }
    }
}

impl<Tag> Staged<'_, Tag> {
    /// As [`reader`](Self::reader), with a share of the set and of the stream: it goes to tasks and
    /// threads, and ends there.
    ///
    /// # Errors
    ///
    /// As [`reader`](Self::reader).
    pub fn reader_owned(&self, stream: &Arc<Stream>) -> Result<Reader<'static>, StageError> {
        self.note(stream, true)?;
        let (keep, stream) = (self.shared.share(), Arc::clone(stream));
        // SAFETY: a set does not move, and the reader keeps it until its other fields are dropped.
        let shared = unsafe { &*Arc::as_ptr(&keep) };
        // SAFETY: as above, for the stream.
        let kept = unsafe { &*Arc::as_ptr(&stream) };
        Ok(Reader::new(shared, kept).kept_by(Some(keep), Some(stream)))
    }
}

impl Shared {
    /// A share of it.
    #[inline]
    pub(super) fn share(&self) -> Arc<Self> {
        let this = self.this.as_ptr();
        // SAFETY: it was made in an `Arc`, whose pointer this is, and is in use: there is a share.
        unsafe { Arc::increment_strong_count(this) };
        // SAFETY: the share that was counted above.
        unsafe { Arc::from_raw(this) }
    }
}
