//! Operations on a pool, and a list of what is live to hold against it.

use std::time::Duration;

use wharf::memory::UnbackedResource;
use wharf::slab::{AllocError, Block, DeallocError, PoolOptions, SlabPool};

const GRANULE: usize = 2 << 20;
const LIMIT: usize = 24 * GRANULE;

/// One operation; indices count round the list of live blocks.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Alloc(usize),
    Aligned(usize, u32),
    Free(usize),
    AllocRaw(usize),
    FreeRaw(usize),
    FreeRawAgain(usize),
    FreeInside(usize, u64),
    Flush,
    Trim(usize),
    FailCommits(u64),
}

/// The pool, and what ought to be live in it.
pub(crate) struct Model {
    pool: SlabPool<UnbackedResource>,
    blocks: Vec<Block>,
    raw: Vec<(u64, usize)>,
    freed: Vec<u64>,
}

impl Model {
    pub(crate) fn new(thread_cache_bytes: usize) -> Self {
        let options =
            PoolOptions::default().max_bytes(LIMIT).thread_cache_bytes(thread_cache_bytes);
        let pool = SlabPool::new(UnbackedResource::new(4 * LIMIT).unwrap(), options).unwrap();
        Self { pool, blocks: Vec::new(), raw: Vec::new(), freed: Vec::new() }
    }

    pub(crate) fn run(&mut self, op: Op) {
        let pool = &self.pool;
        match op {
            Op::Alloc(size) => match pool.alloc(size) {
                Ok(block) => self.add(block, size),
                Err(error) => self.refused(error, size),
            },
            Op::Aligned(size, bits) => match pool.alloc_aligned(size, 1 << bits) {
                Ok(block) => {
                    assert!(block.address().is_multiple_of(1 << bits));
                    self.add(block, size);
                }
                Err(error) => self.refused(error, size.max(1 << bits)),
            },
            Op::Free(at) if !self.blocks.is_empty() => {
                let block = self.blocks.swap_remove(at % self.blocks.len());
                pool.dealloc(block).unwrap();
            }
            Op::AllocRaw(size) => {
                if let Ok(address) = pool.alloc_raw(size) {
                    let info = pool.block_at(address).unwrap();
                    assert!(info.raw && info.taken && info.address == address && info.size >= size);
                    self.freed.retain(|&freed| freed != address);
                    self.raw.push((address, info.size));
                }
            }
            Op::FreeRaw(at) if !self.raw.is_empty() => {
                let (address, _) = self.raw.swap_remove(at % self.raw.len());
                pool.dealloc_raw(address).unwrap();
                self.freed.push(address);
            }
            Op::FreeRawAgain(at) if !self.freed.is_empty() => {
                let address = self.freed[at % self.freed.len()];
                let refused = pool.dealloc_raw(address).unwrap_err();
                assert!(matches!(
                    refused,
                    DeallocError::NotLive { .. }
                        | DeallocError::Stale { .. }
                        | DeallocError::Interior { .. }
                ));
            }
            Op::FreeInside(at, by) if !self.raw.is_empty() => {
                let (block, size) = self.raw[at % self.raw.len()];
                let address = block + by;
                assert_eq!(
                    pool.dealloc_raw(address),
                    Err(DeallocError::Interior { address, block, size })
                );
            }
            Op::Flush => pool.flush_thread_cache(),
            Op::Trim(keep) => drop(pool.trim(Duration::ZERO, keep * GRANULE)),
            Op::FailCommits(one_in) => pool.upstream().commits().fail_one_in(one_in),
            Op::Free(_) | Op::FreeRaw(_) | Op::FreeRawAgain(_) | Op::FreeInside(..) => {}
        }
    }

    fn add(&mut self, block: Block, size: usize) {
        assert!(self.pool.block_size(&block) >= size);
        assert!(block.address().is_multiple_of(256));
        self.freed.retain(|&freed| freed != block.address());
        self.blocks.push(block);
    }

    /// An allocation may fail for a reason only.
    fn refused(&self, error: AllocError, size: usize) {
        match error {
            AllocError::Exhausted(state) if state.cause.is_some() => {
                assert!(self.pool.upstream().commits().failed() > 0);
            }
            AllocError::Exhausted(state) => {
                assert_eq!((state.limit, state.reserved), (LIMIT, self.pool.stats().reserved));
                // What is free in empty runs was released on the way, so there is no room.
                let room = LIMIT - state.reserved;
                assert!(room < size.next_multiple_of(GRANULE), "{state:?}");
            }
            AllocError::TooLarge { .. } => assert!(size > LIMIT),
            other => panic!("{other:?} for {size} bytes"),
        }
    }

    pub(crate) fn check(&self) {
        let stats = self.pool.stats();
        let mut ranges: Vec<(u64, usize)> = self
            .blocks
            .iter()
            .map(|block| (block.address(), self.pool.block_size(block)))
            .collect();
        ranges.extend(&self.raw);
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 as u64 <= pair[1].0, "{pair:?} overlap");
        }
        let live: usize = ranges.iter().map(|range| range.1).sum();
        assert_eq!(stats.live, live, "{stats:?}");
        assert!(stats.live + stats.cached <= stats.reserved && stats.reserved <= LIMIT);
        assert_eq!(stats.reserved, self.pool.upstream().committed());
        let by_class: usize =
            stats.classes.iter().map(|class| class.live).sum::<usize>() + stats.large.live;
        assert_eq!(by_class, ranges.len());
    }

    pub(crate) fn end(mut self) {
        for block in self.blocks.drain(..) {
            self.pool.dealloc(block).unwrap();
        }
        for (address, _) in self.raw.drain(..) {
            self.pool.dealloc_raw(address).unwrap();
        }
        self.check();
        self.pool.trim(Duration::ZERO, 0);
        assert_eq!((self.pool.stats().reserved, self.pool.upstream().committed()), (0, 0));
        let (commits, decommits) =
            (self.pool.upstream().commits(), self.pool.upstream().decommits());
        assert_eq!(commits.calls() - commits.failed(), decommits.calls());
    }
}
