#![expect(unsafe_code, reason = "exports C functions")]
//! Virtual memory management.

use core::ffi::{c_ulonglong, c_void};
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, inputs};
use super::{exports, out, valid};
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;
use crate::location::Location;
use crate::machine::{ALLOCATED, POISON_LIMIT, State};
use crate::memory::Kind;
use crate::memory::window::GRANULARITY;
use crate::vmm::Physical;

exports! {
    Normal PFN_cuMemAddressReserve_v10020: cuMemAddressReserve(
        pointer: *mut CUdeviceptr, size: usize, align: usize, hint: CUdeviceptr, flags: c_ulonglong,
    ) => address_reserve;
    Normal PFN_cuMemAddressFree_v10020: cuMemAddressFree(
        pointer: CUdeviceptr, size: usize,
    ) => address_free;
    Normal PFN_cuMemCreate_v10020: cuMemCreate(
        handle: *mut CUmemGenericAllocationHandle, size: usize,
        properties: *const CUmemAllocationProp_v1, flags: c_ulonglong,
    ) => create;
    Normal PFN_cuMemRelease_v10020: cuMemRelease(handle: CUmemGenericAllocationHandle) => release;
    Normal PFN_cuMemMap_v10020: cuMemMap(
        pointer: CUdeviceptr, size: usize, offset: usize, handle: CUmemGenericAllocationHandle,
        flags: c_ulonglong,
    ) => map;
    Normal PFN_cuMemUnmap_v10020: cuMemUnmap(pointer: CUdeviceptr, size: usize) => unmap;
    Normal PFN_cuMemSetAccess_v10020: cuMemSetAccess(
        pointer: CUdeviceptr, size: usize, access: *const CUmemAccessDesc, count: usize,
    ) => set_access;
    Normal PFN_cuMemGetAccess_v10020: cuMemGetAccess(
        flags: *mut c_ulonglong, location: *const CUmemLocation, pointer: CUdeviceptr,
    ) => get_access;
    Normal PFN_cuMemGetAllocationGranularity_v10020: cuMemGetAllocationGranularity(
        granularity: *mut usize, properties: *const CUmemAllocationProp_v1,
        option: CUmemAllocationGranularity_flags,
    ) => get_allocation_granularity;
    Normal PFN_cuMemGetAllocationPropertiesFromHandle_v10020:
        cuMemGetAllocationPropertiesFromHandle(
        properties: *mut CUmemAllocationProp_v1, handle: CUmemGenericAllocationHandle,
    ) => get_allocation_properties;
    Normal PFN_cuMemRetainAllocationHandle_v11000: cuMemRetainAllocationHandle(
        handle: *mut CUmemGenericAllocationHandle, address: *mut c_void,
    ) => retain_allocation_handle;
}

const HOST_NUMA_VMM_SUPPORTED: CUdevice_attribute =
    CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
/// The host's page size.
const PAGE: usize = 4096;
/// `CU_MEM_CREATE_USAGE_TILE_POOL`
const TILE_POOL: u16 = 1;

impl Call<'_> {
    /// Refuses what no device of the machine has.
    pub(super) fn require_anywhere(self, attribute: CUdevice_attribute) -> Status {
        match attributes::of(&self.machine.config, attribute, 0) {
            Some(0) | None => Err(CudaError::NOT_SUPPORTED),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn require_vmm(self) -> Status {
        self.require_anywhere(
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
        )
    }

    /// Checks that memory can be exported as each of `kinds`.
    pub(super) fn handle_types(self, kinds: CUmemAllocationHandleType) -> Status {
        const POSIX: u32 = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.0;
        const FABRIC: u32 = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC.0;
        if kinds.0 >= 16 {
            return Err(CudaError::INVALID_VALUE);
        }
        if kinds.0 & !(POSIX | FABRIC) != 0 {
            return Err(CudaError::NOT_SUPPORTED);
        }
        if kinds.0 & POSIX != 0 {
            self.require_anywhere(
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
            )?;
        }
        if kinds.0 & FABRIC != 0 {
            self.require_anywhere(
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED,
            )?;
            if !self.machine.config.imex_channel {
                // As on many machines whose devices advertise them.
                return Err(CudaError::NOT_PERMITTED);
            }
        }
        Ok(())
    }

    /// Checks the properties of a physical allocation and says where it is to be.
    fn allocation_location(self, properties: *const CUmemAllocationProp_v1) -> Status<Location> {
        let properties = input(properties)?;
        if properties.type_ != CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED
            || properties.location.type_
                == CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT
        {
            return Err(CudaError::INVALID_VALUE);
        }
        let location = self.location(&properties.location)?;
        let exports =
            properties.requestedHandleTypes != CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
        // "HOST allocations are not IPC capable and requestedHandleTypes must be 0."
        if location == Location::Host && exports {
            return Err(CudaError::INVALID_VALUE);
        }
        if let Location::HostNuma(_) = location {
            self.require_anywhere(HOST_NUMA_VMM_SUPPORTED)?;
        }
        self.handle_types(properties.requestedHandleTypes)?;
        if properties.allocFlags.usage & TILE_POOL != 0 {
            // A tile pool backs sparse arrays, which there are none of.
            return Err(CudaError::NOT_SUPPORTED);
        }
        Ok(location)
    }
}

pub(super) fn is_granular(sizes: &[usize]) -> bool {
    sizes.iter().all(|size| size.is_multiple_of(GRANULARITY))
}

/// An address as a number of bytes.
fn bytes(address: u64) -> usize {
    usize::try_from(address).unwrap_or(usize::MAX)
}

fn address_reserve(
    call: Call,
    pointer: *mut CUdeviceptr,
    size: usize,
    align: usize,
    hint: CUdeviceptr,
    flags: c_ulonglong,
) -> Status {
    call.require_vmm()?;
    let is_paged = size.is_multiple_of(PAGE) && hint.is_multiple_of(PAGE as u64);
    let is_align = align == 0 || align.is_power_of_two();
    if !valid(pointer) || flags != 0 || size == 0 || !is_paged || !is_align || hint >= 1 << 47 {
        return Err(CudaError::INVALID_VALUE);
    }
    // Mappings are cut at the granularity, so reservations begin at a multiple of it.
    let address = call.lock().vmm.reserve(size, align.max(GRANULARITY), hint);
    out(pointer, address.ok_or(CudaError::OUT_OF_MEMORY)?)
}

fn address_free(call: Call, pointer: CUdeviceptr, size: usize) -> Status {
    call.require_vmm()?;
    let mut state = call.lock();
    let known = state.vmm.reservations.get(&pointer).is_some_and(|known| known.size() == size);
    if !known || state.memory.overlaps(pointer, size) {
        return Err(CudaError::INVALID_VALUE);
    }
    state.vmm.unreserve(pointer);
    Ok(())
}

fn create(
    call: Call,
    handle: *mut CUmemGenericAllocationHandle,
    size: usize,
    properties: *const CUmemAllocationProp_v1,
    flags: c_ulonglong,
) -> Status {
    call.require_vmm()?;
    if !valid(handle) || flags != 0 || size == 0 || !is_granular(&[size]) {
        return Err(CudaError::INVALID_VALUE);
    }
    let location = call.allocation_location(properties)?;
    let properties = input(properties)?;
    let exportable = properties.requestedHandleTypes.0 != 0;
    let kind = Kind::Mapping { physical: 0, host: location.is_host() };
    let mut state = call.lock();
    call.charge(&mut state, kind, location.ordinal(), size)?;
    let Some(bytes) = state.vmm.store.allocate(size as u64, exportable) else {
        state.memory.refund(kind, location.ordinal(), size);
        return Err(CudaError::OUT_OF_MEMORY);
    };
    // Physical memory is poisoned when it is made: it has no address yet, and may be mapped twice.
    if call.machine.config.poisons() && size <= POISON_LIMIT {
        bytes.fill(ALLOCATED);
    }
    let (types, rdma) =
        (properties.requestedHandleTypes.0, properties.allocFlags.gpuDirectRDMACapable);
    let physical = Physical::new(bytes, location, types, rdma, true);
    out(handle, state.vmm.physicals.insert(physical))
}

fn release(call: Call, handle: CUmemGenericAllocationHandle) -> Status {
    call.require_vmm()?;
    let State { vmm, memory, .. } = &mut *call.lock();
    vmm.release(memory, handle)
}

fn map(
    call: Call,
    pointer: CUdeviceptr,
    size: usize,
    offset: usize,
    handle: CUmemGenericAllocationHandle,
    flags: c_ulonglong,
) -> Status {
    call.require_vmm()?;
    if flags != 0 || size == 0 || !is_granular(&[bytes(pointer), size, offset]) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let end = offset.checked_add(size).ok_or(CudaError::INVALID_VALUE)?;
    if end as u64 > state.vmm.physical(handle)?.bytes.size() {
        return Err(CudaError::INVALID_VALUE);
    }
    // The range is inside the allocation; the reservation checks the addresses.
    let State { vmm, memory, .. } = &mut *state;
    vmm.map(memory, pointer, size, offset as u64, handle)
}

/// Operations in flight keep the addresses usable for themselves: the reference does not say
/// that this call waits for them.
fn unmap(call: Call, pointer: CUdeviceptr, size: usize) -> Status {
    call.require_vmm()?;
    let mut state = call.lock();
    let State { vmm, memory, .. } = &mut *state;
    for mapping in memory.mappings(pointer, size)? {
        vmm.unmap(memory, &mapping);
    }
    Ok(())
}

fn set_access(
    call: Call,
    pointer: CUdeviceptr,
    size: usize,
    access: *const CUmemAccessDesc,
    count: usize,
) -> Status {
    call.require_vmm()?;
    if count == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let mappings = state.memory.mappings(pointer, size)?;
    let mut changes = Vec::new();
    for access in inputs(access, count)? {
        let location = call.location(&access.location)?;
        let on_host = mappings.iter().all(|mapping| mapping.kind.is_host());
        // "Users cannot specify HOST_NUMA accessibility for allocations created on with other
        // location types": the host has no way into a device's memory.
        if !matches!(access.flags.0, 0 | 1 | 3) || location.is_host() && !on_host {
            return Err(CudaError::INVALID_VALUE);
        }
        changes.push((location, access.flags.0));
    }
    for mapping in &mappings {
        // The table's reference and this one.
        let idle = Arc::strong_count(mapping) == 2;
        for (location, flags) in &changes {
            state.vmm.set_access(mapping, *location, *flags, idle);
        }
    }
    Ok(())
}

fn get_access(
    call: Call,
    flags: *mut c_ulonglong,
    location: *const CUmemLocation,
    pointer: CUdeviceptr,
) -> Status {
    call.require_vmm()?;
    let location = call.location(&input(location)?)?;
    let state = call.lock();
    let mapping =
        state.memory.find(pointer).filter(|block| matches!(block.kind, Kind::Mapping { .. }));
    out(flags, state.vmm.access(mapping.ok_or(CudaError::INVALID_VALUE)?, location).into())
}

fn get_allocation_granularity(
    call: Call,
    granularity: *mut usize,
    properties: *const CUmemAllocationProp_v1,
    option: CUmemAllocationGranularity_flags,
) -> Status {
    call.require_vmm()?;
    call.allocation_location(properties)?;
    if option.0 > CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED.0 {
        return Err(CudaError::INVALID_VALUE);
    }
    out(granularity, GRANULARITY)
}

fn get_allocation_properties(
    call: Call,
    properties: *mut CUmemAllocationProp_v1,
    handle: CUmemGenericAllocationHandle,
) -> Status {
    call.require_vmm()?;
    let mut state = call.lock();
    let physical = state.vmm.physical(handle)?;
    out(
        properties,
        CUmemAllocationProp_v1 {
            type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes: CUmemAllocationHandleType(physical.handle_types),
            location: physical.location.as_raw(),
            win32HandleMetaData: core::ptr::null_mut(),
            allocFlags: CUmemAllocationProp_st__bindgen_ty_1 {
                // Asked for or not, nothing is compressed.
                compressionType: 0,
                gpuDirectRDMACapable: physical.rdma,
                usage: 0,
                reserved: [0; 4],
            },
        },
    )
}

fn retain_allocation_handle(
    call: Call,
    handle: *mut CUmemGenericAllocationHandle,
    address: *mut c_void,
) -> Status {
    call.require_vmm()?;
    if !valid(handle) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let kind = state.memory.find(address.addr() as u64).map(|block| block.kind);
    let Some(Kind::Mapping { physical, .. }) = kind else { return Err(CudaError::INVALID_VALUE) };
    state.vmm.physicals.get_mut(physical).ok_or(CudaError::INVALID_VALUE)?.references += 1;
    out(handle, physical)
}
