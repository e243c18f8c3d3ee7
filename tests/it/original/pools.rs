//! Pools: the interface, the simple one, tiers, forecasts.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use wharf::element::DType;
use wharf::forecast::{Forecast, Frequency, Plan, Run, WarmSet};
use wharf::manager::{AllocateError, BufferPool, BufferSpec, SimplePool};
use wharf::memory::{DeviceMemoryResource, MemoryKind};
use wharf::pool::{BlockPrewarm, Buffer};
use wharf::slab::{Block, PoolOptions, SlabPool};
use wharf::tier::{Tier, TieredObject, TieredPool};
use wharf::{Context, Driver, Stream};

use super::{SPAN, bytes, context_and_stream, device_pool};
use crate::backend::{binder, on_each_driver};
use crate::deadline::LONG;
use crate::graph_rig::Gate;
use crate::memory_kinds::{memory_file, pattern};

on_each_driver!(
    buffer_pool_is_implemented_by_every_pool,
    simple_buffer_pool_keeps_its_limit_under_any_interleaving,
    simple_buffer_pool_keeps_its_limit_when_nothing_is_free,
    simple_buffer_pool_gives_up_nothing_that_the_device_reads,
    simple_buffer_pool_serves_a_class_of_sizes,
    simple_buffer_pool_does_not_lock_others_out,
    hierarchical_buffer_pool_moves_objects_up_and_down,
    predictive_buffer_manager_has_what_is_forecast_free_for_use,
    predictive_buffer_manager_gives_back_what_is_not_forecast_any_more,
);

fn simple(context: &Context, max_buffers: usize) -> SimplePool {
    SimplePool::new(DeviceMemoryResource::new(context, SPAN).unwrap(), max_buffers).unwrap()
}

/// The three verbs, whatever is behind them; a buffer of one pool is not another's.
fn verbs<B: Debug>(
    pool: &dyn BufferPool<Buffer = B>,
    other: &dyn BufferPool<Buffer = B>,
    stream: &Stream,
) {
    let spec = BufferSpec::new(&[4, 250], DType::F32, MemoryKind::Device).unwrap();
    let buffer = pool.allocate(&spec, stream).unwrap();
    let refused = other.release(buffer).unwrap_err();
    pool.release(refused.0).unwrap();
    pool.clear();
    let mut unbacked = spec;
    unbacked.kind = MemoryKind::Unbacked;
    for elsewhere in [spec.on(7), unbacked] {
        assert_eq!(pool.allocate(&elsewhere, stream).err(), Some(AllocateError::Place(elsewhere)));
    }
    let huge = BufferSpec::new(&[usize::MAX, 2], DType::U8, MemoryKind::Device).unwrap();
    assert!(matches!(pool.allocate(&huge, stream), Err(AllocateError::Spec(_))));
    pool.release(pool.allocate(&spec, stream).unwrap()).unwrap();
}

fn buffer_pool_is_implemented_by_every_pool(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let pools: [Box<dyn BufferPool<Buffer = Buffer<u8>>>; 2] =
        [Box::new(device_pool(&context)), Box::new(simple(&context, 10))];
    verbs(&*pools[0], &*pools[1], &stream);
    verbs(&*pools[1], &*pools[0], &stream);
    let tiers = || TieredPool::builder(&context).device(2 << 20).pinned(8 << 20).build().unwrap();
    let tiers: [Box<dyn BufferPool<Buffer = TieredObject>>; 2] =
        [Box::new(tiers()), Box::new(tiers())];
    verbs(&*tiers[0], &*tiers[1], &stream);
    let slabs = || {
        let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
        SlabPool::new(resource, PoolOptions::default()).unwrap()
    };
    let slabs: [Box<dyn BufferPool<Buffer = Block>>; 2] = [Box::new(slabs()), Box::new(slabs())];
    verbs(&*slabs[0], &*slabs[1], &stream);
}

/// The original drops its lock between an eviction and the insertion, so that two threads pass the
/// limit.
fn simple_buffer_pool_keeps_its_limit_under_any_interleaving(driver: &Driver) {
    const LIMIT: usize = 3;
    let (context, _) = context_and_stream(driver);
    let (pool, held, refused) = (simple(&context, LIMIT), AtomicUsize::new(0), AtomicUsize::new(0));
    let bind = binder();
    thread::scope(|scope| {
        for seed in 0..8 {
            let (pool, held, refused, bind, context) = (&pool, &held, &refused, &bind, &context);
            scope.spawn(move || {
                let _bound = bind();
                let stream = Stream::new(context).unwrap();
                for round in 0..60 {
                    // Sizes of different classes, so that others are given up for them.
                    let Ok(buffer) = pool.allocate(&bytes(1000 << ((round + seed) % 7)), &stream)
                    else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    assert!(held.fetch_add(1, Ordering::SeqCst) < LIMIT);
                    assert!(pool.pool().blocks().len() <= LIMIT, "{:?}", pool.pool().blocks());
                    thread::yield_now();
                    held.fetch_sub(1, Ordering::SeqCst);
                    pool.release(buffer).unwrap();
                }
            });
        }
    });
    // Three of the eight always had room.
    assert!(refused.load(Ordering::Relaxed) < 8 * 60, "no thread was served");
}

/// The original ignores the limit when it has nothing to give up.
fn simple_buffer_pool_keeps_its_limit_when_nothing_is_free(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let pool = simple(&context, 2);
    let held = [1000, 2000].map(|len| pool.allocate(&bytes(len), &stream).unwrap());
    let error = pool.allocate(&bytes(1000), &stream).unwrap_err();
    assert!(error.to_string().contains("2 blocks"), "{error}");
    drop(held);
    pool.allocate(&bytes(1000), &stream).unwrap();
}

/// The original gives up the oldest that is free on the host, whatever the device does with it.
fn simple_buffer_pool_gives_up_nothing_that_the_device_reads(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let other = Stream::new(&context).unwrap();
    let pool = simple(&context, 1);
    let gate = Gate::close(&stream);
    let read = pool.allocate(&bytes(1000), &stream).unwrap();
    read.fill(7, &stream).unwrap();
    let address = read.info().address;
    pool.release(read).unwrap();
    assert!(pool.allocate(&bytes(100_000), &other).is_err(), "the device reads the only one");
    assert_eq!(pool.pool().blocks()[0].address, address);
    gate.open();
    stream.synchronize().unwrap();
    let start = Instant::now();
    while pool.allocate(&bytes(100_000), &other).is_err() {
        assert!(start.elapsed() < LONG, "the device is done with it");
        pool.clear();
    }
}

/// The original matches shapes exactly.
fn simple_buffer_pool_serves_a_class_of_sizes(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let pool = simple(&context, 1);
    let of = |shape: &[usize], dtype| BufferSpec::new(shape, dtype, MemoryKind::Device).unwrap();
    let first = pool.allocate(&of(&[10, 100], DType::U8), &stream).unwrap();
    let address = first.info().address;
    pool.release(first).unwrap();
    let second = pool.allocate(&of(&[249], DType::F32), &stream).unwrap();
    assert_eq!((second.info().address, second.info().generation), (address, 2));
}

/// The original has one lock round everything: who waits inside it holds all others up.
fn simple_buffer_pool_does_not_lock_others_out(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let (inside, entered) = channel::<()>();
    let (open, closed) = channel::<()>();
    let closed = std::sync::Mutex::new(closed);
    // A thread that stays in the middle of an allocation that the pool refuses.
    let builder = wharf::pool::Pool::builder().max_bytes(4 << 20).on_pressure(move |_| {
        inside.send(()).unwrap();
        closed.lock().unwrap().recv().unwrap();
        false
    });
    let pool = builder.build(DeviceMemoryResource::new(&context, SPAN).unwrap()).unwrap();
    let own = pool.allocate(&bytes(1000), &stream).unwrap();
    let bind = binder();
    thread::scope(|scope| {
        let (pool, context) = (&pool, &context);
        let stuck = scope.spawn(move || {
            let _bound = bind();
            let stream = Stream::new(context).unwrap();
            pool.allocate(&bytes(4 << 20), &stream).is_err()
        });
        entered.recv_timeout(LONG).unwrap();
        // Meanwhile others allocate and release.
        pool.release(own).unwrap();
        for _ in 0..100 {
            pool.release(pool.allocate(&bytes(1000), &stream).unwrap()).unwrap();
        }
        open.send(()).unwrap();
        assert!(stuck.join().unwrap());
    });
}

/// The original promises promotion and demotion, and has none.
fn hierarchical_buffer_pool_moves_objects_up_and_down(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let builder = TieredPool::builder(&context).device(2 << 20).managed(2 << 20).pinned(2 << 20);
    let pool = builder.file(memory_file(), 8 << 20).wait(LONG).build().unwrap();
    let spec = BufferSpec::new(&[1 << 20], DType::U8, MemoryKind::Pinned).unwrap();
    let mut objects = Vec::new();
    for seed in 0..5_u8 {
        let mut object = pool.allocate(&spec, &stream).unwrap();
        assert_eq!(object.tier(), Tier::Pinned);
        object
            .pin_mut(Tier::Pinned, &stream)
            .unwrap()
            .copy_from_slice(&pattern(seed, 1 << 20))
            .unwrap();
        objects.push(object);
    }
    // No call asked for it: the first ones made room in pinned memory.
    assert!(objects.iter().any(|object| object.tier() == Tier::FileMapped), "{objects:?}");
    for (seed, object) in (0..).zip(&objects) {
        let held = object.pin(Tier::Device, &stream).unwrap();
        assert_eq!(object.tier(), Tier::Device);
        let mut back = vec![0; 1 << 20];
        held.copy_to_slice(&mut back).unwrap();
        assert!(back == pattern(seed, 1 << 20), "object {seed}");
    }
    let stats = pool.stats();
    assert!(stats.tier(Tier::Device).moved >= 5 << 20, "up: {stats:?}");
    assert!(
        objects[..3].iter().any(|object| object.tier() != Tier::Device),
        "and down: {objects:?}"
    );
    assert!(stats.tier(Tier::Device).used <= 2 << 20);
}

/// The original's rule: the most common of the last 100 sizes, at first the largest batch.
#[test]
fn predictive_buffer_manager_predicts_the_next_sizes() {
    let mut sizes: Box<dyn Forecast> = Box::new(Frequency::new(256));
    assert_eq!(sizes.predict_next_sizes(3), [256]);
    for size in [8, 16, 16, 32, 32, 32] {
        sizes.record_usage(size);
    }
    assert_eq!(sizes.predict_next_sizes(3), [32, 16, 8]);
    assert_eq!(sizes.predict_next_sizes(1), [32]);
}

/// Always forecasts the same.
#[derive(Debug)]
struct Always(&'static [u32]);

impl Forecast for Always {
    fn record_usage(&mut self, _: u32) {}

    fn predict(&self, sizes: &mut [u32]) -> usize {
        let known = sizes.len().min(self.0.len());
        sizes[..known].copy_from_slice(&self.0[..known]);
        known
    }
}

const KIB: usize = 1 << 10;

/// In the original what is made ahead stays in use for ever, so that it never serves anyone.
fn predictive_buffer_manager_has_what_is_forecast_free_for_use(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let pool = device_pool(&context);
    // Sizes in a forecast of blocks are in units of 256 bytes.
    let mut prewarm = BlockPrewarm::new(&pool, WarmSet::new(Always(&[4096, 32]), 2)).blocks(2);
    drop(pool.alloc::<u8>(512, &stream).unwrap());
    prewarm.record_usage(512, &stream).unwrap();
    let (before, reserved) = (pool.stats(), pool.slab_stats().reserved);
    let ready: Vec<_> = pool.blocks().iter().map(|block| block.address).collect();
    assert!(pool.blocks().iter().all(|block| block.handles == 0), "in use: {:?}", pool.blocks());
    let served: Vec<Buffer<u8>> = [1024 * KIB, 8 * KIB, 1024 * KIB, 8 * KIB]
        .map(|size| pool.alloc(size, &stream).unwrap())
        .into_iter()
        .collect();
    assert!(served.iter().all(|buffer| ready.contains(&buffer.info().address)));
    assert_eq!((pool.stats(), pool.slab_stats().reserved), (before, reserved), "without growth");
    drop(served);
    prewarm.record_usage(1024 * KIB, &stream).unwrap();
    assert_eq!(prewarm.warm().stats().used, 1);
}

/// In the original nothing that was made ahead is ever given back.
fn predictive_buffer_manager_gives_back_what_is_not_forecast_any_more(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let pool = device_pool(&context);
    // 8 KiB ten times, then 1 MiB, then 32 KiB, in units of 256 bytes.
    let plan: Plan = [32, 4096, 128].map(|size| Run { size, length: 10 }).into_iter().collect();
    let mut prewarm = BlockPrewarm::new(&pool, WarmSet::new(plan, 1)).blocks(3);
    // Which blocks there are, and that none is in use.
    let blocks = || {
        let mut sizes: Vec<_> =
            pool.blocks().iter().map(|block| (block.size, block.handles)).collect();
        sizes.dedup();
        sizes
    };
    for size in [8 * KIB, 1024 * KIB, 32 * KIB] {
        for _ in 0..9 {
            drop(pool.alloc::<u8>(size, &stream).unwrap());
            prewarm.record_usage(size, &stream).unwrap();
        }
        assert_eq!(blocks(), [(size, 0)]);
        drop(pool.alloc::<u8>(size, &stream).unwrap());
        // The last one of its run: the forecast changes.
        prewarm.record_usage(size, &stream).unwrap();
    }
    assert_eq!(blocks(), [(32 * KIB, 0)], "past the plan nothing else is forecast");
    assert_eq!(prewarm.warm().stats().made, 2);
    prewarm.clear(&stream).unwrap();
    assert_eq!((pool.blocks().len(), prewarm.warm().ready().len()), (0, 0));
    pool.trim(Duration::ZERO, 0);
    assert_eq!(pool.slab_stats().reserved, 0);
}
