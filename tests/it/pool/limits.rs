//! Limits: never exceeded, and nothing refused while something is free.

#[path = "../../../examples/pool_limits/run.rs"]
mod run;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::slab::AllocError;
use wharf::{Driver, Stream};

use super::{BLOCK, SPAN, builder, context, gate, small_pool, streams};
use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(
    at_the_limit_another_streams_memory_is_waited_for_on_the_device,
    the_host_waits_if_it_may,
    a_hook_frees_something,
    a_hook_that_allocates_from_its_own_pool_is_not_asked_again,
    exhaustion_says_everything,
    caches_and_other_classes_are_reclaimed,
);

/// Runs a test on one machine of the software driver's.
fn on_softcuda_once(test: impl FnOnce(&Driver)) {
    on_machine(&Arc::new(Simulator::new(Config::default())), test);
}

#[test]
fn sixteen_threads_never_exceed_the_limit() {
    let outcome = run::limits(16, 64 << 20, |turns, refused| turns >= 500 && refused > 0).unwrap();
    assert!(outcome.blocks > 0 && outcome.refused > 0, "{outcome:?}");
}

fn at_the_limit_another_streams_memory_is_waited_for_on_the_device(driver: &Driver) {
    let context = context(driver);
    let [user, other] = streams(&context);
    let pool = small_pool(&context, 1);
    let held = gate(&user);
    let first: Buffer<u8> = pool.alloc(BLOCK, &user).unwrap();
    first.fill(1, &user).unwrap();
    drop(first);
    let second: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
    second.fill(2, &other).unwrap();
    let after = other.ticket().unwrap();
    assert!(!after.poll().unwrap(), "the second stream waits for the first");
    assert_eq!(pool.stats().cross_stream, 1);
    drop(held);
    after.wait(LONG).unwrap();
    let mut back = vec![0; BLOCK];
    second.copy_to_slice(&mut back, &other).unwrap();
    assert!(back.iter().all(|&byte| byte == 2));
}

fn the_host_waits_if_it_may(driver: &Driver) {
    let context = context(driver);
    let [user, other] = streams(&context);
    let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
    let pool = builder().max_bytes(BLOCK).wait(LONG).build(resource).unwrap();
    let take = || pool.alloc::<u8>(100_000, &user).ok();
    let small: Vec<_> = std::iter::from_fn(take).collect();
    small.iter().for_each(|piece| piece.fill(1, &user).unwrap());
    drop(small);
    // Small blocks of a slab may go to any stream, so all of them have to be complete.
    let second: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
    assert!(second.is_idle());
}

fn a_hook_frees_something(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let kept = Arc::new(Mutex::new(Vec::<Buffer<u8>>::new()));
    let (cache, calls) = (Arc::clone(&kept), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&calls);
    let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
    let options = builder().max_bytes(2 * BLOCK).on_pressure(move |pressure| {
        assert_eq!(pressure.state.size, BLOCK);
        counter.fetch_add(1, Ordering::Relaxed);
        cache.lock().unwrap().pop().is_some()
    });
    let pool: Pool = options.build(resource).unwrap();
    kept.lock().unwrap().push(pool.alloc(BLOCK, &stream).unwrap());
    let second: Buffer<u8> = pool.alloc(BLOCK, &stream).unwrap();
    let third: Buffer<u8> = pool.alloc(BLOCK, &stream).unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), pool.stats().hook), (1, 1));
    assert!(pool.alloc::<u8>(BLOCK, &stream).is_err());
    drop((second, third));
}

fn a_hook_that_allocates_from_its_own_pool_is_not_asked_again(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let own = Arc::new(Mutex::new(None::<Arc<(Pool, Stream)>>));
    let calls = Arc::new(AtomicUsize::new(0));
    let (inside, counter) = (Arc::clone(&own), Arc::clone(&calls));
    let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
    let options = builder().max_bytes(BLOCK).on_pressure(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        let own = inside.lock().unwrap().clone().unwrap();
        assert!(matches!(own.0.alloc::<u8>(BLOCK, &own.1), Err(AllocError::Exhausted(_))));
        false
    });
    let pool: Pool = options.build(resource).unwrap();
    let shared = Arc::new((pool, stream));
    *own.lock().unwrap() = Some(Arc::clone(&shared));
    let (pool, stream) = &*shared;
    let held: Buffer<u8> = pool.alloc(BLOCK, stream).unwrap();
    for asked in 1..=2 {
        assert!(pool.alloc::<u8>(BLOCK, stream).is_err());
        assert_eq!(calls.load(Ordering::Relaxed), asked, "once for each allocation from outside");
    }
    drop(held);
    *own.lock().unwrap() = None; // the hook is the pool's, so this ends the circle
}

fn exhaustion_says_everything(driver: &Driver) {
    let context = context(driver);
    let [one, two] = streams(&context);
    let pool = small_pool(&context, 3);
    let live: Buffer<u8> = pool.alloc(BLOCK, &one).unwrap();
    let (first, second) = (gate(&one), gate(&two));
    let retired: Buffer<u8> = pool.alloc(BLOCK, &one).unwrap();
    retired.slice(..BLOCK / 2).unwrap().fill(1, &one).unwrap();
    retired.slice(BLOCK / 2..).unwrap().fill(1, &two).unwrap();
    drop(retired);
    let Err(AllocError::Exhausted(state)) = pool.alloc::<u8>(3 * BLOCK, &one) else {
        panic!("not refused")
    };
    assert_eq!((state.size, state.limit, state.reserved), (3 * BLOCK, 3 * BLOCK, 2 * BLOCK));
    assert_eq!((state.live, state.retired, state.cached), (BLOCK, BLOCK, 0));
    assert!(state.largest_free >= BLOCK);
    assert!(state.to_string().contains("retired 16777216"), "{state}");
    assert_eq!(pool.stats().exhausted, 1);
    drop((live, first, second));
}

fn caches_and_other_classes_are_reclaimed(driver: &Driver) {
    let context = context(driver);
    let [one, two] = streams(&context);
    let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
    let pool = Pool::builder().max_bytes(BLOCK).build(resource).unwrap();
    // All of it in small pieces, of both streams.
    let pieces = |stream| {
        let take = || pool.alloc::<u8>(100_000, stream).ok();
        std::iter::from_fn(take).take(60).collect::<Vec<_>>()
    };
    let (first, second) = (pieces(&one), pieces(&two));
    first.iter().for_each(|piece| piece.fill(1, &one).unwrap());
    drop((first, second));
    one.synchronize().unwrap();
    // The marker behind the pieces comes with the first look.
    let whole = loop {
        if let Ok(whole) = pool.alloc::<u8>(BLOCK, &two) {
            break whole;
        }
    };
    let stats = pool.stats();
    assert!(whole.is_idle() && stats.blocks_drained >= 60, "{stats:?}");
}

#[test]
fn an_empty_pool_gives_whatever_fits_its_limit() {
    on_softcuda_once(|driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        for limit in [4 << 20, 8 << 20, 18 << 20] {
            for size in (1..=limit >> 16).map(|units| units << 16) {
                let resource = DeviceMemoryResource::new(&context, 64 << 20).unwrap();
                let pool = Pool::builder().max_bytes(limit).build(resource).unwrap();
                for _ in 0..2 {
                    let buffer = pool.alloc::<u8>(size, &stream);
                    assert_eq!(buffer.map(|buffer| buffer.len()), Ok(size), "of {limit}");
                }
            }
        }
    });
}

#[test]
fn sizes_to_the_end_of_what_can_be_counted_are_too_large() {
    on_softcuda_once(|driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = small_pool(&context, 4);
        // Large blocks that are looked through.
        drop([BLOCK, 3 * BLOCK].map(|size| pool.alloc::<u8>(size, &stream).unwrap()));
        for size in
            (0..70).flat_map(|back| [usize::MAX - back, usize::MAX / 2 - back, (1 << 63) + back])
        {
            let refused = pool.alloc::<u8>(size, &stream).unwrap_err();
            assert!(matches!(refused, AllocError::TooLarge { .. }), "{refused}");
            assert!(
                pool.alloc::<u64>(size, &stream).is_err()
                    && pool.alloc::<u16>(size / 2, &stream).is_err()
            );
            assert!(pool.prewarm(size, 1, &stream).is_err());
            assert_eq!(pool.give_back(size, &stream), Ok(0));
        }
    });
}

/// A refill of the thread's cache brings more blocks than one; those that follow come out of it.
#[test]
fn blocks_that_are_made_ready_take_the_place_of_none_in_the_threads_cache() {
    on_softcuda_once(|driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
        let pool = Pool::builder().build(resource).unwrap();
        for size in [256, 4096, 100_000] {
            assert_eq!(pool.prewarm(size, 40, &stream), Ok(40));
            assert_eq!(pool.give_back(size, &stream), Ok(40));
            assert_eq!(pool.slab_stats().live, 0, "blocks of {size} bytes were lost");
        }
        assert_eq!(pool.close(LONG), Ok(()));
    });
}
