//! Which device reaches which memory, on a machine of two.

use std::ptr;

use softcuda::{Check, Schedule, Violation};
use wharf_sys::bindings::{
    CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationType, CUmemLocationType, CUmemPoolProps,
    CUmemoryPool, CUresult, CUstream, PFN_cuCtxDisablePeerAccess_v4000,
    PFN_cuCtxEnablePeerAccess_v4000, PFN_cuMemPoolSetAccess_v11020, PFN_cuMemcpyPeerAsync_v4000,
};
use wharf_sys::{CudaError, Error};

use crate::graph_rig::GLOBAL;
use crate::memory_rig::{GRANULE, Pair};
use crate::support::{Rig, code, location};

const OK: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;
const READ: CUmemAccess_flags = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READ;
const READ_WRITE: CUmemAccess_flags = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;

impl Pair {
    /// A granule of the first device, mapped, which no device may use yet.
    fn mapping(&self) -> u64 {
        let (address, physical) = (self.rig.reserve(GRANULE), self.rig.physical(GRANULE));
        unsafe { self.rig.api.mem_map.call(address, GRANULE, 0, physical, 0) }.unwrap();
        address
    }

    fn allow(&self, address: u64, id: i32, flags: CUmemAccess_flags) {
        let access = CUmemAccessDesc { location: device(id), flags };
        unsafe { self.rig.api.mem_set_access.call(address, GRANULE, &raw const access, 1) }
            .unwrap();
    }

    fn access(&self, address: u64, id: i32) -> u64 {
        let (mut flags, location) = (9, device(id));
        unsafe { self.rig.api.mem_get_access.call(&raw mut flags, &raw const location, address) }
            .unwrap();
        flags
    }

    fn violations(&self) -> Vec<Violation> {
        let violations = self.rig.simulator.violations();
        assert!(
            violations.iter().all(|violation| violation.check == Check::PeerAccess),
            "{violations:?}"
        );
        violations
    }
}

fn device(id: i32) -> wharf_sys::bindings::CUmemLocation {
    location(CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id)
}

fn write(rig: &Rig, to: u64, stream: CUstream) -> Result<(), Error> {
    unsafe { rig.api.memset_d8_async.call(to, 1, 16, stream) }
}

fn copy(rig: &Rig, to: u64, from: u64, stream: CUstream) -> Result<(), Error> {
    unsafe { rig.api.memcpy_dtod_async.call(to, from, 16, stream) }
}

#[test]
fn a_mapping_is_used_by_the_devices_that_were_given_access_and_by_no_others() {
    let pair = Pair::new(Schedule::Async);
    let address = pair.mapping();
    let (stream, here) = (pair.rig.stream(1), pair.rig.device(16));
    let (other_stream, there) = pair.on_other(|rig| (rig.stream(1), rig.device(16)));
    pair.allow(address, 0, READ_WRITE);
    assert_eq!((pair.access(address, 0), pair.access(address, 1)), (3, 0));
    write(&pair.rig, address, stream).unwrap();
    copy(&pair.rig, here, address, stream).unwrap();
    for refused in [
        write(&pair.rig, address, other_stream),
        copy(&pair.rig, there, address, other_stream),
        copy(&pair.rig, address, there, other_stream),
    ] {
        assert_eq!(code(refused), CudaError::INVALID_VALUE);
    }
    let violations = pair.violations();
    assert_eq!(violations.len(), 3, "{violations:?}");
    assert_eq!(violations[1].call, "cuMemcpyDtoDAsync");
    let what = &violations[0].what;
    assert!(what.starts_with(&format!("device 1 may not write {address:#x}")), "{what}");
    assert!(what.ends_with("needs cuMemSetAccess for the device that uses it"), "{what}");

    pair.allow(address, 1, READ);
    assert_eq!((pair.access(address, 0), pair.access(address, 1)), (3, 1));
    copy(&pair.rig, there, address, other_stream).unwrap();
    assert_eq!(code(write(&pair.rig, address, other_stream)), CudaError::INVALID_VALUE);
    pair.allow(address, 1, READ_WRITE);
    write(&pair.rig, address, other_stream).unwrap();
    // Access of one device is none of the other's.
    pair.allow(address, 0, CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_NONE);
    assert_eq!((pair.access(address, 0), pair.access(address, 1)), (0, 3));
    assert_eq!(code(write(&pair.rig, address, stream)), CudaError::INVALID_VALUE);
}

#[test]
fn access_between_contexts_does_not_cover_mappings() {
    let pair = Pair::new(Schedule::Async);
    let enable = entry!("cuCtxEnablePeerAccess" 4000 PFN_cuCtxEnablePeerAccess_v4000);
    let address = pair.mapping();
    pair.allow(address, 0, READ_WRITE);
    let first = pair.rig.context;
    pair.on_other(|rig| {
        assert_eq!(unsafe { enable(first, 0) }, OK);
        assert_eq!(code(write(rig, address, rig.stream(1))), CudaError::INVALID_VALUE);
    });
    assert_eq!(pair.violations().len(), 1);
}

#[test]
fn a_memset_of_another_devices_memory_needs_access_and_a_copy_does_not() {
    let pair = Pair::new(Schedule::Async);
    let enable = entry!("cuCtxEnablePeerAccess" 4000 PFN_cuCtxEnablePeerAccess_v4000);
    let disable = entry!("cuCtxDisablePeerAccess" 4000 PFN_cuCtxDisablePeerAccess_v4000);
    let memory = pair.rig.device(16);
    let first = pair.rig.context;
    pair.on_other(|rig| {
        let (stream, there) = (rig.stream(1), rig.device(16));
        copy(rig, there, memory, stream).unwrap();
        copy(rig, memory, there, stream).unwrap();
        assert_eq!(code(write(rig, memory, stream)), CudaError::INVALID_VALUE);
        let value = unsafe { rig.api.stream_write_value_32.call(stream, memory, 1, 0) };
        assert_eq!(code(value), CudaError::INVALID_VALUE);
        assert_eq!(unsafe { enable(first, 0) }, OK);
        write(rig, memory, stream).unwrap();
        assert_eq!(unsafe { disable(first) }, OK);
        assert_eq!(code(write(rig, memory, stream)), CudaError::INVALID_VALUE);
    });
    let violations = pair.violations();
    assert_eq!(violations.len(), 3, "{violations:?}");
    assert!(
        violations[0].what.ends_with("needs cuCtxEnablePeerAccess from the context that uses it")
    );
}

#[test]
fn memory_of_a_pool_is_used_by_the_devices_that_the_pool_allows() {
    let pair = Pair::new(Schedule::Async);
    let set = entry!("cuMemPoolSetAccess" 11020 PFN_cuMemPoolSetAccess_v11020);
    let mut properties: CUmemPoolProps = unsafe { std::mem::zeroed() };
    properties.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = device(0);
    let (stream, mut pool, mut memory): (_, CUmemoryPool, _) =
        (pair.rig.stream(1), ptr::null_mut(), 0);
    unsafe {
        pair.rig.api.mem_pool_create.call(&raw mut pool, &raw const properties).unwrap();
        pair.rig.api.mem_alloc_from_pool_async.call(&raw mut memory, 16, pool, stream).unwrap();
    }
    pair.rig.synchronize(stream);
    pair.on_other(|rig| {
        let (stream, there) = (rig.stream(1), rig.device(16));
        assert_eq!(code(copy(rig, there, memory, stream)), CudaError::INVALID_VALUE);
        let access = CUmemAccessDesc { location: device(1), flags: READ_WRITE };
        assert_eq!(unsafe { set(pool, &raw const access, 1) }, OK);
        copy(rig, there, memory, stream).unwrap();
        rig.synchronize(stream);
    });
    assert_eq!(pair.violations().len(), 1);
}

#[test]
fn a_peer_copy_needs_access_of_each_sides_device_only() {
    let pair = Pair::new(Schedule::Async);
    let peer = entry!("cuMemcpyPeerAsync" 4000 PFN_cuMemcpyPeerAsync_v4000);
    let address = pair.mapping();
    pair.allow(address, 0, READ_WRITE);
    let stream = pair.rig.stream(1);
    let there = pair.on_other(|rig| rig.device(16));
    let (first, second) = (pair.rig.context, pair.other);
    write(&pair.rig, address, stream).unwrap();
    assert_eq!(unsafe { peer(there, second, address, first, 16, stream) }, OK);
    assert_eq!(unsafe { peer(there, second, address, second, 16, stream) }, INVALID);
    pair.rig.synchronize(stream);
    assert_eq!(pair.rig.read(there, 16), [1; 16]);
    assert_eq!(pair.violations().len(), 1);
}

#[test]
fn a_graph_that_a_device_without_access_launches_faults() {
    let pair = Pair::new(Schedule::Late);
    let address = pair.mapping();
    pair.allow(address, 0, READ_WRITE);
    pair.allow(address, 1, READ_WRITE);
    pair.on_other(|rig| {
        let stream = rig.stream(1);
        rig.begin(stream, GLOBAL);
        write(rig, address, stream).unwrap();
        let exec = rig.instantiate(rig.end(stream).unwrap());
        rig.launch(exec, stream);
        rig.synchronize(stream);
        pair.allow(address, 1, READ);
        rig.launch(exec, stream);
        let end = unsafe { rig.api.stream_synchronize.call(stream) };
        assert_eq!(code(end), CudaError::ILLEGAL_ADDRESS);
    });
    let violations = pair.violations();
    assert_eq!((violations.len(), violations[0].call), (1, "cuGraphLaunch"), "{violations:?}");
}
