//! Recall: threads free what they have cached before a pool that had stopped growing grows again.
//!
//! While a pool grows, nothing is to be gained: the blocks in caches are few, and soon used. Once
//! it has stopped, what it needs moves up and down, and the blocks in the caches are a reserve for
//! the peaks. The thread that would have to commit more than ever frees what it has cached, and
//! asks the others to do the same at their next miss.
//!
//! * `growths`, `requests`: written by the thread that grows the pool beyond its peak; read by all,
//!   at a miss. Relaxed: a thread that sees a request later frees later.
//! * `RecallState`: written by the cache's one owner; read by the same. Relaxed; a cache changes
//!   owner through a bitmap, which orders it.

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What the threads of a store tell each other: two counts.
#[derive(Debug)]
pub(crate) struct Recalls {
    /// How often the pool has committed more than ever.
    growths: AtomicU32,
    /// How often a thread has asked the others for what they have cached.
    requests: AtomicU32,
}

/// When the owner of a cache has to free what it has cached.
#[derive(Debug)]
pub(crate) struct RecallState {
    /// Misses until the owner may be asked.
    pub(super) rest: AtomicU32,
    /// The counts of [`Recalls`] at the owner's last look.
    pub(super) growths: AtomicU32,
    pub(super) requests: AtomicU32,
}

impl Recalls {
    pub(crate) fn new() -> Self {
        Self { growths: AtomicU32::new(0), requests: AtomicU32::new(0) }
    }

    /// The pool has committed more than ever.
    pub(super) fn note_growth(&self) {
        self.growths.fetch_add(1, Relaxed);
    }
}

impl RecallState {
    pub(crate) fn new() -> Self {
        Self {
            rest: AtomicU32::new(MISSES_TO_STABLE),
            growths: AtomicU32::new(0),
            requests: AtomicU32::new(0),
        }
    }

    /// Counts a miss of the owner's. Returns whether the cache has to be flushed, since another
    /// thread has asked.
    pub(super) fn note_miss(&self, recalls: &Recalls) -> bool {
        // Before the look at the growths: the growth that follows a request does not void it.
        let was_stable = self.is_stable();
        let asked = catch_up(&self.requests, &recalls.requests) && was_stable;
        let rest = if catch_up(&self.growths, &recalls.growths) {
            MISSES_TO_STABLE
        } else if asked {
            MISSES_BETWEEN
        } else {
            self.rest.load(Relaxed).saturating_sub(1)
        };
        // Only the owner writes here, so a load and a store are enough.
        self.rest.store(rest, Relaxed);
        asked
    }

    /// Asks the other threads, before the pool grows beyond its peak for the owner. Returns whether
    /// the cache has to be flushed first; `false` while the pool is growing anyway.
    pub(super) fn request(&self, recalls: &Recalls) -> bool {
        let stable = self.is_stable();
        if stable {
            recalls.requests.fetch_add(1, Relaxed);
            // The owner flushes now: its own request is no reason to do so again.
            let _own = catch_up(&self.requests, &recalls.requests);
            self.rest.store(MISSES_BETWEEN, Relaxed);
        }
        stable
    }

    fn is_stable(&self) -> bool {
        self.rest.load(Relaxed) == 0
    }
}

/// Sets `seen` to `now`. Returns whether they differed.
fn catch_up(seen: &AtomicU32, now: &AtomicU32) -> bool {
    let now = now.load(Relaxed);
    let moved = seen.load(Relaxed) != now;
    if moved {
        seen.store(now, Relaxed);
    }
    moved
}

/// After so many misses of one thread without growth, the pool has stopped growing.
pub(super) const MISSES_TO_STABLE: u32 = if cfg!(all(test, loom)) { 1 } else { 1 << 14 };

/// A thread that has just flushed its cache does so again after so many misses at the earliest: a
/// pool may stay at its limit, and want more all the time.
const MISSES_BETWEEN: u32 = MISSES_TO_STABLE / 512;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_grows_recalls_nothing() {
        let (pool, here, there) = (Recalls::new(), RecallState::new(), RecallState::new());
        assert!(!here.request(&pool));
        for _ in 0..MISSES_TO_STABLE {
            assert!(!here.note_miss(&pool) && !there.note_miss(&pool));
        }
        assert!(here.request(&pool));
        assert!(!here.note_miss(&pool) && !here.request(&pool), "it has just flushed");
        assert!(there.note_miss(&pool));
        assert!(!there.note_miss(&pool), "asked once, flushes once");
        for _ in 0..MISSES_BETWEEN {
            assert!(!here.note_miss(&pool) && !there.note_miss(&pool));
        }
        assert!(here.request(&pool));
        pool.note_growth();
        assert!(there.note_miss(&pool), "growth that follows a request does not void it");
        assert!(!here.note_miss(&pool) && !here.request(&pool));
    }
}
