//! Which step was submitted last, and whether stream order is all that the next one needs.
//!
//! ```text
//!    63                                   1    0
//!   +--------------------------------------+-------+
//!   |          number of the last step     | noted |     and the stream of the last steps
//!   +--------------------------------------+-------+
//! ```
//!
//! While `noted` is clear, every use of what was staged is in one stream, so a step on that stream
//! needs no more than [`begin`](StepWord::begin). Notes of other uses are kept elsewhere, under a
//! lock; `noted` says that there are any, or that a thread is looking at them.
//!
//! **Notes and steps.** A note is for one step: [`note`](StepWord::note) fails once a later step
//! has begun, and a step that begins after a note sees it, since both change one word.
//!
//! **Steps on two streams at once** are ordered by neither, but the next step comes after both. One
//! that needed no lock looks again when it is in its stream
//! ([`is_in_order`](StepWord::is_in_order)); one that holds the lock says so before it looks for
//! the end of that stream ([`hold`](StepWord::hold)). If the first is not before that end, the
//! stream's own order of the two calls makes it see the second, and it leaves a note.
//!
//! * state: written by `settle`; read by `begin`, `is_in_order`. Its `Release` pairs with their
//!   `Acquire`: they see the stream that was settled on.
//! * state: written by `hold`; read by `is_in_order`. `Relaxed`: ordered by the stream, see above.
//! * state: written by `begin`, `note`, `undo`; read by the same. `Relaxed` but for the above:
//!   changes of one word.
//! * `stream`: written by `settle`; read by `begin`, `is_in_order`. `Relaxed`: by the word.

use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::sync::try_update;

/// The word of one destination, which every step writes: apart from what others read beside it.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct StepWord {
    word: AtomicU64,
    stream: AtomicU64,
}

/// A step that has begun: it is the last one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Which step it is.
    pub(crate) number: u64,
    /// Whether it needs nothing but its place in its stream.
    pub(crate) in_order: bool,
}

impl StepWord {
    /// No step yet. The first one finds no stream to rely on.
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(NOTED), stream: AtomicU64::new(0) }
    }

    /// Begins a step on `stream`.
    #[inline]
    pub(crate) fn begin(&self, stream: u64) -> Begun {
        // Acquire: pairs with the Release of `settle`.
        let before = self.word.fetch_add(STEP, Acquire);
        let in_order = before & NOTED == 0 && self.stream.load(Relaxed) == stream;
        Begun { number: before / STEP + 1, in_order }
    }

    /// Whether a step that is in `stream` may rely on the order of streams still: all that was
    /// noted since it began is in that stream too.
    #[inline]
    pub(crate) fn is_in_order(&self, stream: u64) -> bool {
        // Acquire: pairs with the Release of `settle`.
        self.word.load(Acquire) & NOTED == 0 && self.stream.load(Relaxed) == stream
    }

    /// Whether no later step has begun.
    pub(crate) fn is_last(&self, number: u64) -> bool {
        self.word.load(Relaxed) / STEP == number
    }

    /// Lets the next step look for notes. `false` if a later step has begun already.
    pub(crate) fn note(&self, number: u64) -> bool {
        let noted = |word| if word / STEP == number { Ok(word | NOTED) } else { Err(()) };
        try_update(&self.word, Relaxed, noted).is_ok()
    }

    /// Lets every step look for notes. Under the lock, before the ends of streams are asked for.
    pub(crate) fn hold(&self) {
        self.word.fetch_or(NOTED, Relaxed);
    }

    /// Lets steps on `stream` rely on its order: nothing else is noted. Under the lock.
    pub(crate) fn settle(&self, stream: u64) {
        self.stream.store(stream, Relaxed);
        // Release: pairs with the Acquire of `begin` and `is_in_order`.
        self.word.fetch_and(!NOTED, Release);
    }

    /// Takes a step back that did not come to its stream, unless another has begun since.
    #[cold]
    pub(crate) fn undo(&self, number: u64) {
        let before = |word| if word / STEP == number { Ok(word - STEP) } else { Err(()) };
        let _is_last = try_update(&self.word, Relaxed, before);
    }
}

const NOTED: u64 = 1;
const STEP: u64 = 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_for_the_last_step_alone() {
        let word = StepWord::new();
        let first = word.begin(7);
        assert_eq!(first, Begun { number: 1, in_order: false });
        word.settle(7);
        assert!(word.is_in_order(7) && !word.is_in_order(8));
        assert_eq!(word.begin(7), Begun { number: 2, in_order: true });
        assert!(!word.note(1) && word.note(2));
        assert_eq!(word.begin(7), Begun { number: 3, in_order: false });
        word.undo(2);
        assert!(word.is_last(3));
        word.undo(3);
        assert!(word.is_last(2));
    }
}
