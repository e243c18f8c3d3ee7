//! The program's advice about managed memory, and the location of the last prefetch.
//!
//! Memory is where it is, so nothing moves; but what was said about which pages can be asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::location::Location;
use crate::memory::Block;

/// Advice is kept for whole pages of the host.
const PAGE: u64 = 4096;

/// The advice for a range of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) read_mostly: bool,
    pub(crate) preferred: Option<Location>,
    pub(crate) accessed_by: BTreeSet<Location>,
    pub(crate) prefetched: Option<Location>,
}

/// The advice for every managed allocation, by its identity.
#[derive(Debug, Default)]
pub(crate) struct Advice {
    blocks: HashMap<u64, Segments>,
}

/// The advice from each address to the next one.
type Segments = BTreeMap<u64, Page>;

impl Advice {
    /// Changes what is known about the pages of a range of `block`.
    pub(crate) fn update(
        &mut self,
        block: &Block,
        address: u64,
        size: usize,
        change: impl Fn(&mut Page),
    ) {
        let segments = self.blocks.entry(block.id).or_default();
        segments.entry(block.host).or_default();
        let (begin, end) = pages(block, address, size);
        // A segment that crosses a border is cut there, so that the change applies to whole
        // segments.
        for border in [begin, end] {
            if let Some((_, page)) = segments.range(..=border).next_back() {
                let page = page.clone();
                segments.insert(border, page);
            }
        }
        segments.range_mut(begin..end).for_each(|(_, page)| change(page));
    }

    /// The advice for the pages of a range of `block`; equal entries may repeat.
    pub(crate) fn pages(&self, block: &Block, address: u64, size: usize) -> Vec<Page> {
        let Some(segments) = self.blocks.get(&block.id) else { return vec![Page::default()] };
        let (begin, end) = pages(block, address, size);
        let first = segments.range(..=begin).next_back().map(|(_, page)| page);
        first
            .into_iter()
            .chain(segments.range(begin + 1..end).map(|(_, page)| page))
            .cloned()
            .collect()
    }

    /// Drops what is known about an allocation that is gone.
    pub(crate) fn forget(&mut self, block: &Block) {
        self.blocks.remove(&block.id);
    }
}

/// "The start address and end address of the memory range will be rounded down and rounded up
/// respectively to be aligned to CPU page size."
fn pages(block: &Block, address: u64, size: usize) -> (u64, u64) {
    let end = (address + size as u64).next_multiple_of(PAGE);
    ((address - address % PAGE).max(block.host), end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::table::Owner;
    use crate::memory::{Kind, Table};

    #[test]
    fn advice_holds_for_its_pages_and_no_others() {
        let mut table = Table::default();
        let owner = Owner { context: 0, ordinal: 0 };
        let block = table.allocate(Kind::Managed { flags: 1 }, 4 * 4096, owner).unwrap();
        let mut advice = Advice::default();
        advice.update(&block, block.host + 5000, 10, |page| page.read_mostly = true);
        let read_mostly = |offset: u64, size| {
            let pages = advice.pages(&block, block.host + offset, size);
            (pages.iter().all(|page| page.read_mostly), pages.iter().any(|page| page.read_mostly))
        };
        assert_eq!(read_mostly(4096, 4096), (true, true));
        assert_eq!(read_mostly(4100, 1), (true, true));
        assert_eq!(read_mostly(0, 4096), (false, false));
        assert_eq!(read_mostly(2 * 4096, 8192), (false, false));
        assert_eq!(read_mostly(0, 4 * 4096), (false, true));
    }
}
