//! A pool on addresses with nothing behind them: whatever touches a managed byte dies.

use std::collections::HashSet;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use wharf::memory::UnbackedResource;
use wharf::slab::{AllocError, Block, DeallocError, PoolError, PoolOptions, SizeClass, SlabPool};
use wharf::{CudaError, Error};

const GRANULE: usize = 2 << 20;

type Pool = SlabPool<UnbackedResource>;

fn pool_of(bytes: usize, options: PoolOptions) -> Pool {
    SlabPool::new(UnbackedResource::new(bytes).unwrap(), options).unwrap()
}

fn pool() -> Pool {
    pool_of(1 << 30, PoolOptions::default())
}

/// Everything was given back: nothing is live, cached, or committed after a trim.
fn assert_clean(pool: &Pool) {
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
        assert_eq!(pool.alloc(size), Err(AllocError::Upstream(error)));
    }
    assert_eq!((pool.stats().reserved, pool.upstream().committed()), (0, 0));
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

/// Misses in the calling thread's cache until a pool that does not grow counts as one that has stopped growing.
fn keep_quiet(pool: &Pool) {
    for _ in 0..6_000 {
        // More than a magazine holds.
        let blocks: Vec<Block> = (0..90).map(|_| pool.alloc(256).unwrap()).collect();
        blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
    }
}

#[test]
fn a_quiet_pool_takes_back_what_threads_keep_before_it_grows() {
    let resource = UnbackedResource::new(1 << 30).unwrap();
    let pool = SlabPool::new(resource, PoolOptions::default().thread_cache_bytes(64 << 20)).unwrap();
    let mut held: Vec<Block> = (0..8).map(|_| pool.alloc(1 << 20).unwrap()).collect();
    held.drain(4..).for_each(|block| pool.dealloc(block).unwrap());
    let keeps = pool.stats().classes[SizeClass::of(1 << 20).unwrap().index()].cached;
    assert_eq!(keeps, 4, "the thread keeps what it freed");

    // Two granules are in nobody's use but the cache's. A pool that grows leaves them there.
    let while_growing = pool.alloc(GRANULE).unwrap();
    let commits = pool.upstream().commits().calls();
    keep_quiet(&pool);
    assert!(pool.stats().cached > 4 << 20, "misses alone recall nothing");
    let once_quiet = [(); 2].map(|()| pool.alloc(GRANULE).unwrap());
    assert_eq!(
        pool.upstream().commits().calls() - commits,
        1,
        "one for the small blocks, and none for these"
    );
    for block in held.into_iter().chain(once_quiet).chain([while_growing]) {
        pool.dealloc(block).unwrap();
    }
    assert_clean(&pool);
}

#[test]
fn another_thread_gives_back_at_its_next_miss() {
    let resource = UnbackedResource::new(1 << 30).unwrap();
    let pool = SlabPool::new(resource, PoolOptions::default().thread_cache_bytes(64 << 20)).unwrap();
    let of_megabytes = || pool.stats().classes[SizeClass::of(1 << 20).unwrap().index()].cached;
    let (barrier, mut counts) = (Barrier::new(2), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            let blocks: Vec<Block> = (0..4).map(|_| pool.alloc(1 << 20).unwrap()).collect();
            blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
            keep_quiet(&pool);
            barrier.wait();
            barrier.wait();
            // The other thread has asked meanwhile.
            keep_quiet(&pool);
            barrier.wait();
            barrier.wait();
        });
        keep_quiet(&pool);
        barrier.wait();
        // Twice, since the last of the other's growth may be news yet.
        keep_quiet(&pool);
        counts.push(of_megabytes());
        let large = [(); 2].map(|()| pool.alloc(GRANULE).unwrap());
        counts.push(of_megabytes());
        barrier.wait();
        barrier.wait();
        counts.push(of_megabytes());
        large.into_iter().for_each(|block| pool.dealloc(block).unwrap());
        barrier.wait();
    });
    // Nobody takes from another thread's cache; its owner gives when it next misses.
    assert_eq!(counts, [4, 4, 0]);
}

#[test]
fn what_one_thread_frees_another_allocates() {
    let pool = pool();
    let (to_free, freed) = mpsc::sync_channel::<Vec<Block>>(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            for block in freed.into_iter().flatten() {
                pool.dealloc(block).unwrap();
            }
        });
        for _ in 0..2_000 {
            to_free.send((0..40).map(|_| pool.alloc(4096).unwrap()).collect()).unwrap();
        }
        drop(to_free);
    });
    // What is under way at most: two channels' worth, two magazines, a parcel.
    assert!(pool.stats().peak_reserved <= 2 * GRANULE, "{:?}", pool.stats());
    pool.flush_thread_cache();
    wait_until(|| pool.stats().cached == 0);
    assert_clean(&pool);
}

#[test]
fn a_thread_that_ends_leaves_nothing_behind() {
    let pool = pool();
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                sender.send(pool.alloc(4096).unwrap()).unwrap();
            }
            drop(sender);
        });
        let freer = scope.spawn(|| receiver.into_iter().filter_map(|block| pool.dealloc(block).ok()).count());
        assert_eq!(freer.join().unwrap(), 100);
    });
    // `scope` waits for the closures, not for the ends of the threads.
    wait_until(|| pool.stats().cached == 0);
    assert_eq!(pool.stats().live, 0);
    assert_clean(&pool);
}

/// Waits for what another thread is about to do; fails after some seconds.
fn wait_until(done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never happened");
        thread::yield_now();
    }
}

#[test]
fn more_pools_than_slots_and_pools_that_come_and_go() {
    let pools: Vec<Pool> = (0..80).map(|_| pool_of(8 << 20, PoolOptions::default())).collect();
    let blocks: Vec<Block> = pools.iter().map(|pool| pool.alloc(5000).unwrap()).collect();
    for (pool, block) in pools.iter().zip(blocks) {
        pool.dealloc(block).unwrap();
        assert_eq!(pool.stats().live, 0);
    }
    drop(pools);
    for _ in 0..200 {
        let pool = pool_of(8 << 20, PoolOptions::default());
        let addresses: HashSet<u64> = (0..40).map(|_| pool.alloc_raw(4096).unwrap()).collect();
        assert_eq!(addresses.len(), 40);
        for address in addresses {
            pool.dealloc_raw(address).unwrap();
        }
    }
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
