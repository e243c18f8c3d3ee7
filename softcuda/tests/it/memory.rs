//! Device, pinned and registered memory: what succeeds, and the code where it does not.

use std::ptr;

use softcuda::{Check, Config, Schedule};
use wharf_sys::CudaError;

use crate::support::{Rig, code};

#[test]
fn size_zero_is_refused_and_null_may_be_freed() {
    let rig = Rig::new(Schedule::Async);
    let (mut device, mut host) = (0, ptr::null_mut());
    unsafe {
        assert_eq!(code(rig.api.mem_alloc.call(&raw mut device, 0)), CudaError::INVALID_VALUE);
        assert_eq!(code(rig.api.mem_host_alloc.call(&raw mut host, 0, 0)), CudaError::INVALID_VALUE);
        assert_eq!(code(rig.api.mem_alloc_managed.call(&raw mut device, 0, 1)), CudaError::INVALID_VALUE);
        rig.api.mem_free.call(0).unwrap();
        rig.api.mem_free_host.call(ptr::null_mut()).unwrap();
    }
}

#[test]
fn three_quarters_of_the_memory_cost_nothing_until_touched() {
    let rig = Rig::with(Config { device_memory: 1 << 40, ..Rig::config() });
    let (mut free, mut total) = (0, 0);
    unsafe { rig.api.mem_get_info.call(&raw mut free, &raw mut total) }.unwrap();
    assert_eq!((free, total), (1 << 40, 1 << 40));
    let pointer = rig.device(total / 4 * 3);
    unsafe { rig.api.mem_get_info.call(&raw mut free, &raw mut total) }.unwrap();
    assert_eq!(free, total / 4);
    let mut more = 0;
    let result = unsafe { rig.api.mem_alloc.call(&raw mut more, total / 2) };
    assert_eq!(code(result), CudaError::OUT_OF_MEMORY);
    unsafe { rig.api.mem_free.call(pointer) }.unwrap();
    unsafe { rig.api.mem_get_info.call(&raw mut free, &raw mut total) }.unwrap();
    assert_eq!(free, total);
}

#[test]
fn a_second_free_and_a_free_inside_an_allocation_are_refused() {
    let rig = Rig::new(Schedule::Async);
    let pointer = rig.device(512);
    unsafe {
        assert_eq!(code(rig.api.mem_free.call(pointer + 8)), CudaError::INVALID_VALUE);
        rig.api.mem_free.call(pointer).unwrap();
        assert_eq!(code(rig.api.mem_free.call(pointer)), CudaError::INVALID_VALUE);
        let result = rig.api.mem_get_address_range.call(ptr::null_mut(), ptr::null_mut(), pointer);
        assert_eq!(code(result), CudaError::NOT_FOUND);
    }
}

#[test]
fn registration_knows_overlaps_interiors_and_strangers() {
    let rig = Rig::new(Schedule::Async);
    let mut memory = vec![0_u8; 3 * 4096];
    let base = memory.as_mut_ptr();
    let at = |offset: usize| base.wrapping_add(offset).cast();
    unsafe {
        rig.api.mem_host_register.call(at(0), 2 * 4096, 0).unwrap();
        let overlap = rig.api.mem_host_register.call(at(4096), 2 * 4096, 0);
        assert_eq!(code(overlap), CudaError::HOST_MEMORY_ALREADY_REGISTERED);
        assert_eq!(code(rig.api.mem_host_unregister.call(at(16))), CudaError::INVALID_VALUE);
        let stranger = rig.api.mem_host_unregister.call(at(2 * 4096 + 64));
        assert_eq!(code(stranger), CudaError::HOST_MEMORY_NOT_REGISTERED);
        let free = rig.api.mem_free_host.call(at(0));
        assert_eq!(code(free), CudaError::INVALID_VALUE);
        rig.api.mem_host_unregister.call(at(0)).unwrap();
        assert_eq!(code(rig.api.mem_host_unregister.call(at(0))), CudaError::HOST_MEMORY_NOT_REGISTERED);
    }
}

#[test]
fn the_device_may_see_registered_memory_elsewhere() {
    let rig = Rig::with(Config { registered_alias: true, ..Rig::config() });
    let mut memory = vec![7_u8; 4096];
    let (host, device) = (memory.as_mut_ptr(), rig.device(4096));
    let mut alias = 0;
    unsafe {
        rig.api.mem_host_register.call(host.cast(), 4096, 0).unwrap();
        rig.api.mem_host_get_device_pointer.call(&raw mut alias, host.cast(), 0).unwrap();
        assert_ne!(alias, host.addr() as u64);
        rig.api.memcpy_dtod.call(device, alias, 4096).unwrap();
        assert_eq!(rig.read(device, 4096), memory);
        rig.api.mem_host_unregister.call(host.cast()).unwrap();
    }
}

#[test]
fn a_copy_that_leaves_its_allocation_is_refused_and_reported() {
    let rig = Rig::new(Schedule::Async);
    let (device, source) = (rig.device(64), [0_u8; 128]);
    let result = unsafe { rig.api.memcpy_htod.call(device + 1, source.as_ptr().cast(), 64) };
    assert_eq!(code(result), CudaError::INVALID_VALUE);
    let violations = rig.simulator.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!((violations[0].check, violations[0].call), (Check::Bounds, "cuMemcpyHtoD"));
}

#[test]
fn an_operation_on_memory_freed_too_early_is_reported_and_harmless() {
    let rig = Rig::new(Schedule::Late);
    let (stream, device) = (rig.stream(1), rig.device(64));
    unsafe {
        rig.api.memset_d8_async.call(device, 1, 64, stream).unwrap();
        rig.api.mem_free.call(device).unwrap();
        rig.synchronize(stream);
    }
    let violations = rig.simulator.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!((violations[0].check, violations[0].call), (Check::UseAfterFree, "cuMemsetD8Async"));
    assert_eq!(violations[0].stream, stream.addr() as u64);
}

#[test]
fn fresh_memory_is_poisoned_where_asked() {
    let rig = Rig::new(Schedule::Async);
    let device = rig.device(64);
    assert_eq!(rig.read(device, 64), [0xA5; 64]);
}

#[test]
fn pinned_memory_has_a_ceiling() {
    let rig = Rig::with(Config { host_memory: 8192, ..Rig::config() });
    rig.pinned(8192);
    let mut more = ptr::null_mut();
    assert_eq!(code(unsafe { rig.api.mem_host_alloc.call(&raw mut more, 1, 0) }), CudaError::OUT_OF_MEMORY);
    assert!(more.is_null());
}
