//! Address to allocation, for one machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_sys::CudaError;

use super::block::{Backing, Block, Kind, Mapping};
use super::recycled::Recycled;

/// The allocations of one machine.
#[derive(Debug, Default)]
pub(crate) struct Table {
    next: u64,
    /// Where freed addresses come back: those that will.
    recycled: Option<Recycled>,
    /// Device memory begins at no multiple of more than 256 bytes.
    least_alignment: bool,
    /// By first address; registered memory with a device alias is in twice.
    blocks: BTreeMap<u64, Arc<Block>>,
    /// By device address: freed by a call, in the order of a stream that is not there yet. Graphs
    /// that were launched before still use them, and are resolved later.
    leaving: BTreeMap<u64, Arc<Block>>,
    /// Bytes taken from each device, by number.
    pub(crate) used: BTreeMap<i32, u64>,
    /// Bytes of pinned host memory, allocated or registered.
    pub(crate) pinned: u64,
}

/// The owner of an allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) context: u64,
    pub(crate) ordinal: i32,
}

/// The relation of a range of addresses to the allocations.
#[derive(Debug)]
pub(crate) enum Reach<'a> {
    /// It lies in these allocations without a gap.
    Known(Vec<Arc<Block>>),
    /// It has bytes of this allocation, and bytes of another or of none.
    Straddles(&'a Arc<Block>),
    /// No allocation has a byte of it: it is pageable, or nothing.
    Unknown,
}

impl Table {
    pub(crate) fn new(recycles: bool, least_alignment: bool) -> Self {
        Self { recycled: recycles.then(Recycled::default), least_alignment, ..Self::default() }
    }

    /// Adds an allocation of `size` bytes that owns its memory.
    pub(crate) fn allocate(
        &mut self,
        kind: Kind,
        size: usize,
        owner: Owner,
    ) -> Result<Arc<Block>, CudaError> {
        self.allocate_on(kind, size, owner, 0)
    }

    /// Adds an allocation that comes to life in the order of a stream, by its number.
    pub(crate) fn allocate_on(
        &mut self,
        kind: Kind,
        size: usize,
        owner: Owner,
        stream: u64,
    ) -> Result<Arc<Block>, CudaError> {
        // An allocation of no bytes, which a pool gives, has an address too.
        let offset = if self.least_alignment && kind.is_aligned_least() { ALIGNMENT } else { 0 };
        let bytes = size.max(1).checked_add(offset).ok_or(CudaError::OUT_OF_MEMORY)?;
        let room = bytes.checked_next_multiple_of(PAGE).ok_or(CudaError::OUT_OF_MEMORY)?;
        let known = self.recycled.as_mut().and_then(|recycled| recycled.take(kind, room, stream));
        let mapping = match known {
            Some(mapping) => mapping,
            None => Arc::new(Mapping::new(room).ok_or(CudaError::OUT_OF_MEMORY)?),
        };
        let address = mapping.address() + offset as u64;
        Ok(self.insert(kind, address, address, size, owner, Backing::Mapped(mapping)))
    }

    /// Adds a range of memory that belongs to the program.
    pub(crate) fn adopt(
        &mut self,
        kind: Kind,
        host: u64,
        device: u64,
        size: usize,
        owner: Owner,
    ) -> Arc<Block> {
        self.insert(kind, host, device, size, owner, Backing::Borrowed)
    }

    /// Adds a range of which `backing` has the bytes.
    pub(crate) fn place(
        &mut self,
        kind: Kind,
        address: u64,
        size: usize,
        owner: Owner,
        backing: Backing,
    ) -> Arc<Block> {
        self.insert(kind, address, address, size, owner, backing)
    }

    fn insert(
        &mut self,
        kind: Kind,
        host: u64,
        device: u64,
        size: usize,
        owner: Owner,
        backing: Backing,
    ) -> Arc<Block> {
        self.next += 1;
        let block =
            Block::new(self.next, kind, host, device, size, owner.context, owner.ordinal, backing);
        let block = Arc::new(block);
        self.blocks.insert(host, Arc::clone(&block));
        if device != host {
            self.blocks.insert(device, Arc::clone(&block));
        }
        block
    }

    /// The bytes in use where memory of this kind comes from.
    pub(crate) fn account(&mut self, kind: Kind, ordinal: i32) -> &mut u64 {
        if kind.is_host() { &mut self.pinned } else { self.used.entry(ordinal).or_default() }
    }

    /// Gives back what an allocation was charged.
    pub(crate) fn refund(&mut self, kind: Kind, ordinal: i32, size: usize) {
        let used = self.account(kind, ordinal);
        *used = used.saturating_sub(size as u64);
    }

    /// Takes an allocation out of the table and marks it freed. Its addresses come back.
    pub(crate) fn remove(&mut self, block: &Block) {
        let known = self.blocks.get(&block.host).filter(|known| known.id == block.id).cloned();
        self.forget(block);
        block.free();
        if let Some(block) = known {
            // Nothing but this and the caller has it: no operation will look at its bytes.
            if let Some(mapping) = block.mapping().filter(|_| Arc::strong_count(&block) == 2) {
                mapping.discard();
            }
            self.recycle(&block, 0);
        }
    }

    /// Lets the addresses of an allocation that the table has forgotten come back, for a start to
    /// the stream with that number, if it is not zero.
    pub(crate) fn recycle(&mut self, block: &Arc<Block>, stream: u64) {
        if let Some(recycled) = &mut self.recycled {
            recycled.put(block, stream);
        }
    }

    /// Takes an allocation out of the table, for an operation that is to free it.
    pub(crate) fn forget(&mut self, block: &Block) {
        for address in [block.host, block.device] {
            if self.at(address).is_some_and(|known| known.id == block.id) {
                self.blocks.remove(&address);
            }
        }
    }

    /// As [`forget`](Self::forget), for an operation that is to be enqueued, and calls
    /// [`left`](Self::left).
    pub(crate) fn leave(&mut self, block: &Arc<Block>) {
        self.forget(block);
        self.leaving.insert(block.device, Arc::clone(block));
    }

    /// Notes that the operation that frees an allocation has run.
    pub(crate) fn left(&mut self, block: &Block) {
        // The address may have been given out and freed again meanwhile.
        if self.leaving.get(&block.device).is_some_and(|known| known.id == block.id) {
            self.leaving.remove(&block.device);
        }
    }

    /// Puts back an allocation that was not freed after all.
    pub(crate) fn recall(&mut self, block: &Arc<Block>) {
        self.left(block);
        self.blocks.insert(block.host, Arc::clone(block));
        self.blocks.insert(block.device, Arc::clone(block));
    }

    /// The allocation that contains `address`, as host or device address.
    pub(crate) fn find(&self, address: u64) -> Option<&Arc<Block>> {
        let (base, block) = self.blocks.range(..=address).next_back()?;
        (address - base < block.size as u64).then_some(block)
    }

    /// The allocation that begins at `address`.
    pub(crate) fn at(&self, address: u64) -> Option<&Arc<Block>> {
        self.blocks.get(&address)
    }

    /// Whether any allocation has a byte in the range.
    pub(crate) fn overlaps(&self, address: u64, size: usize) -> bool {
        let end = address.saturating_add(size as u64);
        self.find(address).is_some() || self.blocks.range(address..end).next().is_some()
    }

    /// The allocations that a range of a copy or a memset is in.
    ///
    /// "Memory regions requested must be either entirely registered with CUDA, or in the case of
    /// host pageable transfers, not registered at all. Memory regions spanning over allocations
    /// that are both registered and not registered with CUDA are not supported" (`cuMemcpy2D`).
    pub(crate) fn reach(&self, address: u64, size: usize) -> Reach<'_> {
        if let Some(blocks) = self.cover(address, size.max(1)) {
            return Reach::Known(blocks);
        }
        let end = address.saturating_add(size as u64);
        let first = || self.blocks.range(address..end).next().map(|(_, block)| block);
        self.find(address).or_else(first).map_or(Reach::Unknown, Reach::Straddles)
    }

    /// As [`reach`](Self::reach), for work that was submitted before a call that may have freed its
    /// memory in the order of a stream.
    pub(crate) fn reach_launched(&self, address: u64, size: usize) -> Reach<'_> {
        match (self.reach(address, size), self.leaving_at(address, size)) {
            (Reach::Straddles(_) | Reach::Unknown, Some(block)) => {
                Reach::Known(vec![Arc::clone(block)])
            }
            (known, _) => known,
        }
    }

    /// The allocation that is leaving and contains the range.
    pub(crate) fn leaving_at(&self, address: u64, size: usize) -> Option<&Arc<Block>> {
        let (base, block) = self.leaving.range(..=address).next_back()?;
        let end = (address - base).checked_add(size as u64)?;
        (end <= block.size as u64).then_some(block)
    }

    /// The allocations that together cover the range without a gap: one, or neighbouring
    /// mappings of virtual memory management.
    pub(crate) fn cover(&self, address: u64, size: usize) -> Option<Vec<Arc<Block>>> {
        let end = address.checked_add(size as u64)?;
        let first = self.find(address)?;
        let mut covered = base_of(first, address) + first.size as u64;
        let mut blocks = vec![Arc::clone(first)];
        let is_mapping = |block: &&Arc<Block>| matches!(block.kind, Kind::Mapping { .. });
        while covered < end {
            blocks.last().filter(is_mapping)?;
            let next = self.at(covered).filter(is_mapping)?;
            covered += next.size as u64;
            blocks.push(Arc::clone(next));
        }
        Some(blocks)
    }

    /// The mappings that make up exactly the range, whole ones without a gap.
    pub(crate) fn mappings(&self, address: u64, size: usize) -> Result<Vec<Arc<Block>>, CudaError> {
        let blocks = self.cover(address, size).ok_or(CudaError::INVALID_VALUE)?;
        let all = blocks.iter().map(|block| block.size).sum::<usize>();
        let are_mappings = blocks.iter().all(|block| matches!(block.kind, Kind::Mapping { .. }));
        let begins = blocks.first().is_some_and(|block| block.device == address);
        if size > 0 && are_mappings && begins && all == size {
            Ok(blocks)
        } else {
            Err(CudaError::INVALID_VALUE)
        }
    }

    /// Every allocation once, by address.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocks
            .iter()
            .filter(|(address, block)| **address == block.host)
            .map(|(_, block)| block)
    }
}

/// Allocations own whole pages.
const PAGE: usize = 4096;
/// "Any address of a variable residing in global memory or returned by one of the memory allocation
/// routines from the driver or runtime API is always aligned to at least 256 bytes."
const ALIGNMENT: usize = 256;

/// The first address of the view, host's or device's, that contains `address`.
fn base_of(block: &Block, address: u64) -> u64 {
    let in_host = address.wrapping_sub(block.host) < block.size as u64;
    if in_host { block.host } else { block.device }
}

/// The host address of `address`, which lies in `block` as host or device address.
pub(crate) fn host_address(block: &Block, address: u64) -> u64 {
    block.host + (address - base_of(block, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { context: 0, ordinal: 0 };

    #[test]
    fn an_address_finds_its_allocation_and_no_neighbour() {
        let mut table = Table::default();
        let block = table.allocate(Kind::Device, 4096, OWNER).unwrap();
        assert_eq!(table.find(block.host + 4095).unwrap().id, block.id);
        assert!(table.find(block.host + 4096).is_none_or(|other| other.id != block.id));
        assert!(table.cover(block.host + 1, 4095).is_some());
        assert!(table.cover(block.host + 1, 4096).is_none());
        assert!(table.cover(block.host, usize::MAX).is_none());
        table.remove(&block);
        assert!(table.find(block.host).is_none());
        assert!(block.is_freed());
    }

    #[test]
    fn a_range_of_two_allocations_or_of_one_and_nothing_straddles() {
        let mut table = Table::default();
        let registered = Kind::Registered { flags: 0 };
        for address in [0x10_000, 0x11_000] {
            table.adopt(registered, address, address, 4096, OWNER);
        }
        assert!(matches!(table.reach(0x10_000, 4096), Reach::Known(_)));
        for (address, size) in [(0x10_800, 4096), (0xf_800, 4096), (0xf_800, 0x4000), (0x11_fff, 2)]
        {
            assert!(
                matches!(table.reach(address, size), Reach::Straddles(_)),
                "{address:#x} {size:#x}"
            );
        }
        for (address, size) in [(0xf_000, 4096), (0x12_000, 4096), (0x8_000, 1)] {
            assert!(matches!(table.reach(address, size), Reach::Unknown), "{address:#x} {size:#x}");
        }
    }

    #[test]
    fn an_alias_leads_to_the_same_bytes() {
        let mut table = Table::default();
        let block = table.adopt(Kind::Registered { flags: 0 }, 0x10_000, 0x90_000, 4096, OWNER);
        assert_eq!(table.find(0x90_010).unwrap().id, block.id);
        assert_eq!(host_address(&block, 0x90_010), 0x10_010);
        assert_eq!(host_address(&block, 0x10_010), 0x10_010);
        assert!(table.cover(0x90_010, 100).is_some());
        assert_eq!(table.blocks().count(), 1);
    }
}
