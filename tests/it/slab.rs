//! A pool on addresses with nothing behind them: whatever touches a managed byte dies.

use std::time::Duration;

use wharf::memory::{MemoryResource, UnbackedResource};
use wharf::slab::{AllocError, Block, DeallocError, PoolError, PoolOptions, SizeClass, SlabPool};
use wharf::{CudaError, Error, ErrorKind};

pub(crate) const GRANULE: usize = 2 << 20;

pub(crate) type Pool = SlabPool<UnbackedResource>;

pub(crate) fn pool_of(bytes: usize, options: PoolOptions) -> Pool {
    SlabPool::new(UnbackedResource::new(bytes).unwrap(), options).unwrap()
}

pub(crate) fn pool() -> Pool {
    pool_of(1 << 30, PoolOptions::default())
}

/// Everything was given back: nothing is live, cached, or committed after a trim.
pub(crate) fn assert_clean(pool: &Pool) {
    pool.trim(Duration::ZERO, 0);
    let stats = pool.stats();
    assert_eq!((stats.live, stats.cached, stats.reserved), (0, 0, 0), "{stats:?}");
    assert_eq!(pool.upstream().committed(), 0);
}

#[test]
fn blocks_do_not_overlap_and_all_come_back() {
    let pool = pool();
    let sizes = (0..2000).map(|i: usize| 1 + i.wrapping_mul(7919) % 300_000);
    let blocks: Vec<Block> = sizes.clone().map(|size| pool.alloc(size).unwrap()).collect();
    let mut ranges: Vec<(u64, u64)> =
        blocks.iter().map(|block| (block.address(), pool.block_size(block) as u64)).collect();
    for (size, (_, block_size)) in sizes.zip(&ranges) {
        assert!(*block_size >= size as u64);
    }
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    let live: u64 = ranges.iter().map(|range| range.1).sum();
    assert_eq!(pool.stats().live as u64, live);
    for block in blocks {
        pool.dealloc(block).unwrap();
    }
    assert_eq!(pool.stats().live, 0);
    assert_clean(&pool);
}

#[test]
fn every_size_wastes_at_most_a_fifth() {
    let pool = pool_of(2 << 30, PoolOptions::default());
    let (mut wasted, mut count, mut asked) = (0.0, 0, 2048);
    while asked <= 64 << 20 {
        let block = pool.alloc(asked).unwrap();
        let waste = 1.0 - asked as f64 / pool.block_size(&block) as f64;
        assert!(waste <= 0.2, "{asked} bytes waste {waste}");
        pool.dealloc(block).unwrap();
        // A trim, so that no longer idle run stands in and none is in the way.
        pool.trim(Duration::ZERO, 0);
        wasted += waste;
        count += 1;
        // A thousandth larger each time.
        asked += asked / 1000;
    }
    let mean = wasted / f64::from(count);
    println!("mean waste {mean:.4} over {count} sizes");
    assert!(mean < 0.09, "{mean}");
    assert_clean(&pool);
}

/// A thread without a cache has no slab of its own: what it used last may be in another pool.
#[test]
fn the_slab_that_a_thread_used_last_is_not_looked_for_in_another_pool() {
    let uncached = PoolOptions::default().thread_cache_bytes(0);
    let (large, small) = (pool_of(64 << 20, uncached), pool_of(2 * GRANULE, uncached));
    for size in [256, 1024, 4096, 16384] {
        let of_large: Vec<Block> =
            (0..(24 << 20) / size / 4).map(|_| large.alloc(size).unwrap()).collect();
        let block = small.alloc(size).unwrap();
        let (base, len) = (small.upstream().base(), 2 * GRANULE as u64);
        assert!((base..base + len).contains(&block.address()), "{block:?}");
        small.dealloc(block).unwrap();
        of_large.into_iter().for_each(|block| large.dealloc(block).unwrap());
    }
    assert_clean(&large);
    assert_clean(&small);
}

#[test]
fn alignment_on_request() {
    let pool = pool();
    for align in (0..=26).map(|bits| 1_usize << bits) {
        for size in [1, 300, 5000, 3 << 20, 40 << 20] {
            let block = pool.alloc_aligned(size, align).unwrap();
            assert!(block.address().is_multiple_of(align.max(256) as u64), "{block:?} {align}");
            assert!(pool.block_size(&block) >= size);
            pool.dealloc(block).unwrap();
        }
    }
    assert!(matches!(pool.alloc_aligned(1, 3), Err(AllocError::Unaligned { align: 3, .. })));
    assert!(matches!(pool.alloc_aligned(1, 1 << 62), Err(AllocError::Unaligned { .. })));
    assert_clean(&pool);
}

#[test]
fn the_limit_holds_and_freeing_helps() {
    let pool = pool_of(1 << 30, PoolOptions::default().max_bytes(4 * GRANULE));
    let blocks: Vec<Block> = std::iter::from_fn(|| pool.alloc(1 << 20).ok()).collect();
    assert_eq!(blocks.len(), 8);
    let Err(AllocError::Exhausted(state)) = pool.alloc(1 << 20) else { panic!("no room was left") };
    assert_eq!((state.limit, state.reserved, state.live), (8 << 20, 8 << 20, 8 << 20));
    assert!(matches!(pool.alloc(64 << 20), Err(AllocError::Exhausted(_))));
    assert!(matches!(pool.alloc(2 << 30), Err(AllocError::TooLarge { .. })));
    for block in blocks {
        pool.dealloc(block).unwrap();
    }
    pool.flush_thread_cache();
    // The empty slabs of one class make room for a run, without a trim.
    let large = pool.alloc(8 << 20).unwrap();
    assert!(pool.alloc(256).is_err());
    pool.dealloc(large).unwrap();
    let small = pool.alloc(256).unwrap();
    pool.dealloc(small).unwrap();
    assert_eq!(pool.stats().peak_reserved, 4 * GRANULE);
    assert_clean(&pool);
}

#[test]
fn wrong_addresses_are_named() {
    let (pool, other) = (pool(), pool());
    let address = pool.alloc_raw(1000).unwrap();
    let handle = pool.alloc(1000).unwrap();
    assert_eq!(
        pool.dealloc_raw(address + 8),
        Err(DeallocError::Interior { address: address + 8, block: address, size: 1024 })
    );
    assert_eq!(other.dealloc_raw(address), Err(DeallocError::WrongPool { address }));
    assert_eq!(pool.dealloc_raw(8), Err(DeallocError::Foreign { address: 8 }));
    assert_eq!(
        pool.dealloc_raw(handle.address()),
        Err(DeallocError::NotLive { address: handle.address(), size: 1024 })
    );
    let info = pool.block_at(address + 1023).unwrap();
    assert_eq!((info.address, info.size, info.taken, info.raw), (address, 1024, true, true));
    pool.dealloc_raw(address).unwrap();
    assert_eq!(pool.dealloc_raw(address), Err(DeallocError::NotLive { address, size: 1024 }));
    let handle = other.dealloc(handle).unwrap_err().0;
    pool.dealloc(handle).unwrap();
    pool.trim(Duration::ZERO, 0);
    assert_eq!(pool.dealloc_raw(address), Err(DeallocError::Stale { address }));
    let large = pool.alloc_raw(50 << 20).unwrap();
    assert_eq!(pool.block_at(large + (20 << 20)).unwrap().size, 50 << 20);
    pool.dealloc_raw(large).unwrap();
    assert!(matches!(pool.dealloc_raw(large), Err(DeallocError::NotLive { .. })));
    assert_clean(&pool);
}

#[test]
fn a_failed_commit_changes_nothing() {
    let pool = pool();
    pool.upstream().commits().fail_one_in(1);
    for size in [300, 3 << 20, 40 << 20] {
        let error = Error::Driver { call: "commit", code: CudaError::OUT_OF_MEMORY };
        let refused = pool.alloc(size).unwrap_err();
        assert!(
            matches!(refused, AllocError::Exhausted(state) if state.cause == Some(error)),
            "{refused}"
        );
        assert!(refused.to_string().ends_with(&format!(": {error}")), "{refused}");
    }
    assert_eq!((pool.stats().reserved, pool.upstream().committed()), (0, 0));
    assert_eq!(pool.stats().peak_reserved, 0, "what was not reached is no peak");
    pool.upstream().commits().fail_one_in(0);
    let block = pool.alloc(300).unwrap();
    pool.dealloc(block).unwrap();
    pool.flush_thread_cache();
    pool.upstream().decommits().fail_one_in(1);
    let trimmed = pool.trim(Duration::ZERO, 0);
    assert_eq!((trimmed.released, trimmed.lost), (0, GRANULE));
    assert_eq!((pool.stats().reserved, pool.stats().lost), (GRANULE, GRANULE));
    // Its addresses are not used again.
    let other = pool.alloc(300).unwrap();
    assert!(other.address() >= block_end(&pool));
    pool.dealloc(other).unwrap();
}

/// The end of the first granule of a pool's span.
fn block_end(pool: &Pool) -> u64 {
    use wharf::memory::MemoryResource;
    pool.upstream().base() + GRANULE as u64
}

#[test]
fn trim_waits_and_keeps() {
    let pool = pool();
    let blocks: Vec<Block> = (0..6).map(|_| pool.alloc(2 << 20).unwrap()).collect();
    for block in blocks {
        pool.dealloc(block).unwrap();
    }
    let hour = Duration::from_secs(3600);
    assert_eq!(pool.trim(hour, 0).released, 0);
    assert_eq!(pool.trim(Duration::ZERO, 4 * GRANULE).released, 2 * GRANULE);
    assert_eq!(pool.stats().empty, 4 * GRANULE);
    assert_clean(&pool);
}

#[test]
fn an_empty_slab_changes_class() {
    let pool = pool();
    let large = pool.alloc(GRANULE).unwrap();
    let address = large.address();
    pool.dealloc(large).unwrap();
    pool.flush_thread_cache();
    let other = pool.alloc(500_000).unwrap();
    assert_eq!(other.address(), address);
    assert_eq!(pool.upstream().commits().calls(), 1);
    pool.dealloc(other).unwrap();
    assert_clean(&pool);
}

#[test]
fn classes_share_a_granule_and_leave_it_whole() {
    let pool = pool();
    let sizes = [256, 5_000, 128 << 10, 500_000, 700_000];
    let small: Vec<Block> = sizes.iter().map(|size| pool.alloc(*size).unwrap()).collect();
    assert_eq!(pool.upstream().commits().calls(), 1);
    for block in small {
        pool.dealloc(block).unwrap();
    }
    pool.flush_thread_cache();
    // The empty slabs are neighbours, and become one run.
    let large = pool.alloc(GRANULE).unwrap();
    assert_eq!(pool.upstream().commits().calls(), 1);
    pool.dealloc(large).unwrap();
    assert_clean(&pool);
}

#[test]
fn a_pool_dropped_with_live_blocks_keeps_its_span() {
    let pool = pool_of(8 << 20, PoolOptions::default());
    let block = pool.alloc(5000).unwrap();
    let address = block.address();
    drop(pool);
    // The span is still mapped, so nothing new can be there.
    let other = pool_of(8 << 20, PoolOptions::default());
    use wharf::memory::MemoryResource;
    let (base, size) = (other.upstream().base(), other.upstream().size() as u64);
    assert!(!(base..base + size).contains(&address));
}

#[test]
fn local_caches_and_bundles() {
    let pool = pool();
    let mut cache = pool.local_cache();
    let block = cache.alloc(4096).unwrap();
    pool.dealloc(block).unwrap();
    let block = pool.alloc(4096).unwrap();
    cache.dealloc(block).unwrap();
    drop(cache);
    let bundle = pool.alloc_bundle(&[1000, 0, 256, 257]).unwrap();
    assert_eq!(bundle.parts, [0, 1024, 1024, 1280]);
    assert_eq!(bundle.block.class(), SizeClass::of(1792));
    pool.dealloc(bundle.block).unwrap();
    assert!(matches!(pool.alloc_bundle(&[usize::MAX, 1]), Err(AllocError::TooLarge { .. })));
    assert_clean(&pool);
}

#[test]
fn options_that_make_no_pool() {
    let make = |granule| {
        let resource = UnbackedResource::new(8 << 20).unwrap();
        SlabPool::new(resource, PoolOptions::default().granule(granule)).map(drop)
    };
    assert_eq!(make(4 << 20), Ok(()));
    for granule in [0, 3 << 20, 1 << 20, 8 << 20] {
        assert_eq!(make(granule), Err(PoolError::Granule { granule, granularity: GRANULE }));
    }
}

#[test]
fn an_empty_pool_gives_whatever_fits_its_limit() {
    for limit in [4 << 20, 8 << 20, 18 << 20] {
        for size in (1..=limit >> 16).map(|units| units << 16) {
            let pool = SlabPool::new(
                UnbackedResource::new(64 << 20).unwrap(),
                PoolOptions::default().max_bytes(limit),
            )
            .unwrap();
            let block =
                pool.alloc(size).unwrap_or_else(|error| panic!("{size} of {limit}: {error}"));
            assert!(pool.block_size(&block) >= size);
            let mut cache = pool.local_cache();
            cache.dealloc(block).unwrap();
            let block = cache.alloc(size).unwrap();
            pool.dealloc(block).unwrap();
            drop(cache);
            assert_clean(&pool);
        }
    }
}

#[test]
fn what_the_caller_keeps_is_given_back_before_it_is_refused() {
    let pool =
        SlabPool::new(UnbackedResource::new(1 << 30).unwrap(), PoolOptions::default()).unwrap();
    let whole = |small: usize| {
        pool.dealloc(pool.alloc(small).unwrap()).unwrap();
        assert!(pool.stats().cached > 0);
        pool.dealloc(pool.alloc(1 << 30).unwrap()).unwrap();
    };
    whole(100);
    whole(512 << 10);
    // A cache that its owner holds is the caller's own too.
    let mut cache = pool.local_cache();
    cache.dealloc(pool.alloc(100).unwrap()).unwrap();
    let small = cache.alloc(100).unwrap();
    cache.dealloc(small).unwrap();
    let all = cache.alloc(1 << 30).unwrap();
    let refused = cache.alloc(100).unwrap_err();
    assert!(matches!(refused, AllocError::Exhausted(state) if state.cached == 0), "{refused}");
    cache.dealloc(all).unwrap();
    drop(cache);
    assert_clean(&pool);
}

#[test]
fn a_limit_below_a_granule_is_refused_by_name() {
    for limit in [0, 1, GRANULE - 1] {
        let resource = UnbackedResource::new(64 << 20).unwrap();
        let refused = SlabPool::new(resource, PoolOptions::default().max_bytes(limit)).unwrap_err();
        assert_eq!(refused, PoolError::Limit { limit, granule: GRANULE });
        assert!(refused.to_string().contains("max_bytes"), "{refused}");
    }
}

/// Tables take memory where the span is used, but a system may refuse them before.
#[test]
fn a_span_whose_tables_there_is_no_memory_for_is_an_error() {
    let Ok(resource) = UnbackedResource::new(96 << 40) else { return };
    match SlabPool::new(resource, PoolOptions::default()) {
        Ok(pool) => pool.dealloc(pool.alloc(1000).unwrap()).unwrap(),
        Err(refused) => {
            assert_eq!(refused, PoolError::Tables { size: 96 << 40 });
            assert_eq!(refused.kind(), ErrorKind::OutOfMemory);
            assert!(refused.to_string().contains("make the span smaller"), "{refused}");
        }
    }
}

#[test]
fn sizes_to_the_end_of_what_can_be_counted_are_too_large() {
    let pool = pool();
    for size in
        (0..70).flat_map(|back| [usize::MAX - back, usize::MAX / 2 - back, (1 << 63) + back])
    {
        let refused = |outcome| matches!(outcome, Err(AllocError::TooLarge { .. }));
        assert!(refused(pool.alloc(size)) && refused(pool.alloc_aligned(size, 4096)), "{size:#x}");
        assert!(
            refused(pool.local_cache().alloc(size))
                && refused(pool.alloc_raw(size).map(|_| unreachable!()))
        );
    }
    assert_clean(&pool);
}
