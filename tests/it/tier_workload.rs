//! A workload of 400 objects, of which the device's tier holds a quarter.
//!
//! Sizes are log-uniform between 1 and 64 MiB, divided by `WHARF_TIER_SCALE` (32 by default, so
//! that the test takes seconds and 200 MiB; 1 needs 12 GiB). Accesses follow Zipf's law with
//! exponent 1, one in 16 writes. Three threads take them from one list, so that the order is that
//! of the list but for the last few.
#![expect(clippy::print_stdout, unsafe_code, reason = "prints figures; copies past the tiers")]
#![expect(clippy::cast_possible_truncation, reason = "random numbers in small ranges")]

use std::collections::VecDeque;
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use softcuda::{Checks, Schedule};
use wharf::tier::{Tier, TieredObject, TieredPool};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, binder, on_machine};
use crate::memory_kinds::{context_of, memory_file};
use crate::tier::MIB;

const OBJECTS: usize = 400;
const ACCESSES: usize = 4000;
/// So many of them are also made with a copy each.
const COPIED: usize = 400;
const THREADS: usize = 3;

/// A small random generator: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ word >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What is accessed, and how large it is.
struct Load {
    sizes: Vec<usize>,
    accesses: Vec<usize>,
    limit: usize,
}

impl Load {
    fn new(scale: usize) -> Self {
        let mut random = Random(7);
        let sizes: Vec<_> = (0..OBJECTS)
            .map(|_| (MIB as f64 * 64_f64.powf(random.next())) as usize / scale)
            .collect();
        let weights: Vec<_> = (1..=OBJECTS).map(|rank| 1.0 / rank as f64).collect();
        let total: f64 = weights.iter().sum();
        let accesses = (0..ACCESSES)
            .map(|_| {
                let mut left = random.next() * total;
                weights.iter().position(|weight| {
                    left -= weight;
                    left <= 0.0
                })
            })
            .map(|rank| rank.unwrap_or(OBJECTS - 1))
            .collect();
        let granule = 2 * MIB;
        let limit = sizes.iter().sum::<usize>() / 4 / granule * granule;
        Self { sizes, accesses, limit }
    }

    /// The share of accesses that a list in the order of last use would have hit.
    fn hit_rate_of_lru(&self) -> f64 {
        let (mut held, mut list, mut hits) = (0, VecDeque::new(), 0);
        for &index in &self.accesses {
            if let Some(at) = list.iter().position(|other| *other == index) {
                list.remove(at);
                hits += 1;
            } else {
                held += self.sizes[index];
            }
            list.push_back(index);
            while held > self.limit {
                held -= self.sizes[list.pop_front().unwrap()];
            }
        }
        f64::from(hits) / ACCESSES as f64
    }
}

/// An object and how often it was written.
struct Item {
    object: TieredObject,
    version: usize,
}

struct Bench {
    load: Load,
    /// Random bytes, of which each version of each object is a part.
    bytes: Vec<u8>,
    items: Vec<RwLock<Item>>,
    pool: TieredPool,
    context: Context,
    /// Whether the device's memory is this test's alone.
    is_alone: bool,
}

impl Bench {
    fn new(driver: &Driver, scale: usize) -> Self {
        let context = context_of(driver);
        let load = Load::new(scale);
        let total: usize = load.sizes.iter().sum();
        let builder = TieredPool::builder(&context).device(load.limit).pinned(total * 3 / 2);
        let pool =
            builder.file(memory_file(), total).wait(Duration::from_secs(600)).build().unwrap();
        let mut random = Random(3);
        let longest = *load.sizes.iter().max().unwrap();
        let bytes = (0..longest + 8192).map(|_| (random.next() * 256.0) as u8).collect();
        let stream = Stream::new(&context).unwrap();
        let mut bench = Self { load, bytes, items: Vec::new(), pool, context, is_alone: true };
        for (index, &size) in bench.load.sizes.iter().enumerate() {
            let mut object = bench.pool.alloc(size, Tier::Pinned).unwrap();
            let bytes = bench.expected(index, 0, size);
            object.pin_mut(Tier::Pinned, &stream).unwrap().copy_from_slice(bytes).unwrap();
            bench.items.push(RwLock::new(Item { object, version: 0 }));
        }
        bench
    }

    fn expected(&self, index: usize, version: usize, size: usize) -> &[u8] {
        &self.bytes[(index * 61 + version * 977) % 8192..][..size]
    }

    /// One access in the device's tier.
    fn access(&self, number: usize, stream: &Stream, read: &mut Vec<u8>) {
        let index = self.load.accesses[number];
        let size = self.load.sizes[index];
        if number % 16 == 7 {
            let mut item = self.items[index].write().unwrap();
            let version = item.version + 1;
            let mut held = item.object.pin_mut(Tier::Device, stream).unwrap();
            held.copy_from_slice(self.expected(index, version, size)).unwrap();
            drop(held);
            item.version = version;
        } else {
            let item = self.items[index].read().unwrap();
            let held = item.object.pin(Tier::Device, stream).unwrap();
            read.resize(size, 0);
            held.copy_to_slice(read).unwrap();
            assert!(
                *read == self.expected(index, item.version, size),
                "object {index} at access {number}"
            );
        }
        self.check_ledger();
    }

    /// The device's memory that is taken, by the driver's own account.
    fn check_ledger(&self) {
        if self.is_alone {
            let (mut free, mut total) = (0, 0);
            let _scope = self.context.enter().unwrap();
            let entry = &self.context.driver().api().mem_get_info;
            // SAFETY: both are valid for writes for the whole call.
            unsafe { entry.call(&raw mut free, &raw mut total) }.unwrap();
            assert!(total - free <= self.load.limit, "{} of {}", total - free, self.load.limit);
        }
    }

    /// All accesses, by three threads, while one more object is held from the first to the last.
    /// The time.
    fn run(&self) -> Duration {
        let (next, start, bind) = (AtomicUsize::new(0), Instant::now(), binder());
        let main = Stream::new(&self.context).unwrap();
        let held = self.items[OBJECTS - 1].read().unwrap();
        let place = held.object.pin_here(&main).unwrap();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let _bound = bind();
                    let stream = Stream::new(&self.context).unwrap();
                    let mut read = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&index) = self.load.accesses.get(number) else { break };
                        if index != OBJECTS - 1 {
                            self.access(number, &stream, &mut read);
                        }
                        // Whatever moves: who holds an object, or wants it where it is held, does
                        // not wait.
                        let again = held.object.try_pin(place.tier(), &stream).unwrap();
                        assert_eq!(again.address(), place.address());
                    }
                });
            }
        });
        start.elapsed()
    }

    /// The first accesses, each with a copy to the device and no tiers. The time.
    fn run_copying(&self) -> Duration {
        let (next, bind) = (AtomicUsize::new(0), binder());
        let longest = *self.load.sizes.iter().max().unwrap();
        let pool = TieredPool::builder(&self.context)
            .device(THREADS * 2 * longest.next_multiple_of(2 * MIB))
            .build()
            .unwrap();
        let mut places: Vec<_> =
            (0..THREADS).map(|_| pool.alloc(longest, Tier::Device).unwrap()).collect();
        let start = Instant::now();
        thread::scope(|scope| {
            for place in &mut places {
                let (next, bind) = (&next, &bind);
                scope.spawn(move || {
                    let _bound = bind();
                    let stream = Stream::new(&self.context).unwrap();
                    let mut read = vec![0; longest];
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&index) = self.load.accesses[..COPIED].get(number) else { break };
                        let bytes = self.expected(index, 0, self.load.sizes[index]);
                        let held = place.pin_mut(Tier::Device, &stream).unwrap();
                        let (to, from) = (held.address(), bytes.as_ptr().addr() as u64);
                        let size = bytes.len();
                        let copies =
                            [wharf::stream::Transfer { destination: to, source: from, size }];
                        // SAFETY: the place is as long as the longest object, and held; the bytes
                        // live longer than the synchronised stream.
                        unsafe { stream.copy_batch(&copies) }.unwrap();
                        let back = read.as_mut_ptr().addr() as u64;
                        let copies =
                            [wharf::stream::Transfer { destination: back, source: to, size }];
                        // SAFETY: as above, and `read` is as long.
                        unsafe { stream.copy_batch(&copies) }.unwrap();
                        stream.synchronize().unwrap();
                        assert!(read[..size] == *bytes);
                    }
                });
            }
        });
        start.elapsed()
    }
}

fn scale() -> usize {
    env::var("WHARF_TIER_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(32)
}

fn workload(schedule: Schedule) {
    let mut checks = Checks::default();
    (checks.bounds, checks.use_after_free) = (true, true);
    let machine = Arc::new(Simulator::new(Config { schedule, checks, ..Config::default() }));
    on_machine(&machine, |driver| {
        let mut bench = Bench::new(driver, scale());
        let before = bench.pool.stats();
        let time = bench.run();
        let after = bench.pool.stats();
        let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
        // Each access, and each access's look at the object that is held all the time.
        let hits = hits - ACCESSES as u64 - 1;
        let (rate, lru) = (hits as f64 / (hits + misses) as f64, bench.load.hit_rate_of_lru());
        bench.is_alone = false;
        let copying = bench.run_copying();
        println!(
            "{schedule:?}: hit rate {rate:.4}, of LRU {lru:.4}; {:.0} accesses a second, always \
             copying {:.0}; {after:?}",
            ACCESSES as f64 / time.as_secs_f64(),
            COPIED as f64 / copying.as_secs_f64(),
        );
        assert!(rate >= lru - 0.03, "{rate} against {lru}: {after:?}");
        assert!(after.tier(Tier::Device).used <= bench.load.limit);
        assert_eq!(machine.violations(), Vec::new());
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn four_hundred_objects_when_work_runs_as_soon_as_it_may() {
    workload(Schedule::Async);
}

#[test]
fn four_hundred_objects_when_work_runs_at_once() {
    workload(Schedule::Eager);
}

#[test]
fn four_hundred_objects_when_work_runs_as_late_as_it_may() {
    workload(Schedule::Late);
}

#[test]
fn four_hundred_objects_when_work_runs_in_random_order() {
    workload(Schedule::Random(5));
}
