//! Growth: an empty run, free slices, or newly committed granules become a slab or a large block.
//!
//! A slab of less than a granule comes, in this order, from an empty run of its length, from free slices, from
//! empty runs of other lengths that are broken up, and from a granule that is committed and cut.
//!
//! One thread grows a class at a time. The others look again, take a block of a class up to
//! twice as large if one is free, and wait only where nothing else will do: the one who grows
//! may be inside the driver.
//!
//! Whose turn it is to grow a class is a [`Turn`](crate::lockfree::turn::Turn): who comes after sees the
//! new slab's hint.

use super::error::{AllocError, Exhaustion};
use super::geometry::{LARGE, SlabShape};
use super::size_class::SizeClass;
use super::store::{JUST_EMPTIED, Reserved, Store};
use super::trim::members;
use crate::lockfree::bitmap::Bitmap;
use crate::lockfree::run_map::Run;
use crate::memory::MemoryResource;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread;

/// How many larger classes may stand in for one: two are at most 1.8 times as large.
const SUBSTITUTES: usize = 2;

impl<R: MemoryResource> Store<R> {
    /// Reserves 1 to `want` blocks of `class`, of which no slab seemed to have room, growing if
    /// need be.
    ///
    /// Another class than asked for may come back, larger and with one block, if the class can
    /// not grow or somebody else is growing it. Before the pool commits more than it ever had, `give`
    /// is asked to give back what the caller keeps; whether it did.
    #[cold]
    pub(crate) fn acquire(
        &self,
        class: SizeClass,
        want: u32,
        give: impl Fn() -> bool,
    ) -> Result<Reserved, AllocError> {
        let Some(shape) = self.geometry.slab(class) else {
            return Err(self.too_large(class.block_size()));
        };
        loop {
            if let Some(_turn) = self.growing[class.index()].take() {
                return self.grow(class, shape, want, give);
            }
            if let Some(reserved) = self.substitute(class) {
                return Ok(reserved);
            }
            thread::yield_now();
            if let Some(reserved) = self.reserve(class, want, usize::MAX) {
                return Ok(reserved);
            }
        }
    }

    /// Allocates a run of its own for `size` bytes; its address. `give` is as of [`acquire`](Self::acquire).
    pub(crate) fn acquire_large(
        &self,
        size: usize,
        align: usize,
        give: impl Fn() -> bool,
    ) -> Result<usize, AllocError> {
        let (granules, align) = (self.geometry.granules_for(size), self.geometry.granules_for(align));
        if granules > self.geometry.granules() {
            return Err(self.too_large(size));
        }
        let again = || {
            self.is_peak_averted(granules * self.geometry.slices_each(), give)
                .then(|| self.claim_long(granules, align))?
        };
        let head = match self.claim_long(granules, align).or_else(again) {
            Some(head) => head,
            None => self.commit_run(granules, align).map_err(|why| self.refused(why, size))?,
        };
        self.set_up(head, LARGE, 1, 1);
        self.collect_large(head);
        Ok(self.geometry.address(head))
    }

    /// Reserves one block of `class` without committing anything.
    pub(crate) fn acquire_committed(&self, class: SizeClass) -> Option<Reserved> {
        let shape = self.geometry.slab(class)?;
        self.reserve(class, 1, usize::MAX).or_else(|| {
            let head = self.claim_committed(shape.slices)?;
            self.set_up(head, class.number(), shape.capacity, 1);
            Some(Reserved { head, class, count: 1 })
        })
    }

    /// Allocates an empty run for `size` bytes without committing anything; its address.
    pub(crate) fn acquire_large_committed(&self, size: usize) -> Option<usize> {
        let head = self.claim_long(self.geometry.granules_for(size), 1)?;
        self.set_up(head, LARGE, 1, 1);
        self.collect_large(head);
        Some(self.geometry.address(head))
    }

    /// The caller's turn to grow `class`.
    fn grow(
        &self,
        class: SizeClass,
        shape: SlabShape,
        want: u32,
        give: impl Fn() -> bool,
    ) -> Result<Reserved, AllocError> {
        // Somebody may have grown between our look and our turn.
        if let Some(reserved) = self.reserve(class, want, usize::MAX) {
            return Ok(reserved);
        }
        let mut claimed = self.claim_committed(shape.slices);
        if claimed.is_none() && self.is_peak_averted(shape.slices, give) {
            if let Some(reserved) = self.reserve(class, want, usize::MAX) {
                return Ok(reserved);
            }
            claimed = self.claim_committed(shape.slices);
        }
        let head = match claimed.map_or_else(|| self.claim_anew(shape.slices), Ok) {
            Ok(head) => head,
            Err(why) => return self.last_resort(class, want).ok_or(self.refused(why, class.block_size())),
        };
        let count = want.min(shape.capacity);
        self.set_up(head, class.number(), shape.capacity, count);
        Ok(Reserved { head, class, count })
    }

    /// Whether threads gave something back, because `len` slices more would be more than was ever committed.
    fn is_peak_averted(&self, len: usize, give: impl Fn() -> bool) -> bool {
        self.budget.would_peak(self.geometry.offset(len)) && give()
    }

    /// A free block of a slightly larger class, without growth.
    fn substitute(&self, class: SizeClass) -> Option<Reserved> {
        let classes = std::iter::successors(class.next(), |class| class.next());
        classes.take(SUBSTITUTES).find_map(|class| self.reserve(class, 1, usize::MAX))
    }

    /// What is left when the class cannot grow.
    fn last_resort(&self, class: SizeClass, want: u32) -> Option<Reserved> {
        // A free may have set a block's bit and count, and not yet the hint.
        let mut heads = 0..self.used.load(Relaxed) as usize;
        let found = heads.find_map(|head| {
            let count = self.runs[head].state.reserve(class.number(), want).ok()?;
            Some(Reserved { head, class, count })
        });
        found.or_else(|| self.substitute(class))
    }

    /// Claims a run of `len` slices without committing anything.
    fn claim_committed(&self, len: usize) -> Option<usize> {
        if let Some(head) = self.claim_empty(len..=len, 1) {
            return Some(head);
        }
        let each = self.geometry.slices_each();
        if len > each {
            return None;
        }
        // Only where nothing else will do: what the broken ones were good for is to be made anew.
        self.take_slices(len).or_else(|| self.break_up_empties().then(|| self.take_slices(len))?)
    }

    /// Claims a run of `len` free slices.
    fn take_slices(&self, len: usize) -> Option<usize> {
        let head = self.slices.take(len)?;
        let each = self.geometry.slices_each();
        if len == each {
            self.cut().remove(head / each);
        }
        self.adopt(head, len);
        Some(head)
    }

    /// Makes free slices of all empty runs of at most a granule, so that neighbours become one; whether there was any.
    fn break_up_empties(&self) -> bool {
        let short = |head: usize| self.len(head) <= self.geometry.slices_each();
        let break_up = |empties: Bitmap<'_>, head: usize| {
            let claimed = self.claim_if(empties, head, short);
            if claimed {
                self.free_slices(head);
            }
            claimed
        };
        let of_length = |len: usize| {
            let empties = self.empties(len);
            members(empties).filter(|head| break_up(empties, *head)).count()
        };
        (1..=self.geometry.slices_each()).map(of_length).sum::<usize>() > 0
    }

    /// Makes free slices of a claimed run of at most a granule; whether that made its granule whole.
    pub(super) fn free_slices(&self, head: usize) -> bool {
        let len = self.len(head);
        let granule = head / self.geometry.slices_each();
        self.empties(len).remove(head);
        if len == self.geometry.slices_each() {
            self.cut().insert(granule);
        }
        let vacated = self.runs[head].state.vacate();
        debug_assert!(vacated.is_ok(), "run {head} is claimed by this thread");
        // Only now may another run start here.
        self.give_slices(head, len)
    }

    /// Gives slices back; whether that made their granule whole.
    fn give_slices(&self, start: usize, len: usize) -> bool {
        let granule = start / self.geometry.slices_each();
        self.runs[granule * self.geometry.slices_each()].idle.store(JUST_EMPTIED, Relaxed);
        let given = self.slices.give(start, len);
        debug_assert!(given.is_ok(), "slices given back twice: {given:?}");
        given.unwrap_or(false)
    }

    /// Claims an empty run of whole granules, the first a multiple of `align`.
    fn claim_long(&self, granules: usize, align: usize) -> Option<usize> {
        let each = self.geometry.slices_each();
        // A sixteenth longer at most, so that with the rounding to granules a block wastes no more
        // than one of a class does.
        self.claim_empty(granules * each..=(granules + granules / 16) * each, align * each)
    }

    /// Claims an empty run of a wanted length, whose first slice is a multiple of `align`.
    ///
    /// The run keeps its slices and its memory; its state is claimed.
    fn claim_empty(&self, len: std::ops::RangeInclusive<usize>, align: usize) -> Option<usize> {
        let empties = self.empties(*len.start());
        let fits = |head: usize| len.contains(&self.len(head)) && head.is_multiple_of(align);
        members(empties).find(|head| self.claim_if(empties, *head, fits))
    }

    /// Claims the run at `head` if it is empty and `fits`.
    fn claim_if(&self, hints: Bitmap<'_>, head: usize, fits: impl Fn(usize) -> bool) -> bool {
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

    /// Claims the run at `head` if it is empty, and drops a hint that says so in vain. The class
    /// number before.
    pub(super) fn claim(&self, hints: Bitmap<'_>, head: usize) -> Option<u8> {
        match self.runs[head].state.claim_empty() {
            Ok(before) => Some(before.class()),
            Err(_) => {
                hints.remove(head);
                // A free between the look at the state and the removal set the hint in vain.
                if self.runs[head].state.load().is_empty() {
                    self.empties(self.len(head)).insert(head);
                }
                None
            }
        }
    }

    /// Opens a claimed run again as what it was.
    pub(super) fn reopen(&self, head: usize, class: u8) {
        let shape = SizeClass::from_index(class.into()).and_then(|class| self.geometry.slab(class));
        self.set_up(head, class, shape.map_or(1, |shape| shape.capacity), 0);
        self.empties(self.len(head)).insert(head);
    }

    /// Claims a run of `len` slices, of granules that are committed for it.
    ///
    /// One thread at a time commits a granule to cut: what it leaves may be enough for the others.
    fn claim_anew(&self, len: usize) -> Result<usize, Option<AllocError>> {
        let each = self.geometry.slices_each();
        if len >= each {
            return self.commit_run(len / each, 1);
        }
        let _turn = loop {
            let turn = self.cutting.take();
            if let Some(head) = self.claim_committed(len) {
                return Ok(head);
            }
            match turn {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        let head = self.commit_run(1, 1)?;
        self.runs[head].len.store(number(len), Relaxed);
        self.cut().insert(head / each);
        self.give_slices(head + len, each - len);
        Ok(head)
    }

    /// Puts memory behind `granules` unused granules; the run's first slice, claimed.
    ///
    /// Where the limit or the span has no room, empty runs are released one by one until it has;
    /// also before the pool would commit more than it ever had.
    fn commit_run(&self, granules: usize, align: usize) -> Result<usize, Option<AllocError>> {
        let each = self.geometry.slices_each();
        let bytes = self.geometry.offset(granules * each);
        let peak = self.budget.would_peak(bytes);
        while self.budget.would_peak(bytes) && self.release_an_empty() {}
        while self.budget.reserve(bytes).is_err() {
            if !self.release_an_empty() {
                return Err(None);
            }
        }
        let run = loop {
            match self.granules.take(granules, align) {
                Some(run) => break run,
                None if self.release_an_empty() => {}
                None => {
                    self.budget.release(bytes);
                    return Err(None);
                }
            }
        };
        let head = run.start * each;
        if let Err(error) = self.span.commit(self.geometry.offset(head), bytes) {
            self.give_granules(run);
            self.budget.release(bytes);
            return Err(Some(error.into()));
        }
        self.adopt(head, granules * each);
        if peak {
            self.recalls.note_growth();
        }
        if self.budget.is_note_due() {
            self.note_peak();
        }
        Ok(head)
    }

    /// Records that slices form a run, which is claimed.
    fn adopt(&self, head: usize, len: usize) {
        let claimed = self.runs[head].state.claim_vacant();
        debug_assert!(claimed.is_ok(), "a free slice has a run: {head}");
        self.runs[head].len.store(number(len), Relaxed);
        self.used.fetch_max(number(head + len), Relaxed);
        for record in &self.runs[head..head + len] {
            record.head.store(number(head), Relaxed);
        }
    }

    pub(super) fn give_granules(&self, run: Run) {
        let given = self.granules.give(run);
        debug_assert!(given.is_ok(), "granules given back twice: {given:?}");
    }

    pub(super) fn too_large(&self, size: usize) -> AllocError {
        let span = self.geometry.offset(self.geometry.slices());
        AllocError::TooLarge { size, max: span.min(self.budget.limit()) }
    }

    /// What a caller is told when a run could not be had.
    fn refused(&self, why: Option<AllocError>, size: usize) -> AllocError {
        why.unwrap_or_else(|| {
            AllocError::Exhausted(Exhaustion {
                size,
                limit: self.budget.limit(),
                reserved: self.budget.reserved(),
                live: self.taken(),
                cached: 0,
                retired: 0,
                largest_free: self.geometry.offset(self.granules.longest() * self.geometry.slices_each()),
            })
        })
    }
}

/// A number of slices, of which a span has less than 2^32.
fn number(slices: usize) -> u32 {
    u32::try_from(slices).unwrap_or(u32::MAX)
}
