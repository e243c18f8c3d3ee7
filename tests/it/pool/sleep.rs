//! A pool that sleeps has no memory, and after it wakes everything is as it was.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ::softcuda::Schedule;
use wharf::graph::{CaptureMode, CaptureScope, GraphExec};
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Contents, Pool, SleepError};
use wharf::slab::AllocError;
use wharf::{Context, CudaError, DeviceAttribute, Driver, Error, ErrorKind, Stream};

use super::{context, device_pool, gate, pinned_pool, streams};
use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(
    a_sleeping_pool_says_so_and_frees,
    a_pool_that_is_in_use_stays_awake,
    a_graph_replays_after_sleep,
    a_pool_is_dropped_in_its_sleep,
);

const MIB: usize = 1 << 20;

/// The random schedules of the long test.
const SEEDS: u64 = 200;

/// Buffers of a class, of a slab that they share, of runs and of several pieces.
const SIZES: [usize; 5] = [300, 5000, 100_000, MIB, 2 * MIB + 4096];

/// A byte for each buffer and round.
fn value(index: usize, round: usize) -> u8 {
    u8::try_from((index * 31 + round * 7) % 251).unwrap()
}

fn holds(buffer: &Buffer<u8>, value: u8, stream: &Stream) -> bool {
    let mut back = vec![!value; buffer.len()];
    buffer.copy_to_slice(&mut back, stream).unwrap();
    back == vec![value; buffer.len()]
}

fn addresses(buffers: &[Buffer<u8>]) -> Vec<u64> {
    buffers.iter().map(|buffer| buffer.info().address).collect()
}

/// Free memory of the device, in bytes.
fn free(pool: &Pool) -> usize {
    pool.physical_memory().unwrap().free
}

/// Two streams fill buffers; the pool sleeps behind them, and wakes for the next round.
fn rounds(driver: &Driver) {
    let context = context(driver);
    let [one, two] = streams(&context);
    let pool = device_pool(&context);
    let at_first = free(&pool);
    let live: Vec<Buffer<u8>> = SIZES.iter().map(|&size| pool.alloc(size, &one).unwrap()).collect();
    let before = addresses(&live);
    for round in 0..3 {
        let contents = if round == 1 { Contents::Dropped } else { Contents::Kept };
        for (index, buffer) in live.iter().enumerate() {
            let stream = if (index + round) % 2 == 0 { &one } else { &two };
            buffer.acquire(stream).unwrap();
            buffer.fill(value(index, round), stream).unwrap();
        }
        // Of the other stream's work, and retired while it runs.
        let passing: Buffer<u8> = pool.alloc(MIB, &two).unwrap();
        passing.fill(1, &two).unwrap();
        drop(passing);
        let reserved = pool.slab_stats().reserved;
        let slept = pool.sleep(contents, &one, LONG).unwrap();
        assert_eq!((slept.released, slept.kept > 0), (reserved, contents == Contents::Kept));
        assert!(slept.kept <= slept.released);
        let stats = pool.slab_stats();
        assert_eq!((stats.reserved, stats.lost), (0, 0));
        assert!(stats.asleep > 0 && stats.asleep <= reserved, "{stats:?}");
        assert_eq!(free(&pool), at_first, "everything is unmapped");
        assert_eq!(pool.wake(&two).unwrap(), stats.asleep);
        assert_eq!((pool.slab_stats().reserved, pool.slab_stats().asleep), (stats.asleep, 0));
        assert_eq!(addresses(&live), before);
        if contents == Contents::Kept {
            for (index, buffer) in live.iter().enumerate() {
                assert!(holds(buffer, value(index, round), &one), "buffer {index}, round {round}");
            }
        }
        // As before: memory of its own for each.
        let new: Buffer<u8> = pool.alloc(MIB, &one).unwrap();
        new.fill(1, &one).unwrap();
    }
    drop(live);
    pool.close(LONG).unwrap();
}

#[test]
fn contents_and_addresses_survive_sleep_under_late_and_random_schedules() {
    for schedule in [Schedule::Late].into_iter().chain((0..SEEDS).map(Schedule::Random)) {
        let machine = Arc::new(Simulator::new(Config { schedule, ..Config::default() }));
        on_machine(&machine, rounds);
        assert_eq!(machine.leaks(), Vec::<String>::new(), "{schedule:?}");
    }
}

/// A graph that copies one buffer of a pool to another, of which the stream's work changes one.
fn a_graph_replays_after_sleep(driver: &Driver) {
    let context = context(driver);
    let [stream, other] = streams(&context);
    let pool = device_pool(&context);
    let [source, target]: [Buffer<u8>; 2] =
        std::array::from_fn(|_| pool.alloc(3 * MIB, &stream).unwrap());
    source.fill(1, &stream).unwrap();
    let scope = CaptureScope::begin(&stream, CaptureMode::Global).unwrap();
    target.copy_from(&source, &stream).unwrap();
    let graph = scope.end().unwrap();
    let mut exec: GraphExec = graph.instantiate().unwrap();
    for (round, contents) in [Contents::Kept, Contents::Dropped, Contents::Kept].iter().enumerate()
    {
        let before = value(9, round);
        source.fill(before, &stream).unwrap();
        exec.launch(&stream).unwrap();
        pool.sleep(*contents, &other, LONG).unwrap();
        pool.wake(&other).unwrap();
        if *contents == Contents::Kept {
            assert!(holds(&target, before, &stream), "the launch came before the sleep");
            target.fill(!before, &stream).unwrap();
            exec.launch(&stream).unwrap();
            assert!(holds(&target, before, &stream), "what was kept is read");
        }
        source.fill(!before, &stream).unwrap();
        exec.launch(&stream).unwrap();
        assert!(holds(&target, !before, &stream));
    }
    drop(exec);
    driver.wait_deferred(LONG).unwrap();
    drop((source, target));
    pool.close(LONG).unwrap();
}

fn a_sleeping_pool_says_so_and_frees(driver: &Driver) {
    let context = context(driver);
    let [stream, other] = streams(&context);
    let pool = device_pool(&context);
    let kept: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    let large: Buffer<u8> = pool.alloc(8 * MIB, &stream).unwrap();
    let retired: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    drop(retired);
    kept.fill(3, &stream).unwrap();
    large.fill(4, &stream).unwrap();
    assert!(!pool.is_asleep());
    assert_eq!(pool.wake(&stream), Ok(0), "it is awake");
    let slept = pool.sleep(Contents::Kept, &stream, LONG).unwrap();
    assert!(pool.is_asleep() && slept.released >= 8 * MIB);

    // What needs memory is refused: of the size that was just dropped, too.
    for size in [5000, 1, MIB, 8 * MIB] {
        let refused = pool.alloc::<u8>(size, &stream).unwrap_err();
        assert_eq!((refused, refused.kind()), (AllocError::Asleep, ErrorKind::WouldBlock));
        assert!(refused.to_string().contains("wake the pool"), "{refused}");
    }
    assert_eq!(pool.prewarm(5000, 1, &other), Err(AllocError::Asleep));
    let mut back = vec![0; 5000];
    assert_eq!(kept.fill(1, &stream), Err(Error::Asleep));
    assert_eq!(kept.copy_from_slice(&[1; 5000], &stream), Err(Error::Asleep));
    assert_eq!(kept.copy_to_slice(&mut back, &stream), Err(Error::Asleep));
    assert_eq!(kept.copy_from(&kept.slice(..10).unwrap(), &stream).unwrap_err().call(), {
        // The overlap comes first.
        driver.api().memcpy_async.name()
    });
    let again = pool.sleep(Contents::Dropped, &stream, LONG).unwrap_err();
    assert_eq!(again, SleepError::Failed { error: Error::Asleep, is_asleep: true });

    // What needs none works.
    assert_eq!(pool.slab_stats().reserved, 0);
    assert_eq!(pool.blocks().iter().filter(|block| block.handles > 0).count(), 2);
    assert!(kept.poll().unwrap() && kept.is_idle());
    drop(large);
    let trimmed = pool.trim(Duration::ZERO, 0);
    assert_eq!((trimmed.error, trimmed.lost), (None, 0));
    let mapped = pool.wake(&other).unwrap();
    assert!(mapped < 8 * MIB, "what was dropped comes back: {mapped}");
    assert!(holds(&kept, 3, &stream));
    let new: Buffer<u8> = pool.alloc(8 * MIB, &stream).unwrap();
    new.fill(5, &stream).unwrap();
    assert!(holds(&new, 5, &stream) && holds(&kept, 3, &stream));
    drop((kept, new));
    pool.close(LONG).unwrap();
}

fn a_pool_that_is_in_use_stays_awake(driver: &Driver) {
    let context = context(driver);
    let [stream, other] = streams(&context);
    let pool = device_pool(&context);
    let buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    let held = gate(&stream);
    buffer.fill(3, &stream).unwrap();
    let busy = pool.sleep(Contents::Kept, &other, Duration::ZERO).unwrap_err();
    assert!(matches!(busy, SleepError::Busy(_)) && !busy.is_asleep(), "{busy}");
    assert_eq!(busy.kind(), ErrorKind::TimedOut);
    assert!(!pool.is_asleep());
    drop(held);
    // Nor behind a capture, nor with copies that a capture would take.
    let scope = CaptureScope::begin(&stream, CaptureMode::Relaxed).unwrap();
    let busy = pool.sleep(Contents::Kept, &other, Duration::ZERO).unwrap_err();
    assert!(matches!(busy, SleepError::Busy(_)), "{busy}");
    let refused = pool.sleep(Contents::Kept, &stream, LONG).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Capturing, "{refused}");
    drop(scope.end().unwrap());
    let more: Buffer<u8> = pool.alloc(5000, &other).unwrap();
    more.fill(1, &other).unwrap();
    pool.sleep(Contents::Kept, &other, LONG).unwrap();
    pool.wake(&stream).unwrap();
    assert!(holds(&buffer, 3, &stream));
    drop((buffer, more));
    pool.close(LONG).unwrap();
}

fn a_pool_is_dropped_in_its_sleep(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    for contents in [Contents::Kept, Contents::Dropped] {
        let pool = device_pool(&context);
        let [live, dropped]: [Buffer<u8>; 2] =
            std::array::from_fn(|_| pool.alloc(5000, &stream).unwrap());
        live.fill(1, &stream).unwrap();
        pool.sleep(contents, &stream, LONG).unwrap();
        drop(dropped);
        drop(pool);
        drop(live);
    }
    assert_eq!(context.drop_errors(), 0);
}

#[test]
fn memory_that_does_not_come_and_go_cannot_sleep() {
    let attribute = DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED.as_raw();
    let config = Config { attributes: vec![(attribute, 0)], ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        for pool in [device_pool(&context), pinned_pool(&context)] {
            let buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
            buffer.fill(3, &stream).unwrap();
            let refused = pool.sleep(Contents::Kept, &stream, LONG).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
            assert!(!refused.is_asleep() && !pool.is_asleep());
            assert!(holds(&buffer, 3, &stream));
            drop(pool.alloc::<u8>(9000, &stream).unwrap());
        }
    });
}

/// The driver has given the memory to others meanwhile: the pool sleeps on, and nothing is lost.
#[test]
fn a_pool_wakes_when_there_is_memory_again() {
    let config = Config { device_memory: 64 << 20, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let (pool, other) = (device_pool(&context), device_pool(&context));
        let buffers: Vec<Buffer<u8>> =
            (0..5).map(|_| pool.alloc(8 * MIB, &stream).unwrap()).collect();
        buffers.iter().for_each(|buffer| buffer.fill(9, &stream).unwrap());
        pool.sleep(Contents::Kept, &stream, LONG).unwrap();
        let taken: Buffer<u8> = other.alloc(40 * MIB, &stream).unwrap();
        let refused = pool.wake(&stream).unwrap_err();
        assert!(refused.is_asleep() && refused.kind() == ErrorKind::OutOfMemory, "{refused}");
        assert!(pool.is_asleep() && pool.slab_stats().reserved == 0);
        assert_eq!(pool.physical_memory().unwrap().free, 24 * MIB, "what was mapped is unmapped");
        drop(taken);
        stream.synchronize().unwrap();
        other.trim(Duration::ZERO, 0);
        pool.wake(&stream).unwrap();
        assert!(buffers.iter().all(|buffer| holds(buffer, 9, &stream)));
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

/// Every call of the driver that `sleep` and `wake` make fails once, at each place.
#[test]
fn every_call_of_sleep_and_wake_may_fail_once() {
    let counted = |machine: &Simulator| machine.all_calls();
    // What the two calls make, and how often.
    let mut calls = Vec::new();
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let scene = Scene::new(driver);
        let before = counted(&machine);
        scene.pool.sleep(Contents::Kept, &scene.stream, LONG).unwrap();
        scene.pool.wake(&scene.stream).unwrap();
        let count = |name| before.iter().find(|(of, _)| *of == name).map_or(0, |(_, count)| *count);
        calls.extend(counted(&machine).iter().map(|&(name, after)| (name, after - count(name))));
    });
    calls.retain(|(_, count)| *count > 0);
    assert!(
        ["cuMemUnmap", "cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemcpyHtoDAsync"]
            .iter()
            .all(|name| calls.iter().any(|(of, _)| of == name)),
        "{calls:?}"
    );
    let mut told = [0; 2];
    for (name, count) in calls {
        for nth in 1..=count {
            let machine = Arc::new(Simulator::new(Config::default()));
            on_machine(&machine, |driver| {
                let scene = Scene::new(driver);
                let (what, before) = (format!("{name} {nth}"), machine.calls(name));
                machine.fail(name, nth, CudaError::UNKNOWN);
                // How often the driver is asked how far it is varies from run to run.
                while machine.calls(name) - before < nth {
                    for is_asleep in scene.cycle(&what) {
                        told[usize::from(is_asleep)] += 1;
                    }
                }
                scene.check(&what);
                // And from the beginning.
                scene.pool.sleep(Contents::Kept, &scene.stream, LONG).unwrap();
                scene.pool.wake(&scene.stream).unwrap();
                scene.check(&what);
                assert_eq!(scene.pool.slab_stats().lost, 0, "{what}");
            });
        }
    }
    assert!(told.iter().all(|count| *count > 2), "awake and asleep: {told:?}");
}

/// Live buffers in several pieces.
struct Scene {
    stream: Stream,
    pool: Pool,
    live: Vec<Buffer<u8>>,
    addresses: Vec<u64>,
}

impl Scene {
    fn new(driver: &Driver) -> Self {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = device_pool(&context);
        let live: Vec<Buffer<u8>> =
            [300, 5000, 3 * MIB].iter().map(|&size| pool.alloc(size, &stream).unwrap()).collect();
        for (index, buffer) in live.iter().enumerate() {
            buffer.fill(value(index, 0), &stream).unwrap();
        }
        stream.synchronize().unwrap();
        Self { addresses: addresses(&live), stream, pool, live }
    }

    /// Sleeps and wakes, by a second call where the first fails; what errors said: whether the pool
    /// slept then.
    fn cycle(&self, what: &str) -> Vec<bool> {
        let mut told = Vec::new();
        if let Err(error) = self.pool.sleep(Contents::Kept, &self.stream, LONG) {
            assert_eq!(self.pool.is_asleep(), error.is_asleep(), "{what}: {error}");
            told.push(error.is_asleep());
        }
        if self.pool.is_asleep()
            && let Err(error) = self.pool.wake(&self.stream)
        {
            assert!(self.pool.is_asleep() && error.is_asleep(), "{what}: {error}");
            told.push(true);
            let refused = self.pool.alloc::<u8>(5000, &self.stream).unwrap_err();
            assert!(matches!(refused, AllocError::Asleep | AllocError::Upstream(_)), "{refused}");
            self.pool.wake(&self.stream).unwrap();
        }
        assert!(!self.pool.is_asleep(), "{what}");
        told
    }

    fn check(&self, what: &str) {
        assert_eq!(addresses(&self.live), self.addresses, "{what}");
        for (index, buffer) in self.live.iter().enumerate() {
            assert!(holds(buffer, value(index, 0), &self.stream), "buffer {index}: {what}");
        }
        let new: Buffer<u8> = self.pool.alloc(MIB, &self.stream).unwrap();
        new.fill(1, &self.stream).unwrap();
    }
}

/// Threads allocate, fill and drop while another puts the pool to sleep and wakes it: what they are
/// told is memory that can be used, or that the pool sleeps.
#[test]
fn a_pool_sleeps_while_threads_allocate() {
    const ROUNDS: usize = 50;
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context: Context = context(driver);
        let pool = device_pool(&context);
        let [sleeper] = streams(&context);
        let kept: Buffer<u8> = pool.alloc(5000, &sleeper).unwrap();
        kept.fill(7, &sleeper).unwrap();
        let bind = binder();
        thread::scope(|scope| {
            for size in [5000, 3 * MIB] {
                let (bind, pool, context) = (bind.clone(), &pool, &context);
                scope.spawn(move || {
                    let _bound = bind();
                    let [stream] = streams(context);
                    for _ in 0..ROUNDS {
                        match pool.alloc::<u8>(size, &stream) {
                            Ok(buffer) => {
                                let filled = buffer.fill(1, &stream);
                                assert!(
                                    matches!(filled, Ok(()) | Err(Error::Asleep)),
                                    "{filled:?}"
                                );
                            }
                            Err(error) => assert_eq!(error, AllocError::Asleep),
                        }
                    }
                });
            }
            for _ in 0..ROUNDS {
                pool.sleep(Contents::Kept, &sleeper, LONG).unwrap();
                assert_eq!(pool.slab_stats().reserved, 0, "committed in its sleep");
                pool.wake(&sleeper).unwrap();
                assert!(holds(&kept, 7, &sleeper));
            }
        });
        drop(kept);
        sleeper.synchronize().unwrap();
        pool.close(LONG).unwrap();
    });
}

#[test]
fn the_contents_need_memory_of_the_host() {
    let config = Config { host_memory: 4 << 20, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 64 << 20).unwrap());
        let pool = pool.unwrap();
        let buffer: Buffer<u8> = pool.alloc(8 * MIB, &stream).unwrap();
        buffer.fill(3, &stream).unwrap();
        let refused = pool.sleep(Contents::Kept, &stream, LONG).unwrap_err();
        assert_eq!((refused.kind(), refused.is_asleep()), (ErrorKind::OutOfMemory, false));
        assert!(holds(&buffer, 3, &stream));
        let pinned = PinnedMemoryResource::new(&context, 2 << 20, PinnedOptions::default());
        drop(pinned.unwrap());
        pool.sleep(Contents::Dropped, &stream, LONG).unwrap();
        pool.wake(&stream).unwrap();
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
