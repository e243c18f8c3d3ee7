//! Growth: an empty run, free slices, or newly committed granules become a slab or a large block.
//!
//! A slab of less than a granule comes, in this order, from an empty run of its length, from free
//! slices, from empty runs of other lengths that are broken up, and from a granule that is
//! committed and cut.
//!
//! One thread grows a class at a time, since the thread that grows may be inside the driver. The
//! others look again, take a block of a class up to twice as large if one is free, and wait only
//! where that fails too. Their turn is a [`Turn`](crate::lockfree::turn::Turn): the next thread to
//! have it sees the new slab's hint.

use super::error::{AllocError, Exhaustion};
use super::geometry::{LARGE, SlabShape};
use super::number::{SliceCount, SliceId};
use super::size_class::SizeClass;
use super::store::{Reserved, Store};
use crate::error::Error;
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
    /// Another class than asked for may come back, larger and with one block, if the class cannot
    /// grow or another thread is growing it. Before the pool commits more than it ever had,
    /// `recall` frees what the caller has cached, and returns whether it did.
    #[cold]
    pub(crate) fn acquire(
        &self,
        class: SizeClass,
        want: u32,
        recall: impl Fn() -> bool,
    ) -> Result<Reserved, AllocError> {
        let Some(shape) = self.geometry.slab(class) else {
            return Err(self.too_large(class.block_size()));
        };
        loop {
            if let Some(_turn) = self.growing[class.index()].take() {
                return self.grow(class, shape, want, recall);
            }
            // The thread that grows may be in the driver for a millisecond: a block that is up to
            // 1.8 times as large costs less than the wait.
            if let Some(reserved) = self.substitute(class) {
                return Ok(reserved);
            }
            thread::yield_now();
            if let Some(reserved) = self.reserve(class, want, None) {
                return Ok(reserved);
            }
        }
    }

    /// Allocates a run of its own for `size` bytes; its address. `recall` is as of
    /// [`acquire`](Self::acquire).
    pub(crate) fn acquire_large(
        &self,
        size: usize,
        align: usize,
        recall: impl Fn() -> bool,
    ) -> Result<u64, AllocError> {
        let (granules, align) =
            (self.geometry.granules_for(size), self.geometry.granules_for(align));
        if granules > self.geometry.granules() {
            return Err(self.too_large(size));
        }
        let head = match self.claim_long(granules, align) {
            Some(head) => head,
            None => {
                self.grow_large(granules, align, recall).map_err(|why| self.refused(why, size))?
            }
        };
        self.set_up(head, LARGE, 1, 1);
        Ok(self.collect_large(head))
    }

    /// Reserves one block of `class` without committing anything.
    pub(crate) fn acquire_committed(&self, class: SizeClass) -> Option<Reserved> {
        let shape = self.geometry.slab(class)?;
        self.reserve(class, 1, None).or_else(|| {
            let head = self.claim_committed(shape.slices)?;
            self.set_up(head, class.number(), shape.capacity, 1);
            Some(Reserved { head, class, count: 1 })
        })
    }

    /// Allocates an empty run for `size` bytes without committing anything; its address.
    pub(crate) fn acquire_large_committed(&self, size: usize) -> Option<u64> {
        let head = self.claim_long(self.geometry.granules_for(size), 1)?;
        self.set_up(head, LARGE, 1, 1);
        Some(self.collect_large(head))
    }

    /// Makes a slab of `class`; the caller has the turn to grow it.
    fn grow(
        &self,
        class: SizeClass,
        shape: SlabShape,
        want: u32,
        recall: impl Fn() -> bool,
    ) -> Result<Reserved, AllocError> {
        // Another thread may have grown the class between our look and our turn.
        if let Some(reserved) = self.reserve(class, want, None) {
            return Ok(reserved);
        }
        let mut claimed = self.claim_committed(shape.slices);
        if claimed.is_none() && self.recall_before_peak(shape.slices, recall) {
            if let Some(reserved) = self.reserve(class, want, None) {
                return Ok(reserved);
            }
            claimed = self.claim_committed(shape.slices);
        }
        let head = match claimed.map_or_else(|| self.claim_anew(shape.slices), Ok) {
            Ok(head) => head,
            Err(why) => {
                return self.last_resort(class, want).ok_or(self.refused(why, class.block_size()));
            }
        };
        let count = want.min(shape.capacity);
        self.set_up(head, class.number(), shape.capacity, count);
        Ok(Reserved { head, class, count })
    }

    /// Claims a run of whole granules, of which none was empty.
    fn grow_large(
        &self,
        granules: usize,
        align: usize,
        recall: impl Fn() -> bool,
    ) -> Result<SliceId, Option<Error>> {
        if self.recall_before_peak(self.geometry.slices_in(granules), recall)
            && let Some(head) = self.claim_long(granules, align)
        {
            return Ok(head);
        }
        self.commit_run(granules, align)
    }

    /// Has threads free what they have cached if `len` slices more would exceed the most that was
    /// ever committed. Returns whether the caller freed anything.
    fn recall_before_peak(&self, len: SliceCount, recall: impl Fn() -> bool) -> bool {
        self.budget.would_peak(self.geometry.bytes(len)) && recall()
    }

    /// A free block of a slightly larger class, without growth.
    fn substitute(&self, class: SizeClass) -> Option<Reserved> {
        let classes = std::iter::successors(class.next(), |class| class.next());
        classes.take(SUBSTITUTES).find_map(|class| self.reserve(class, 1, None))
    }

    /// The last attempts to find a block when the class cannot grow.
    fn last_resort(&self, class: SizeClass, want: u32) -> Option<Reserved> {
        // A free may have set a block's bit and count, and not yet the hint.
        let mut heads = (0..self.used.load(Relaxed) as usize).map(SliceId::new);
        let found = heads.find_map(|head| self.reserve_in(head, class, want));
        found.or_else(|| self.substitute(class))
    }

    /// Claims a run of `len` slices, of granules that are committed for it.
    ///
    /// One thread at a time commits a granule to cut: what it leaves may be enough for the others.
    fn claim_anew(&self, len: SliceCount) -> Result<SliceId, Option<Error>> {
        let granule = self.geometry.slices_in(1);
        if len >= granule {
            return self.commit_run(self.geometry.granules_in(len), 1);
        }
        let _turn = loop {
            let turn = self.cutting.take();
            // Also with the turn: the thread that had it before may have left enough.
            if let Some(head) = self.claim_committed(len) {
                return Ok(head);
            }
            match turn {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        let head = self.commit_run(1, 1)?;
        self.run(head).len.store(len.word(), Relaxed);
        self.cut().insert(self.geometry.granule_of(head).index());
        self.give_slices(head + len, SliceCount::new(granule.get() - len.get()));
        Ok(head)
    }

    /// Commits `granules` unused granules; the run's first slice, claimed.
    ///
    /// Where the limit or the span has no room, empty runs are released one by one until it has;
    /// also before the pool would commit more than it ever had. Where the resource has no memory,
    /// as much of them as was asked for is released before it is asked again. After an error
    /// nothing is empty any more; `None` is the limit or the span.
    fn commit_run(&self, granules: usize, align: usize) -> Result<SliceId, Option<Error>> {
        let len = self.geometry.slices_in(granules);
        let bytes = self.geometry.bytes(len);
        let peak = self.budget.would_peak(bytes);
        while self.budget.would_peak(bytes) && self.release_empties(1) > 0 {}
        let mut cause = None;
        let head = loop {
            let run = self.reserve_run(granules, align).ok_or(cause)?;
            let head = SliceId::new(self.geometry.slices_in(run.start).get());
            let Err(error) = self.span.commit(self.geometry.offset(head), bytes) else {
                break head;
            };
            // Given back before the next attempt: another thread's commit may be smaller, and fit.
            self.give_granules(run);
            self.budget.cancel(bytes);
            cause = Some(error);
            if !error.is_out_of_memory() || self.release_empties(bytes) == 0 {
                return Err(cause);
            }
        };
        self.budget.note_commit(bytes);
        self.adopt(head, len);
        if peak {
            self.recalls.note_growth();
        }
        if self.budget.claim_note() {
            self.note_peak();
        }
        Ok(head)
    }

    /// Takes unused granules within the limit, and releases empty runs for them; `None` if that is
    /// not enough.
    fn reserve_run(&self, granules: usize, align: usize) -> Option<Run> {
        let bytes = self.geometry.bytes(self.geometry.slices_in(granules));
        while self.budget.reserve(bytes).is_err() {
            if self.release_empties(1) == 0 {
                return None;
            }
        }
        // Within the limit, addresses may still be short: empty runs hold some.
        loop {
            match self.granules.take(granules, align) {
                Some(run) => return Some(run),
                None if self.release_empties(1) > 0 => {}
                None => {
                    self.budget.cancel(bytes);
                    return None;
                }
            }
        }
    }

    pub(super) fn too_large(&self, size: usize) -> AllocError {
        let span = self.geometry.bytes(self.geometry.slices());
        AllocError::TooLarge { size, max: span.min(self.budget.limit()) }
    }

    /// The error for a run that could not be had. `None` is the limit or the span.
    fn refused(&self, why: Option<Error>, size: usize) -> AllocError {
        let longest = self.geometry.slices_in(self.granules.longest());
        match why {
            Some(error) if !error.is_out_of_memory() => AllocError::Upstream(error),
            // The pool knows what is cached and what a device may still use; the store does not.
            cause => AllocError::Exhausted(Exhaustion {
                size,
                limit: self.budget.limit(),
                reserved: self.budget.reserved(),
                live: self.taken(),
                cached: 0,
                retired: 0,
                largest_free: self.geometry.bytes(longest),
                cause,
                physical: None,
            }),
        }
    }
}
