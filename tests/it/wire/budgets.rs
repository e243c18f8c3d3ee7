//! Budgets and limits of memory that a transport has registered.

use std::sync::Arc;

use wharf::Driver;
use wharf::memory::{
    Budget, DeviceMemoryResource, MemoryResource, Registrations, UnbackedResource, WiredResource,
};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{PoolError, PoolOptions, SlabPool};
use wharf::sys::bindings::CUdevice_attribute as Attribute;
use wharf::tier::{Tier, TieredPool};
use wharf::{CudaError, Stream};

use super::rig::{GIB, MIB, Recorder};
use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::LONG;
use crate::memory_kinds::context_of;

on_each_driver!(
    memory_that_a_lease_keeps_from_its_pools_end_stays_counted,
    a_tier_of_a_resource_of_ones_own_keeps_to_the_budget,
);

fn memory_that_a_lease_keeps_from_its_pools_end_stays_counted(driver: &Driver) {
    let (context, recorder) = (context_of(driver), Recorder::new());
    let stream = Stream::new(&context).unwrap();
    for asks_first in [false, true] {
        let budget = Budget::new(64 * MIB);
        let device = DeviceMemoryResource::new(&context, GIB).unwrap();
        let memory = WiredResource::new(device, Arc::clone(&recorder));
        // A handle from before the budget was known keeps the memory as well.
        let early: Option<Registrations> = asks_first.then(|| memory.registrations().unwrap());
        let slabs = PoolOptions::default().piece_bytes(2 * MIB);
        let pool = Pool::builder().name("wired").slabs(slabs).budget(&budget).build(memory);
        let pool = pool.unwrap();
        let buffers: Vec<Buffer<u8>> =
            (0..2).map(|_| pool.alloc(2 * MIB, &stream).unwrap()).collect();
        assert_eq!(budget.used(), 4 * MIB);
        let registrations = early.unwrap_or_else(|| pool.registrations().unwrap());
        let lease = registrations.lease(buffers[0].info().address, 1).unwrap();
        drop((buffers, registrations));
        stream.synchronize().unwrap();
        pool.close(LONG).unwrap();
        assert_eq!(recorder.live().len(), 1, "what is leased stays registered");
        let used: Vec<_> = budget.uses().iter().map(|of| (of.name.clone(), of.used)).collect();
        assert_eq!((budget.used(), used), (2 * MIB, vec![("wired".to_owned(), 2 * MIB)]));
        drop(lease);
        assert_eq!((budget.used(), budget.uses()), (0, vec![]));
        assert!(recorder.live().is_empty());
    }
}

/// A transport that does not let go of memory: it is leaked, and so it stays counted.
#[test]
fn memory_that_a_transport_does_not_let_go_of_stays_counted() {
    let (budget, recorder) = (Budget::new(64 * MIB), Recorder::new());
    recorder.book().refuse_detach = 1;
    let memory = WiredResource::new(UnbackedResource::new(GIB).unwrap(), Arc::clone(&recorder));
    let memory = wharf::memory::Budgeted::new(memory, &budget, "wired");
    let pool = SlabPool::new(memory, PoolOptions::default().piece_bytes(2 * MIB)).unwrap();
    let block = pool.alloc(2 * MIB).unwrap();
    pool.dealloc(block).unwrap();
    drop(pool);
    assert_eq!(recorder.book().kept.len(), 1);
    assert_eq!((budget.used(), budget.uses().len()), (2 * MIB, 1));
}

fn a_tier_of_a_resource_of_ones_own_keeps_to_the_budget(driver: &Driver) {
    let (context, recorder) = (context_of(driver), Recorder::new());
    let memory = || {
        let device = DeviceMemoryResource::new(&context, GIB).unwrap();
        WiredResource::new(device, Arc::clone(&recorder))
    };
    let budget = Budget::new(64 * MIB);
    let tiers = || TieredPool::builder(&context).pinned(4 * MIB);
    // Whatever comes first.
    for tiers in [
        tiers().resource(memory(), 16 * MIB).budget(&budget),
        tiers().budget(&budget).resource(memory(), 16 * MIB),
    ] {
        let tiers = tiers.build().unwrap();
        let object = tiers.alloc(2 * MIB, Tier::Device).unwrap();
        let names: Vec<_> = budget.uses().into_iter().map(|of| of.name).collect();
        assert!(budget.used() >= 2 * MIB, "{budget}");
        assert_eq!(names, ["device tier"]);
        drop((object, tiers));
        assert_eq!((budget.used(), budget.uses()), (0, vec![]));
    }
}

/// A pool on memory that is one allocation takes it at its limit, which a handle must not hide.
#[test]
fn a_whole_span_with_a_handle_to_its_pieces_is_not_limited_in_silence() {
    let whole = Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
    let config = Config { attributes: vec![(whole, 0)], ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let (context, recorder) = (context_of(driver), Recorder::new());
        let wired = || {
            let device = DeviceMemoryResource::new(&context, 64 * MIB).unwrap();
            WiredResource::new(device, Arc::clone(&recorder))
        };
        let limited = PoolOptions::default().max_bytes(8 * MIB);
        let memory = wired();
        let handle = memory.registrations();
        let refused = SlabPool::new(memory, limited).map(drop).unwrap_err();
        assert!(
            matches!(refused, PoolError::Upstream { cause, .. }
                if cause.code() == Some(CudaError::INVALID_VALUE)),
            "{refused}"
        );
        assert_eq!(machine.calls("cuMemAlloc"), 0, "nothing was taken");
        drop(handle);
        let pool = SlabPool::new(wired(), limited).unwrap();
        assert_eq!(pool.upstream().size(), 8 * MIB);
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
