//! Segments that have addresses for the whole device, and memory in pages.

use super::{Block, MIB, Torch};

impl Torch {
    /// Maps pages until there is a free block of `size` bytes; it is in no set then.
    pub(super) fn expand(&mut self, pool: usize, size: usize) -> Option<usize> {
        let mut at = match self.expandable_run(pool, size) {
            Some(at) => at,
            None => {
                let page = page(pool);
                // PyTorch reserves the device's memory and an eighth.
                let len = (self.limit / 8 * 9).next_multiple_of(page);
                let at = self.add_segment(pool, len, false);
                self.insert(at);
                at
            }
        };
        if !self.blocks[&at].is_mapped {
            at = self.map(at, size)?;
        }
        while self.blocks[&at].size < size {
            let missing = size - self.blocks[&at].size;
            at = self.map(at + self.blocks[&at].size, missing)?;
        }
        self.remove(at);
        Some(at)
    }

    /// Where blocks that are free or not mapped follow each other for `size` bytes, the first of
    /// which is before or at one that is not mapped.
    fn expandable_run(&self, pool: usize, size: usize) -> Option<usize> {
        let runs = self.pools[pool].unmapped.iter().map(|&unmapped| {
            let before = self.neighbours(unmapped).0;
            before.filter(|before| !self.blocks[before].is_used).unwrap_or(unmapped)
        });
        runs.into_iter().find(|&start| {
            let (mut bytes, mut at) = (0, Some(start));
            while let Some(block) = at.filter(|at| !self.blocks[at].is_used && bytes < size) {
                bytes += self.blocks[&block].size;
                at = self.neighbours(block).1;
            }
            bytes >= size
        })
    }

    /// Maps whole pages from the start of a block that is not mapped; where the mapped block that
    /// comes of it begins.
    fn map(&mut self, at: usize, size: usize) -> Option<usize> {
        let Block { size: unmapped, pool, .. } = self.blocks[&at];
        let bytes = size.min(unmapped).next_multiple_of(page(pool));
        if self.reserved + bytes > self.limit {
            return None;
        }
        self.reserved += bytes;
        self.commits += bytes / page(pool);
        self.remove(at);
        self.cut(at, bytes.min(unmapped));
        if let Some(block) = self.blocks.get_mut(&at) {
            block.is_mapped = true;
        }
        let at = self.join(at);
        self.insert(at);
        Some(at)
    }

    /// Gives back the whole pages of a free block.
    pub(super) fn unmap(&mut self, at: usize, size: usize) {
        let Block { segment, pool, .. } = self.blocks[&at];
        let (base, page) = (self.segments[segment], page(pool));
        let first = base + (at - base).next_multiple_of(page);
        let end = base + (at + size - base) / page * page;
        if first >= end {
            return;
        }
        self.releases += (end - first) / page;
        self.reserved -= end - first;
        self.remove(at);
        if first > at {
            self.cut(at, first - at);
            self.insert(at);
            self.remove(first);
        }
        self.cut(first, end - first);
        if let Some(block) = self.blocks.get_mut(&first) {
            block.is_mapped = false;
        }
        let first = self.join(first);
        self.insert(first);
    }
}

/// Bytes that an expandable segment maps at a time: pools of even number hold small blocks.
fn page(pool: usize) -> usize {
    if pool.is_multiple_of(2) { 2 * MIB } else { 20 * MIB }
}
