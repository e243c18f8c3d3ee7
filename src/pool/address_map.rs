//! From the address of a block to its record, for blocks that are handed out as bare addresses.
//!
//! ```text
//!   unit of 256 bytes:   | root | middle (10 bits) | leaf (13 bits) |
//!
//!   root ──> middle ──> leaf ──> number of a record + 1, or 0
//! ```
//!
//! Tables are made as addresses are handed out and stay until the pool ends: 32 KiB for 2 MiB of
//! the span in which any block was. A pool that hands out none has the root's pointer only.
//!
//! An entry says where to look, not what is true: the record of an entry may hold another block
//! by now. The reader compares the record's address, and its state word decides.
//!
//! * entry: written by the holder of the block; read by any thread. The `Release` of `set` pairs
//!   with the `Acquire` of `get`: a reader that was given the address sees the record's block.

use crate::address::to_usize;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};

/// Which record holds the block at an address of a span.
#[derive(Debug)]
pub(super) struct AddressMap {
    base: u64,
    size: usize,
    root: OnceLock<Box<[OnceLock<Middle>]>>,
}

type Middle = Box<[OnceLock<Leaf>]>;
type Leaf = Box<[AtomicU32]>;

impl AddressMap {
    /// A map of a span of `size` bytes at `base`.
    pub(super) fn new(base: u64, size: usize) -> Self {
        Self { base, size, root: OnceLock::new() }
    }

    /// Notes the record whose block begins at an address, which is of the span.
    pub(super) fn set(&self, address: u64, record: u32) {
        let Some([root, middle, leaf]) = self.places(address) else { return };
        let roots = self.size.div_ceil(UNIT * LEAF * MIDDLE);
        let root = &self.root.get_or_init(|| empty(roots))[root];
        let middle = &root.get_or_init(|| empty(MIDDLE))[middle];
        let made = || (0..LEAF).map(|_| AtomicU32::new(0)).collect();
        // Release: pairs with the Acquire of `get`.
        middle.get_or_init(made)[leaf].store(record + 1, Release);
    }

    /// The record whose block began at an address when it was last handed out.
    pub(super) fn get(&self, address: u64) -> Option<u32> {
        let [root, middle, leaf] = self.places(address)?;
        let leaves = self.root.get()?[root].get()?[middle].get()?;
        // Acquire: pairs with the Release of `set`.
        leaves[leaf].load(Acquire).checked_sub(1)
    }

    /// The places of an address in the three tables; `None` outside the span.
    fn places(&self, address: u64) -> Option<[usize; 3]> {
        let offset = to_usize(address.checked_sub(self.base)?);
        let unit = (offset < self.size).then_some(offset / UNIT)?;
        Some([unit / (LEAF * MIDDLE), unit / LEAF % MIDDLE, unit % LEAF])
    }
}

fn empty<T>(len: usize) -> Box<[OnceLock<T>]> {
    (0..len).map(|_| OnceLock::new()).collect()
}

/// Blocks begin at multiples of it.
const UNIT: usize = 256;
const LEAF: usize = if cfg!(all(test, loom)) { 2 } else { 1 << 13 };
const MIDDLE: usize = if cfg!(all(test, loom)) { 2 } else { 1 << 10 };

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_span_has_a_place_of_its_own() {
        let (base, size) = (7 << 40, 5 << 30);
        let map = AddressMap::new(base, size);
        assert_eq!(map.get(base), None, "nothing was handed out");
        let last = base + size as u64 - 256;
        let addresses =
            [base, base + 256, base + (2 << 20) - 256, base + (2 << 20), base + (2 << 30), last];
        for (record, address) in (0..).zip(addresses) {
            map.set(address, record);
        }
        for (record, address) in (0..).zip(addresses) {
            assert_eq!(map.get(address), Some(record), "{address:#x}");
        }
        assert_eq!(map.get(base + 512), None);
        for outside in [0, base - 1, last + 256, u64::MAX] {
            map.set(outside, 9);
            assert_eq!(map.get(outside), None, "{outside:#x}");
        }
    }
}
