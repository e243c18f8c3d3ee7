//! From an address to its block.

use super::number::SliceId;
use super::size_class::SizeClass;
use super::store::Store;
use crate::address::to_usize;
use crate::lockfree::bitmap::{Bitmap, Bits, WORD};
use crate::memory::MemoryResource;
use crate::sync::atomic::Ordering::Relaxed;

/// A block found by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) head: SliceId,
    pub(crate) index: usize,
    /// The address of the block's first byte.
    pub(crate) start: u64,
    pub(crate) size: usize,
    /// The class number, or [`LARGE`](super::geometry::LARGE).
    pub(crate) class: u8,
}

impl<R: MemoryResource> Store<R> {
    /// The block that any address lies in, if there is a slab or a large block at it now.
    pub(crate) fn locate(&self, address: u64) -> Option<Location> {
        let slice = self.geometry.slice_at(address)?;
        let whole = self.whole[self.geometry.granule_of(slice)].load(Relaxed);
        let heads = [self.head_of(slice), SliceId::new(whole as usize)];
        // Each may be stale, and name a run that has ended, or is shorter: runs do not overlap, so
        // one at most is right.
        heads.into_iter().find_map(|head| self.locate_in(head, slice, address))
    }

    /// The block of the run at `head` that an address lies in.
    fn locate_in(&self, head: SliceId, slice: SliceId, address: u64) -> Option<Location> {
        let run = self.open_run(head).filter(|run| head <= slice && slice < head + run.len)?;
        let (start, size) = (self.geometry.address(head), run.block_size);
        let index = to_usize(address - start) / size;
        (index < run.state.capacity() as usize).then(|| Location {
            head,
            index,
            start: start + (index * size) as u64,
            size,
            class: run.state.class(),
        })
    }

    /// The run and the number of a block that the caller holds.
    pub(super) fn block_of(&self, class: SizeClass, address: u64) -> (SliceId, usize) {
        let slice = self.geometry.slice_at(address).unwrap_or(SliceId::new(0));
        let head = self.head_of(slice);
        (head, class.block_at(address - self.geometry.address(head)))
    }

    /// The first slice of the run that a slice belongs to, or last belonged to.
    fn head_of(&self, slice: SliceId) -> SliceId {
        SliceId::new(self.heads[slice.index()].load(Relaxed) as usize)
    }

    /// Unmarks the block at an address. Returns whether it was handed out by address.
    pub(crate) fn unmark_raw(&self, block: Location) -> bool {
        self.raw.get(block.head.index()).take_exact(Bits::one(block.index))
    }

    /// Marks a block as handed out by address.
    pub(crate) fn mark_raw(&self, block: Location) {
        let marked = self.raw.get(block.head.index()).give(Bits::one(block.index));
        debug_assert!(marked.is_ok(), "block handed out twice: {block:?}");
    }

    /// Whether a block is handed out or cached.
    pub(super) fn is_taken(&self, block: Location) -> bool {
        let state = self.run(block.head).state.load();
        // A run of one block is counted by its state alone.
        if state.capacity() == 1 {
            state.free() == 0
        } else {
            !is_set(self.blocks.get(block.head.index()), block.index)
        }
    }

    /// Whether a block is handed out by address.
    pub(super) fn is_raw(&self, block: Location) -> bool {
        is_set(self.raw.get(block.head.index()), block.index)
    }
}

fn is_set(bitmap: Bitmap<'_>, index: usize) -> bool {
    bitmap.word(index / WORD) & Bits::one(index).mask != 0
}
