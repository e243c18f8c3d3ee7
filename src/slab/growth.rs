//! Growth: an empty run, or newly committed granules, becomes a slab or a large block.
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
use super::store::{Reserved, Store};
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
    /// not grow or somebody else is growing it.
    #[cold]
    pub(crate) fn acquire(&self, class: SizeClass, want: u32) -> Result<Reserved, AllocError> {
        let Some(shape) = self.geometry.slab(class) else {
            return Err(self.too_large(class.block_size()));
        };
        loop {
            if let Some(_turn) = self.growing[class.index()].take() {
                return self.grow(class, shape, want);
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

    /// Allocates a run of its own for `size` bytes; its address.
    pub(crate) fn acquire_large(&self, size: usize, align: usize) -> Result<usize, AllocError> {
        let len = self.geometry.granules_for(size);
        if len > self.geometry.granules() {
            return Err(self.too_large(size));
        }
        let align = self.geometry.granules_for(align);
        // A sixteenth longer at most, so that with the rounding to granules a block wastes no more
        // than one of a class does.
        let head = match self.claim_empty(len..=len + len / 16, align) {
            Some(head) => head,
            None => self.commit_run(len, align).map_err(|why| self.refused(why, size))?,
        };
        self.set_up(head, LARGE, 1, 1);
        self.collect_large(head);
        Ok(self.geometry.address(head))
    }

    /// Reserves one block of `class` without committing anything.
    pub(crate) fn acquire_committed(&self, class: SizeClass) -> Option<Reserved> {
        let shape = self.geometry.slab(class)?;
        self.reserve(class, 1, usize::MAX).or_else(|| {
            let head = self.claim_empty(shape.granules..=shape.granules, 1)?;
            self.set_up(head, class.number(), shape.capacity, 1);
            Some(Reserved { head, class, count: 1 })
        })
    }

    /// Allocates an empty run for `size` bytes without committing anything; its address.
    pub(crate) fn acquire_large_committed(&self, size: usize) -> Option<usize> {
        let len = self.geometry.granules_for(size);
        let head = self.claim_empty(len..=len + len / 16, 1)?;
        self.set_up(head, LARGE, 1, 1);
        self.collect_large(head);
        Some(self.geometry.address(head))
    }

    /// The caller's turn to grow `class`.
    fn grow(&self, class: SizeClass, shape: SlabShape, want: u32) -> Result<Reserved, AllocError> {
        // Somebody may have grown between our look and our turn.
        if let Some(reserved) = self.reserve(class, want, usize::MAX) {
            return Ok(reserved);
        }
        let claimed = self.claim_empty(shape.granules..=shape.granules, 1);
        let head = match claimed.map_or_else(|| self.commit_run(shape.granules, 1), Ok) {
            Ok(head) => head,
            Err(why) => return self.last_resort(class, want).ok_or(self.refused(why, class.block_size())),
        };
        let count = want.min(shape.capacity);
        self.set_up(head, class.number(), shape.capacity, count);
        Ok(Reserved { head, class, count })
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

    /// Claims an empty run of a wanted length, whose first granule is a multiple of `align`.
    ///
    /// The run keeps its granules and its memory; its state is claimed.
    fn claim_empty(&self, len: std::ops::RangeInclusive<usize>, align: usize) -> Option<usize> {
        let empties = self.empties(*len.start());
        let fits = |head: usize| len.contains(&self.len(head)) && head.is_multiple_of(align);
        let mut from = 0;
        while let Some(head) = empties.next(from) {
            from = head + 1;
            if !fits(head) {
                continue;
            }
            let Some(class) = self.claim(empties, head) else { continue };
            // Only now is the length certain: the run may have been another one a moment ago.
            if fits(head) {
                return Some(head);
            }
            self.reopen(head, class);
        }
        None
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

    /// Puts memory behind `len` unused granules; the run's first, claimed.
    ///
    /// Where the limit or the span has no room, empty runs are released one by one until it has;
    /// also before the pool would commit more than it ever had.
    fn commit_run(&self, len: usize, align: usize) -> Result<usize, Option<AllocError>> {
        let bytes = self.geometry.offset(len);
        while self.budget.would_peak(bytes) && self.release_an_empty() {}
        while self.budget.reserve(bytes).is_err() {
            if !self.release_an_empty() {
                return Err(None);
            }
        }
        let run = loop {
            match self.granules.take(len, align) {
                Some(run) => break run,
                None if self.release_an_empty() => {}
                None => {
                    self.budget.release(bytes);
                    return Err(None);
                }
            }
        };
        if let Err(error) = self.span.commit(self.geometry.offset(run.start), bytes) {
            self.give_granules(run);
            self.budget.release(bytes);
            return Err(Some(error.into()));
        }
        self.adopt(run);
        Ok(run.start)
    }

    /// Records that granules form a run, which is claimed.
    fn adopt(&self, run: Run) {
        let claimed = self.runs[run.start].state.claim_vacant();
        debug_assert!(claimed.is_ok(), "an unused granule has a run: {run:?}");
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.runs[run.start].len.store(number(run.len), Relaxed);
        self.used.fetch_max(number(run.start + run.len), Relaxed);
        self.note_peak();
        for record in &self.runs[run.start..run.start + run.len] {
            record.head.store(number(run.start), Relaxed);
        }
    }

    pub(super) fn give_granules(&self, run: Run) {
        let given = self.granules.give(run);
        debug_assert!(given.is_ok(), "granules given back twice: {given:?}");
    }

    pub(super) fn too_large(&self, size: usize) -> AllocError {
        let span = self.geometry.offset(self.geometry.granules());
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
                largest_free: self.geometry.offset(self.granules.longest()),
            })
        })
    }
}
