//! Address to allocation, for one machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_sys::CudaError;

use super::block::{Backing, Block, Kind, Mapping};

/// The allocations of one machine.
#[derive(Debug, Default)]
pub(crate) struct Table {
    next: u64,
    /// By first address; registered memory with a device alias is in twice.
    blocks: BTreeMap<u64, Arc<Block>>,
    /// Bytes taken from each device, by number.
    pub(crate) used: BTreeMap<i32, u64>,
    /// Bytes of pinned host memory, allocated or registered.
    pub(crate) pinned: u64,
}

/// Who asks for memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) context: u64,
    pub(crate) ordinal: i32,
}

impl Table {
    /// Adds an allocation of `size` bytes that owns new memory.
    pub(crate) fn allocate(
        &mut self,
        kind: Kind,
        size: usize,
        owner: Owner,
    ) -> Result<Arc<Block>, CudaError> {
        // An allocation of no bytes, which a pool gives, has an address too.
        let mapping = Mapping::new(size.max(1)).ok_or(CudaError::OUT_OF_MEMORY)?;
        let address = mapping.address();
        Ok(self.insert(kind, address, address, size, owner, Backing::Mapped(mapping)))
    }

    /// Adds a range that somebody else owns.
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
        let block = Block::new(self.next, kind, host, device, size, owner.context, owner.ordinal, backing);
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

    /// Takes an allocation out of the table and marks it freed.
    pub(crate) fn remove(&mut self, block: &Block) {
        self.forget(block);
        block.free();
    }

    /// Takes an allocation out of the table, for an operation that is to free it.
    pub(crate) fn forget(&mut self, block: &Block) {
        self.blocks.remove(&block.host);
        self.blocks.remove(&block.device);
    }

    /// Puts back an allocation that was not freed after all.
    pub(crate) fn recall(&mut self, block: &Arc<Block>) {
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

    /// Every allocation once, by address.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocks.iter().filter(|(address, block)| **address == block.host).map(|(_, block)| block)
    }
}

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
