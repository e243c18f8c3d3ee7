//! The driver has no memory left: pools give back what they do not need, and try again.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::softcuda::Schedule;
use wharf::memory::{DeviceMemoryResource, MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool, PoolBuilder};
use wharf::slab::{AllocError, Exhaustion, PoolOptions, SlabPool};
use wharf::tier::{Tier, TierError, TieredPool};
use wharf::{Context, CudaError, Driver, Stream};

use crate::backend::{Config, Simulator, on_machine};
use crate::memory_kinds::context_of;

const MIB: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(30);

/// Runs a test on a device of so many MiB, with as many that can be pinned.
fn on_device<T>(mib: u64, test: impl FnOnce(&Driver, &Arc<Simulator>) -> T) -> T {
    on_device_that(mib, Schedule::Async, test)
}

fn on_device_that<T>(
    mib: u64,
    schedule: Schedule,
    test: impl FnOnce(&Driver, &Arc<Simulator>) -> T,
) -> T {
    let (device_memory, host_memory) = (mib << 20, mib << 20);
    let config = Config { device_memory, host_memory, schedule, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    let result = on_machine(&machine, |driver| test(driver, &machine));
    assert_eq!(machine.leaks(), Vec::<String>::new());
    result
}

/// A pool whose limit is its span, more than the device has.
fn pool(context: &Context) -> Pool {
    pool_with(Pool::builder(), context)
}

fn pool_with(builder: PoolBuilder, context: &Context) -> Pool {
    builder.build(DeviceMemoryResource::new(context, 4 << 30).unwrap()).unwrap()
}

/// What the device has left, in bytes.
fn free(context: &Context) -> usize {
    DeviceMemoryResource::new(context, MIB).unwrap().physical_memory().unwrap().free
}

/// Why an allocation was refused.
fn state_of(refused: AllocError) -> Exhaustion {
    let AllocError::Exhausted(state) = refused else { panic!("{refused}") };
    state
}

/// Sizes from 1 byte to 256 MiB, each doubling as likely as the others.
pub(crate) struct Sizes(pub(crate) u64);

impl Sizes {
    pub(crate) fn next(&mut self) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A doubling, and where in it.
        let (doubling, within) = (((self.0 >> 32) * 28) >> 32, self.0 & 0xffff_ffff);
        let least = 1_u64 << doubling;
        usize::try_from(least + ((within * least) >> 32)).unwrap()
    }
}

#[test]
fn a_block_that_is_idle_is_given_back_for_one_of_another_size() {
    on_device(256, |driver, _| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let pool = pool(&context);
        drop(pool.alloc::<u8>(100 * MIB, &stream).unwrap());
        let buffer: Buffer<u8> = pool.alloc(200 * MIB, &stream).unwrap();
        assert_eq!((buffer.len(), free(&context)), (200 * MIB, 56 * MIB));
        assert_eq!((pool.stats().grown, pool.stats().exhausted), (2, 0));
    });
}

#[test]
fn blocks_of_all_lists_and_classes_are_given_back_when_they_are_complete() {
    on_device_that(64, Schedule::Late, |driver, _| {
        let context = context_of(driver);
        let (one, two) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
        let pool = pool_with(Pool::builder().wait(LONG), &context);
        for size in [300, 70_000, MIB, 3 * MIB, 10 * MIB] {
            for (user, other) in [(&one, &two), (&two, &one)] {
                let buffer: Buffer<u8> = pool.alloc(size, user).unwrap();
                buffer.fill(1, user).unwrap();
                // Of two streams, so it is free only when both are past it.
                buffer.record_use(other).unwrap();
            }
        }
        let whole: Buffer<u8> = pool.alloc(64 * MIB, &two).unwrap();
        whole.fill(3, &two).unwrap();
    });
}

#[test]
fn what_the_hook_frees_elsewhere_is_had() {
    on_device(256, |driver, _| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let kept = Arc::new(Mutex::new(None));
        let (cache, asked) = (Arc::clone(&kept), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&asked);
        let hooked = Pool::builder().on_pressure(move |pressure| {
            counter.fetch_add(1, Relaxed);
            assert_eq!(
                pressure.state.cause.and_then(|cause| cause.code()),
                Some(CudaError::OUT_OF_MEMORY)
            );
            let Some((other, held)) = cache.lock().unwrap().take() else { return false };
            let (other, held): (Pool, Buffer<u8>) = (other, held);
            drop(held);
            other.trim(Duration::ZERO, 0).released > 0
        });
        let (other, pool) = (pool(&context), pool_with(hooked, &context));
        let held = other.alloc(200 * MIB, &stream).unwrap();
        *kept.lock().unwrap() = Some((other, held));
        let buffer: Buffer<u8> = pool.alloc(100 * MIB, &stream).unwrap();
        assert_eq!((asked.load(Relaxed), pool.stats().hook), (1, 1));
        assert!(pool.alloc::<u8>(200 * MIB, &stream).is_err());
        assert_eq!(asked.load(Relaxed), 2);
        drop(buffer);
    });
}

#[test]
fn a_refusal_has_the_drivers_error_and_the_memory_of_the_device() {
    on_device(64, |driver, _| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let pool = pool(&context);
        let held: Buffer<u8> = pool.alloc(40 * MIB, &stream).unwrap();
        let refused = pool.alloc::<u8>(30 * MIB, &stream).unwrap_err();
        let state = state_of(refused);
        assert_eq!((state.size, state.limit, state.reserved), (30 * MIB, 4 << 30, 40 * MIB));
        assert_eq!((state.live, state.retired, state.cached), (40 * MIB, 0, 0));
        let cause = state.cause.unwrap();
        assert_eq!((cause.call(), cause.code()), ("cuMemCreate", Some(CudaError::OUT_OF_MEMORY)));
        let memory = state.physical.unwrap();
        assert_eq!((memory.free, memory.total), (24 * MIB, 64 * MIB));
        assert!(
            refused
                .to_string()
                .contains("25165824 of 67108864 bytes of physical memory free: cuMemCreate"),
            "{refused}"
        );
        assert_eq!(
            std::error::Error::source(&refused).map(ToString::to_string),
            Some(cause.to_string())
        );
        // The limit is no fault of the driver's, which is not asked.
        let limited = pool_with(Pool::builder().max_bytes(4 * MIB), &context);
        let all: Buffer<u8> = limited.alloc(4 * MIB, &stream).unwrap();
        let refused = state_of(limited.alloc::<u8>(100, &stream).unwrap_err());
        assert_eq!((refused.cause, refused.physical), (None, None));
        drop(all);
        drop(held);
    });
}

#[test]
fn a_peak_that_was_not_reached_is_not_counted() {
    on_device(64, |driver, _| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let pool = pool(&context);
        let held: Buffer<u8> = pool.alloc(40 * MIB, &stream).unwrap();
        pool.alloc::<u8>(200 * MIB, &stream).unwrap_err();
        assert_eq!(pool.slab_stats().peak_reserved, 40 * MIB);
        drop(held);
    });
}

#[test]
fn slabs_release_what_is_empty_when_the_driver_has_no_memory() {
    on_device(64, |driver, machine| {
        let context = context_of(driver);
        let resource = DeviceMemoryResource::new(&context, 4 << 30).unwrap();
        let pool = SlabPool::new(resource, PoolOptions::default()).unwrap();
        for size in [100, 5 * MIB, 20 * MIB] {
            let blocks: Vec<_> = (0..3).map(|_| pool.alloc(size).unwrap()).collect();
            blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
        }
        let whole = pool.alloc(64 * MIB).unwrap();
        assert_eq!(free(&context), 0);
        let refused = state_of(pool.alloc(100).unwrap_err());
        assert_eq!(refused.physical.map(|memory| memory.free), Some(0));
        pool.dealloc(whole).unwrap();
        // What is free beside each other is had without a call.
        let blocks: Vec<_> = (0..12).map(|_| pool.alloc(4 * MIB).unwrap()).collect();
        blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
        let calls = machine.calls("cuMemUnmap");
        pool.dealloc(pool.alloc(40 * MIB).unwrap()).unwrap();
        assert_eq!(machine.calls("cuMemUnmap") - calls, 0);
        assert_eq!(pool.stats().lost, 0);
    });
}

#[test]
fn what_is_empty_is_released_when_others_have_taken_the_rest() {
    on_device(64, |driver, machine| {
        let context = context_of(driver);
        let [pool, other] = std::array::from_fn(|_| {
            let resource = DeviceMemoryResource::new(&context, 4 << 30).unwrap();
            SlabPool::new(resource, PoolOptions::default()).unwrap()
        });
        // A peak, below which the pool does not look for what is empty before it grows.
        pool.dealloc(pool.alloc(64 * MIB).unwrap()).unwrap();
        pool.trim(Duration::ZERO, 0);
        let mut blocks: Vec<_> = (0..7).map(|_| pool.alloc(5 * MIB).unwrap()).collect();
        // The first and the last keep what is free between them apart from other addresses.
        let (first, last) = (blocks.remove(0), blocks.pop().unwrap());
        blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
        let held = other.alloc(20 * MIB).unwrap();
        assert_eq!(free(&context), 8 * MIB);
        let (reserved, calls) = (pool.stats().reserved, machine.calls("cuMemUnmap"));
        // More than what is free in one place, here or in the device.
        let block = pool.alloc(26 * MIB).unwrap();
        assert!(machine.calls("cuMemUnmap") > calls && pool.stats().reserved < reserved + 26 * MIB);
        pool.dealloc(block).unwrap();
        [first, last].into_iter().for_each(|block| pool.dealloc(block).unwrap());
        other.dealloc(held).unwrap();
    });
}

#[test]
fn a_place_whose_commit_could_not_be_undone_is_lost_and_not_tried_again() {
    for code in [CudaError::UNKNOWN, CudaError::OUT_OF_MEMORY] {
        on_device(256, |driver, machine| {
            let context = context_of(driver);
            let at_first = free(&context);
            let resource = DeviceMemoryResource::new(&context, 1 << 30).unwrap();
            let pool = SlabPool::new(resource, PoolOptions::default()).unwrap();
            let held = pool.alloc(4 * MIB).unwrap();
            machine.fail("cuMemSetAccess", 1, code);
            machine.fail("cuMemUnmap", 1, CudaError::UNKNOWN);
            // Out of memory, it may have found room elsewhere.
            let first = pool.alloc(4 * MIB);
            let block = pool.alloc(4 * MIB).unwrap();
            let stats = pool.stats();
            assert!(stats.lost > 0, "{stats:?}");
            assert_eq!(stats.reserved, at_first - free(&context), "the account is the driver's");
            let blocks = first.into_iter().chain([block, held]);
            blocks.for_each(|block| pool.dealloc(block).unwrap());
            pool.trim(Duration::ZERO, 0);
            assert_eq!(pool.stats().reserved, pool.stats().lost);
        });
    }
}

#[test]
fn pinned_memory_that_cannot_be_registered_is_given_back_and_had_again() {
    on_device(64, |driver, _| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let resource =
            PinnedMemoryResource::new(&context, 1 << 30, PinnedOptions::default()).unwrap();
        let pool: Pool = Pool::builder().build(resource).unwrap();
        for size in [20, 30, 50, 10, 60].map(|mib| mib * MIB) {
            let mut buffer: Buffer<u8> = pool.alloc(size, &stream).unwrap();
            buffer.host_mut(LONG).unwrap()[size - 1] = 1;
        }
        let held: Buffer<u8> = pool.alloc(30 * MIB, &stream).unwrap();
        let cause = state_of(pool.alloc::<u8>(50 * MIB, &stream).unwrap_err()).cause.unwrap();
        assert_eq!(
            (cause.call(), cause.code()),
            ("cuMemHostRegister", Some(CudaError::OUT_OF_MEMORY))
        );
        drop(held);
    });
}

#[test]
fn a_tier_without_memory_says_what_the_driver_said() {
    on_device(16, |driver, _| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let pool = TieredPool::builder(&context).device(64 * MIB).pinned(8 * MIB).build().unwrap();
        let refused = pool.alloc(20 * MIB, Tier::Device).unwrap_err();
        assert!(
            matches!(
                refused,
                TierError::Driver(error) if error.code() == Some(CudaError::OUT_OF_MEMORY)
            ),
            "{refused}"
        );
        // What is there leaves for what comes.
        let first = pool.alloc(6 * MIB, Tier::Device).unwrap();
        let second = pool.alloc(12 * MIB, Tier::Device).unwrap();
        assert_eq!((first.tier(), second.tier()), (Tier::Pinned, Tier::Device));
        drop(second.pin(Tier::Device, &stream).unwrap());
    });
}

/// Allocates 3000 sizes, with `alive` buffers at a time that work of `streams` in turn uses; how
/// many were refused.
fn serve(driver: &Driver, alive: usize, streams: usize, used: bool, largest: usize) -> usize {
    let context = context_of(driver);
    let streams: Vec<_> = (0..streams).map(|_| Stream::new(&context).unwrap()).collect();
    let pool = pool_with(Pool::builder().wait(LONG), &context);
    let (mut sizes, mut held, mut refused) = (Sizes(7), std::collections::VecDeque::new(), 0);
    for stream in streams.iter().cycle().take(3000) {
        while held.len() >= alive {
            held.pop_front();
        }
        match pool.alloc::<u8>(sizes.next().min(largest), stream) {
            Ok(buffer) => {
                if used {
                    buffer.slice(..1).unwrap().fill(1, stream).unwrap();
                }
                held.push_back(buffer);
            }
            Err(_) => refused += 1,
        }
    }
    drop(held);
    assert_eq!((pool.stats().exhausted, pool.slab_stats().lost), (refused as u64, 0));
    refused
}

#[test]
fn a_serving_loop_of_one_live_buffer_is_refused_nothing_by_a_device_that_has_room_for_it() {
    for mib in [300, 1024, 2048] {
        for (streams, used) in [(1, false), (1, true), (3, true)] {
            let refused = on_device(mib, |driver, _| serve(driver, 1, streams, used, usize::MAX));
            assert_eq!(refused, 0, "{mib} MiB, {streams} streams, used: {used}");
        }
    }
}

#[test]
fn a_serving_loop_of_two_live_buffers_is_refused_nothing_by_a_device_that_has_room_for_them() {
    for mib in [300, 1024] {
        for (streams, schedule) in [(1, Schedule::Async), (2, Schedule::Late)] {
            let largest = if mib == 300 { 120 * MIB } else { usize::MAX };
            let serve =
                |driver: &Driver, _: &Arc<Simulator>| serve(driver, 2, streams, true, largest);
            let refused = on_device_that(mib, schedule, serve);
            assert_eq!(refused, 0, "{mib} MiB, {streams} streams");
        }
    }
}

#[test]
fn the_memory_of_a_device_is_what_its_resource_says() {
    on_device(64, |driver, _| {
        let context = context_of(driver);
        let resource = DeviceMemoryResource::new(&context, 4 << 30).unwrap();
        let memory = resource.physical_memory().unwrap();
        assert_eq!((memory.free, memory.total), (64 * MIB, 64 * MIB));
    });
}
