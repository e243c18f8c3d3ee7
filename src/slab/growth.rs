//! Growth: newly committed pieces become a slab or a large block.
//!
//! Memory comes, in this order, from what is free; and from a place that needs the fewest granules
//! committed. Before the pool commits more than it ever had, threads free what they have cached,
//! and pieces of which all is free go back; so they do at the limit, and where the resource has no
//! memory.
//!
//! One thread at a time calls the resource. The others wait for it, or take a block of a class up
//! to twice as large if one is free.

use super::error::{AllocError, Exhaustion};
use super::geometry::{LARGE, SlabShape};
use super::number::{SliceCount, SliceId};
use super::size_class::SizeClass;
use super::space::{Found, Part, Slices, Space, Wanted, Window};
use super::store::{FREED_LAST, Reserved, Store};
use crate::error::Error;
use crate::memory::MemoryResource;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering::Relaxed;

/// How many larger classes may stand in for one: two are at most 1.8 times as large.
const SUBSTITUTES: usize = 2;

/// The longest block of its own in the low part of the span, in bytes.
const LONGEST_LOW: usize = 128 << 10;

/// Why there is no run: the limit or the span, `None`; or the resource.
type Refusal = Option<Error>;

impl<R: MemoryResource> Store<R> {
    /// Reserves 1 to `want` blocks of `class`, of which no slab seemed to have room, growing if
    /// need be.
    ///
    /// Another class than asked for may come back, larger and with one block, if the class cannot
    /// grow or another thread is growing the pool. Before the pool commits more than it ever had,
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
        let committed = || self.reserve_committed(class, shape, want);
        if let Some(reserved) = committed()? {
            return Ok(reserved);
        }
        // The thread that grows may be in the driver for a millisecond: a block that is up to
        // 1.8 times as large costs less than the wait.
        let growing = match self.growing.try_lock() {
            Some(growing) => growing,
            None => match self.substitute(class) {
                Some(reserved) => return Ok(reserved),
                None => self.lock_growing()?,
            },
        };
        // What another thread has grown by meanwhile, or this one had cached, may be enough.
        let found = match committed()? {
            None if self.recall_before_peak(shape.slices, recall) => committed()?,
            found => found,
        };
        if let Some(reserved) = found {
            return Ok(reserved);
        }
        let wanted = self.wanted_slab(class, shape);
        match self.grow(&growing, wanted) {
            Ok((mut space, found)) => Ok(self.open_slab(&mut space, found, class, shape, want)),
            Err(why) => self.substitute(class).ok_or_else(|| self.refused(why, class.block_size())),
        }
    }

    /// Allocates a run of its own for `size` bytes; its address, and the last ticket of what
    /// `owner` has retired there. `recall` is as of [`acquire`](Self::acquire).
    pub(crate) fn acquire_large(
        &self,
        size: usize,
        align: usize,
        owner: Option<u32>,
        recall: impl Fn() -> bool,
    ) -> Result<(u64, u64), AllocError> {
        if size > self.geometry.span() {
            return Err(self.too_large(size));
        }
        let len = self.geometry.slices_for(size);
        let align = self.geometry.slices_for(align).word();
        if self.folds_late {
            // What takes the lock of the map finds out there.
            self.span.resource().check_fork()?;
            if let Some(address) = self.take_freed_last(len, align) {
                return Ok((address, 0));
            }
        }
        let wanted = self.wanted(len, align, owner);
        if let Some(taken) = self.take_large(wanted)? {
            return Ok(taken);
        }
        let growing = self.lock_growing()?;
        let taken = match self.take_large(wanted)? {
            None if self.recall_before_peak(len, recall) => self.take_large(wanted)?,
            taken => taken,
        };
        if let Some(taken) = taken {
            return Ok(taken);
        }
        let (mut space, found) =
            self.grow(&growing, wanted).map_err(|why| self.refused(why, size))?;
        Ok((self.open_large(&mut space, found, len), found.ticket))
    }

    /// Allocates the large block that was freed last, if it is of this length: without the lock of
    /// the map, where it is still a run of its own. Only in a pool that retires none: there a free
    /// run may be another thread's at any time.
    fn take_freed_last(&self, len: SliceCount, align: u32) -> Option<u64> {
        let head = SliceId::from_word(self.freed_last[len.get() % FREED_LAST].load(Relaxed))?;
        let fits = || self.len(head) == len;
        if !fits() || !head.word().is_multiple_of(align) {
            return None;
        }
        self.run(head).state.reserve(LARGE, 1).ok()?;
        self.counts.take(LARGE, 1);
        // Another run may have begun there since its length was read.
        if !fits() {
            self.count_freed(head, 1);
            return None;
        }
        let (address, bytes) = (self.geometry.address(head), self.geometry.bytes(len));
        self.counts.take_large(bytes);
        self.span.heaps.take(address, bytes);
        Some(address)
    }

    /// As [`acquire_large`](Self::acquire_large) without committing anything.
    pub(crate) fn acquire_large_committed(
        &self,
        size: usize,
        owner: Option<u32>,
    ) -> Result<Option<(u64, u64)>, Error> {
        if size > self.geometry.span() {
            return Ok(None);
        }
        let len = self.geometry.slices_for(size);
        self.take_large(self.wanted(len, 1, owner))
    }

    fn take_large(&self, wanted: Wanted) -> Result<Option<(u64, u64)>, Error> {
        let mut space = self.locked()?;
        let len = SliceCount::from_word(wanted.len);
        let found = self.search(&mut space, wanted);
        Ok(found.map(|found| (self.open_large(&mut space, found, len), found.ticket)))
    }

    /// A search for a slab of a class.
    pub(super) fn wanted_slab(&self, class: SizeClass, shape: SlabShape) -> Wanted {
        let part = if class.index() < SizeClass::SHARED { Part::Low } else { Part::High };
        Wanted { len: shape.slices.word(), align: 1, owner: None, part }
    }

    /// A search for a large block of so many slices.
    fn wanted(&self, len: SliceCount, align: u32, owner: Option<u32>) -> Wanted {
        let part = if self.geometry.bytes(len) <= LONGEST_LOW { Part::Low } else { Part::High };
        Wanted { len: len.word(), align, owner, part }
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

    /// Commits what a run lacks. The run, and the map in which it is taken.
    fn grow(
        &self,
        growing: &MutexGuard<'_, ()>,
        wanted: Wanted,
    ) -> Result<(MutexGuard<'_, Space>, Found), Refusal> {
        self.sleep.check(growing).map_err(Some)?;
        let mut space = self.folded().map_err(Some)?;
        let mut window = loop {
            // A free that came late may be enough.
            if let Some(found) = space.take(wanted) {
                return Ok((space, found));
            }
            if let Some(window) = space.reserve(wanted) {
                break window;
            }
            drop(space);
            // Pieces hold addresses, too.
            if self.release_one(growing).map_err(Some)? == 0 {
                return Err(None);
            }
            space = self.folded().map_err(Some)?;
        };
        drop(space);
        let outcome = self.make_room(growing, &mut window);
        let outcome = outcome.and_then(|pieces| self.commit(growing, &mut window, pieces));
        // No check: after a fork nothing was committed, and the lock was this thread's.
        let mut space = self.space.lock();
        match outcome {
            Ok(()) => {
                space.settle(&window);
                let Window { run, ticket, .. } = window;
                Ok((space, Found { start: run.start, ticket }))
            }
            Err(why) => {
                space.abandon(&window);
                // What was left alone for the sake of long runs.
                let found = space.take(Wanted { part: Part::Any, ..wanted }).ok_or(why)?;
                Ok((space, found))
            }
        }
    }

    /// Gives free pieces back until what a window lacks fits under the peak, or else the limit; the
    /// pieces to commit.
    fn make_room(
        &self,
        growing: &MutexGuard<'_, ()>,
        window: &mut Window,
    ) -> Result<Vec<Slices>, Refusal> {
        let lack = window.missing.iter().map(|gap| self.bytes(gap)).sum();
        while self.budget.would_peak(lack) && self.release_one(growing).map_err(Some)? > 0 {}
        let left = self.budget.left();
        if lack > left {
            return Err(None);
        }
        let room = self.budget.left_to_peak().filter(|left| lack <= *left).unwrap_or(left) - lack;
        let committed = self.slices_of(self.budget.reserved());
        let mut space = self.space.lock();
        space.round_up(window, committed, granules(room, self.geometry.granule()));
        Ok(space.cut(window, committed))
    }

    /// Commits the pieces of a window: all or none.
    fn commit(
        &self,
        growing: &MutexGuard<'_, ()>,
        window: &mut Window,
        mut pieces: Vec<Slices>,
    ) -> Result<(), Refusal> {
        let mut done = 0;
        while let Some(piece) = pieces.get(done).cloned() {
            match self.commit_piece(piece.clone()) {
                Ok(()) => done += 1,
                Err(why) => match self.make_memory(growing, window, &piece, why) {
                    Ok(None) => {}
                    Ok(Some(end)) => {
                        pieces.retain(|piece| piece.start < end);
                        pieces.iter_mut().for_each(|piece| piece.end = piece.end.min(end));
                    }
                    Err(why) => {
                        pieces.drain(..done).for_each(|piece| self.give_up(piece));
                        return Err(why);
                    }
                },
            }
        }
        let bytes = pieces.iter().map(|piece| self.bytes(piece)).sum();
        let before = self.budget.peak();
        self.budget.note_commit(bytes);
        if self.budget.peak() > before {
            self.recalls.note_growth();
        }
        self.note_peak();
        Ok(())
    }

    fn commit_piece(&self, piece: Slices) -> Result<(), Refusal> {
        let bytes = self.bytes(&piece);
        self.budget.reserve(bytes).map_err(|_| None)?;
        let outcome = self.span.commit(self.offset(&piece), bytes);
        if outcome.is_err() && self.is_free(&piece) {
            self.budget.cancel(bytes);
            return outcome.map_err(Some);
        }
        let mut space = self.space.lock();
        space.add_piece(piece.clone());
        outcome.map_err(|error| {
            // It could not be undone: the memory may be there, and the place is not tried again.
            self.budget.note_commit(bytes);
            self.budget.lose(bytes);
            space.lose(&piece);
            Some(error)
        })
    }

    /// Whether a piece that is not committed may be.
    fn is_free(&self, piece: &Slices) -> bool {
        self.span.resource().is_free(self.offset(piece), self.bytes(piece))
    }

    /// Where the resource had no memory for a piece, gives free ones back, or else asks for no more
    /// than the run needs: where that ends. The error, if neither is possible.
    fn make_memory(
        &self,
        growing: &MutexGuard<'_, ()>,
        window: &mut Window,
        piece: &Slices,
        why: Refusal,
    ) -> Result<Option<u32>, Refusal> {
        if !why.is_some_and(|error| error.is_out_of_memory()) || !self.is_free(piece) {
            return Err(why);
        }
        if self.release(growing, self.bytes(piece)).map_err(Some)? > 0 {
            return Ok(None);
        }
        let end = self.space.lock().shrink(window).filter(|end| *end > piece.start);
        end.map(Some).ok_or(why)
    }

    /// Gives a piece back that was committed for a window that failed.
    fn give_up(&self, piece: Slices) {
        let bytes = self.bytes(&piece);
        match self.span.decommit(self.offset(&piece), bytes) {
            Ok(()) => {
                self.budget.cancel(bytes);
                self.space.lock().left(piece);
            }
            // Free, but for a lease that was taken meanwhile.
            Err(Error::Leased) => {
                self.budget.note_commit(bytes);
                self.space.lock().give(piece);
            }
            Err(_) => {
                self.budget.note_commit(bytes);
                self.budget.lose(bytes);
                self.space.lock().lose(&piece);
            }
        }
    }

    pub(super) fn too_large(&self, size: usize) -> AllocError {
        AllocError::TooLarge { size, max: self.geometry.span().min(self.budget.limit()) }
    }

    /// The error for a run that could not be had.
    fn refused(&self, why: Refusal, size: usize) -> AllocError {
        let longest = self.space.lock().longest_gap();
        match why {
            Some(error) if !error.is_out_of_memory() => error.into(),
            // The pool knows what is cached and what a device may still use; the store does not.
            cause => AllocError::Exhausted(Exhaustion {
                size,
                limit: self.budget.limit(),
                reserved: self.budget.reserved(),
                live: self.taken(),
                cached: 0,
                retired: 0,
                largest_free: self.geometry.bytes(SliceCount::from_word(longest)),
                cause,
                physical: None,
            }),
        }
    }

    pub(super) fn bytes(&self, slices: &Slices) -> usize {
        self.geometry.bytes(SliceCount::from_word(slices.end - slices.start))
    }

    pub(super) fn offset(&self, slices: &Slices) -> usize {
        self.geometry.bytes(SliceCount::from_word(slices.start))
    }

    /// Whole slices in a number of bytes of the span.
    pub(super) fn slices_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes / self.geometry.slice()).unwrap_or(u32::MAX)
    }
}

fn granules(bytes: usize, granule: usize) -> u32 {
    u32::try_from(bytes / granule).unwrap_or(u32::MAX)
}
