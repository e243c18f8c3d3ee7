//! PyTorch's caching allocator by its published rules, without memory.
//!
//! Written after the description and the constants of `c10/cuda/CUDACachingAllocator.cpp` in
//! PyTorch: sizes in multiples of 512 bytes; for each stream a pool of blocks up to 1 MiB and one
//! of larger ones; best fit; a block is cut and joined with its neighbours inside its segment.
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

mod expandable;

use std::collections::{BTreeMap, BTreeSet};

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
///
/// # Examples
///
/// ```
/// use wharf_cli::torch::Torch;
///
/// let mut native = Torch::native(1 << 30);
/// let block = native.alloc(3 << 20, 0).unwrap();
/// native.free(block);
/// assert_eq!((native.reserved(), native.live()), (20 << 20, 0));
/// ```
#[derive(Debug)]
pub struct Torch {
    is_expandable: bool,
    limit: usize,
    blocks: BTreeMap<usize, Block>,
    pools: Vec<BlockPool>,
    /// Where each segment begins.
    segments: Vec<usize>,
    next_address: usize,
    live: usize,
    reserved: usize,
    commits: usize,
    releases: usize,
}

/// A block that was given out, by its address.
#[derive(Debug)]
pub struct TorchBlock(usize);

impl Torch {
    /// The native allocator, which may obtain `limit` bytes.
    pub fn native(limit: usize) -> Self {
        Self::new(false, limit)
    }

    /// The allocator with expandable segments, which may obtain `limit` bytes.
    pub fn expandable(limit: usize) -> Self {
        Self::new(true, limit)
    }

    /// A block of `size` bytes for the stream of that number; `None` where there is no room.
    pub fn alloc(&mut self, size: usize, stream: usize) -> Option<TorchBlock> {
        let size = size.next_multiple_of(ROUND);
        let pool = stream * 2 + usize::from(size > SMALL);
        if self.pools.len() <= pool {
            self.pools.resize_with(pool + 1, BlockPool::default);
        }
        let found = self.find(pool, size).or_else(|| self.grow(pool, size)).or_else(|| {
            self.release_cached();
            self.grow(pool, size)
        });
        let at = found?;
        let rest = self.blocks[&at].size - size;
        let is_cut = if size <= SMALL || self.is_expandable { rest >= ROUND } else { rest > SMALL };
        if is_cut {
            self.cut(at, size);
        }
        if let Some(taken) = self.blocks.get_mut(&at) {
            taken.is_used = true;
            self.live += taken.size;
        }
        Some(TorchBlock(at))
    }

    /// Takes a block back.
    pub fn free(&mut self, TorchBlock(at): TorchBlock) {
        if let Some(freed) = self.blocks.get_mut(&at) {
            freed.is_used = false;
            self.live -= freed.size;
        }
        let at = self.join(at);
        self.insert(at);
    }

    /// Bytes that it has obtained and not given back.
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    /// Bytes of the blocks that are given out, as it rounds them.
    pub fn live(&self) -> usize {
        self.live
    }

    /// How often it obtained memory, and how often it gave some back.
    pub fn calls(&self) -> (usize, usize) {
        (self.commits, self.releases)
    }

    fn new(is_expandable: bool, limit: usize) -> Self {
        Self {
            is_expandable,
            limit,
            blocks: BTreeMap::new(),
            pools: Vec::new(),
            segments: Vec::new(),
            next_address: 1 << 40,
            live: 0,
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
            size if size <= SMALL => 2 * MIB,
            size if size < LARGE => 20 * MIB,
            size => size.next_multiple_of(2 * MIB),
        };
        if self.reserved + segment > self.limit {
            return None;
        }
        self.reserved += segment;
        self.commits += 1;
        Some(self.add_segment(pool, segment, true))
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
}

const MIB: usize = 1 << 20;
/// Sizes are multiples of this.
const ROUND: usize = 512;
const SMALL: usize = MIB;
const LARGE: usize = 10 * MIB;

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: usize = 1 << 40;

    #[test]
    fn segments_have_the_published_sizes() {
        for (size, native, expandable) in
            [(1, 2, 2), (MIB, 2, 2), (MIB + 1, 20, 20), (9 * MIB, 20, 20), (12 * MIB, 12, 20)]
        {
            let (mut one, mut other) = (Torch::native(NO_LIMIT), Torch::expandable(NO_LIMIT));
            one.alloc(size, 0).unwrap();
            other.alloc(size, 0).unwrap();
            assert_eq!(
                (one.reserved() / MIB, other.reserved() / MIB),
                (native, expandable),
                "{size}"
            );
            assert_eq!(one.live(), size.next_multiple_of(512));
        }
    }

    #[test]
    fn a_stream_has_its_own_blocks_again_and_no_others() {
        for make in [Torch::native, Torch::expandable] {
            let mut torch = make(NO_LIMIT);
            let block = torch.alloc(3 * MIB, 0).unwrap();
            torch.free(block);
            let _again = torch.alloc(3 * MIB, 0).unwrap();
            assert_eq!(torch.calls().0, 1);
            let _other = torch.alloc(3 * MIB, 1).unwrap();
            assert_eq!((torch.calls().0, torch.reserved()), (2, 40 * MIB));
        }
    }

    #[test]
    fn at_the_limit_what_is_cached_goes_back_first() {
        let mut torch = Torch::native(40 * MIB);
        let block = torch.alloc(30 * MIB, 0).unwrap();
        assert!(torch.alloc(20 * MIB, 1).is_none());
        torch.free(block);
        assert!(torch.alloc(20 * MIB, 1).is_some());
        assert_eq!((torch.reserved(), torch.calls().1), (20 * MIB, 1));
    }
}
