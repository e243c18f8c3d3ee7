//! What a pool has done.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often memory came from each place; see [`Pool::stats`](super::Pool::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReclaimStats {
    /// From another stream that was done with it.
    pub completed: u64,
    /// From the slabs, committed already.
    pub committed: u64,
    /// From the slabs, after blocks that were not reused for some time were given back.
    pub drained: u64,
    /// From the slabs, which may have grown for it.
    pub grown: u64,
    /// At the limit: from this thread's cache of the slabs.
    pub caches: u64,
    /// At the limit: after everything that was complete had been given back.
    pub retried: u64,
    /// At the limit: from another stream that was not done; the device waits.
    pub cross_stream: u64,
    /// At the limit: after the host waited for the device.
    pub waited: u64,
    /// At the limit: after the caller's hook freed something.
    pub hook: u64,
    /// Not at all.
    pub exhausted: u64,
    /// Blocks given back to the slabs.
    pub blocks_drained: u64,
    /// Waits put into a stream because too many used one buffer, or to order it behind an earlier
    /// life.
    pub waits: u64,
    /// Bytes that are leaked because a use could not be tracked.
    pub leaked: u64,
}

/// The counters behind [`ReclaimStats`]. What came from the stream itself is not counted: that is
/// the hot path.
#[derive(Debug, Default)]
pub(super) struct Counters {
    sources: [AtomicU64; 10],
    blocks_drained: AtomicU64,
    waits: AtomicU64,
    leaked: AtomicU64,
}

/// A place where memory comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Completed,
    Committed,
    Drained,
    Grown,
    Caches,
    Retried,
    CrossStream,
    Waited,
    Hook,
    Exhausted,
}

impl Counters {
    pub(super) fn count(&self, source: Source) {
        self.sources[source as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn drain(&self, blocks: usize) {
        self.blocks_drained.fetch_add(blocks as u64, Relaxed);
    }

    /// Counts a stream that waits for another.
    pub(super) fn wait(&self) {
        self.waits.fetch_add(1, Relaxed);
    }

    /// Counts a block that is never used again.
    pub(super) fn lose(&self, bytes: usize) {
        self.leaked.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn read(&self) -> ReclaimStats {
        let source = |source: Source| self.sources[source as usize].load(Relaxed);
        ReclaimStats {
            completed: source(Source::Completed),
            committed: source(Source::Committed),
            drained: source(Source::Drained),
            grown: source(Source::Grown),
            caches: source(Source::Caches),
            retried: source(Source::Retried),
            cross_stream: source(Source::CrossStream),
            waited: source(Source::Waited),
            hook: source(Source::Hook),
            exhausted: source(Source::Exhausted),
            blocks_drained: self.blocks_drained.load(Relaxed),
            waits: self.waits.load(Relaxed),
            leaked: self.leaked.load(Relaxed),
        }
    }
}
