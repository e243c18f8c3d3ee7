//! Memory pools and stream-ordered allocation.

use std::ffi::c_void;
use std::ptr;

use softcuda::{Check, Checks, Config, Schedule};
use wharf_sys::bindings::{
    CUdevice_attribute, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationType, CUmemLocationType,
    CUmemPool_attribute as Attribute, CUmemPoolProps, CUmemoryPool, CUstream,
    PFN_cuMemGetDefaultMemPool_v13000, PFN_cuMemGetMemPool_v13000, PFN_cuMemPoolGetAccess_v11020,
    PFN_cuMemSetMemPool_v13000,
};
use wharf_sys::{CudaError, Error};

use crate::graph_rig::{GLOBAL, RELAXED};
use crate::support::{Rig, code, device_0, location};

const SCHEDULES: [Schedule; 4] =
    [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(5)];
const USED: Attribute = Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
const USED_HIGH: Attribute = Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
const RESERVED: Attribute = Attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
const THRESHOLD: Attribute = Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;

fn properties() -> CUmemPoolProps {
    let mut properties: CUmemPoolProps = unsafe { std::mem::zeroed() };
    properties.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = device_0();
    properties
}

impl Rig {
    fn pool(&self, properties: &CUmemPoolProps) -> Result<CUmemoryPool, Error> {
        let mut pool = ptr::null_mut();
        unsafe { self.api.mem_pool_create.call(&raw mut pool, properties) }.map(|()| pool)
    }

    fn current_pool(&self) -> CUmemoryPool {
        let mut pool = ptr::null_mut();
        unsafe { self.api.device_get_mem_pool.call(&raw mut pool, 0) }.unwrap();
        pool
    }

    fn alloc(&self, size: usize, stream: CUstream) -> Result<u64, Error> {
        let mut pointer = 0;
        unsafe { self.api.mem_alloc_async.call(&raw mut pointer, size, stream) }.map(|()| pointer)
    }

    fn free(&self, pointer: u64, stream: CUstream) -> Result<(), Error> {
        unsafe { self.api.mem_free_async.call(pointer, stream) }
    }

    fn pool_attribute(&self, pool: CUmemoryPool, attribute: Attribute) -> u64 {
        let mut value = 0_u64;
        let to: *mut c_void = (&raw mut value).cast();
        unsafe { self.api.mem_pool_get_attribute.call(pool, attribute, to) }.unwrap();
        value
    }

    fn set_pool_attribute(
        &self,
        pool: CUmemoryPool,
        attribute: Attribute,
        value: u64,
    ) -> Result<(), Error> {
        let mut value = value;
        unsafe { self.api.mem_pool_set_attribute.call(pool, attribute, (&raw mut value).cast()) }
    }
}

#[test]
fn an_allocation_is_usable_in_its_streams_order() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, kept) = (rig.stream(1), rig.device(16));
        let pointer = rig.alloc(16, stream).unwrap();
        unsafe {
            rig.api.memset_d8_async.call(pointer, 7, 16, stream).unwrap();
            rig.api.memcpy_dtod_async.call(kept, pointer, 16, stream).unwrap();
        }
        rig.free(pointer, stream).unwrap();
        rig.synchronize(stream);
        assert_eq!(rig.read(kept, 16), [7; 16], "{schedule:?}");
        assert_eq!(rig.simulator.violations(), [], "{schedule:?}");
    }
}

#[test]
fn a_launched_graph_uses_what_is_freed_behind_it() {
    let checked = [Checks::default(), Checks::ALL];
    for (schedule, checks) in SCHEDULES.into_iter().flat_map(|it| checked.map(|at| (it, at))) {
        let rig = Rig::with(Config { schedule, checks, recycle: Some(true), ..Rig::config() });
        let (stream, kept) = (rig.stream(1), rig.device(4));
        let pointer = rig.alloc(64, stream).unwrap();
        rig.begin(stream, RELAXED);
        unsafe {
            rig.api.memset_d8_async.call(pointer, 7, 64, stream).unwrap();
            rig.api.stream_write_value_32.call(stream, pointer + 4, 9, 0).unwrap();
            rig.api.memcpy_dtod_async.call(kept, pointer + 4, 4, stream).unwrap();
        }
        let exec = rig.instantiate(rig.end(stream).unwrap());
        rig.launch(exec, stream);
        rig.free(pointer, stream).unwrap();
        // The same addresses for a shorter allocation, while the graph may not have begun.
        let shorter = rig.alloc(1, stream).unwrap();
        rig.synchronize(stream);
        assert_eq!(rig.word(kept), 9, "{schedule:?}, {checks:?}");
        assert_eq!(rig.simulator.violations(), [], "{schedule:?}");
        rig.free(shorter, stream).unwrap();
        rig.synchronize(stream);
        rig.launch(exec, stream);
        let gone = unsafe { rig.api.stream_synchronize.call(stream) };
        assert_eq!(code(gone), CudaError::ILLEGAL_ADDRESS, "{schedule:?}: it has been freed");
    }
}

#[test]
fn memory_that_comes_back_to_its_stream_keeps_its_bytes_until_the_stream_is_there() {
    let rig = Rig::with(Config { schedule: Schedule::Late, recycle: Some(true), ..Rig::config() });
    let (stream, kept) = (rig.stream(1), rig.device(32));
    let first = rig.alloc(16, stream).unwrap();
    unsafe {
        rig.api.memset_d8_async.call(first, 7, 16, stream).unwrap();
        rig.synchronize(stream);
        rig.api.memcpy_dtod_async.call(kept, first, 16, stream).unwrap();
    }
    rig.free(first, stream).unwrap();
    let second = rig.alloc(16, stream).unwrap();
    assert_eq!(second, first, "the same addresses, for another allocation");
    unsafe { rig.api.memcpy_dtod_async.call(kept + 16, second, 16, stream) }.unwrap();
    rig.synchronize(stream);
    assert_eq!(rig.read(kept, 16), [7; 16], "the copy of the first allocation");
    assert_eq!(rig.read(kept + 16, 16), [0xA5; 16], "the second allocation is fresh");
}

#[test]
fn a_stream_that_does_not_wait_for_the_allocation_or_outlives_it_is_reported() {
    let rig = Rig::new(Schedule::Late);
    let used_outside_its_life = || {
        let mut violations = rig.simulator.violations();
        violations.retain(|violation| violation.check == Check::UseAfterFree);
        violations
    };
    let (first, second) = (rig.stream(1), rig.stream(1));
    let pointer = rig.alloc(16, first).unwrap();
    unsafe { rig.api.memset_d8_async.call(pointer, 1, 16, second) }.unwrap();
    rig.synchronize(second);
    let before = used_outside_its_life();
    assert_eq!(before.len(), 1);
    assert!(before[0].what.contains("does not precede"), "{}", before[0].what);
    unsafe { rig.api.memset_d8_async.call(pointer, 2, 16, second) }.unwrap();
    rig.free(pointer, first).unwrap();
    rig.synchronize(first);
    rig.synchronize(second);
    assert_eq!(used_outside_its_life().len(), 2);
}

#[test]
fn an_event_orders_another_stream_behind_the_allocation() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (first, second, event) = (rig.stream(1), rig.stream(1), rig.event(2));
        let pointer = rig.alloc(4, first).unwrap();
        unsafe {
            rig.api.event_record.call(event, first).unwrap();
            rig.api.stream_wait_event.call(second, event, 0).unwrap();
            rig.api.memset_d8_async.call(pointer, 1, 4, second).unwrap();
        }
        rig.free(pointer, second).unwrap();
        rig.synchronize(second);
        assert_eq!(rig.simulator.violations(), [], "{schedule:?}");
    }
}

#[test]
fn memory_goes_back_to_the_pool_when_the_free_runs_and_to_the_device_at_a_wait() {
    let rig = Rig::new(Schedule::Late);
    let (stream, pool) = (rig.stream(1), rig.current_pool());
    let pointer = rig.alloc(1000, stream).unwrap();
    assert_eq!(rig.pool_attribute(pool, USED), 1024);
    assert!(rig.pool_attribute(pool, RESERVED) >= 1024);
    rig.free(pointer, stream).unwrap();
    assert_eq!(rig.pool_attribute(pool, USED), 1024, "the free has not run");
    rig.synchronize(stream);
    assert_eq!(rig.pool_attribute(pool, USED), 0);
    assert_eq!(rig.pool_attribute(pool, USED_HIGH), 1024);
    assert_eq!(rig.pool_attribute(pool, RESERVED), 0, "the release threshold is zero");
}

#[test]
fn a_release_threshold_keeps_memory_until_it_is_trimmed() {
    let rig = Rig::new(Schedule::Async);
    let (stream, pool) = (rig.stream(1), rig.current_pool());
    rig.set_pool_attribute(pool, THRESHOLD, u64::MAX).unwrap();
    assert_eq!(rig.pool_attribute(pool, THRESHOLD), u64::MAX);
    let pointer = rig.alloc(3 << 20, stream).unwrap();
    rig.free(pointer, stream).unwrap();
    rig.synchronize(stream);
    assert_eq!(rig.pool_attribute(pool, RESERVED), 4 << 20);
    unsafe { rig.api.mem_pool_trim_to.call(pool, 1) }.unwrap();
    assert_eq!(rig.pool_attribute(pool, RESERVED), 2 << 20, "at least the bytes to keep stay");
    unsafe { rig.api.mem_pool_trim_to.call(pool, 0) }.unwrap();
    assert_eq!(rig.pool_attribute(pool, RESERVED), 0);
}

#[test]
fn every_kind_of_free_knows_what_it_may_free() {
    let rig = Rig::new(Schedule::Late);
    let stream = rig.stream(1);
    let pointer = rig.alloc(64, stream).unwrap();
    assert_eq!(code(rig.free(pointer + 1, stream)), CudaError::INVALID_VALUE, "not the beginning");
    rig.free(pointer, stream).unwrap();
    assert_eq!(code(rig.free(pointer, stream)), CudaError::INVALID_VALUE, "freed already");
    assert_eq!(code(unsafe { rig.api.mem_free.call(pointer) }), CudaError::INVALID_VALUE);
    assert_eq!(code(rig.free(0x1000, stream)), CudaError::INVALID_VALUE);
    let host = rig.pinned(8).as_ptr().expose_provenance() as u64;
    assert_eq!(code(rig.free(host, stream)), CudaError::INVALID_VALUE);
    rig.free(rig.device(64), stream).unwrap();
    let pooled = rig.alloc(64, stream).unwrap();
    rig.synchronize(stream);
    unsafe { rig.api.mem_free.call(pooled) }.unwrap();
    let unknown = ptr::without_provenance_mut(0x1234);
    let other = rig.alloc(64, stream).unwrap();
    assert_eq!(code(rig.free(other, unknown)), CudaError::INVALID_HANDLE);
    rig.free(other, stream).unwrap();
}

#[test]
fn an_allocation_of_nothing_succeeds_and_can_be_freed() {
    let rig = Rig::new(Schedule::Async);
    let (stream, pool) = (rig.stream(1), rig.pool(&properties()).unwrap());
    let mut pointer = 0;
    unsafe { rig.api.mem_alloc_from_pool_async.call(&raw mut pointer, 0, pool, stream) }.unwrap();
    assert_ne!(pointer, 0);
    rig.free(pointer, stream).unwrap();
    let huge = unsafe {
        rig.api.mem_alloc_from_pool_async.call(&raw mut pointer, usize::MAX, pool, stream)
    };
    assert_eq!(code(huge), CudaError::OUT_OF_MEMORY);
}

#[test]
fn a_pool_that_is_destroyed_lives_until_its_last_allocation_is_freed() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, pool, default) =
            (rig.stream(1), rig.pool(&properties()).unwrap(), rig.current_pool());
        unsafe { rig.api.device_set_mem_pool.call(0, pool) }.unwrap();
        assert_eq!(rig.current_pool(), pool);
        let pointer = rig.alloc(64, stream).unwrap();
        unsafe {
            rig.api.mem_pool_destroy.call(pool).unwrap();
            assert_eq!(rig.current_pool(), default, "the default pool is current again");
            assert_eq!(code(rig.api.mem_pool_destroy.call(pool)), CudaError::INVALID_VALUE);
            assert_eq!(code(rig.api.mem_pool_destroy.call(default)), CudaError::INVALID_VALUE);
            rig.api.memset_d8_async.call(pointer, 3, 64, stream).unwrap();
        }
        rig.synchronize(stream);
        assert_eq!(rig.read(pointer, 64), [3; 64]);
        rig.free(pointer, stream).unwrap();
        rig.synchronize(stream);
        assert_eq!(rig.simulator.violations(), [], "{schedule:?}");
    }
}

#[test]
fn a_pool_grows_to_its_maximum_and_no_device_beyond_its_memory() {
    let rig = Rig::with(Config { device_memory: 8 << 20, ..Rig::config() });
    let stream = rig.stream(1);
    let small = rig.pool(&CUmemPoolProps { maxSize: 1 << 20, ..properties() }).unwrap();
    let mut pointer = 0;
    let alloc = |pointer: &mut u64, size| unsafe {
        rig.api.mem_alloc_from_pool_async.call(pointer, size, small, stream)
    };
    assert_eq!(code(alloc(&mut pointer, (1 << 20) + 1)), CudaError::OUT_OF_MEMORY);
    alloc(&mut pointer, 1 << 20).unwrap();
    assert_eq!(code(rig.alloc(9 << 20, stream)), CudaError::OUT_OF_MEMORY);
    rig.alloc(4 << 20, stream).unwrap();
}

#[test]
fn attributes_are_checked() {
    let rig = Rig::new(Schedule::Async);
    let pool = rig.pool(&properties()).unwrap();
    let reuse = Attribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC;
    assert_eq!(rig.pool_attribute(pool, reuse) & 0xffff_ffff, 1, "enabled by default");
    rig.set_pool_attribute(pool, reuse, 0).unwrap();
    assert_eq!(rig.pool_attribute(pool, reuse) & 0xffff_ffff, 0);
    rig.set_pool_attribute(pool, USED_HIGH, 0).unwrap();
    for (attribute, value) in [(USED_HIGH, 1), (USED, 0), (RESERVED, 0), (Attribute(99), 0)] {
        let set = rig.set_pool_attribute(pool, attribute, value);
        assert_eq!(code(set), CudaError::INVALID_VALUE, "{attribute:?}");
    }
    let place = rig.pool_attribute(pool, Attribute::CU_MEMPOOL_ATTR_LOCATION_TYPE);
    assert_eq!(place & 0xffff_ffff, 1, "CU_MEM_LOCATION_TYPE_DEVICE");
}

#[test]
fn access_is_granted_to_other_devices_and_not_taken_from_the_own() {
    let rig = Rig::with(Config { devices: 2, ..Rig::config() });
    let pool = rig.pool(&properties()).unwrap();
    let other = location(CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, 1);
    let get = entry!("cuMemPoolGetAccess" 11020 PFN_cuMemPoolGetAccess_v11020);
    let read_write = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    let access = |location| {
        let (mut flags, mut location) = (CUmemAccess_flags(9), location);
        assert_eq!(unsafe { get(&raw mut flags, pool, &raw mut location) }.0, 0);
        flags
    };
    assert_eq!(access(device_0()), read_write);
    assert_eq!(access(other), CUmemAccess_flags(0));
    let grant = |location, flags| {
        let access = CUmemAccessDesc { location, flags };
        unsafe { rig.api.mem_pool_set_access.call(pool, &raw const access, 1) }
    };
    grant(other, read_write).unwrap();
    assert_eq!(access(other), read_write);
    assert_eq!(code(grant(device_0(), CUmemAccess_flags(0))), CudaError::INVALID_VALUE);
}

#[test]
fn a_location_has_a_default_and_a_current_pool() {
    let rig = Rig::new(Schedule::Async);
    let get_default = entry!("cuMemGetDefaultMemPool" 13000 PFN_cuMemGetDefaultMemPool_v13000);
    let get = entry!("cuMemGetMemPool" 13000 PFN_cuMemGetMemPool_v13000);
    let set = entry!("cuMemSetMemPool" 13000 PFN_cuMemSetMemPool_v13000);
    let pinned = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    let mut host = location(CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST, 0);
    let (mut default, mut current) = (ptr::null_mut(), ptr::null_mut());
    let own = rig.pool(&CUmemPoolProps { location: host, ..properties() }).unwrap();
    unsafe {
        assert_eq!(get_default(&raw mut default, &raw mut host, pinned).0, 0);
        assert_eq!(get(&raw mut current, &raw mut host, pinned).0, 0);
        assert_eq!(default, current);
        assert_eq!(set(&raw mut host, pinned, own).0, 0);
        assert_eq!(get(&raw mut current, &raw mut host, pinned).0, 0);
        assert_eq!(current, own);
        let mut device = device_0();
        assert_eq!(set(&raw mut device, pinned, own).0, 1, "another location's pool");
        assert_eq!(get(&raw mut current, &raw mut device, pinned).0, 0);
        assert_eq!(current, rig.current_pool());
    }
}

#[test]
fn a_device_without_pools_says_so() {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
    let rig = Rig::with(Config { attributes: vec![(attribute, 0)], ..Rig::config() });
    assert_eq!(code(rig.alloc(16, rig.stream(1))), CudaError::NOT_SUPPORTED);
    assert_eq!(code(rig.pool(&properties())), CudaError::NOT_SUPPORTED);
}

#[test]
fn a_question_about_a_pool_invalidates_a_global_capture() {
    let rig = Rig::new(Schedule::Async);
    let (stream, pool, mut value) = (rig.stream(1), rig.current_pool(), 0_u64);
    let value = (&raw mut value).cast::<c_void>();
    let ask = || unsafe { rig.api.mem_pool_get_attribute.call(pool, THRESHOLD, value) };
    let set = || unsafe { rig.api.mem_pool_set_attribute.call(pool, THRESHOLD, value) };
    let calls: [&dyn Fn() -> Result<(), Error>; 2] = [&ask, &set];
    for call in calls {
        rig.begin(stream, GLOBAL);
        assert_eq!(code(call()), CudaError::STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(code(rig.end(stream)), CudaError::STREAM_CAPTURE_INVALIDATED);
        rig.begin(stream, RELAXED);
        call().unwrap();
        rig.end(stream).unwrap();
    }
}
