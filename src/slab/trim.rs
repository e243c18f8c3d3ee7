//! Trim: empty runs go back to the resource.
//!
//! An empty run stays committed until somebody trims, so that a load which comes in waves
//! does not commit in waves. No clock is read when a run becomes empty: the first trim that
//! sees it empty writes down when, a later one finds it old enough.

use super::store::{JUST_EMPTIED, Store};
use crate::error::Error;
use crate::lockfree::bitmap::Bitmap;
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
    ///
    /// A run of less than a granule becomes free slices; their granule is released with the last.
    pub(crate) fn trim(&self, policy: TrimPolicy) -> Trimmed {
        let mut trimmed = Trimmed::default();
        let mut kept = 0;
        for empties in self.all_empties() {
            for head in members(empties) {
                let bytes = self.geometry.offset(self.len(head));
                if kept + bytes <= policy.keep {
                    kept += bytes;
                } else if self.is_old(head, policy) {
                    self.release(empties, head, &mut trimmed);
                }
            }
        }
        for granule in members(self.cut()).filter(|granule| self.slices.is_free(*granule)) {
            if kept + self.geometry.granule() <= policy.keep {
                kept += self.geometry.granule();
            } else if self.is_old(granule * self.geometry.slices_each(), policy) {
                self.release_granule(granule, &mut trimmed);
            }
        }
        trimmed
    }

    /// Releases a granule or an empty run, whichever; whether there was one.
    pub(super) fn release_an_empty(&self) -> bool {
        let mut trimmed = Trimmed::default();
        for granule in members(self.cut()).filter(|granule| self.slices.is_free(*granule)) {
            self.release_granule(granule, &mut trimmed);
            if trimmed.released > 0 {
                return true;
            }
        }
        for empties in self.all_empties() {
            for head in members(empties) {
                self.release(empties, head, &mut trimmed);
                if trimmed.released > 0 {
                    return true;
                }
            }
        }
        false
    }

    /// Gives everything back to the resource, whatever is in use; nobody uses the store after.
    pub(crate) fn decommit_all(&self) {
        let each = self.geometry.slices_each();
        let long = self
            .open_runs()
            .filter_map(|(head, ..)| Some((head, self.len(head))).filter(|run| run.1 >= each));
        let cut = members(self.cut()).map(|granule| (granule * each, each));
        for (head, len) in long.chain(cut) {
            let (offset, len) = (self.geometry.offset(head), self.geometry.offset(len));
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

    /// Claims the run at `head` if it is empty, and gives its memory and granules back, or its slices,
    /// and if that makes their granule whole, the granule.
    fn release(&self, hints: Bitmap<'_>, head: usize, trimmed: &mut Trimmed) {
        if self.claim(hints, head).is_none() {
            return;
        }
        let (len, each) = (self.len(head), self.geometry.slices_each());
        if len < each {
            if self.free_slices(head) {
                self.release_granule(head / each, trimmed);
            }
            return;
        }
        self.empties(len).remove(head);
        if self.decommit(head, len, trimmed) {
            let vacated = self.runs[head].state.vacate();
            debug_assert!(vacated.is_ok(), "run {head} is claimed by this thread");
            // Only now may another run start here.
            self.return_granules(head, len, trimmed);
        }
    }

    /// Gives a granule of which all slices are free back to the resource.
    fn release_granule(&self, granule: usize, trimmed: &mut Trimmed) {
        if !self.slices.take_granule(granule) {
            return;
        }
        let each = self.geometry.slices_each();
        self.cut().remove(granule);
        if self.decommit(granule * each, each, trimmed) {
            self.return_granules(granule * each, each, trimmed);
        }
    }

    /// Whether the memory of the caller's slices, whole granules, is the resource's again.
    fn decommit(&self, head: usize, len: usize, trimmed: &mut Trimmed) -> bool {
        let bytes = self.geometry.offset(len);
        let Err(error) = self.span.decommit(self.geometry.offset(head), bytes) else { return true };
        // Out of use for ever: nobody knows what is at its addresses now.
        self.budget.lose(bytes);
        trimmed.lost += bytes;
        trimmed.error = trimmed.error.or(Some(error));
        false
    }

    fn return_granules(&self, head: usize, len: usize, trimmed: &mut Trimmed) {
        let (each, bytes) = (self.geometry.slices_each(), self.geometry.offset(len));
        self.give_granules(Run { start: head / each, len: len / each });
        self.budget.release(bytes);
        trimmed.released += bytes;
    }
}

/// The members of a set of hints; of those that come and go meanwhile, some.
pub(super) fn members(set: Bitmap<'_>) -> impl Iterator<Item = usize> {
    std::iter::successors(set.next(0), move |member| set.next(member + 1))
}
