//! Threads and their caches of a pool: what they keep, when they free it, how they end.

use std::collections::HashSet;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use wharf::memory::UnbackedResource;
use wharf::slab::{Block, PoolOptions, SizeClass, SlabPool};

use crate::slab::{GRANULE, Pool, assert_clean, pool, pool_of};

/// Misses in the calling thread's cache until a pool that does not grow counts as one that has
/// stopped growing.
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
    let pool =
        SlabPool::new(resource, PoolOptions::default().thread_cache_bytes(64 << 20)).unwrap();
    let mut held: Vec<Block> = (0..8).map(|_| pool.alloc(1 << 20).unwrap()).collect();
    held.drain(4..).for_each(|block| pool.dealloc(block).unwrap());
    let keeps = pool.stats().classes[SizeClass::of(1 << 20).unwrap().index()].cached;
    assert_eq!(keeps, 4, "the thread keeps what it freed");

    // Two granules are in use by the cache alone. A pool that grows leaves them there.
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
    let resource = UnbackedResource::new(4 << 30).unwrap();
    let pool =
        SlabPool::new(resource, PoolOptions::default().thread_cache_bytes(64 << 20)).unwrap();
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
    // No thread takes from another's cache; its owner gives when it next misses.
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
    // What is under way at most: two channels' worth, two magazines, a batch of the transfer cache.
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
        let freer = scope
            .spawn(|| receiver.into_iter().filter_map(|block| pool.dealloc(block).ok()).count());
        assert_eq!(freer.join().unwrap(), 100);
    });
    // `scope` waits for the closures, not for the ends of the threads.
    wait_until(|| pool.stats().cached == 0);
    assert_eq!(pool.stats().live, 0);
    assert_clean(&pool);
}

/// Waits for what another thread is about to do; fails after ten minutes.
fn wait_until(done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(600), "it never happened");
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
fn idle_threads_hold_a_part_of_the_pool_at_most() {
    const THREADS: usize = 128;
    let limit = 1 << 30;
    let resource = UnbackedResource::new(limit).unwrap();
    let pool = SlabPool::new(resource, PoolOptions::default().max_bytes(limit)).unwrap();
    let (filled, done) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for class in SizeClass::all() {
                    let take = || pool.alloc(class.block_size()).unwrap();
                    let blocks: [Block; 4] = std::array::from_fn(|_| take());
                    blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
                }
                filled.wait();
                done.wait();
            });
        }
        filled.wait();
        // All threads are idle, and keep what they freed last; some lies in the transfer cache.
        assert!(pool.stats().cached <= limit / 6, "{} bytes", pool.stats().cached);
        let blocks: Vec<Block> = std::iter::from_fn(|| pool.alloc(1 << 20).ok()).collect();
        assert!(blocks.len() >= 840, "{} of 1024 blocks of 1 MiB", blocks.len());
        blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
        done.wait();
    });
}
