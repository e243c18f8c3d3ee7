//! Recall: a pool that had stopped growing asks its threads for what they keep, before it grows again.
//!
//! While a pool grows, nothing is to be gained: the blocks in caches are few, and soon used. Once it has
//! stopped, what it needs moves up and down, and the blocks in the caches are a reserve for the peaks.
//! The thread that would have to commit more than ever gives back what it keeps, and leaves word
//! for the others, who do the same at their next miss.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `growths`, `recalls` | who grows the pool beyond its peak | all, at a miss | Relaxed: a thread that hears later gives later |
//! | `Heard` | the cache's one owner | the same | Relaxed; a cache changes owner through a bitmap, which orders it |

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What the threads of a store tell each other.
#[derive(Debug)]
pub(crate) struct Recalls {
    growths: AtomicU32,
    recalls: AtomicU32,
}

/// What the owner of a cache has heard.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(super) quiet: AtomicU32,
    pub(super) growths: AtomicU32,
    pub(super) recalls: AtomicU32,
}

impl Recalls {
    pub(crate) fn new() -> Self {
        Self { growths: AtomicU32::new(0), recalls: AtomicU32::new(0) }
    }

    /// The pool has committed more than ever.
    pub(super) fn note_growth(&self) {
        self.growths.fetch_add(1, Relaxed);
    }

    /// Asks everybody.
    fn recall(&self) {
        self.recalls.fetch_add(1, Relaxed);
    }
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { quiet: AtomicU32::new(0), growths: AtomicU32::new(0), recalls: AtomicU32::new(0) }
    }

    /// The owner has missed in its cache; whether it is to give back what it keeps.
    pub(super) fn miss(&self, from: &Recalls) -> bool {
        // The growth that comes with a recall does not make it void.
        let was_quiet = self.is_quiet();
        let asked = news(&self.recalls, &from.recalls) && was_quiet;
        let quiet = if news(&self.growths, &from.growths) {
            0
        } else if asked {
            PAUSED
        } else {
            self.quiet.load(Relaxed).saturating_add(1)
        };
        // Only the owner writes here, so a load and a store are enough.
        self.quiet.store(quiet, Relaxed);
        asked
    }

    /// The pool would have to grow beyond its peak for the owner; whether the owner is to give
    /// back what it keeps first. The others are asked then.
    pub(super) fn before_growth(&self, to: &Recalls) -> bool {
        let quiet = self.is_quiet();
        if quiet {
            to.recall();
            // The owner needs nobody to tell it.
            let _own = news(&self.recalls, &to.recalls);
            self.quiet.store(PAUSED, Relaxed);
        }
        quiet
    }

    fn is_quiet(&self) -> bool {
        self.quiet.load(Relaxed) >= QUIET
    }
}

/// Whether a count has moved since it was last looked at.
fn news(seen: &AtomicU32, now: &AtomicU32) -> bool {
    let now = now.load(Relaxed);
    let moved = seen.load(Relaxed) != now;
    if moved {
        seen.store(now, Relaxed);
    }
    moved
}

/// Misses of one thread without growth, after which a pool has stopped growing.
const QUIET: u32 = if cfg!(all(test, loom)) { 1 } else { 1 << 14 };

/// A thread that has just given does so again after 32 misses at the earliest: a pool may stay at its limit, and
/// want more all the time.
const PAUSED: u32 = QUIET - QUIET / 512;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_grows_recalls_nothing() {
        let (pool, here, there) = (Recalls::new(), Heard::new(), Heard::new());
        assert!(!here.before_growth(&pool));
        for _ in 0..QUIET {
            assert!(!here.miss(&pool) && !there.miss(&pool));
        }
        assert!(here.before_growth(&pool));
        assert!(!here.miss(&pool) && !here.before_growth(&pool), "it has just given");
        assert!(there.miss(&pool));
        assert!(!there.miss(&pool), "asked once, gives once");
        for _ in PAUSED..QUIET {
            assert!(!here.miss(&pool) && !there.miss(&pool));
        }
        assert!(here.before_growth(&pool));
        pool.note_growth();
        assert!(there.miss(&pool), "growth that comes with a recall does not make it void");
        assert!(!here.miss(&pool) && !here.before_growth(&pool));
    }
}
