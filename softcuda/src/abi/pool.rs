#![expect(unsafe_code, reason = "exports C functions")]
//! Memory pools.

use core::ffi::{c_int, c_ulonglong, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, inputs};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::location::Location;
use crate::machine::State;
use crate::pool::{Place, Pool};

exports! {
    Normal PFN_cuMemPoolCreate_v11020: cuMemPoolCreate(
        pool: *mut CUmemoryPool, properties: *const CUmemPoolProps,
    ) => create;
    Normal PFN_cuMemPoolDestroy_v11020: cuMemPoolDestroy(pool: CUmemoryPool) => destroy;
    Normal PFN_cuMemPoolTrimTo_v11020: cuMemPoolTrimTo(pool: CUmemoryPool, keep: usize) => trim_to;
    Normal PFN_cuMemPoolSetAttribute_v11020: cuMemPoolSetAttribute(
        pool: CUmemoryPool, attribute: CUmemPool_attribute, value: *mut c_void,
    ) => set_attribute;
    Normal PFN_cuMemPoolGetAttribute_v11020: cuMemPoolGetAttribute(
        pool: CUmemoryPool, attribute: CUmemPool_attribute, value: *mut c_void,
    ) => get_attribute;
    Normal PFN_cuMemPoolSetAccess_v11020: cuMemPoolSetAccess(
        pool: CUmemoryPool, access: *const CUmemAccessDesc, count: usize,
    ) => set_access;
    Normal PFN_cuMemPoolGetAccess_v11020: cuMemPoolGetAccess(
        flags: *mut CUmemAccess_flags, pool: CUmemoryPool, location: *mut CUmemLocation,
    ) => get_access;
    Normal PFN_cuDeviceGetDefaultMemPool_v11020: cuDeviceGetDefaultMemPool(
        pool: *mut CUmemoryPool, device: CUdevice,
    ) => device_get_default;
    Normal PFN_cuDeviceGetMemPool_v11020: cuDeviceGetMemPool(
        pool: *mut CUmemoryPool, device: CUdevice,
    ) => device_get;
    Normal PFN_cuDeviceSetMemPool_v11020: cuDeviceSetMemPool(
        device: CUdevice, pool: CUmemoryPool,
    ) => device_set;
    Normal PFN_cuMemGetDefaultMemPool_v13000: cuMemGetDefaultMemPool(
        pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: CUmemAllocationType,
    ) => get_default;
    Normal PFN_cuMemGetMemPool_v13000: cuMemGetMemPool(
        pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: CUmemAllocationType,
    ) => get;
    Normal PFN_cuMemSetMemPool_v13000: cuMemSetMemPool(
        location: *mut CUmemLocation, kind: CUmemAllocationType, pool: CUmemoryPool,
    ) => set;
    Normal PFN_cuMemPoolExportToShareableHandle_v11020: cuMemPoolExportToShareableHandle(
        shareable: *mut c_void, pool: CUmemoryPool, kind: CUmemAllocationHandleType,
        flags: c_ulonglong,
    ) => export_to_shareable_handle;
    Normal PFN_cuMemPoolImportFromShareableHandle_v11020: cuMemPoolImportFromShareableHandle(
        pool: *mut CUmemoryPool, shareable: *mut c_void, kind: CUmemAllocationHandleType,
        flags: c_ulonglong,
    ) => import_from_shareable_handle;
    Normal PFN_cuMemPoolExportPointer_v11020: cuMemPoolExportPointer(
        data: *mut CUmemPoolPtrExportData_v1, pointer: CUdeviceptr,
    ) => export_pointer;
    Normal PFN_cuMemPoolImportPointer_v11020: cuMemPoolImportPointer(
        pointer: *mut CUdeviceptr, pool: CUmemoryPool, data: *mut CUmemPoolPtrExportData_v1,
    ) => import_pointer;
}

/// Reads the place that a pool is for.
fn place(call: Call, location: &CUmemLocation, kind: CUmemAllocationType) -> Status<Place> {
    let managed = match kind {
        CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED => false,
        CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_MANAGED => true,
        _ => return Err(CudaError::INVALID_VALUE),
    };
    if managed && location.type_ == CUmemLocationType::CU_MEM_LOCATION_TYPE_NONE {
        return Ok(Place { managed, location: None });
    }
    if location.type_ == CUmemLocationType::CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(Place { managed, location: Some(call.location(location)?) })
}

fn create(call: Call, pool: *mut CUmemoryPool, properties: *const CUmemPoolProps) -> Status {
    call.require_pools()?;
    let properties = input(properties)?;
    let place = place(call, &properties.location, properties.allocType)?;
    // "maxSize must be set to zero for managed memory pools."
    if !valid(pool) || place.managed && properties.maxSize != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    if place.managed {
        call.require_anywhere(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS)?;
    }
    let exports = properties.handleTypes != CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
    if exports && (place.managed || place.location == Some(Location::Host)) {
        return Err(CudaError::INVALID_VALUE);
    }
    if exports {
        call.require_anywhere(
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES,
        )?;
    }
    let handle = call.lock().pools.create(place, properties.maxSize as u64);
    out(pool, to_pointer(handle))
}

fn destroy(call: Call, pool: CUmemoryPool) -> Status {
    let State { pools, memory, .. } = &mut *call.lock();
    pools.destroy(memory, number(pool))
}

fn trim_to(call: Call, pool: CUmemoryPool, keep: usize) -> Status {
    let State { pools, memory, .. } = &mut *call.lock();
    pools.get(number(pool))?;
    pools.shrink(memory, number(pool), keep as u64);
    Ok(())
}

/// The attributes of a pool whose values the program may change.
fn set_attribute(
    call: Call,
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> Status {
    let mut state = call.lock();
    call.forbid_while_capturing(&mut state, None)?;
    let pool = state.pools.get(number(pool))?;
    match attribute {
        CUmemPool_attribute::CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES
        | CUmemPool_attribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC
        | CUmemPool_attribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES => {
            pool.reuse[attribute.0 as usize - 1] = c_int::from(input(value.cast::<c_int>())? != 0);
        }
        CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD => {
            pool.threshold = input(value.cast::<u64>())?;
        }
        // "It is illegal to set this attribute to a non-zero value."
        CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH
            if input(value.cast::<u64>())? == 0 =>
        {
            pool.reserved.reset();
        }
        CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH if input(value.cast::<u64>())? == 0 => {
            pool.used.reset();
        }
        _ => return Err(CudaError::INVALID_VALUE),
    }
    Ok(())
}

fn get_attribute(
    call: Call,
    pool: CUmemoryPool,
    attribute: CUmemPool_attribute,
    value: *mut c_void,
) -> Status {
    let mut state = call.lock();
    call.forbid_while_capturing(&mut state, None)?;
    let pool = state.pools.get(number(pool))?;
    if let Some(number) = bytes_of(pool, attribute) {
        return out(value.cast::<u64>(), number);
    }
    out(value.cast::<c_int>(), integer_of(pool, attribute).ok_or(CudaError::INVALID_VALUE)?)
}

/// Attributes that are a number of bytes.
fn bytes_of(pool: &Pool, attribute: CUmemPool_attribute) -> Option<u64> {
    Some(match attribute {
        CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD => pool.threshold,
        CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT => pool.reserved.now,
        CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH => pool.reserved.high,
        CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT => pool.used.now,
        CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH => pool.used.high,
        CUmemPool_attribute::CU_MEMPOOL_ATTR_MAX_POOL_SIZE => pool.max_size,
        _ => return None,
    })
}

/// Attributes that are an `int` or an enumeration.
fn integer_of(pool: &Pool, attribute: CUmemPool_attribute) -> Option<c_int> {
    let Place { managed, location } = pool.place;
    let none = CUmemLocationType::CU_MEM_LOCATION_TYPE_NONE;
    Some(match attribute {
        CUmemPool_attribute::CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES => pool.reuse[0],
        CUmemPool_attribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC => pool.reuse[1],
        CUmemPool_attribute::CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES => pool.reuse[2],
        CUmemPool_attribute::CU_MEMPOOL_ATTR_ALLOCATION_TYPE => 1 + c_int::from(managed),
        CUmemPool_attribute::CU_MEMPOOL_ATTR_LOCATION_ID => location.map_or(0, Location::id),
        CUmemPool_attribute::CU_MEMPOOL_ATTR_LOCATION_TYPE => {
            location.map_or(none, Location::kind).0.cast_signed()
        }
        CUmemPool_attribute::CU_MEMPOOL_ATTR_EXPORT_HANDLE_TYPES
        | CUmemPool_attribute::CU_MEMPOOL_ATTR_HW_DECOMPRESS_ENABLED => 0,
        _ => return None,
    })
}

fn set_access(
    call: Call,
    pool: CUmemoryPool,
    access: *const CUmemAccessDesc,
    count: usize,
) -> Status {
    let mut state = call.lock();
    let pool = state.pools.get(number(pool))?;
    if count == 0 || pool.place.managed {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut changes = Vec::new();
    for access in inputs(access, count)? {
        // "Each descriptor instructs the access to enable for a single gpu."
        let location = call.location(&access.location).map_err(|_| CudaError::INVALID_VALUE)?;
        let takes_its_own = pool.place.location == Some(location) && access.flags.0 != 3;
        if location.is_host() || !matches!(access.flags.0, 0 | 1 | 3) || takes_its_own {
            return Err(CudaError::INVALID_VALUE);
        }
        changes.push((location, access.flags.0));
    }
    pool.access.extend(changes);
    Ok(())
}

fn get_access(
    call: Call,
    flags: *mut CUmemAccess_flags,
    pool: CUmemoryPool,
    location: *mut CUmemLocation,
) -> Status {
    let location = call.location(&input(location)?)?;
    let mut state = call.lock();
    let pool = state.pools.get(number(pool))?;
    let is_own = pool.place.managed || pool.place.location == Some(location);
    let granted = pool.access.get(&location).copied().unwrap_or(0);
    out(flags, CUmemAccess_flags(if is_own { 3 } else { granted }))
}

/// Finds a pool of a device.
fn device_pool(
    call: Call,
    pool: *mut CUmemoryPool,
    device: CUdevice,
    find: impl FnOnce(&mut State, Place) -> u64,
) -> Status {
    call.require_pools()?;
    if !valid(pool) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    let handle = find(&mut call.lock(), Place::device(device));
    out(pool, to_pointer(handle))
}

fn device_get_default(call: Call, pool: *mut CUmemoryPool, device: CUdevice) -> Status {
    device_pool(call, pool, device, |state, place| state.pools.default_of(place))
}

fn device_get(call: Call, pool: *mut CUmemoryPool, device: CUdevice) -> Status {
    device_pool(call, pool, device, |state, place| state.pools.current_of(place))
}

fn device_set(call: Call, device: CUdevice, pool: CUmemoryPool) -> Status {
    call.require_pools()?;
    call.device(device)?;
    call.lock().pools.set_current(Place::device(device), number(pool))
}

fn get_default(
    call: Call,
    pool: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
) -> Status {
    call.require_pools()?;
    if !valid(pool) {
        return Err(CudaError::INVALID_VALUE);
    }
    let place = place(call, &input(location)?, kind)?;
    out(pool, to_pointer(call.lock().pools.default_of(place)))
}

fn get(
    call: Call,
    pool: *mut CUmemoryPool,
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
) -> Status {
    call.require_pools()?;
    if !valid(pool) {
        return Err(CudaError::INVALID_VALUE);
    }
    let place = place(call, &input(location)?, kind)?;
    out(pool, to_pointer(call.lock().pools.current_of(place)))
}

fn set(
    call: Call,
    location: *mut CUmemLocation,
    kind: CUmemAllocationType,
    pool: CUmemoryPool,
) -> Status {
    call.require_pools()?;
    let place = place(call, &input(location)?, kind)?;
    call.lock().pools.set_current(place, number(pool))
}

/// No pool can be shared with another process: `CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES`
/// is zero, and so no pool was made with a handle type.
fn export_to_shareable_handle(
    call: Call,
    _: *mut c_void,
    pool: CUmemoryPool,
    _: CUmemAllocationHandleType,
    _: c_ulonglong,
) -> Status {
    call.lock().pools.get(number(pool))?;
    Err(CudaError::INVALID_VALUE)
}

fn import_from_shareable_handle(
    _: Call,
    _: *mut CUmemoryPool,
    _: *mut c_void,
    _: CUmemAllocationHandleType,
    _: c_ulonglong,
) -> Status {
    Err(CudaError::INVALID_VALUE)
}

fn export_pointer(_: Call, _: *mut CUmemPoolPtrExportData_v1, _: CUdeviceptr) -> Status {
    Err(CudaError::INVALID_VALUE)
}

fn import_pointer(
    _: Call,
    _: *mut CUdeviceptr,
    _: CUmemoryPool,
    _: *mut CUmemPoolPtrExportData_v1,
) -> Status {
    Err(CudaError::INVALID_VALUE)
}
