//! Freeing: blocks go back to their slabs, one at a time or a batch of a class.
//!
//! Bits first, then the count in the state word, then the hints that follow from it: a thread that
//! reserves by the count finds at least as many bits.

use super::number::SliceId;
use super::size_class::SizeClass;
use super::store::{CACHED_CLASSES, FREED_LAST, Store};
use crate::lockfree::bitmap::Bits;
use crate::memory::MemoryResource;
use crate::sync::atomic::Ordering::Relaxed;

impl<R: MemoryResource> Store<R> {
    /// Frees blocks of one class; the addresses are sorted on the way.
    ///
    /// They are from caches, of which a pool that a memory checker hears of has none.
    pub(crate) fn free_batch(&self, class: SizeClass, addresses: &mut [u64]) {
        addresses.sort_unstable();
        self.free_sorted(class, addresses);
    }

    /// Frees blocks of one class, lowest address first: neighbours in one word go with one
    /// instruction.
    pub(crate) fn free_sorted(&self, class: SizeClass, addresses: &[u64]) {
        let mut rest = addresses;
        while let Some(&first) = rest.first() {
            let (head, index) = self.block_of(class, first);
            if self.has_one_block(head) {
                self.count_freed(head, 1);
                rest = &rest[1..];
                continue;
            }
            // One pass for the blocks of one slab: a word of bits is complete when the next block
            // is in another, and the count is raised once, for all of them.
            let start = self.geometry.address(head);
            let end = start + self.geometry.bytes(self.len(head)) as u64;
            let (mut bits, mut freed, mut next) = (Bits::one(index), 0, 1);
            while let Some(&address) = rest.get(next).filter(|&&address| address < end) {
                let bit = Bits::one(class.block_at(address - start));
                if bit.word == bits.word {
                    bits.mask |= bit.mask;
                } else {
                    freed += self.free_bits(head, bits);
                    bits = bit;
                }
                next += 1;
            }
            freed += self.free_bits(head, bits);
            self.count_freed(head, freed);
            rest = &rest[next..];
        }
    }

    /// Frees the blocks in the transfer cache.
    pub(crate) fn flush_transfer_cache(&self) {
        for class in SizeClass::all().take(CACHED_CLASSES) {
            let mut blocks = Vec::new();
            while self.transfer_cache.take_any(class.index(), |address| blocks.push(address)) {}
            self.free_batch(class, &mut blocks);
        }
    }

    /// Blocks of each class in the transfer cache at this moment.
    pub(crate) fn in_transfer_cache(&self) -> impl Iterator<Item = (SizeClass, usize)> {
        SizeClass::all()
            .take(CACHED_CLASSES)
            .map(|class| (class, self.transfer_cache.count(class.index())))
    }

    /// Frees a large block.
    pub(crate) fn free_large(&self, address: u64) {
        if let Some(head) = self.geometry.slice_at(address) {
            let len = self.len(head);
            self.span.heaps.give(address);
            self.counts.give_large(self.geometry.bytes(len));
            self.count_freed(head, 1);
            if self.folds_late {
                self.freed_last[len.get() % FREED_LAST].store(head.word(), Relaxed);
            }
        }
    }

    /// Frees one block.
    pub(crate) fn free_one(&self, head: SliceId, index: usize) {
        if self.span.heaps.are_told() {
            let state = self.run(head).state.load();
            let size = self.block_size(state, self.len(head)).unwrap_or(0);
            self.span.heaps.give(self.geometry.address(head) + (index * size) as u64);
        }
        let freed =
            if self.has_one_block(head) { 1 } else { self.free_bits(head, Bits::one(index)) };
        self.count_freed(head, freed);
    }

    /// Whether a run of which the caller has a block has no other.
    fn has_one_block(&self, head: SliceId) -> bool {
        self.run(head).state.load().capacity() == 1
    }

    /// Sets the bits of blocks; how many of them were not free.
    #[inline]
    fn free_bits(&self, head: SliceId, bits: Bits) -> u32 {
        let given = self.blocks.get(head.index()).give(bits);
        debug_assert!(given.is_ok(), "block freed twice: {given:?} of run {head:?}");
        // A block that is free already is not counted again: the error stays where it is.
        bits.count() - given.err().map_or(0, |twice| twice.bits.count())
    }

    /// Counts blocks whose bits are set as free, and leaves the hints that follow from it.
    #[inline]
    pub(super) fn count_freed(&self, head: SliceId, count: u32) {
        let run = self.run(head);
        let returned = run.state.put_back(count);
        debug_assert!(returned.is_ok(), "more blocks than {head:?} has: {:?}", run.state.load());
        let Ok(before) = returned else { return };
        self.counts.give(before.class(), count);
        // Only the free that made the difference leaves a hint: a slab that had room has its own.
        if before.free() == 0
            && let Some(class) = SizeClass::from_index(before.class().into())
        {
            self.room.get(class.index()).insert(head.index());
        }
        if before.free() + count == before.capacity() && !run.enqueue() {
            self.emptied.push(head.word(), |index| &self.runs[index as usize].next);
        }
    }
}
