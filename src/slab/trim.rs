//! Trim: empty runs go back to the resource.
//!
//! An empty run stays committed until somebody trims, so that a load which comes in waves
//! does not commit in waves. No clock is read when a run becomes empty: the first trim that
//! sees it empty writes down when, a later one finds it old enough.

use super::geometry::MAX_SLAB_GRANULES;
use super::store::{JUST_EMPTIED, Store};
use crate::error::Error;
use crate::lockfree::run_map::Run;
use crate::memory::MemoryResource;
use crate::sync::atomic::Ordering::Relaxed;

/// What a trim released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// Bytes given back to the resource.
    pub released: usize,
    /// Bytes that the resource failed to take back. They stay committed, and out of use.
    pub lost: usize,
    /// The first of those failures.
    pub error: Option<Error>,
}

/// Which empty runs a trim releases. Times are in any unit that only grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrimPolicy {
    /// The time now.
    pub(crate) now: u64,
    /// How long a run must have been seen empty.
    pub(crate) idle: u64,
    /// Empty bytes to keep.
    pub(crate) keep: usize,
}

impl<R: MemoryResource> Store<R> {
    /// Releases empty runs by `policy`; of each length, the runs kept are the lowest.
    pub(crate) fn trim(&self, policy: TrimPolicy) -> Trimmed {
        let mut trimmed = Trimmed::default();
        let mut kept = 0;
        for len in (1..=MAX_SLAB_GRANULES + 1).rev() {
            let mut from = 0;
            while let Some(head) = self.empties(len).next(from) {
                from = head + 1;
                let bytes = self.geometry.offset(self.len(head));
                if kept + bytes <= policy.keep {
                    kept += bytes;
                } else if self.is_old(head, policy) {
                    self.release(len, head, &mut trimmed);
                }
            }
        }
        trimmed
    }

    /// Releases one empty run, whichever; whether there was one.
    pub(super) fn release_an_empty(&self) -> bool {
        let mut trimmed = Trimmed::default();
        for len in (1..=MAX_SLAB_GRANULES + 1).rev() {
            let mut from = 0;
            while let Some(head) = self.empties(len).next(from) {
                from = head + 1;
                self.release(len, head, &mut trimmed);
                if trimmed.released > 0 {
                    return true;
                }
            }
        }
        false
    }

    /// Gives everything back to the resource, whatever is in use; nobody uses the store after.
    pub(crate) fn decommit_all(&self) {
        let open = self.open_runs().map(|(head, ..)| head);
        for head in open {
            let (offset, len) = (self.geometry.offset(head), self.geometry.offset(self.len(head)));
            if self.span.decommit(offset, len).is_ok() {
                self.budget.release(len);
            }
        }
    }

    /// Whether an empty run has been seen empty for long enough; notes when it was first seen.
    fn is_old(&self, head: usize, policy: TrimPolicy) -> bool {
        let idle = &self.runs[head].idle;
        let since = match idle.load(Relaxed) {
            JUST_EMPTIED => {
                idle.store(policy.now, Relaxed);
                policy.now
            }
            since => since,
        };
        policy.now.saturating_sub(since) >= policy.idle
    }

    /// Claims the run at `head` if it is empty, and gives its memory and granules back.
    fn release(&self, len: usize, head: usize, trimmed: &mut Trimmed) {
        if self.claim(self.empties(len), head).is_none() {
            return;
        }
        let run = Run { start: head, len: self.len(head) };
        let bytes = self.geometry.offset(run.len);
        self.empties(run.len).remove(head);
        if let Err(error) = self.span.decommit(self.geometry.offset(head), bytes) {
            // Claimed for ever: nobody knows what is at its addresses now.
            self.budget.lose(bytes);
            trimmed.lost += bytes;
            trimmed.error = trimmed.error.or(Some(error));
            return;
        }
        let vacated = self.runs[head].state.vacate();
        debug_assert!(vacated.is_ok(), "run {head} is claimed by this thread");
        // Only now may another run start here.
        self.give_granules(run);
        self.budget.release(bytes);
        trimmed.released += bytes;
    }
}
