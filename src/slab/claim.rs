//! Claims: a run that is empty, or free slices, become the caller's; and their way back.
//!
//! A claimed run has a state word that only its owner may change: no block of it is taken, and no
//! hint that still names it is believed.

use super::number::{SliceCount, SliceId};
use super::size_class::SizeClass;
use super::store::{JUST_EMPTIED, Store};
use crate::lockfree::bitmap::Bitmap;
use crate::lockfree::run_map::Run;
use crate::memory::MemoryResource;
use crate::sync::atomic::Ordering::Relaxed;

impl<R: MemoryResource> Store<R> {
    /// Claims a run of `len` slices without committing anything.
    pub(super) fn claim_committed(&self, len: SliceCount) -> Option<SliceId> {
        if let Some(head) = self.claim_empty(len..=len, 1) {
            return Some(head);
        }
        if len > self.geometry.slices_in(1) {
            return None;
        }
        // Only where nothing else will do: what the broken ones were good for is to be made anew.
        self.take_slices(len).or_else(|| self.break_up_empties().then(|| self.take_slices(len))?)
    }

    /// Claims an empty run of whole granules, the first a multiple of `align`.
    pub(super) fn claim_long(&self, granules: usize, align: usize) -> Option<SliceId> {
        let most = self.geometry.granules();
        if granules > most {
            return None;
        }
        // A sixteenth longer at most, so that with the rounding to granules a block wastes no more
        // than one of a class does.
        let [shortest, longest] = [granules, (granules + granules / 16).min(most)]
            .map(|granules| self.geometry.slices_in(granules));
        self.claim_empty(shortest..=longest, align)
    }

    /// Claims a run of `len` free slices.
    fn take_slices(&self, len: SliceCount) -> Option<SliceId> {
        let head = SliceId::new(self.slices.take(len.get())?);
        // All of a granule: a run of its own again, as those that were committed for one.
        if len == self.geometry.slices_in(1) {
            self.cut().remove(self.geometry.granule_of(head).index());
        }
        self.adopt(head, len);
        Some(head)
    }

    /// Makes free slices of all empty runs of at most a granule, so that neighbours become one.
    /// Returns whether there was any.
    fn break_up_empties(&self) -> bool {
        let short = |head: SliceId| self.len(head) <= self.geometry.slices_in(1);
        let break_up = |empties: Bitmap<'_>, head: SliceId| {
            let claimed = self.claim_if(empties, head, short);
            if claimed {
                self.free_slices(head);
            }
            claimed
        };
        // Each length has a set of its own. All are emptied: that the run which was wanted could
        // not be had shows that no single one would do.
        let of_length = |len: usize| {
            let empties = self.empties(SliceCount::new(len));
            runs_of(empties).filter(|head| break_up(empties, *head)).count()
        };
        (1..=self.geometry.slices_in(1).get()).map(of_length).sum::<usize>() > 0
    }

    /// Makes free slices of a claimed run of at most a granule. Returns whether its granule has no
    /// run any more.
    pub(super) fn free_slices(&self, head: SliceId) -> bool {
        let len = self.len(head);
        self.empties(len).remove(head.index());
        if len == self.geometry.slices_in(1) {
            self.cut().insert(self.geometry.granule_of(head).index());
        }
        self.vacate(head);
        // Only now may another run start here.
        self.give_slices(head, len)
    }

    /// Gives slices back. Returns whether that made their granule whole.
    pub(super) fn give_slices(&self, start: SliceId, len: SliceCount) -> bool {
        let granule = self.geometry.granule_of(start);
        // A trim counts the idle time of a granule from its last change.
        self.run(self.geometry.first_slice(granule)).idle.store(JUST_EMPTIED, Relaxed);
        let given = self.slices.give(start.index(), len.get());
        debug_assert!(given.is_ok(), "slices given back twice: {given:?}");
        given.unwrap_or(false)
    }

    /// Claims an empty run of a wanted length that starts in a granule whose number is a multiple
    /// of `align`.
    ///
    /// The run keeps its slices and its memory; its state is claimed.
    fn claim_empty(
        &self,
        len: std::ops::RangeInclusive<SliceCount>,
        align: usize,
    ) -> Option<SliceId> {
        let empties = self.empties(*len.start());
        let is_aligned =
            |head: SliceId| self.geometry.granule_of(head).index().is_multiple_of(align);
        let fits = |head: SliceId| len.contains(&self.len(head)) && is_aligned(head);
        runs_of(empties).find(|head| self.claim_if(empties, *head, fits))
    }

    /// Claims the run at `head` if it is empty and `fits`. Returns whether it did.
    fn claim_if(&self, hints: Bitmap<'_>, head: SliceId, fits: impl Fn(SliceId) -> bool) -> bool {
        if !fits(head) {
            return false;
        }
        let Some(class) = self.claim(hints, head) else { return false };
        // Only now is the length certain: the run may have been another one a moment ago.
        let fitting = fits(head);
        if !fitting {
            self.reopen(head, class);
        }
        fitting
    }

    /// Claims the run at `head` if it is empty, and else removes the hint that it is. Returns the
    /// class number that it had.
    pub(super) fn claim(&self, hints: Bitmap<'_>, head: SliceId) -> Option<u8> {
        let state = &self.run(head).state;
        match state.claim_empty() {
            Ok(before) => Some(before.class()),
            Err(_) => {
                hints.remove(head.index());
                // A free between the look at the state and the removal set the hint in vain.
                if state.load().is_empty() {
                    self.empties(self.len(head)).insert(head.index());
                }
                None
            }
        }
    }

    /// Opens a claimed run again as what it was.
    pub(super) fn reopen(&self, head: SliceId, class: u8) {
        let shape = SizeClass::from_index(class.into()).and_then(|class| self.geometry.slab(class));
        self.set_up(head, class, shape.map_or(1, |shape| shape.capacity), 0);
        self.empties(self.len(head)).insert(head.index());
    }

    /// Ends a claimed run; its slices are still the caller's.
    pub(super) fn vacate(&self, head: SliceId) {
        let vacated = self.run(head).state.vacate();
        debug_assert!(vacated.is_ok(), "run {head:?} is claimed by this thread");
    }

    /// Records that slices form a run, which is claimed.
    pub(super) fn adopt(&self, head: SliceId, len: SliceCount) {
        let claimed = self.run(head).state.claim_vacant();
        debug_assert!(claimed.is_ok(), "a free slice has a run: {head:?}");
        self.run(head).len.store(len.word(), Relaxed);
        let end = head + len;
        self.used.fetch_max(end.word(), Relaxed);
        // An address inside a block leads to its run through the record of its own slice.
        for record in &self.runs[head.index()..end.index()] {
            record.head.store(head.word(), Relaxed);
        }
    }

    pub(super) fn give_granules(&self, run: Run) {
        let given = self.granules.give(run);
        debug_assert!(given.is_ok(), "granules given back twice: {given:?}");
    }
}

/// The runs in a set of hints; of those that come and go meanwhile, some.
pub(super) fn runs_of(set: Bitmap<'_>) -> impl Iterator<Item = SliceId> {
    members(set).map(SliceId::new)
}

/// The members of a set of hints.
pub(super) fn members(set: Bitmap<'_>) -> impl Iterator<Item = usize> {
    std::iter::successors(set.next(0), move |member| set.next(member + 1))
}
