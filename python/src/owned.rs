//! Steps that keep their set, for callers without lifetimes.

#![expect(unsafe_code, reason = "a step is kept beside the set that it borrows")]

use std::mem;
use std::sync::Arc;

use wharf::Stream;
use wharf::staging::{InputBuffers, Reader, StageError, Staged, Step};

use crate::held::Held;

/// A set that steps keep. A shared pointer: the set does not move.
pub(crate) type Set = Arc<Held<InputBuffers>>;

/// A step with its set. Dropped without `submit`, it has not happened.
pub(crate) struct OwnedStep {
    // Dropped before the set.
    step: Step<'static>,
    set: Set,
}

/// A step that was submitted, with its set.
pub(crate) struct OwnedStaged {
    staged: Staged<'static>,
    set: Set,
}

/// A read of a step, with its stream and its set.
pub(crate) struct OwnedReader {
    // Dropped before the others.
    reader: Reader<'static>,
    _stream: Arc<Held<Stream>>,
    _set: Set,
}

impl OwnedStep {
    /// Begins a step, as [`InputBuffers::begin`].
    pub(crate) fn begin(set: &Set, tokens: usize, requests: usize) -> Result<Self, StageError> {
        set.begin(tokens, requests).map(|step| Self::with(step, set))
    }

    /// Begins a step if a ring slot is free, as [`InputBuffers::try_begin`].
    pub(crate) fn try_begin(set: &Set, tokens: usize, requests: usize) -> Result<Self, StageError> {
        set.try_begin(tokens, requests).map(|step| Self::with(step, set))
    }

    /// Lets `call` use the step.
    pub(crate) fn with_step<R>(&mut self, call: impl for<'a> FnOnce(&mut Step<'a>) -> R) -> R {
        call(&mut self.step)
    }

    /// Submits the step, as [`Step::submit`].
    pub(crate) fn submit(self, stream: &Stream) -> Result<OwnedStaged, StageError> {
        let Self { step, set } = self;
        Ok(OwnedStaged { staged: step.submit(stream)?, set })
    }

    fn with(step: Step<'_>, set: &Set) -> Self {
        // SAFETY: the step borrows from the set, which does not move and outlives it here: `set` is
        // dropped after it. Nothing outside of this module gets the step with its lifetime.
        let step = unsafe { mem::transmute::<Step<'_>, Step<'static>>(step) };
        Self { step, set: Arc::clone(set) }
    }
}

impl OwnedStaged {
    /// Lets `call` use what was submitted.
    pub(crate) fn with_staged<R>(&self, call: impl for<'a> FnOnce(&Staged<'a>) -> R) -> R {
        call(&self.staged)
    }

    /// Begins a read, as [`Staged::reader`].
    pub(crate) fn reader(&self, stream: &Arc<Held<Stream>>) -> Result<OwnedReader, StageError> {
        let (stream, set) = (Arc::clone(stream), Arc::clone(&self.set));
        // SAFETY: the stream is behind a shared pointer that the result keeps longer than the read.
        let kept = unsafe { mem::transmute::<&Stream, &'static Stream>(&stream) };
        let reader = self.staged.reader(kept)?;
        Ok(OwnedReader { reader, _stream: stream, _set: set })
    }
}

impl OwnedReader {
    /// Ends the read, as [`Reader::end`].
    pub(crate) fn end(self) -> Result<(), StageError> {
        let Self { reader, _stream, _set } = self;
        reader.end()
    }
}
