#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! Memory of every kind, and what can be asked about an address.

use core::ffi::c_void;
use core::ptr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use wharf::Error;
use wharf::memory::{DeviceMemoryResource, DeviceOptions, Handles, MemoryResource};
use wharf::sys::bindings::{
    CUdeviceptr, CUmem_advise, CUmem_range_attribute, CUmemAccess_flags, CUmemAccessDesc,
    CUmemAllocationGranularity_flags, CUmemAllocationHandleType, CUmemAllocationProp_v1,
    CUmemAllocationType, CUmemGenericAllocationHandle, CUmemLocation, CUmemLocationType,
    CUmemPool_attribute, CUmemPoolProps, CUmemRangeHandleType, CUmemoryPool, CUpointer_attribute,
};

use super::{Exercise, Guard, Outcome, World, call, zeroed};

pub(super) const EXERCISES: &[Exercise] = &[
    ("cuMemGetInfo", 3020, |w| {
        let (mut free, mut total) = (0, 0);
        call!(w, mem_get_info(&raw mut free, &raw mut total))
    }),
    ("cuMemAlloc", 3020, |w| w.device_memory(64).map(drop)),
    ("cuMemFree", 3020, |w| w.device_memory(64)?.close()),
    ("cuMemGetAddressRange", 3020, |w| {
        let memory = w.device_memory(64)?;
        let (mut base, mut size) = (0, 0);
        call!(w, mem_get_address_range(&raw mut base, &raw mut size, memory.get()))
    }),
    ("cuMemHostAlloc", 2020, |w| w.pinned(64).map(drop)),
    ("cuMemFreeHost", 2000, |w| w.pinned(64)?.close()),
    ("cuMemHostGetDevicePointer", 3020, |w| {
        let memory = w.pinned(64)?;
        let mut address = 0;
        call!(w, mem_host_get_device_pointer(&raw mut address, memory.get(), 0))
    }),
    ("cuMemHostGetFlags", 2030, |w| {
        let memory = w.pinned(64)?;
        let mut flags = 0;
        call!(w, mem_host_get_flags(&raw mut flags, memory.get()))
    }),
    ("cuMemHostRegister", 6050, |w| with_registered(w, |_| Ok(()))),
    ("cuMemHostUnregister", 4000, |w| with_registered(w, Guard::close)),
    ("cuMemAllocManaged", 6000, |w| w.managed(64).map(drop)),
    ("cuMemAdvise", 8000, |w| {
        let memory = w.managed(64)?;
        let advice = CUmem_advise::CU_MEM_ADVISE_SET_READ_MOSTLY;
        call!(w, mem_advise(memory.get(), 64, advice, w.ordinal()))
    }),
    ("cuMemPrefetchAsync", 8000, |w| {
        let memory = w.managed(64)?;
        let stream = w.stream()?;
        call!(w, mem_prefetch_async(memory.get(), 64, w.ordinal(), stream.as_raw()))?;
        stream.synchronize()
    }),
    ("cuMemRangeGetAttribute", 8000, |w| {
        let memory = w.managed(64)?;
        let mut value = 0_u32;
        let attribute = CUmem_range_attribute::CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY;
        call!(w, mem_range_get_attribute((&raw mut value).cast(), 4, attribute, memory.get(), 64))
    }),
    ("cuMemAdvise", 12020, |w| {
        let memory = w.managed(64)?;
        let advice = CUmem_advise::CU_MEM_ADVISE_SET_READ_MOSTLY;
        call!(w, mem_advise_v12020(memory.get(), 64, advice, location(w)))
    }),
    ("cuMemPrefetchAsync", 12020, |w| {
        let memory = w.managed(64)?;
        let stream = w.stream()?;
        call!(w, mem_prefetch_async_v12020(memory.get(), 64, location(w), 0, stream.as_raw()))?;
        stream.synchronize()
    }),
    ("cuMemAddressReserve", 10020, |w| reserved(w).map(drop)),
    ("cuMemAddressFree", 10020, |w| reserved(w)?.close()),
    ("cuMemCreate", 10020, |w| created(w).map(drop)),
    ("cuMemRelease", 10020, |w| created(w)?.close()),
    ("cuMemMap", 10020, |w| with_mapping(w, |_| Ok(()))),
    ("cuMemUnmap", 10020, |w| with_mapping(w, Guard::close)),
    ("cuMemSetAccess", 10020, |w| with_mapping(w, |mapping| allow(w, &mapping))),
    ("cuMemGetAccess", 10020, |w| {
        with_mapping(w, |mapping| {
            allow(w, &mapping)?;
            let (mut flags, location) = (0, location(w));
            call!(w, mem_get_access(&raw mut flags, &raw const location, mapping.get().0))
        })
    }),
    ("cuMemGetAllocationGranularity", 10020, |w| granularity(w).map(drop)),
    ("cuMemGetAllocationPropertiesFromHandle", 10020, |w| {
        let memory = created(w)?;
        let mut properties = zeroed!(CUmemAllocationProp_v1);
        call!(w, mem_get_allocation_properties_from_handle(&raw mut properties, memory.get()))
    }),
    ("cuMemRetainAllocationHandle", 11000, |w| {
        with_mapping(w, |mapping| {
            let mut handle = 0;
            let address = ptr::with_exposed_provenance_mut::<c_void>(
                usize::try_from(mapping.get().0).unwrap(),
            );
            call!(w, mem_retain_allocation_handle(&raw mut handle, address))?;
            call!(w, mem_release(handle))
        })
    }),
    ("cuMemExportToShareableHandle", 10020, |w| exported(w).map(drop)),
    ("cuMemImportFromShareableHandle", 10020, |w| {
        let descriptor = exported(w)?;
        let kind = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        let shareable =
            ptr::without_provenance_mut(usize::try_from(descriptor.as_raw_fd()).unwrap());
        let mut memory = 0;
        call!(w, mem_import_from_shareable_handle(&raw mut memory, shareable, kind))?;
        call!(w, mem_release(memory))
    }),
    ("cuMemGetHandleForAddressRange", 11070, |w| {
        let context = w.context.clone();
        let options = DeviceOptions::default().shareable(Handles::POSIX);
        let memory = DeviceMemoryResource::with_options(&context, 1, options)?;
        let size = memory.granularity();
        // SAFETY: nothing is committed, and nothing else uses the resource.
        unsafe { memory.commit(0, size) }?;
        let mut descriptor = -1_i32;
        let kind = CUmemRangeHandleType::CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD;
        let to = (&raw mut descriptor).cast();
        call!(w, mem_get_handle_for_address_range(to, memory.base(), size, kind, 0))?;
        // SAFETY: a descriptor that the driver has just made for the caller.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        Ok(())
    }),
    ("cuMemAllocAsync", 11020, |w| {
        let mut address = 0;
        call!(w, mem_alloc_async(&raw mut address, 64, ptr::null_mut()))?;
        freed_in_order(w, address).close()
    }),
    ("cuMemFreeAsync", 11020, |w| {
        let mut address = 0;
        call!(w, mem_alloc_async(&raw mut address, 64, ptr::null_mut()))?;
        freed_in_order(w, address).close()
    }),
    ("cuMemAllocFromPoolAsync", 11020, |w| {
        let pool = pool(w)?;
        let mut address = 0;
        call!(w, mem_alloc_from_pool_async(&raw mut address, 64, pool.get(), ptr::null_mut()))?;
        freed_in_order(w, address).close()
    }),
    ("cuMemPoolCreate", 11020, |w| pool(w).map(drop)),
    ("cuMemPoolDestroy", 11020, |w| pool(w)?.close()),
    ("cuMemPoolTrimTo", 11020, |w| {
        let pool = pool(w)?;
        call!(w, mem_pool_trim_to(pool.get(), 0))
    }),
    ("cuMemPoolSetAttribute", 11020, |w| {
        let pool = pool(w)?;
        let mut value = 0_u64;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        call!(w, mem_pool_set_attribute(pool.get(), attribute, (&raw mut value).cast()))
    }),
    ("cuMemPoolGetAttribute", 11020, |w| {
        let pool = pool(w)?;
        let mut value = 0_u64;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        call!(w, mem_pool_get_attribute(pool.get(), attribute, (&raw mut value).cast()))
    }),
    ("cuMemPoolSetAccess", 11020, |w| {
        let pool = pool(w)?;
        let access = access(w);
        call!(w, mem_pool_set_access(pool.get(), &raw const access, 1))
    }),
    ("cuDeviceGetDefaultMemPool", 11020, |w| default_pool(w).map(drop)),
    ("cuDeviceGetMemPool", 11020, |w| {
        let mut pool = ptr::null_mut();
        call!(w, device_get_mem_pool(&raw mut pool, w.ordinal()))
    }),
    ("cuDeviceSetMemPool", 11020, |w| {
        let default = default_pool(w)?;
        call!(w, device_set_mem_pool(w.ordinal(), default))
    }),
    ("cuPointerGetAttribute", 4000, |w| {
        let memory = w.device_memory(64)?;
        let mut kind = 0_u32;
        let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        call!(w, pointer_get_attribute((&raw mut kind).cast(), attribute, memory.get()))
    }),
    ("cuPointerGetAttributes", 7000, |w| {
        let memory = w.device_memory(64)?;
        let mut kind = 0_u32;
        let mut attributes = [CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE];
        let mut values = [(&raw mut kind).cast::<c_void>()];
        let (attributes, values) = (attributes.as_mut_ptr(), values.as_mut_ptr());
        call!(w, pointer_get_attributes(1, attributes, values, memory.get()))
    }),
    ("cuPointerSetAttribute", 6000, |w| {
        let memory = w.device_memory(64)?;
        let value = 1_u32;
        let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS;
        call!(w, pointer_set_attribute((&raw const value).cast(), attribute, memory.get()))
    }),
];

/// One page of ordinary memory.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// Runs `body` with a registered page, which outlives its registration.
fn with_registered<'w>(
    w: &'w World,
    body: impl FnOnce(Guard<'w, *mut c_void>) -> Outcome,
) -> Outcome {
    let mut page = Box::new(Page([0; 4096]));
    let address = page.0.as_mut_ptr().cast::<c_void>();
    call!(w, mem_host_register(address, 4096, 0))?;
    body(w.guard(address, |w, address| call!(w, mem_host_unregister(address))))
}

fn location(w: &World) -> CUmemLocation {
    let mut location = zeroed!(CUmemLocation);
    location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    location.__bindgen_anon_1.id = w.ordinal();
    location
}

fn properties(w: &World) -> CUmemAllocationProp_v1 {
    let mut properties = zeroed!(CUmemAllocationProp_v1);
    properties.type_ = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = location(w);
    properties
}

fn access(w: &World) -> CUmemAccessDesc {
    CUmemAccessDesc {
        location: location(w),
        flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    }
}

fn granularity(w: &World) -> Result<usize, Error> {
    let (mut size, properties) = (0, properties(w));
    let option = CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
    call!(w, mem_get_allocation_granularity(&raw mut size, &raw const properties, option))?;
    Ok(size)
}

type Span = (CUdeviceptr, usize);

fn reserved(w: &World) -> Result<Guard<'_, Span>, Error> {
    let (mut address, size) = (0, granularity(w)?);
    call!(w, mem_address_reserve(&raw mut address, size, 0, 0, 0))?;
    Ok(w.guard((address, size), |w, (address, size)| call!(w, mem_address_free(address, size))))
}

fn created(w: &World) -> Result<Guard<'_, CUmemGenericAllocationHandle>, Error> {
    let (mut handle, size, properties) = (0, granularity(w)?, properties(w));
    call!(w, mem_create(&raw mut handle, size, &raw const properties, 0))?;
    Ok(w.guard(handle, |w, handle| call!(w, mem_release(handle))))
}

/// A descriptor of memory that can be exported.
fn exported(w: &World) -> Result<OwnedFd, Error> {
    let kind = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    let (mut memory, size) = (0, granularity(w)?);
    let properties = CUmemAllocationProp_v1 { requestedHandleTypes: kind, ..properties(w) };
    call!(w, mem_create(&raw mut memory, size, &raw const properties, 0))?;
    let memory = w.guard(memory, |w, memory| call!(w, mem_release(memory)));
    let mut descriptor = -1_i32;
    let to = (&raw mut descriptor).cast();
    call!(w, mem_export_to_shareable_handle(to, memory.get(), kind, 0))?;
    // SAFETY: a descriptor that the driver has just made for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Runs `body` with memory mapped to a reserved span.
fn with_mapping<'w>(w: &'w World, body: impl FnOnce(Guard<'w, Span>) -> Outcome) -> Outcome {
    let span = reserved(w)?;
    let memory = created(w)?;
    let (address, size) = span.get();
    call!(w, mem_map(address, size, 0, memory.get(), 0))?;
    body(w.guard((address, size), |w, (address, size)| call!(w, mem_unmap(address, size))))
}

fn allow(w: &World, mapping: &Guard<'_, Span>) -> Outcome {
    let (address, size) = mapping.get();
    let access = access(w);
    call!(w, mem_set_access(address, size, &raw const access, 1))
}

fn pool(w: &World) -> Result<Guard<'_, CUmemoryPool>, Error> {
    let mut properties = zeroed!(CUmemPoolProps);
    properties.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = location(w);
    let mut pool = ptr::null_mut();
    call!(w, mem_pool_create(&raw mut pool, &raw const properties))?;
    Ok(w.guard(pool, |w, pool| call!(w, mem_pool_destroy(pool))))
}

fn default_pool(w: &World) -> Result<CUmemoryPool, Error> {
    let mut pool = ptr::null_mut();
    call!(w, device_get_default_mem_pool(&raw mut pool, w.ordinal()))?;
    Ok(pool)
}

/// Frees `address` in the order of the default stream, and waits for that.
fn freed_in_order(w: &World, address: CUdeviceptr) -> Guard<'_, CUdeviceptr> {
    w.guard(address, |w, address| {
        call!(w, mem_free_async(address, ptr::null_mut()))?;
        w.context.synchronize()
    })
}
