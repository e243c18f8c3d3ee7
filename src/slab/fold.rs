//! Runs begin and end: both under the lock of the map.
//!
//! A run whose last block is freed goes to a list, without a lock; it stays what it was, and its
//! blocks may be taken again. The thread that takes the lock next folds the runs of the list that
//! are still empty into the map: they join what is free beside them.

use super::geometry::{LARGE, SlabShape};
use super::number::{SliceCount, SliceId};
use super::size_class::SizeClass;
use super::space::{Found, Retirement, Slices, Space, Wanted};
use super::store::{OpenRun, Reserved, Store};
use crate::error::Error;
use crate::memory::MemoryResource;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering::Relaxed;

impl<R: MemoryResource> Store<R> {
    /// The map, into which all emptied runs are folded. Waits for the lock, which no thread holds
    /// during a call of the resource.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`]: of the lock, a child has but a copy that no thread may ever release.
    pub(crate) fn folded(&self) -> Result<MutexGuard<'_, Space>, Error> {
        let mut space = self.locked()?;
        self.fold(&mut space);
        Ok(space)
    }

    /// The map as it is.
    ///
    /// # Errors
    ///
    /// As [`folded`](Self::folded).
    pub(super) fn locked(&self) -> Result<MutexGuard<'_, Space>, Error> {
        self.span.resource().check_fork()?;
        Ok(self.space.lock())
    }

    /// Folds all emptied runs into the map.
    fn fold(&self, space: &mut Space) {
        while let Some(index) = self.emptied.pop(|index| &self.runs[index as usize].next) {
            let head = SliceId::new(index as usize);
            self.run(head).dequeue();
            // In vain if a block was taken meanwhile: its free puts the run on the list again.
            if let Ok(before) = self.run(head).state.claim_empty() {
                self.end(space, head, before.class(), before.capacity());
                space.give(self.slices(head));
            }
        }
    }

    /// Reserves 1 to `want` blocks of `class` without committing anything: of a slab that another
    /// thread has made meanwhile, or of a new one.
    pub(crate) fn reserve_committed(
        &self,
        class: SizeClass,
        shape: SlabShape,
        want: u32,
    ) -> Result<Option<Reserved>, Error> {
        let mut space = self.locked()?;
        if let Some(reserved) = self.reserve(class, want, None) {
            return Ok(Some(reserved));
        }
        let found = self.search(&mut space, self.wanted_slab(class, shape));
        Ok(found.map(|found| self.open_slab(&mut space, found, class, shape, want)))
    }

    /// Takes a run of what has memory.
    pub(super) fn search(&self, space: &mut Space, wanted: Wanted) -> Option<Found> {
        if self.folds_late
            && let Some(found) = space.take(wanted)
        {
            return Some(found);
        }
        self.fold(space);
        space.take(wanted)
    }

    /// Makes a run that the map has just given a slab, of which up to `want` blocks are the
    /// caller's.
    pub(super) fn open_slab(
        &self,
        space: &mut Space,
        found: Found,
        class: SizeClass,
        shape: SlabShape,
        want: u32,
    ) -> Reserved {
        let (head, count) = (SliceId::new(found.start as usize), want.min(shape.capacity));
        self.begin(space, head, shape.slices, class.number());
        self.set_up(head, class.number(), shape.capacity, count);
        if shape.capacity > count {
            self.room.get(class.index()).insert(head.index());
        }
        self.counts.open(class.number(), shape.capacity);
        self.counts.take(class.number(), count);
        Reserved { head, class, count }
    }

    /// Makes a run that the map has just given a large block; its address.
    pub(super) fn open_large(&self, space: &mut Space, found: Found, len: SliceCount) -> u64 {
        let (head, bytes) = (SliceId::new(found.start as usize), self.geometry.bytes(len));
        self.begin(space, head, len, LARGE);
        self.set_up(head, LARGE, 1, 1);
        self.counts.open(LARGE, 1);
        self.counts.take(LARGE, 1);
        self.counts.take_large(bytes);
        let address = self.geometry.address(head);
        self.span.heaps.take(address, bytes);
        address
    }

    /// Gives a large block of the caller's to the map, as free for one stream, and for others
    /// later. In a forked child it stays as it is.
    pub(crate) fn retire_large(&self, address: u64, by: Retirement) {
        let Some(head) = self.geometry.slice_at(address) else { return };
        let Ok(mut space) = self.folded() else { return };
        let state = &self.run(head).state;
        let freed = state.put_back(1).and_then(|_| state.claim_empty());
        debug_assert!(freed.is_ok(), "no large block is at {head:?}: {:?}", state.load());
        if freed.is_ok() {
            self.span.heaps.give(address);
            self.counts.give(LARGE, 1);
            self.counts.give_large(self.geometry.bytes(self.len(head)));
            self.end(&mut space, head, LARGE, 1);
            space.retire(self.slices(head), by);
        }
    }

    /// All slabs and large blocks at this moment, lowest address first.
    pub(crate) fn open_runs(&self) -> Result<Vec<OpenRun>, Error> {
        let space = self.folded()?;
        let heads = space.runs().map(|start| SliceId::new(start as usize));
        Ok(heads.filter_map(|head| self.open_run(head)).collect())
    }

    /// Begins a run: its slices lead to it from here on.
    ///
    /// An address inside a block leads to its run through the word of its own slice; inside a large
    /// block, which may have many, through the word of its granule.
    fn begin(&self, _space: &mut Space, head: SliceId, len: SliceCount, class: u8) {
        let claimed = self.run(head).state.claim_vacant();
        debug_assert!(claimed.is_ok(), "a free slice has a run: {head:?}");
        self.run(head).len.store(len.word(), Relaxed);
        let (start, end) = (head.index(), (head + len).index());
        let each = self.geometry.slices_in(1).get();
        let whole = if class == LARGE { start.div_ceil(each)..end / each } else { 0..0 };
        let lead = |words: &[crate::sync::atomic::AtomicU32]| {
            words.iter().for_each(|word| word.store(head.word(), Relaxed));
        };
        if whole.is_empty() {
            return lead(&self.heads[start..end]);
        }
        lead(&self.heads[start..whole.start * each]);
        lead(&self.heads[whole.end * each..end]);
        // The first slice has its own word in any case.
        self.heads[start].store(head.word(), Relaxed);
        lead(&self.whole[whole]);
    }

    /// Opens a claimed run with `capacity` blocks, `reserved` of which are the caller's.
    fn set_up(&self, head: SliceId, class: u8, capacity: u32, reserved: u32) {
        let state = &self.run(head).state;
        // Where the run had more blocks before, their bits are still set.
        let before = state.load().capacity();
        self.blocks.get(head.index()).fill_again(capacity as usize, before as usize);
        let opened = state.open(class, capacity, capacity - reserved);
        debug_assert!(opened.is_ok(), "run {head:?} is not ours: {:?}", state.load());
    }

    /// Ends a claimed run; its slices are still the caller's.
    fn end(&self, _space: &mut Space, head: SliceId, class: u8, capacity: u32) {
        self.counts.close(class, capacity);
        let vacated = self.run(head).state.vacate();
        debug_assert!(vacated.is_ok(), "run {head:?} is claimed by this thread");
    }

    fn slices(&self, head: SliceId) -> Slices {
        head.word()..(head + self.len(head)).word()
    }
}
