//! A budget that pools, tiers and sets share.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf::memory::{Budget, Budgeted, DeviceMemoryResource, MemoryResource, UnbackedResource};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{AllocError, PoolError, PoolOptions, SlabPool};
use wharf::staging::{BuildError, InputBuffers, Len, OutputBuffers};
use wharf::sys::bindings::CUdevice_attribute as Attribute;
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Driver, Error, ErrorKind, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::memory_kinds::context_of;

on_each_driver!(
    pools_a_tier_and_sets_keep_to_one_budget,
    a_pool_gives_back_what_it_does_not_use_before_it_is_refused,
    what_has_ended_is_free_for_others,
);

const MIB: usize = 1 << 20;

fn pool(context: &Context, budget: &Budget, name: &str) -> Pool {
    let device = DeviceMemoryResource::new(context, 1 << 30).unwrap();
    Pool::builder().name(name).wait(Duration::ZERO).budget(budget).build(device).unwrap()
}

fn names(budget: &Budget) -> Vec<String> {
    budget.uses().into_iter().map(|of| of.name).collect()
}

fn pools_a_tier_and_sets_keep_to_one_budget(driver: &Driver) {
    let (context, budget) = (context_of(driver), Budget::new(16 * MIB));
    let stream = Stream::new(&context).unwrap();
    let inputs = InputBuffers::builder(&context).name("step").slot::<u32>("ids", Len::Tokens);
    let inputs = inputs.buckets([8]).budget(&budget).build().unwrap();
    let outputs = OutputBuffers::builder(&context).slot::<u32>("sampled", Len::Requests);
    let outputs = outputs.buckets([8]).budget(&budget).build().unwrap();
    let tiers = TieredPool::builder(&context).device(4 * MIB).budget(&budget).build().unwrap();
    let object = tiers.alloc(4 * MIB, Tier::Device).unwrap();
    let pools = [pool(&context, &budget, "first"), pool(&context, &budget, "second")];
    let held: Vec<Buffer<u8>> =
        pools.iter().map(|pool| pool.alloc(4 * MIB, &stream).unwrap()).collect();
    assert_eq!((budget.used(), budget.peak()), (16 * MIB, 16 * MIB));
    assert_eq!(names(&budget), ["step", "outputs", "device tier", "first", "second"]);
    let used: Vec<_> = budget.uses().iter().map(|of| of.used / MIB).collect();
    assert_eq!(used, [2, 2, 4, 4, 4]);
    let text = budget.to_string();
    assert!(text.contains("16777216 of 16777216 bytes used") && text.contains("\"first\""));

    // Each kind of builder is refused by the budget's own error.
    let over = Error::OverBudget { wanted: 2 * MIB, used: 16 * MIB, limit: 16 * MIB };
    let Err(AllocError::Exhausted(state)) = pools[0].alloc::<u8>(MIB, &stream) else {
        panic!("a full budget has room");
    };
    assert_eq!((state.cause, state.reserved), (Some(over), 4 * MIB));
    assert_eq!(over.kind(), ErrorKind::OutOfMemory);
    let more = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens).buckets([8]);
    let refused = more.budget(&budget).build().unwrap_err();
    assert!(matches!(refused, BuildError::Driver(error) if error == over), "{refused}");
    assert_eq!((budget.used(), budget.uses().len()), (16 * MIB, 5));
    drop((inputs, outputs, object, held));
}

fn a_pool_gives_back_what_it_does_not_use_before_it_is_refused(driver: &Driver) {
    let (context, budget) = (context_of(driver), Budget::new(8 * MIB));
    let stream = Stream::new(&context).unwrap();
    let [one, other] = [pool(&context, &budget, "one"), pool(&context, &budget, "other")];
    let kept: Buffer<u8> = other.alloc(2 * MIB, &stream).unwrap();
    let spread: Vec<Buffer<u8>> = (0..3).map(|_| one.alloc(2 * MIB, &stream).unwrap()).collect();
    drop(spread);
    stream.synchronize().unwrap();
    // Of another stream, in one piece: what the first has kept goes back for it.
    let second = Stream::new(&context).unwrap();
    let large: Buffer<u8> = one.alloc(6 * MIB, &second).unwrap();
    assert_eq!((budget.used(), budget.peak()), (8 * MIB, 8 * MIB));
    drop((kept, large));
}

fn what_has_ended_is_free_for_others(driver: &Driver) {
    let (context, budget) = (context_of(driver), Budget::new(4 * MIB));
    let stream = Stream::new(&context).unwrap();
    for round in 0..8 {
        let pool = pool(&context, &budget, "pool");
        drop(pool.alloc::<u8>(4 * MIB, &stream).unwrap());
        stream.synchronize().unwrap();
        drop(pool);
        assert_eq!((budget.used(), budget.uses()), (0, vec![]), "round {round}");
    }
    assert_eq!(budget.peak(), 4 * MIB);
}

#[test]
fn a_span_that_is_one_allocation_counts_from_the_start() {
    let whole = Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
    let config = Config { attributes: vec![(whole, 0)], ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let (context, budget) = (context_of(driver), Budget::new(16 * MIB));
        let device = || DeviceMemoryResource::new(&context, 1 << 30).unwrap();
        let refused = Pool::builder().budget(&budget).build(device()).unwrap_err();
        let over = Error::OverBudget { wanted: 1 << 30, used: 0, limit: 16 * MIB };
        assert!(matches!(refused, PoolError::Upstream { cause, .. } if cause == over));
        assert!(refused.to_string().contains("max_bytes"), "{refused}");
        assert_eq!((budget.used(), budget.uses()), (0, vec![]));
        let half = || Pool::builder().max_bytes(8 * MIB).budget(&budget).build(device());
        let pool = half().unwrap();
        let stream = Stream::new(&context).unwrap();
        let block: Buffer<u8> = pool.alloc(MIB, &stream).unwrap();
        assert_eq!(budget.used(), 8 * MIB);
        drop(block);
        // The driver refuses what the budget would have had.
        let other = half().unwrap();
        assert_eq!(budget.used(), 16 * MIB);
        drop(other);
        machine.fail("cuMemAlloc", 1, wharf::CudaError::OUT_OF_MEMORY);
        assert!(matches!(half().unwrap_err(), PoolError::Upstream { .. }));
        assert_eq!(budget.used(), 8 * MIB);
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn a_commit_that_fails_is_not_counted() {
    let budget = Budget::new(8 * MIB);
    let memory = Budgeted::new(UnbackedResource::new(1 << 30).unwrap(), &budget, "slabs");
    memory.resource().commits().fail_one_in(1);
    let pool = SlabPool::new(memory, PoolOptions::default()).unwrap();
    for _ in 0..8 {
        assert!(pool.alloc(2 * MIB).is_err());
    }
    assert_eq!((budget.used(), budget.uses()[0].used), (0, 0));
}

#[test]
fn what_is_leaked_stays_counted() {
    let budget = Budget::new(8 * MIB);
    let memory = Budgeted::new(UnbackedResource::new(1 << 30).unwrap(), &budget, "slabs");
    let pool = SlabPool::new(memory, PoolOptions::default()).unwrap();
    let block = pool.alloc(2 * MIB).unwrap();
    drop(pool);
    assert_eq!((budget.used(), names(&budget).len()), (2 * MIB, 1));
    // A block of a pool that has ended is nothing to give back.
    let _ = block;
}

#[test]
fn threads_never_exceed_it_together() {
    let budget = Budget::new(16 * MIB);
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let budget = budget.clone();
            scope.spawn(move || {
                let memory = UnbackedResource::new(1 << 30).unwrap();
                let memory = Budgeted::new(memory, &budget, &format!("thread {thread}"));
                assert_eq!(memory.granularity(), memory.resource().granularity());
                let pool = SlabPool::new(memory, PoolOptions::default().thread_cache_bytes(0));
                let pool = pool.unwrap();
                for round in 0..500 {
                    let blocks: Vec<_> = (0..4)
                        .map_while(|_| pool.alloc((1 + (round + thread) % 3) * MIB).ok())
                        .collect();
                    assert!(budget.used() <= budget.limit());
                    blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
                    pool.trim(Duration::ZERO, 0);
                }
            });
        }
    });
    assert!(budget.peak() <= budget.limit() && budget.peak() > 4 * MIB);
    assert_eq!((budget.used(), budget.uses()), (0, vec![]));
}
