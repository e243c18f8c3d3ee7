//! Limits: never exceeded, and nothing refused while something is free.

#[path = "../../../examples/pool_limits/run.rs"]
mod run;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wharf::Driver;
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::slab::AllocError;

use super::{BLOCK, LONG, SPAN, builder, context, gate, small_pool, streams};
use crate::backend::on_each_driver;

on_each_driver!(
    at_the_limit_another_streams_memory_is_waited_for_on_the_device,
    the_host_waits_if_it_may,
    a_hook_frees_something,
    exhaustion_says_everything,
    caches_and_other_classes_are_reclaimed,
);

#[test]
fn sixteen_threads_never_exceed_the_limit() {
    let outcome = run::limits(16, Duration::from_secs(2), 64 << 20).unwrap();
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
    let first: Buffer<u8> = pool.alloc(BLOCK, &user).unwrap();
    first.fill(1, &user).unwrap();
    first.fill(1, &other).unwrap();
    drop(first);
    // Of two streams, so it can be nobody's before both are done.
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

fn exhaustion_says_everything(driver: &Driver) {
    let context = context(driver);
    let [one, two] = streams(&context);
    let pool = small_pool(&context, 3);
    let live: Buffer<u8> = pool.alloc(BLOCK, &one).unwrap();
    let (first, second) = (gate(&one), gate(&two));
    let retired: Buffer<u8> = pool.alloc(BLOCK, &one).unwrap();
    retired.fill(1, &one).unwrap();
    retired.fill(1, &two).unwrap();
    drop(retired);
    let Err(AllocError::Exhausted(state)) = pool.alloc::<u8>(2 * BLOCK, &one) else { panic!("not refused") };
    assert_eq!((state.size, state.limit, state.reserved), (2 * BLOCK, 3 * BLOCK, 2 * BLOCK));
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
    assert!(whole.is_idle() && pool.stats().retried + pool.stats().caches > 0);
}
