//! Objects that move between tiers.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use wharf::tier::{Blocked, Tier, TierBuilder, TierError, TieredObject, TieredPool};
use wharf::{Context, Driver, Stream};

use crate::backend::{binder, on_each_driver};
use crate::graph_rig::Gate;
use crate::memory_kinds::{context_of, memory_file, pattern};

on_each_driver!(
    an_object_keeps_its_bytes_in_every_tier,
    a_full_tier_sends_the_coldest_away,
    what_is_held_stays,
    an_allocation_that_does_not_wait_finds_room_later,
    what_the_device_still_uses_stays,
    a_move_does_not_block_who_holds_the_object_where_it_is,
    a_writer_is_alone,
    a_write_does_not_run_beside_the_copy_of_a_move,
    a_writer_that_gives_up_on_a_copy_holds_nothing,
    parts_of_a_file_need_no_writing_back,
    what_is_expected_is_there,
    a_cancelled_move_changes_nothing,
    an_object_may_be_dropped_in_flight,
    copies_are_paced,
    mistakes_are_errors,
    threads_want_the_same_object,
    a_pool_may_go_before_its_objects,
);

pub(crate) const MIB: usize = 1 << 20;

/// Everything in four tiers: the device's has room for three objects of a mebibyte.
struct Rig {
    stream: Stream,
    pool: TieredPool,
    context: Context,
}

impl Rig {
    fn new(driver: &Driver) -> Self {
        Self::with(driver, |builder| builder)
    }

    fn with(driver: &Driver, change: impl FnOnce(TierBuilder) -> TierBuilder) -> Self {
        let context = context_of(driver);
        let builder = TieredPool::builder(&context)
            .device(4 * MIB)
            .managed(4 * MIB)
            .pinned(16 * MIB)
            .file(memory_file(), 32 * MIB);
        let pool = change(builder).build().unwrap();
        Self { stream: Stream::new(&context).unwrap(), pool, context }
    }

    /// An object in pinned memory with a pattern.
    fn object(&self, seed: u8, size: usize) -> TieredObject {
        let mut object = self.pool.alloc(size, Tier::Pinned).unwrap();
        object
            .pin_mut(Tier::Pinned, &self.stream)
            .unwrap()
            .copy_from_slice(&pattern(seed, size))
            .unwrap();
        object
    }

    fn check(&self, object: &TieredObject, seed: u8) {
        let held = object.pin_here(&self.stream).unwrap();
        let mut bytes = vec![0; object.size()];
        held.copy_to_slice(&mut bytes).unwrap();
        assert!(bytes == pattern(seed, object.size()), "object {seed} in {}", held.tier());
    }

    /// Lets time pass in steps until `is_done`.
    fn step_until(&self, is_done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(600);
        while !is_done() {
            assert!(Instant::now() < end, "{:?}", self.pool.stats());
            self.pool.step().unwrap();
            thread::yield_now();
        }
    }

    /// Why an object cannot come to the device, when what wrote it is over: until then it is held.
    fn refusal(&self, object: &TieredObject, stream: &Stream) -> TierError {
        let refused = || object.try_pin(Tier::Device, stream).unwrap_err();
        self.step_until(|| refused() != busy(Blocked::Held));
        refused()
    }

    fn used(&self) -> usize {
        self.pool.stats().tiers.iter().map(|tier| tier.used).sum()
    }
}

/// What a call that does not wait is told.
fn busy(blocked: Blocked) -> TierError {
    TierError::Busy { blocked, age: Duration::ZERO }
}

fn an_object_keeps_its_bytes_in_every_tier(driver: &Driver) {
    let rig = Rig::new(driver);
    let tiers = [Tier::Device, Tier::Managed, Tier::Pinned, Tier::FileMapped];
    for size in [1, 4096, 100_000, 3 * MIB] {
        let object = rig.object(7, size);
        for to in tiers.iter().flat_map(|from| [*from].into_iter().chain(tiers)) {
            let held = object.pin(to, &rig.stream).unwrap();
            assert_eq!((held.tier(), held.size()), (to, size));
            assert!(
                held.address() != 0 && (to == Tier::FileMapped || held.device_address().is_some())
            );
            drop(held);
            assert_eq!(object.tier(), to);
            rig.check(&object, 7);
        }
    }
}

fn a_full_tier_sends_the_coldest_away(driver: &Driver) {
    let rig = Rig::new(driver);
    let objects: Vec<_> = (0..8).map(|seed| rig.object(seed, MIB)).collect();
    for object in &objects {
        drop(object.pin(Tier::Device, &rig.stream).unwrap());
        // Used all the time, so it never loses its second chance.
        drop(objects[0].pin(Tier::Device, &rig.stream).unwrap());
    }
    let here = |tier| objects.iter().filter(|object| object.tier() == tier).count();
    assert!((2..=4).contains(&here(Tier::Device)), "{:?}", rig.pool.stats());
    assert_eq!(objects[0].tier(), Tier::Device);
    assert_eq!(objects[7].tier(), Tier::Device);
    assert!(here(Tier::Managed) > 0);
    for (seed, object) in (0..).zip(&objects) {
        rig.check(object, seed);
    }
}

fn what_is_held_stays(driver: &Driver) {
    let rig = Rig::new(driver);
    let objects: Vec<_> = (0..3).map(|seed| rig.object(seed, 3 * MIB / 2)).collect();
    let held: Vec<_> =
        objects[..2].iter().map(|object| object.pin(Tier::Device, &rig.stream).unwrap()).collect();
    assert_eq!(rig.refusal(&objects[2], &rig.stream), busy(Blocked::Full(Tier::Device)));
    assert_eq!(objects[0].try_pin(Tier::Pinned, &rig.stream).unwrap_err(), busy(Blocked::Held));
    let addresses: Vec<_> = held.iter().map(|held| held.address()).collect();
    drop(held);
    drop(objects[2].pin(Tier::Device, &rig.stream).unwrap());
    let again = objects[..2].iter().filter(|object| object.tier() == Tier::Device);
    assert_eq!(again.count(), 1, "one of {addresses:?} had to leave");
    for (seed, object) in (0..).zip(&objects) {
        rig.check(object, seed);
    }
}

fn an_allocation_that_does_not_wait_finds_room_later(driver: &Driver) {
    let rig = Rig::with(driver, |builder| builder.wait(Duration::from_secs(600)));
    let objects: Vec<_> = (0..3).map(|seed| rig.object(seed, MIB)).collect();
    let held: Vec<_> =
        objects.iter().map(|object| object.pin(Tier::Device, &rig.stream).unwrap()).collect();
    let full = rig.pool.try_alloc(2 * MIB, Tier::Device).unwrap_err();
    assert_eq!(full, busy(Blocked::Full(Tier::Device)));
    assert!(matches!(rig.pool.try_alloc(64 * MIB, Tier::Pinned), Err(TierError::TooLarge { .. })));
    drop(held);
    let new = loop {
        match rig.pool.try_alloc(2 * MIB, Tier::Device) {
            Err(TierError::Busy { age: Duration::ZERO, .. }) => thread::yield_now(),
            outcome => break outcome.unwrap(),
        }
    };
    assert_eq!(new.tier(), Tier::Device);
    (0..3).for_each(|seed| rig.check(&objects[usize::from(seed)], seed));
}

fn what_the_device_still_uses_stays(driver: &Driver) {
    let rig = Rig::with(driver, |builder| builder.device(2 * MIB));
    let (first, second) = (rig.object(1, 3 * MIB / 2), rig.object(2, 3 * MIB / 2));
    let held = first.pin(Tier::Device, &rig.stream).unwrap();
    let other = Stream::new(&rig.context).unwrap();
    let gate = Gate::close(&rig.stream);
    drop(held);
    assert_eq!(rig.refusal(&second, &other), busy(Blocked::Full(Tier::Device)));
    assert_eq!(first.tier(), Tier::Device);
    gate.open();
    drop(second.pin(Tier::Device, &other).unwrap());
    rig.check(&first, 1);
    rig.check(&second, 2);
}

fn a_move_does_not_block_who_holds_the_object_where_it_is(driver: &Driver) {
    let rig = Rig::new(driver);
    let object = rig.object(3, MIB);
    // What wrote the object has to be over before it can move.
    rig.step_until(|| object.prefetch(Tier::Device).is_ok());
    // The move is under way until a call settles it: here the object is still where it was.
    let held = object.try_pin(Tier::Pinned, &rig.stream).unwrap();
    let address = held.address();
    rig.step_until(|| rig.pool.stats().in_flight == 0);
    assert_eq!(
        (object.tier(), held.address(), rig.pool.stats().in_vain),
        (Tier::Pinned, address, 1)
    );
    rig.check(&object, 3);
    drop(held);
    drop(object.pin(Tier::Device, &rig.stream).unwrap());
    rig.check(&object, 3);
}

fn a_writer_is_alone(driver: &Driver) {
    let rig = Rig::new(driver);
    let mut object = rig.object(4, MIB);
    let other = Stream::new(&rig.context).unwrap();
    drop(object.pin(Tier::Device, &other).unwrap());
    let gate = Gate::close(&rig.stream);
    {
        let mut held = object.pin_mut(Tier::Device, &other).unwrap();
        held.copy_from_slice(&pattern(5, MIB)).unwrap();
    }
    // A read on a closed stream, and the next writer waits for it.
    drop(object.pin(Tier::Device, &rig.stream).unwrap());
    let opener = thread::spawn({
        let bind = binder();
        move || {
            let _bound = bind();
            gate.open();
        }
    });
    object.pin_mut(Tier::Device, &other).unwrap().copy_from_slice(&pattern(6, MIB)).unwrap();
    opener.join().unwrap();
    rig.check(&object, 6);
}

/// The copy away reads what the writer writes: it is over before the guard is there.
fn a_write_does_not_run_beside_the_copy_of_a_move(driver: &Driver) {
    let rig = Rig::new(driver);
    for (from, to) in [(Tier::Device, Tier::Pinned), (Tier::Pinned, Tier::Device)] {
        let mut object = rig.object(4, MIB);
        drop(object.pin(from, &rig.stream).unwrap());
        rig.step_until(|| object.prefetch(to).is_ok());
        let (before, other) = (rig.pool.stats(), Stream::new(&rig.context).unwrap());
        let mut held = object.pin_mut(from, &other).unwrap();
        let after = rig.pool.stats();
        assert_eq!((after.in_flight, after.in_vain), (0, before.in_vain + 1), "{from} to {to}");
        assert_eq!((after.hits, after.misses), (before.hits + 1, before.misses));
        held.copy_from_slice(&pattern(5, MIB)).unwrap();
        drop(held);
        assert_eq!(object.tier(), from);
        rig.check(&object, 5);
    }
}

fn a_writer_that_gives_up_on_a_copy_holds_nothing(driver: &Driver) {
    let rig = Rig::with(driver, |builder| builder.wait(Duration::ZERO));
    let mut object = rig.object(4, MIB);
    rig.step_until(|| object.prefetch(Tier::Device).is_ok());
    // Each call looks once: how many find the copy under way is the driver's to say.
    let end = Instant::now() + Duration::from_secs(600);
    while let Err(error) = object.pin_mut(Tier::Pinned, &rig.stream).map(drop) {
        assert_eq!(error, busy(Blocked::Copying));
        assert!(Instant::now() < end, "{:?}", rig.pool.stats());
        thread::yield_now();
    }
    assert_eq!((object.tier(), rig.pool.stats().in_flight), (Tier::Pinned, 0));
    rig.step_until(|| object.prefetch(Tier::Device).is_ok());
    rig.step_until(|| object.tier() == Tier::Device);
    rig.check(&object, 4);
    drop(object);
    // A pool that does not wait keeps what the device still uses.
    rig.step_until(|| rig.used() == 0);
}

fn parts_of_a_file_need_no_writing_back(driver: &Driver) {
    let rig = Rig::with(driver, |builder| builder.device(2 * MIB));
    let mut file = memory_file();
    let bytes = pattern(9, 5 * MIB);
    file.write_all(&bytes).unwrap();
    let mapped = rig.pool.map_file(&file).unwrap();
    assert_eq!(mapped.len(), bytes.len());
    let mut parts: Vec<_> = (0..5)
        .map(|part| rig.pool.object_of(&mapped, part * MIB..(part + 1) * MIB).unwrap())
        .collect();
    drop(mapped);
    let check = |part: &TieredObject, at: usize| {
        let held = part.pin_here(&rig.stream).unwrap();
        let mut read = vec![0; MIB];
        held.copy_to_slice(&mut read).unwrap();
        assert!(read == bytes[at * MIB..(at + 1) * MIB], "part {at}");
    };
    for (at, part) in parts.iter().enumerate() {
        drop(part.pin(Tier::Device, &rig.stream).unwrap());
        check(part, at);
    }
    let stats = rig.pool.stats();
    assert!(stats.clean >= 3, "{stats:?}");
    let below = stats.tier(Tier::Managed).moved + stats.tier(Tier::Pinned).moved;
    assert_eq!(below + stats.tier(Tier::FileMapped).moved, 0, "{stats:?}");
    assert_eq!(parts[0].pin_mut(Tier::FileMapped, &rig.stream).unwrap_err(), TierError::ReadOnly);
    // Written, it goes where it can.
    parts[0].pin_mut(Tier::Device, &rig.stream).unwrap().copy_from_slice(&pattern(1, MIB)).unwrap();
    for part in &parts[1..] {
        drop(part.pin(Tier::Device, &rig.stream).unwrap());
    }
    assert!(matches!(parts[0].tier(), Tier::Managed | Tier::Device));
    rig.check(&parts[0], 1);
    (1..5).for_each(|at| check(&parts[at], at));
}

fn what_is_expected_is_there(driver: &Driver) {
    let rig = Rig::new(driver);
    let objects: Vec<_> = (0..6).map(|seed| rig.object(seed, MIB)).collect();
    objects[5].expect_use_in(6, Tier::Device);
    rig.pool.step().unwrap();
    assert_eq!((rig.pool.stats().in_flight, objects[5].tier()), (0, Tier::Pinned));
    // Steps that bring the use near; more of them would make it past.
    for _ in 0..4 {
        rig.pool.step().unwrap();
    }
    let end = Instant::now() + Duration::from_secs(600);
    while objects[5].prefetch(Tier::Device).is_err() || objects[5].tier() != Tier::Device {
        assert!(Instant::now() < end, "{:?}", rig.pool.stats());
    }
    let before = rig.pool.stats();
    // Others come and go; what is expected stays.
    for object in &objects[..5] {
        drop(object.pin(Tier::Device, &rig.stream).unwrap());
    }
    drop(objects[5].try_pin(Tier::Device, &rig.stream).unwrap());
    let after = rig.pool.stats();
    assert_eq!((after.hits - before.hits, after.misses - before.misses), (1, 5));
    rig.check(&objects[5], 5);
}

fn a_cancelled_move_changes_nothing(driver: &Driver) {
    let rig = Rig::new(driver);
    let object = rig.object(8, MIB);
    rig.step_until(|| object.prefetch(Tier::Device).is_ok());
    object.cancel_move();
    rig.step_until(|| rig.pool.stats().in_flight == 0);
    let stats = rig.pool.stats();
    assert_eq!((object.tier(), stats.in_vain, stats.tier(Tier::Device).used), (Tier::Pinned, 1, 0));
    rig.check(&object, 8);
}

fn an_object_may_be_dropped_in_flight(driver: &Driver) {
    let rig = Rig::new(driver);
    for _ in 0..3 {
        let object = rig.object(8, MIB);
        rig.step_until(|| object.prefetch(Tier::Device).is_ok());
        drop(object);
        let read = rig.object(9, MIB);
        drop(read.pin(Tier::Device, &rig.stream).unwrap());
        drop(read);
    }
    rig.step_until(|| rig.used() == 0);
}

fn copies_are_paced(driver: &Driver) {
    let rig = Rig::with(driver, |builder| builder.bytes_per_second(1));
    let (first, second) = (rig.object(1, MIB), rig.object(2, MIB));
    rig.step_until(|| first.prefetch(Tier::Device).is_ok());
    rig.step_until(|| second.prefetch(Tier::Device) == Err(busy(Blocked::RateLimit)));
    rig.step_until(|| first.tier() == Tier::Device);
    rig.check(&second, 2);
}

fn mistakes_are_errors(driver: &Driver) {
    let context = context_of(driver);
    let stream = Stream::new(&context).unwrap();
    let pool = TieredPool::builder(&context)
        .device(2 * MIB)
        .pinned(8 * MIB)
        .max_objects(2)
        .build()
        .unwrap();
    let object = pool.alloc(3 * MIB, Tier::Pinned).unwrap();
    assert_eq!(object.pin(Tier::Managed, &stream).unwrap_err(), TierError::Absent(Tier::Managed));
    let too_large = TierError::TooLarge { tier: Tier::Device, size: 3 * MIB, max: 2 * MIB };
    assert_eq!(object.pin(Tier::Device, &stream).unwrap_err(), too_large);
    assert!(matches!(pool.alloc(usize::MAX, Tier::Pinned), Err(TierError::TooLarge { .. })));
    let _second = pool.alloc(1, Tier::Pinned).unwrap();
    assert_eq!(pool.alloc(1, Tier::Pinned).unwrap_err(), TierError::TooManyObjects { max: 2 });
    let held = object.pin_here(&stream).unwrap();
    let length = TierError::Length { slice: 5, object: 3 * MIB };
    assert_eq!(held.copy_to_slice(&mut [0; 5]), Err(length));
    let mut file = memory_file();
    file.write_all(&[1; 100]).unwrap();
    let mapped = pool.map_file(&file).unwrap();
    let outside = pool.object_of(&mapped, 50..101).unwrap_err();
    assert_eq!(outside, TierError::OutOfFile { end: 101, len: 100 });
}

fn threads_want_the_same_object(driver: &Driver) {
    let rig = Rig::new(driver);
    let objects: Vec<_> = (0..4).map(|seed| rig.object(seed, 3 * MIB / 2)).collect();
    let bind = binder();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let _bound = bind();
                let stream = Stream::new(&rig.context).unwrap();
                for (seed, object) in (0..).zip(&objects) {
                    let held = object.pin(Tier::Device, &stream).unwrap();
                    let mut bytes = vec![0; object.size()];
                    held.copy_to_slice(&mut bytes).unwrap();
                    assert!(bytes == pattern(seed, object.size()));
                }
            });
        }
    });
}

fn a_pool_may_go_before_its_objects(driver: &Driver) {
    let Rig { stream, pool, context } = Rig::new(driver);
    let object = pool.alloc(MIB, Tier::Pinned).unwrap();
    drop(pool);
    drop(object.pin(Tier::Device, &stream).unwrap());
    drop(stream);
    drop(object);
    assert_eq!(context.drop_errors(), 0);
}
