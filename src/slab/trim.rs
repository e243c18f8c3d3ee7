//! Trim: empty runs go back to the resource.
//!
//! An empty run stays committed until a trim, so that a load which comes in waves does not commit
//! in waves. No clock is read when a run becomes empty: the first trim that sees it empty writes
//! down when, a later one finds it old enough.

use super::claim::{members, runs_of};
use super::number::{GranuleId, SliceCount, SliceId};
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
    /// Bytes that were decommitted.
    pub released: usize,
    /// Bytes whose decommit failed. They stay committed and are not used again.
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
            for head in runs_of(empties) {
                let bytes = self.geometry.bytes(self.len(head));
                if kept + bytes <= policy.keep {
                    kept += bytes;
                } else if self.is_idle(head, policy) {
                    self.release(empties, head, &mut trimmed);
                }
            }
        }
        // Granules without a run that an earlier call left, since they were not idle yet.
        for granule in self.whole_granules() {
            if kept + self.geometry.granule() <= policy.keep {
                kept += self.geometry.granule();
            } else if self.is_idle(self.geometry.first_slice(granule), policy) {
                self.release_granule(granule, &mut trimmed);
            }
        }
        trimmed
    }

    /// Releases free granules and empty runs until `bytes` are released or none is left. Returns
    /// how many bytes were.
    pub(super) fn release_empties(&self, bytes: usize) -> usize {
        let mut trimmed = Trimmed::default();
        // Granules first: they are no slab's, so none has to be made anew for them.
        for granule in self.whole_granules() {
            self.release_granule(granule, &mut trimmed);
            if trimmed.released >= bytes {
                return trimmed.released;
            }
        }
        for empties in self.all_empties() {
            for head in runs_of(empties) {
                self.release(empties, head, &mut trimmed);
                if trimmed.released >= bytes {
                    return trimmed.released;
                }
            }
        }
        trimmed.released
    }

    /// Decommits everything, also what is in use. The store must not be used after that.
    pub(crate) fn decommit_all(&self) {
        let granule = self.geometry.slices_in(1);
        // Runs of whole granules, and granules that are cut: each as it was committed.
        let long = self
            .open_runs()
            .map(|run| (run.head, self.len(run.head)))
            .filter(|(_, len)| *len >= granule);
        let cut = members(self.cut())
            .map(|index| (self.geometry.first_slice(GranuleId::new(index)), granule));
        for (head, len) in long.chain(cut) {
            let bytes = self.geometry.bytes(len);
            if self.span.decommit(self.geometry.offset(head), bytes).is_ok() {
                self.budget.release(bytes);
            }
        }
    }

    /// Granules that are cut, and of which all slices look free.
    fn whole_granules(&self) -> impl Iterator<Item = GranuleId> {
        members(self.cut()).filter(|index| self.slices.is_free(*index)).map(GranuleId::new)
    }

    /// Notes when an empty run was first seen empty. Returns whether that is long enough ago.
    fn is_idle(&self, head: SliceId, policy: TrimPolicy) -> bool {
        let idle = &self.run(head).idle;
        let since = match idle.load(Relaxed) {
            JUST_EMPTIED => {
                idle.store(policy.now, Relaxed);
                policy.now
            }
            since => since,
        };
        policy.now.saturating_sub(since) >= policy.idle
    }

    /// Claims the run at `head` if it is empty, and gives its memory and granules back, or its
    /// slices, and if that makes their granule whole, the granule.
    fn release(&self, hints: Bitmap<'_>, head: SliceId, trimmed: &mut Trimmed) {
        if self.claim(hints, head).is_none() {
            return;
        }
        let len = self.len(head);
        // Less than a granule was not committed on its own, and cannot be decommitted so.
        if len < self.geometry.slices_in(1) {
            if self.free_slices(head) {
                self.release_granule(self.geometry.granule_of(head), trimmed);
            }
            return;
        }
        self.empties(len).remove(head.index());
        if self.decommit(head, len, trimmed) {
            self.vacate(head);
            // Only now may another run start here.
            self.return_granules(head, len, trimmed);
        }
    }

    /// Gives a granule of which all slices are free back to the resource.
    fn release_granule(&self, granule: GranuleId, trimmed: &mut Trimmed) {
        if !self.slices.take_granule(granule.index()) {
            return;
        }
        let (head, len) = (self.geometry.first_slice(granule), self.geometry.slices_in(1));
        self.cut().remove(granule.index());
        if self.decommit(head, len, trimmed) {
            self.return_granules(head, len, trimmed);
        }
    }

    /// Decommits the caller's slices, whole granules. Returns whether the resource took them.
    fn decommit(&self, head: SliceId, len: SliceCount, trimmed: &mut Trimmed) -> bool {
        let bytes = self.geometry.bytes(len);
        let Err(error) = self.span.decommit(self.geometry.offset(head), bytes) else { return true };
        // Never used again: after a failed decommit the state of the range is unknown.
        self.budget.lose(bytes);
        trimmed.lost += bytes;
        trimmed.error = trimmed.error.or(Some(error));
        false
    }

    fn return_granules(&self, head: SliceId, len: SliceCount, trimmed: &mut Trimmed) {
        let bytes = self.geometry.bytes(len);
        let start = self.geometry.granule_of(head).index();
        self.give_granules(Run { start, len: self.geometry.granules_in(len) });
        self.budget.release(bytes);
        trimmed.released += bytes;
    }
}
