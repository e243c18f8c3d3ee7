//! Tiers whose copies fail: nothing is lost, nothing stale is seen, and who asked is told.

use std::cell::Cell;
use std::sync::Arc;

use softcuda::Schedule;
use wharf::tier::{Tier, TierError, TieredObject, TieredPool};
use wharf::{CudaError, Driver, Error, Stream};

use crate::backend::{Config, Simulator, on_machine};
use crate::memory_kinds::{context_of, memory_file, pattern};
use crate::tier::MIB;

/// Every way for a copy to be asked for.
const COPIES: [&str; 2] = ["cuMemcpyAsync", "cuMemcpyBatchAsync"];
const CODE: CudaError = CudaError::NOT_PERMITTED;
const COUNT: usize = 20;

/// Pinned memory for all objects, and for some.
const ALL: usize = 16 * MIB;
const SOME: usize = 6 * MIB;

/// The first object is so large that three others have to leave for it at once.
fn size(index: usize) -> usize {
    if index == 0 { 3 * MIB / 2 } else { MIB / 2 }
}

/// Objects whose bytes are known, more than fit into the device's and the pinned tier.
struct World<'a> {
    machine: &'a Simulator,
    stream: Stream,
    pool: TieredPool,
    objects: Vec<TieredObject>,
    seeds: Vec<u8>,
    errors: u64,
    /// Faults that met a read of the test's own.
    refused: Cell<u64>,
}

impl<'a> World<'a> {
    fn new(driver: &Driver, machine: &'a Simulator, pinned: usize) -> Self {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let builder = TieredPool::builder(&context).device(2 * MIB).pinned(pinned);
        let pool = builder.file(memory_file(), 64 * MIB).build().unwrap();
        let objects =
            (0..COUNT).map(|index| pool.alloc(size(index), Tier::Pinned).unwrap()).collect();
        let mut world = Self {
            machine,
            stream,
            pool,
            objects,
            seeds: vec![0; COUNT],
            errors: 0,
            refused: Cell::new(0),
        };
        (0..COUNT).for_each(|index| world.write(index, u8::try_from(index).unwrap()));
        world
    }

    /// Repeats a call until it succeeds; what fails has to be the fault that was injected, and the
    /// objects have to be as they were.
    fn retry<T>(&mut self, mut call: impl FnMut(&mut Self) -> Result<T, TierError>) -> T {
        for _ in 0..20 {
            match call(self) {
                Ok(done) => return done,
                Err(TierError::Driver(Error::Driver { call, code })) => {
                    assert!(COPIES.contains(&call) && code == CODE, "{call}: {code}");
                    self.errors += 1;
                    self.check_all();
                }
                Err(error) => panic!("{error}: {:?}", self.pool.stats()),
            }
        }
        panic!("20 faults in a row");
    }

    fn write(&mut self, index: usize, seed: u8) {
        self.retry(|world| {
            let mut held = world.objects[index].pin_mut(Tier::Device, &world.stream)?;
            held.copy_from_slice(&pattern(seed, size(index)))?;
            drop(held);
            world.seeds[index] = seed;
            Ok(())
        });
    }

    fn read(&mut self, index: usize, tier: Tier) {
        self.retry(|world| {
            let object = &world.objects[index];
            let held = object.pin(tier, &world.stream)?;
            let mut bytes = vec![0; size(index)];
            held.copy_to_slice(&mut bytes)?;
            assert!(bytes == pattern(world.seeds[index], size(index)), "object {index} in {tier}");
            Ok(())
        });
    }

    /// Reads every object that was written, where it is.
    fn check_all(&self) {
        for (object, seed) in self.objects.iter().zip(&self.seeds) {
            let held = object.pin_here(&self.stream).unwrap();
            let mut bytes = vec![0; object.size()];
            while held.copy_to_slice(&mut bytes).is_err() {
                self.refused.set(self.refused.get() + 1);
                assert!(self.refused.get() < 1000);
            }
            assert!(
                *seed == 0 || bytes == pattern(*seed, object.size()),
                "{object:?} is not {seed}"
            );
        }
    }

    /// Promotions, demotions through all tiers, writes, hints.
    fn work(&mut self) {
        for round in 0..2 {
            for index in (0..COUNT).filter(|index| round == 0 || index % 4 == 0) {
                self.read(index, Tier::Device);
            }
            self.write(round * 3 + 1, 100 + u8::try_from(round).unwrap());
            self.read(5, Tier::Pinned);
            self.read(6, Tier::FileMapped);
            self.objects[5].expect_use_in(1, Tier::Device);
            self.retry(|world| world.pool.step());
        }
        self.check_all();
    }

    /// How often each way to copy was used so far.
    fn copies(&self) -> [u64; 2] {
        COPIES.map(|call| self.machine.calls(call))
    }
}

/// A world in which work runs at once, so that it copies the same each time.
fn on_world(pinned: usize, body: impl FnOnce(World<'_>)) {
    let machine =
        Arc::new(Simulator::new(Config { schedule: Schedule::Eager, ..Config::default() }));
    on_machine(&machine, |driver| body(World::new(driver, &machine, pinned)));
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn each_copy_may_fail_in_turn() {
    let mut counts = [0; 2];
    on_world(ALL, |mut world| {
        let before = world.copies();
        world.work();
        let after = world.copies();
        counts = [after[0] - before[0], after[1] - before[1]];
        assert_eq!((world.errors, world.pool.stats().failed), (0, 0));
    });
    // Both ways were used, by moves and not only by the reads of the test.
    assert!(counts[0] > 80 && counts[1] > 0, "{counts:?}");
    let mut told = 0;
    for (call, count) in COPIES.into_iter().zip(counts) {
        for nth in 1..=count {
            on_world(ALL, |mut world| {
                world.machine.fail(call, nth, CODE);
                world.work();
                assert_eq!(world.errors + world.refused.get(), 1, "{call} {nth}");
                told += world.errors;
            });
        }
    }
    assert!(told > 60, "{told} of {counts:?} met calls, the others the reads at the end");
}

#[test]
fn copies_may_fail_at_random() {
    on_world(SOME, |mut world| {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..3000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(100) {
                world.machine.fail(COPIES[usize::from(random >> 8 & 1 == 0)], 1, CODE);
            }
            let index = usize::try_from(random >> 16).unwrap() % COUNT;
            match random >> 40 & 7 {
                0 => world.write(index, u8::try_from(random >> 50 & 127).unwrap() + 1),
                1 => world.read(index, Tier::Pinned),
                2 => world.read(index, Tier::FileMapped),
                _ => world.read(index, Tier::Device),
            }
        }
        world.check_all();
        assert!(world.errors >= 10, "{} errors", world.errors);
    });
}
