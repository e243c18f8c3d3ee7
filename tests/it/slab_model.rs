//! Sequences of operations on a pool, against a list of what is live.

use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;

use wharf::memory::UnbackedResource;
use wharf::slab::{AllocError, Block, DeallocError, PoolOptions, SlabPool};

const GRANULE: usize = 2 << 20;
const LIMIT: usize = 24 * GRANULE;

/// One operation; indices count round the list of live blocks.
#[derive(Clone, Debug)]
enum Op {
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

fn op() -> impl Strategy<Value = Op> {
    // Sizes spread over all doublings, and now and then one above the largest class.
    let size = prop_oneof![
        8 => (0_u32..24, 0_usize..1 << 24).prop_map(|(bits, low)| (1 << bits) + low % (1 << bits)),
        1 => 16_usize << 20..40 << 20,
    ];
    prop_oneof![
        8 => size.clone().prop_map(Op::Alloc),
        1 => (size.clone(), 0_u32..24).prop_map(|(size, bits)| Op::Aligned(size, bits)),
        8 => any::<usize>().prop_map(Op::Free),
        2 => size.prop_map(Op::AllocRaw),
        2 => any::<usize>().prop_map(Op::FreeRaw),
        1 => any::<usize>().prop_map(Op::FreeRawAgain),
        1 => (any::<usize>(), 1_u64..256).prop_map(|(at, by)| Op::FreeInside(at, by)),
        1 => Just(Op::Flush),
        1 => (0_usize..4).prop_map(Op::Trim),
        1 => (0_u64..4).prop_map(Op::FailCommits),
    ]
}

/// The pool, and what ought to be live in it.
struct Model {
    pool: SlabPool<UnbackedResource>,
    blocks: Vec<Block>,
    raw: Vec<(u64, usize)>,
    freed: Vec<u64>,
}

impl Model {
    fn new(thread_cache_bytes: usize) -> Self {
        let options = PoolOptions::default().max_bytes(LIMIT).thread_cache_bytes(thread_cache_bytes);
        let pool = SlabPool::new(UnbackedResource::new(4 * LIMIT).unwrap(), options).unwrap();
        Self { pool, blocks: Vec::new(), raw: Vec::new(), freed: Vec::new() }
    }

    fn run(&mut self, op: Op) {
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
                    DeallocError::NotLive { .. } | DeallocError::Stale { .. } | DeallocError::Interior { .. }
                ));
            }
            Op::FreeInside(at, by) if !self.raw.is_empty() => {
                let (block, size) = self.raw[at % self.raw.len()];
                let address = block + by;
                assert_eq!(pool.dealloc_raw(address), Err(DeallocError::Interior { address, block, size }));
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
            AllocError::Exhausted(state) => {
                assert_eq!((state.limit, state.reserved), (LIMIT, self.pool.stats().reserved));
                // What is free in empty runs was released on the way, so there is no room.
                let room = LIMIT - state.reserved;
                assert!(room < size.next_multiple_of(GRANULE) + 8 * GRANULE, "{state:?}");
            }
            AllocError::TooLarge { .. } => assert!(size > LIMIT),
            AllocError::Upstream(_) => assert!(self.pool.upstream().commits().failed() > 0),
            other => panic!("{other:?} for {size} bytes"),
        }
    }

    fn check(&self) {
        let stats = self.pool.stats();
        let mut ranges: Vec<(u64, usize)> =
            self.blocks.iter().map(|block| (block.address(), self.pool.block_size(block))).collect();
        ranges.extend(&self.raw);
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].0 + pair[0].1 as u64 <= pair[1].0, "{pair:?} overlap");
        }
        let live: usize = ranges.iter().map(|range| range.1).sum();
        assert_eq!(stats.live, live, "{stats:?}");
        assert!(stats.live + stats.cached <= stats.reserved && stats.reserved <= LIMIT);
        assert_eq!(stats.reserved, self.pool.upstream().committed());
        let by_class: usize = stats.classes.iter().map(|class| class.live).sum::<usize>() + stats.large.live;
        assert_eq!(by_class, ranges.len());
    }

    fn end(mut self) {
        for block in self.blocks.drain(..) {
            self.pool.dealloc(block).unwrap();
        }
        for (address, _) in self.raw.drain(..) {
            self.pool.dealloc_raw(address).unwrap();
        }
        self.check();
        self.pool.trim(Duration::ZERO, 0);
        assert_eq!((self.pool.stats().reserved, self.pool.upstream().committed()), (0, 0));
        let (commits, decommits) = (self.pool.upstream().commits(), self.pool.upstream().decommits());
        assert_eq!(commits.calls() - commits.failed(), decommits.calls());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pool_does_what_a_list_says(ops in vec(op(), 1..200), cached in any::<bool>()) {
        let mut model = Model::new(if cached { 4 << 20 } else { 0 });
        for op in ops {
            model.run(op);
            model.check();
        }
        model.end();
    }
}
