//! PyTorch's caching allocator by its published rules, without memory.
//!
//! Written after the description and the constants of `c10/cuda/CUDACachingAllocator.cpp` in
//! PyTorch: sizes in multiples of 512 bytes; for each stream a pool of blocks up to 1 MiB and one of
//! larger ones; best fit; a block is cut and joined with its neighbours inside its segment.
//!
//! ```text
//!   native       a segment is 2 MiB, 20 MiB or, from 10 MiB up, the request in multiples of 2 MiB;
//!                it goes back when nothing in it is used
//!   expandable   a segment is addresses for the whole device; pages of 2 or 20 MiB are mapped at
//!                the end of its free part, and go back one by one
//! ```
//!
//! A stream reuses its own blocks at once and no other's. Where there is no room, everything that
//! is cached goes back, and the allocation is tried once more.

use std::collections::{BTreeMap, BTreeSet};

use super::Allocator;
use super::sequence::MIB;
use crate::stream_order::Failure;

/// A block of a segment: used, free, or, in an expandable segment, without memory.
#[derive(Clone, Copy, Debug)]
struct Block {
    size: usize,
    segment: usize,
    pool: usize,
    is_used: bool,
    is_mapped: bool,
}

/// The blocks of a stream and a kind of size that are free or not mapped.
#[derive(Clone, Debug, Default)]
struct BlockPool {
    free: BTreeSet<(usize, usize)>,
    unmapped: BTreeSet<usize>,
}

/// The allocator.
#[derive(Debug)]
pub(super) struct Torch {
    is_expandable: bool,
    limit: usize,
    blocks: BTreeMap<usize, Block>,
    pools: Vec<BlockPool>,
    /// Where each segment begins.
    segments: Vec<usize>,
    next_address: usize,
    live: Vec<usize>,
    reserved: usize,
    commits: usize,
    releases: usize,
}

impl Torch {
    pub(super) fn new(is_expandable: bool, limit: usize) -> Self {
        Self {
            is_expandable,
            limit,
            blocks: BTreeMap::new(),
            pools: Vec::new(),
            segments: Vec::new(),
            next_address: 1 << 40,
            live: Vec::new(),
            reserved: 0,
            commits: 0,
            releases: 0,
        }
    }

    /// The block before and behind one, in its segment.
    fn neighbours(&self, at: usize) -> (Option<usize>, Option<usize>) {
        let Block { size, segment, .. } = self.blocks[&at];
        let before = self.blocks.range(..at).next_back();
        let behind = self.blocks.get_key_value(&(at + size));
        let same = |found: Option<(&usize, &Block)>| {
            found.filter(|(_, block)| block.segment == segment).map(|(at, _)| *at)
        };
        (same(before), same(behind))
    }

    /// Puts a block that is not used into the set where it is found.
    fn insert(&mut self, at: usize) {
        let Block { size, pool, is_mapped, .. } = self.blocks[&at];
        match is_mapped {
            true => self.pools[pool].free.insert((size, at)),
            false => self.pools[pool].unmapped.insert(at),
        };
    }

    fn remove(&mut self, at: usize) {
        let Block { size, pool, is_mapped, .. } = self.blocks[&at];
        match is_mapped {
            true => self.pools[pool].free.remove(&(size, at)),
            false => self.pools[pool].unmapped.remove(&at),
        };
    }

    /// Joins a block that is in no set with its like neighbours; where it begins now.
    fn join(&mut self, at: usize) -> usize {
        let (before, behind) = self.neighbours(at);
        let mapped = self.blocks[&at].is_mapped;
        let is_like = |block: &Block| !block.is_used && block.is_mapped == mapped;
        let (mut first, mut size) = (at, self.blocks[&at].size);
        for other in [before, behind].into_iter().flatten() {
            if is_like(&self.blocks[&other]) {
                self.remove(other);
                size += self.blocks[&other].size;
                self.blocks.remove(&other.max(first));
                first = first.min(other);
            }
        }
        if let Some(block) = self.blocks.get_mut(&first) {
            block.size = size;
        }
        first
    }

    /// Cuts a block that is in no set: what is behind `size` becomes a block of the same kind.
    fn cut(&mut self, at: usize, size: usize) {
        let Some(block) = self.blocks.get_mut(&at) else { return };
        let rest = Block { size: block.size - size, ..*block };
        block.size = size;
        if rest.size > 0 {
            self.blocks.insert(at + size, rest);
            self.insert(at + size);
        }
    }

    fn add_segment(&mut self, pool: usize, size: usize, is_mapped: bool) -> usize {
        let at = self.next_address;
        // Segments never touch, so that no block is joined with another segment's.
        self.next_address += size + MIB;
        let segment = self.segments.len();
        self.segments.push(at);
        self.blocks.insert(at, Block { size, segment, pool, is_used: false, is_mapped });
        at
    }

    /// The smallest free block that is large enough; of equal ones in expandable segments the one
    /// with the least behind it that is not mapped.
    fn find(&mut self, pool: usize, size: usize) -> Option<usize> {
        let with_rest = |&(size, at): &(usize, usize)| {
            let behind = self.neighbours(at).1.map(|behind| self.blocks[&behind]);
            size + behind.filter(|block| !block.is_mapped).map_or(0, |block| block.size)
        };
        let mut fitting = self.pools[pool].free.range((size, 0)..);
        let mut best = *fitting.next()?;
        if self.is_expandable {
            for other in fitting {
                if with_rest(other) >= with_rest(&best) {
                    break;
                }
                best = *other;
            }
        }
        self.pools[pool].free.remove(&best);
        Some(best.1)
    }

    /// Obtains memory; a block of at least `size` bytes, in no set.
    fn grow(&mut self, pool: usize, size: usize) -> Option<usize> {
        if self.is_expandable {
            return self.expand(pool, size);
        }
        let segment = match size {
            ..=SMALL => 2 * MIB,
            ..LARGE => 20 * MIB,
            _ => size.next_multiple_of(2 * MIB),
        };
        if self.reserved + segment > self.limit {
            return None;
        }
        self.reserved += segment;
        self.commits += 1;
        Some(self.add_segment(pool, segment, true))
    }

    fn expand(&mut self, pool: usize, size: usize) -> Option<usize> {
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

    /// Gives everything back that is cached: whole segments, or whole pages of expandable ones.
    fn release_cached(&mut self) {
        let free: Vec<_> = self.pools.iter().flat_map(|pool| pool.free.iter().copied()).collect();
        for (size, at) in free {
            if self.is_expandable {
                self.unmap(at, size);
            } else if self.neighbours(at) == (None, None) {
                self.remove(at);
                self.blocks.remove(&at);
                self.reserved -= size;
                self.releases += 1;
            }
        }
    }

    fn unmap(&mut self, at: usize, size: usize) {
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

impl Allocator for Torch {
    fn alloc(&mut self, block: usize, size: usize, stream: usize) -> Result<bool, Failure> {
        let size = size.next_multiple_of(512);
        let pool = stream * 2 + usize::from(size > SMALL);
        if self.pools.len() <= pool {
            self.pools.resize_with(pool + 1, BlockPool::default);
        }
        let found = self.find(pool, size).or_else(|| self.grow(pool, size)).or_else(|| {
            self.release_cached();
            self.grow(pool, size)
        });
        let Some(at) = found else { return Ok(false) };
        let rest = self.blocks[&at].size - size;
        let is_cut = if size <= SMALL || self.is_expandable { rest >= 512 } else { rest > SMALL };
        if is_cut {
            self.cut(at, size);
        }
        if let Some(taken) = self.blocks.get_mut(&at) {
            taken.is_used = true;
        }
        self.live.resize((block + 1).max(self.live.len()), 0);
        self.live[block] = at;
        Ok(true)
    }

    fn free(&mut self, block: usize) -> Result<(), Failure> {
        let at = self.live[block];
        if let Some(freed) = self.blocks.get_mut(&at) {
            freed.is_used = false;
        }
        let at = self.join(at);
        self.insert(at);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.reserved
    }

    fn calls(&self) -> (usize, usize) {
        (self.commits, self.releases)
    }
}

/// Bytes that an expandable segment maps at a time: pools of even number hold small blocks.
fn page(pool: usize) -> usize {
    if pool.is_multiple_of(2) { 2 * MIB } else { 20 * MIB }
}

const SMALL: usize = MIB;
const LARGE: usize = 10 * MIB;
