//! What all threads may read of a ring slot: whether the device is done with it, and its last
//! launch.

use super::ticks::Ticks;
use crate::address::to_usize;
use crate::driver::SharedWord;
use crate::stream::Stream;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The completion word of a ring slot, and the stream and time of its last launch. Beside the ring
/// slot's own word, so that a step looks at one place.
///
/// Stream and time are Relaxed throughout: nothing but the text of an error depends on them.
#[derive(Debug)]
pub(super) struct Launch {
    /// Absent where neither the device nor the host writes one.
    word: Option<SharedWord>,
    /// The driver's handle of its stream, as a number.
    stream: AtomicU64,
    /// When it was, by the set's [`Ticks`].
    since: AtomicU64,
}

impl Launch {
    pub(super) fn new(word: Option<SharedWord>) -> Self {
        Self { word, stream: AtomicU64::new(0), since: AtomicU64::new(0) }
    }

    /// Whether the word says that the device is done; `false` where there is none.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.word.as_ref().is_some_and(|word| word.load() != 0)
    }

    /// Clears the word, before the ring slot is submitted again.
    #[inline]
    pub(super) fn reset(&self) {
        if let Some(word) = &self.word {
            word.reset(0);
        }
    }

    /// Takes note of a launch that happens now.
    #[inline]
    pub(super) fn note(&self, stream: &Stream, ticks: &Ticks) {
        self.stream.store(stream.as_raw().addr() as u64, Relaxed);
        self.since.store(ticks.now(), Relaxed);
    }

    /// The driver's handle of the stream of the last launch, as a number.
    pub(super) fn stream(&self) -> usize {
        to_usize(self.stream.load(Relaxed))
    }

    /// When the last launch was, by the set's [`Ticks`].
    pub(super) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }
}
