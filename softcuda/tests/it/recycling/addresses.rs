//! Addresses that come back.

use std::ptr;

use softcuda::{Check, Checks, Config, Schedule};
use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUDA_MEM_ALLOC_NODE_PARAMS, CUmemAllocationType, PFN_cuGraphAddMemAllocNode_v11040,
};

use crate::memory_rig::GRANULE;
use crate::support::{Rig, code, device_0};

#[test]
fn a_freed_address_is_the_next_fitting_allocations() {
    let rig = Rig::new(Schedule::Late);
    let free = |pointer| unsafe { rig.api.mem_free.call(pointer) }.unwrap();
    let (small, large) = (rig.device(1000), rig.device(100_000));
    free(large);
    free(small);
    assert_eq!(rig.device(5000), large, "the last one freed has no room for it");
    assert_eq!(rig.device(4096), small);
    let host = rig.pinned(1000).as_mut_ptr();
    unsafe { rig.api.mem_free_host.call(host.cast()) }.unwrap();
    assert_ne!(rig.device(1000), host.addr() as u64, "device memory and the host's are apart");
    assert_eq!(rig.pinned(1).as_mut_ptr(), host);
}

#[test]
fn freed_reservations_come_back_and_can_be_asked_for() {
    let rig = Rig::new(Schedule::Late);
    let reserve = |size, align, hint| {
        let mut address = 0;
        unsafe { rig.api.mem_address_reserve.call(&raw mut address, size, align, hint, 0) }
            .unwrap();
        address
    };
    let release = |address, size| unsafe { rig.api.mem_address_free.call(address, size) }.unwrap();
    let (first, second) = (reserve(4 * GRANULE, 0, 0), reserve(2 * GRANULE, 0, 0));
    release(first, 4 * GRANULE);
    release(second, 2 * GRANULE);
    assert_eq!(reserve(GRANULE, 0, first), first, "where it was asked for");
    assert_eq!(reserve(2 * GRANULE, 0, 0), second);
    let refused = unsafe { rig.api.mem_address_free.call(second, 4 * GRANULE) };
    assert_eq!(code(refused), CudaError::INVALID_VALUE, "the size is that of the reservation");
    release(first, GRANULE);
    assert_eq!(reserve(4 * GRANULE, 0, 0), first, "all of the range is free again");
}

#[test]
fn pool_memory_comes_back_to_its_stream_at_once_and_to_others_when_it_is_free() {
    let rig = Rig::new(Schedule::Late);
    let (first, second) = (rig.stream(1), rig.stream(1));
    let alloc = |stream| {
        let mut pointer = 0;
        unsafe { rig.api.mem_alloc_async.call(&raw mut pointer, 4096, stream) }.unwrap();
        pointer
    };
    let free = |pointer, stream| unsafe { rig.api.mem_free_async.call(pointer, stream) }.unwrap();
    let pointer = alloc(first);
    rig.fill(pointer, 1, first);
    free(pointer, first);
    let other = alloc(second);
    assert_ne!(other, pointer, "the free is pending");
    assert_eq!(alloc(first), pointer, "behind the free");
    rig.fill(pointer, 2, first);
    rig.synchronize(first);
    assert_eq!(rig.word(pointer), 2);
    free(pointer, first);
    rig.synchronize(first);
    assert_eq!(alloc(second), pointer);
    assert_eq!(rig.simulator.violations(), []);
}

#[test]
fn an_operation_on_freed_memory_reaches_its_next_owner_and_is_reported() {
    let mut checks = Checks::default();
    checks.use_after_free = true;
    let rig = Rig::with(Config {
        schedule: Schedule::Late,
        checks,
        print_violations: false,
        ..Config::default()
    });
    let (stream, old) = (rig.stream(1), rig.device(4));
    rig.fill(old, 1, stream);
    unsafe { rig.api.mem_free.call(old) }.unwrap();
    let new = rig.device(4);
    assert_eq!(new, old);
    unsafe { rig.api.memset_d32.call(new, 7, 1) }.unwrap();
    rig.synchronize(ptr::null_mut());
    rig.synchronize(stream);
    assert_eq!(rig.word(new), 1, "as on a device");
    assert_eq!(rig.simulator.violations().len(), 1);
}

#[test]
fn graph_memory_is_another_allocations_when_its_graph_is_gone() {
    let rig = Rig::new(Schedule::Late);
    let add = entry!("cuGraphAddMemAllocNode" 11040 PFN_cuGraphAddMemAllocNode_v11040);
    let alloc = || {
        let graph = rig.graph();
        let mut params: CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { std::mem::zeroed() };
        params.poolProps.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        params.poolProps.location = device_0();
        params.bytesize = 4096;
        let mut node = ptr::null_mut();
        assert_eq!(unsafe { add(&raw mut node, graph, ptr::null(), 0, &raw mut params) }.0, 0);
        unsafe { rig.api.graph_destroy.call(graph) }.unwrap();
        params.dptr
    };
    assert_eq!(alloc(), alloc());
}

#[test]
fn an_operation_on_unmapped_memory_is_harmless_whatever_was_mapped_there_since() {
    let rig = Rig::new(Schedule::Late);
    let stream = rig.stream(1);
    let access = wharf_sys::bindings::CUmemAccessDesc {
        location: device_0(),
        flags: wharf_sys::bindings::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    let unmap = |address| unsafe {
        rig.api.mem_unmap.call(address, GRANULE).unwrap();
        rig.api.mem_address_free.call(address, GRANULE).unwrap();
    };
    for maps_again in [false, true] {
        let (address, physical) = (rig.reserve(GRANULE), rig.physical(GRANULE));
        unsafe {
            rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
            rig.api.mem_set_access.call(address, GRANULE, &raw const access, 1).unwrap();
            rig.fill(address, 1, stream);
            unmap(address);
            // The same addresses, without access; and gone again.
            assert_eq!(rig.reserve(GRANULE), address);
            rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
            if !maps_again {
                unmap(address);
            }
            rig.synchronize(stream);
            if maps_again {
                unmap(address);
            }
            rig.api.mem_release.call(physical).unwrap();
        }
    }
    let found = rig.simulator.violations();
    assert!(found.iter().all(|violation| violation.check == Check::UseAfterFree), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}
