//! What the machine itself offers beside memory.
#![expect(unsafe_code, reason = "creates memory with handles, and releases it")]

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::sys::bindings::{
    CUdevice_attribute, CUmemAllocationHandleType, CUmemAllocationProp_v1, CUmemAllocationType,
    CUmemLocation, CUmemLocationType,
};
use wharf::{Context, DeviceAttribute, Error, Stream};

use super::{MIB, Outcome, Stand, kept, lacks};

pub(super) fn posix(stand: &Stand<'_>) -> Outcome {
    let attribute =
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED;
    let handles = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    granted(stand, attribute, handles, false)
}

pub(super) fn fabric(stand: &Stand<'_>) -> Outcome {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED;
    granted(stand, attribute, CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC, false)
}

pub(super) fn rdma(stand: &Stand<'_>) -> Outcome {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
    granted(stand, attribute, CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE, true)
}

/// Memory of one device is refused on a stream of another, before anything is submitted.
pub(super) fn peers(stand: &Stand<'_>) -> Outcome {
    let Some(other) = stand.target.driver.devices()?.into_iter().nth(1) else {
        return lacks("there is one device");
    };
    let other = Context::retain(&other)?;
    let stream = Stream::new(&other)?;
    let device = DeviceMemoryResource::new(&stand.context, 64 * MIB)?;
    let pool = Pool::builder().max_bytes(64 * MIB).build(device)?;
    let own = Stream::new(&stand.context)?;
    let buffer: Buffer<u8> = pool.alloc(MIB, &own)?;
    let refused = buffer.fill(1, &stream);
    drop((buffer, pool, own, stream));
    other.close()?;
    match refused {
        Err(Error::OtherDevice { stream, memory }) => {
            kept(format!("memory of device {memory} on a stream of device {stream}"))
        }
        Err(error) => Err(error.into()),
        Ok(()) => Err("a stream of one device was given memory of another".into()),
    }
}

/// Whether the driver gives memory that is made so: what the device says, and what comes of it.
fn granted(
    stand: &Stand<'_>,
    attribute: CUdevice_attribute,
    handles: CUmemAllocationHandleType,
    rdma: bool,
) -> Outcome {
    let device = stand.context.device();
    if !device.supports(DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)? {
        return lacks("no virtual memory management");
    }
    if !device.supports(DeviceAttribute::from_raw(attribute))? {
        return lacks("the device says no");
    }
    let api = stand.target.driver.api();
    // SAFETY: integers and null pointers, for which zero is a value.
    let mut properties: CUmemAllocationProp_v1 = unsafe { std::mem::zeroed() };
    properties.type_ = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = handles;
    // SAFETY: as above.
    let mut location: CUmemLocation = unsafe { std::mem::zeroed() };
    location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    location.__bindgen_anon_1.id = device.ordinal();
    properties.location = location;
    properties.allocFlags.gpuDirectRDMACapable = u8::from(rdma);
    let mut memory = 0;
    // SAFETY: pointers to locals; two mebibytes are a multiple of every device's granularity.
    let made = unsafe { api.mem_create.call(&raw mut memory, 2 * MIB, &raw const properties, 0) };
    match made {
        Ok(()) => {
            // SAFETY: made above, and not mapped.
            unsafe { api.mem_release.call(memory) }?;
            kept("the driver gives such memory")
        }
        // A driver may know of a device's ability and not let this process have it.
        Err(error) => lacks(format!("the device says yes, the driver no: {error}")),
    }
}
