//! Virtual memory management.

use std::ffi::c_int;
use std::ptr;

use softcuda::{Check, Config, Schedule};
use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUdevice_attribute, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationGranularity_flags,
    CUmemAllocationHandleType, CUmemAllocationProp_v1, CUmemLocationType, CUmemRangeHandleType,
    CUpointer_attribute, CUresult, PFN_cuPointerSetAttribute_v6000,
};

use crate::memory_rig::{GRANULE, properties};
use crate::support::{Rig, code, device_0, location};

impl Rig {
    fn allow(
        &self,
        address: u64,
        size: usize,
        flags: CUmemAccess_flags,
    ) -> Result<(), wharf_sys::Error> {
        let access = CUmemAccessDesc { location: device_0(), flags };
        unsafe { self.api.mem_set_access.call(address, size, &raw const access, 1) }
    }

    fn free_bytes(&self) -> usize {
        let (mut free, mut total) = (0, 0);
        unsafe { self.api.mem_get_info.call(&raw mut free, &raw mut total) }.unwrap();
        free
    }
}

const READ_WRITE: CUmemAccess_flags = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
const READ: CUmemAccess_flags = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READ;
const NOTHING: CUmemAccess_flags = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_NONE;

#[test]
fn two_mappings_of_one_allocation_show_the_same_bytes() {
    let rig = Rig::new(Schedule::Async);
    let (address, physical) = (rig.reserve(2 * GRANULE), rig.physical(GRANULE));
    let alias = address + GRANULE as u64;
    unsafe {
        rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
        rig.api.mem_map.call(alias, GRANULE, 0, physical, 0).unwrap();
        rig.api.mem_release.call(physical).unwrap();
        rig.allow(address, 2 * GRANULE, READ_WRITE).unwrap();
        rig.api.memset_d8.call(address + 5, 7, 3).unwrap();
        assert_eq!(rig.read(alias + 5, 3), [7; 3]);
        let mut retained = 0;
        rig.api
            .mem_retain_allocation_handle
            .call(
                &raw mut retained,
                ptr::without_provenance_mut(usize::try_from(alias + 9).unwrap()),
            )
            .unwrap();
        assert_eq!(retained, physical, "the same handle that was used to map the memory");
        rig.api.mem_release.call(retained).unwrap();
        rig.api.mem_unmap.call(address, 2 * GRANULE).unwrap();
        assert_eq!(code(rig.api.mem_release.call(physical)), CudaError::INVALID_VALUE);
        rig.api.mem_address_free.call(address, 2 * GRANULE).unwrap();
    }
}

#[test]
fn a_copy_runs_through_neighbouring_mappings() {
    let rig = Rig::new(Schedule::Late);
    let address = rig.reserve(2 * GRANULE);
    let (first, second) = (rig.physical(GRANULE), rig.physical(GRANULE));
    let border = address + GRANULE as u64;
    unsafe {
        rig.api.mem_map.call(address, GRANULE, 0, first, 0).unwrap();
        rig.api.mem_map.call(border, GRANULE, 0, second, 0).unwrap();
        rig.allow(address, 2 * GRANULE, READ_WRITE).unwrap();
        rig.api.memset_d8.call(border - 8, 3, 16).unwrap();
    }
    assert_eq!(rig.read(border - 8, 16), [3; 16]);
}

#[test]
fn a_mapping_without_access_cannot_be_copied_to_or_from() {
    let rig = Rig::new(Schedule::Async);
    let (address, physical) = (rig.reserve(GRANULE), rig.physical(GRANULE));
    let byte = [1_u8];
    let write = || unsafe { rig.api.memcpy_htod.call(address, byte.as_ptr().cast(), 1) };
    let read = || unsafe { rig.api.memcpy_dtoh.call(byte.as_ptr().cast_mut().cast(), address, 1) };
    assert_eq!(code(write()), CudaError::INVALID_VALUE, "reserved only");
    unsafe { rig.api.mem_map.call(address, GRANULE, 0, physical, 0) }.unwrap();
    assert_eq!(code(write()), CudaError::INVALID_VALUE);
    assert_eq!(code(read()), CudaError::INVALID_VALUE);
    rig.allow(address, GRANULE, READ).unwrap();
    read().unwrap();
    assert_eq!(code(write()), CudaError::INVALID_VALUE);
    rig.allow(address, GRANULE, READ_WRITE).unwrap();
    write().unwrap();
    let (mut flags, location) = (0, device_0());
    unsafe { rig.api.mem_get_access.call(&raw mut flags, &raw const location, address + 1) }
        .unwrap();
    assert_eq!(flags, 3);
    rig.allow(address, GRANULE, NOTHING).unwrap();
    assert_eq!(code(read()), CudaError::INVALID_VALUE);
}

#[test]
fn memory_is_charged_at_creation_until_neither_handle_nor_mapping_is_left() {
    let rig = Rig::with(Config { device_memory: 8 << 20, ..Rig::config() });
    let before = rig.free_bytes();
    let (address, physical) = (rig.reserve(64 << 20), rig.physical(4 << 20));
    assert_eq!(before - rig.free_bytes(), 4 << 20);
    let (mut other, properties) = (0, properties());
    let more =
        unsafe { rig.api.mem_create.call(&raw mut other, 6 << 20, &raw const properties, 0) };
    assert_eq!(code(more), CudaError::OUT_OF_MEMORY);
    unsafe {
        rig.api.mem_map.call(address, 4 << 20, 0, physical, 0).unwrap();
        rig.api.mem_release.call(physical).unwrap();
        assert_eq!(before - rig.free_bytes(), 4 << 20);
        rig.api.mem_unmap.call(address, 4 << 20).unwrap();
        assert_eq!(before, rig.free_bytes());
    }
}

#[test]
fn an_operation_on_what_was_unmapped_or_mapped_anew_is_reported_and_harmless() {
    for free in [false, true] {
        let rig = Rig::new(Schedule::Late);
        let (stream, address) = (rig.stream(1), rig.reserve(GRANULE));
        let physical = rig.physical(GRANULE);
        unsafe {
            rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
            rig.allow(address, GRANULE, READ_WRITE).unwrap();
            rig.api.memset_d8_async.call(address, 1, 100, stream).unwrap();
            rig.api.mem_unmap.call(address, GRANULE).unwrap();
            rig.api.mem_release.call(physical).unwrap();
            if free {
                rig.api.mem_address_free.call(address, GRANULE).unwrap();
            } else {
                let other = rig.physical(GRANULE);
                rig.api.mem_map.call(address, GRANULE, 0, other, 0).unwrap();
                rig.allow(address, GRANULE, READ_WRITE).unwrap();
            }
        }
        rig.synchronize(stream);
        let violations = rig.simulator.violations();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert_eq!(violations[0].check, Check::UseAfterFree);
    }
}

#[test]
fn an_exported_descriptor_imports_as_the_same_memory() {
    let rig = Rig::new(Schedule::Async);
    let kind = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    let properties = CUmemAllocationProp_v1 { requestedHandleTypes: kind, ..properties() };
    let (mut physical, mut imported, mut descriptor): (u64, u64, c_int) = (0, 0, -1);
    type Export = unsafe extern "C" fn(*mut c_int, u64, CUmemAllocationHandleType, u64) -> u32;
    let export: Export = unsafe {
        std::mem::transmute(softcuda::entry_point("cuMemExportToShareableHandle", 10_020))
    };
    let import: unsafe extern "C" fn(*mut u64, usize, CUmemAllocationHandleType) -> u32 = unsafe {
        std::mem::transmute(softcuda::entry_point("cuMemImportFromShareableHandle", 10_020))
    };
    let address = rig.reserve(2 * GRANULE);
    unsafe {
        rig.api.mem_create.call(&raw mut physical, GRANULE, &raw const properties, 0).unwrap();
        assert_eq!(export(&raw mut descriptor, physical, kind, 0), 0);
        assert_eq!(import(&raw mut imported, descriptor as usize, kind), 0);
        assert_eq!(import(&raw mut imported, 1_000_000, kind), 1);
        libc::close(descriptor);
        rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
        rig.api.mem_map.call(address + GRANULE as u64, GRANULE, 0, imported, 0).unwrap();
        rig.allow(address, 2 * GRANULE, READ_WRITE).unwrap();
        rig.api.memset_d8.call(address, 9, 4).unwrap();
        assert_eq!(rig.read(address + GRANULE as u64, 4), [9; 4]);
        rig.api.mem_release.call(imported).unwrap();
        rig.api.mem_release.call(physical).unwrap();
    }
    let plain = rig.physical(GRANULE);
    assert_eq!(
        unsafe { export(&raw mut descriptor, plain, kind, 0) },
        1,
        "no handle type was requested"
    );
}

#[test]
fn wrong_arguments_are_refused() {
    let rig = Rig::new(Schedule::Async);
    let address = rig.reserve(4 * GRANULE);
    let physical = rig.physical(GRANULE);
    let (mut out, mut handle) = (0, 0);
    let good = properties();
    let unknown = location(CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, 7);
    let elsewhere = CUmemAllocationProp_v1 { location: unknown, ..good };
    let api = &rig.api;
    unsafe {
        let invalid = [
            api.mem_address_reserve.call(&raw mut out, 0, 0, 0, 0),
            api.mem_address_reserve.call(&raw mut out, 4097, 0, 0, 0),
            api.mem_address_reserve.call(&raw mut out, 4096, 3, 0, 0),
            api.mem_address_reserve.call(ptr::null_mut(), 4096, 0, 0, 0),
            api.mem_address_free.call(address, GRANULE),
            api.mem_address_free.call(0, 0),
            api.mem_create.call(&raw mut handle, 1, &raw const good, 0),
            api.mem_create.call(&raw mut handle, GRANULE, ptr::null(), 0),
            api.mem_create.call(ptr::null_mut(), GRANULE, &raw const good, 0),
            api.mem_map.call(address, GRANULE, 0, 0, 0),
            api.mem_map.call(address + 4096, GRANULE, 0, physical, 0),
            api.mem_map.call(address, 2 * GRANULE, 0, physical, 0),
            api.mem_map.call(address, GRANULE, GRANULE, physical, 0),
            api.mem_map.call(address + 4 * GRANULE as u64, GRANULE, 0, physical, 0),
            api.mem_unmap.call(address, GRANULE),
            api.mem_release.call(0),
            api.mem_release.call(u64::MAX),
            rig.allow(address, GRANULE, READ_WRITE),
        ];
        for (index, result) in invalid.into_iter().enumerate() {
            assert_eq!(code(result), CudaError::INVALID_VALUE, "call {index}");
        }
        let huge = api.mem_address_reserve.call(&raw mut out, 1 << 60, 0, 0, 0);
        assert_eq!(code(huge), CudaError::OUT_OF_MEMORY);
        let nowhere = api.mem_create.call(&raw mut handle, GRANULE, &raw const elsewhere, 0);
        assert_eq!(code(nowhere), CudaError::INVALID_DEVICE);
        api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
        let again = api.mem_map.call(address, GRANULE, 0, physical, 0);
        assert_eq!(code(again), CudaError::INVALID_VALUE, "mapped already");
        assert_eq!(code(api.mem_address_free.call(address, 4 * GRANULE)), CudaError::INVALID_VALUE);
    }
}

#[test]
fn a_device_without_it_says_so() {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
    let rig = Rig::with(Config { attributes: vec![(attribute, 0)], ..Rig::config() });
    let (mut size, mut address, properties) = (0, 0, properties());
    let option = CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
    unsafe {
        let reserve = rig.api.mem_address_reserve.call(&raw mut address, GRANULE, 0, 0, 0);
        assert_eq!(code(reserve), CudaError::NOT_SUPPORTED);
        let granularity = rig.api.mem_get_allocation_granularity.call(
            &raw mut size,
            &raw const properties,
            option,
        );
        assert_eq!(code(granularity), CudaError::NOT_SUPPORTED);
    }
}

#[test]
fn always_synchronous_operations_are_not_supported_on_mappings() {
    let rig = Rig::new(Schedule::Async);
    let (address, physical) = (rig.reserve(GRANULE), rig.physical(GRANULE));
    let set = entry!("cuPointerSetAttribute" 6000 PFN_cuPointerSetAttribute_v6000);
    let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS;
    let on = 1_u32;
    unsafe {
        rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
        let result = set((&raw const on).cast(), attribute, address);
        assert_eq!(result, CUresult::CUDA_ERROR_NOT_SUPPORTED);
        assert_eq!(set((&raw const on).cast(), attribute, rig.device(64)), CUresult::CUDA_SUCCESS);
    }
}

#[test]
fn a_mapping_says_whether_it_was_created_for_other_hardware_and_the_device_can() {
    let can = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
    for (able, asked, expected) in [(1, 1, 1), (1, 0, 0), (0, 1, 0)] {
        let rig = Rig::with(Config { attributes: vec![(can, able)], ..Rig::config() });
        let (address, mut physical, mut properties) = (rig.reserve(GRANULE), 0, properties());
        properties.allocFlags.gpuDirectRDMACapable = asked;
        let mut is_capable = 9_u32;
        let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE;
        unsafe {
            rig.api.mem_create.call(&raw mut physical, GRANULE, &raw const properties, 0).unwrap();
            rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
            let data = (&raw mut is_capable).cast();
            rig.api.pointer_get_attribute.call(data, attribute, address).unwrap();
        }
        assert_eq!(is_capable, expected, "able {able}, asked {asked}");
    }
}

#[test]
fn fabric_handles_that_a_device_advertises_are_not_permitted_without_a_channel() {
    let fabric = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC;
    let posix = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED;
    for (advertised, expected) in [(0, CudaError::NOT_SUPPORTED), (1, CudaError::NOT_PERMITTED)] {
        let rig = Rig::with(Config { attributes: vec![(attribute, advertised)], ..Rig::config() });
        for types in [fabric.0, fabric.0 | posix.0] {
            let (mut handle, mut properties) = (0, properties());
            properties.requestedHandleTypes = CUmemAllocationHandleType(types);
            let made = unsafe {
                rig.api.mem_create.call(&raw mut handle, GRANULE, &raw const properties, 0)
            };
            assert_eq!(code(made), expected);
        }
    }
}

#[test]
fn a_fabric_handle_imports_as_the_same_memory_where_there_is_a_channel() {
    let fabric = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC;
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED;
    let attributes = vec![(attribute, 1)];
    let rig = Rig::with(Config { attributes, imex_channel: true, ..Rig::config() });
    let properties = CUmemAllocationProp_v1 { requestedHandleTypes: fabric, ..properties() };
    let (mut physical, mut imported, mut bytes) = (0, 0, [0_u8; 64]);
    let address = rig.reserve(2 * GRANULE);
    let import = |bytes: &mut [u8; 64], to: &mut u64| unsafe {
        rig.api.mem_import_from_shareable_handle.call(to, bytes.as_mut_ptr().cast(), fabric)
    };
    unsafe {
        rig.api.mem_create.call(&raw mut physical, GRANULE, &raw const properties, 0).unwrap();
        let to = bytes.as_mut_ptr().cast();
        rig.api.mem_export_to_shareable_handle.call(to, physical, fabric, 0).unwrap();
        import(&mut bytes, &mut imported).unwrap();
        rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
        rig.api.mem_map.call(address + GRANULE as u64, GRANULE, 0, imported, 0).unwrap();
        rig.allow(address, 2 * GRANULE, READ_WRITE).unwrap();
        rig.api.memset_d8.call(address, 9, 4).unwrap();
        assert_eq!(rig.read(address + GRANULE as u64, 4), [9; 4]);
        rig.api.mem_unmap.call(address, 2 * GRANULE).unwrap();
        rig.api.mem_release.call(imported).unwrap();
        rig.api.mem_release.call(physical).unwrap();
    }
    // The memory is gone, and what has its descriptor now is another file.
    let _other = rig.physical(GRANULE);
    assert_eq!(code(import(&mut bytes, &mut imported)), CudaError::INVALID_VALUE);
    assert_eq!(code(import(&mut [3; 64], &mut imported)), CudaError::INVALID_VALUE);
}

#[test]
fn a_whole_allocation_has_a_descriptor_for_other_hardware_where_the_device_says_so() {
    let posix = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED;
    let kind = CUmemRangeHandleType::CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD;
    for (supported, types) in [(0, posix.0), (1, posix.0), (1, 0)] {
        let attributes = vec![(attribute, supported)];
        let rig = Rig::with(Config { attributes, ..Rig::config() });
        let mut properties = properties();
        properties.requestedHandleTypes = CUmemAllocationHandleType(types);
        let (mut physical, mut descriptor): (u64, c_int) = (0, -1);
        let address = rig.reserve(GRANULE);
        unsafe {
            rig.api.mem_create.call(&raw mut physical, GRANULE, &raw const properties, 0).unwrap();
            rig.api.mem_map.call(address, GRANULE, 0, physical, 0).unwrap();
            let to = (&raw mut descriptor).cast();
            let entry = &rig.api.mem_get_handle_for_address_range;
            let part = entry.call(to, address, GRANULE / 2, kind, 0);
            assert_eq!(code(part), CudaError::NOT_SUPPORTED, "a part");
            let whole = entry.call(to, address, GRANULE, kind, 0);
            if (supported, types) == (1, posix.0) {
                whole.unwrap();
                assert!(descriptor >= 0);
                libc::close(descriptor);
            } else {
                assert_eq!(code(whole), CudaError::NOT_SUPPORTED);
            }
            rig.api.mem_unmap.call(address, GRANULE).unwrap();
            rig.api.mem_release.call(physical).unwrap();
        }
    }
}
