//! Attributes of devices.

use wharf_sys::bindings::CUdevice_attribute;

/// A property of a device, a whole number.
///
/// The constants are the ones that wharf decides by; [`DeviceAttribute::from_raw`] takes any
/// other.
///
/// # References
///
/// [`CUdevice_attribute`](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
#[doc(alias = "CUdevice_attribute")]
pub struct DeviceAttribute(CUdevice_attribute);

impl DeviceAttribute {
    /// The attribute with the driver's number.
    pub const fn from_raw(raw: CUdevice_attribute) -> Self {
        Self(raw)
    }

    /// The attribute as the driver names it.
    pub const fn as_raw(self) -> CUdevice_attribute {
        self.0
    }
}

macro_rules! attributes {
    ($($(#[$doc:meta])+ $name:ident = $raw:ident;)+) => {
        impl DeviceAttribute {
            $($(#[$doc])+
            pub const $name: Self = Self(CUdevice_attribute::$raw);)+
        }
    };
}

attributes! {
    /// The number of multiprocessors.
    MULTIPROCESSOR_COUNT = CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    /// Whether the device shares its memory with the host.
    INTEGRATED = CU_DEVICE_ATTRIBUTE_INTEGRATED;
    /// Whether host memory can be mapped into the device's addresses.
    CAN_MAP_HOST_MEMORY = CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY;
    /// The number of engines that copy beside running kernels.
    ASYNC_ENGINE_COUNT = CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT;
    /// Whether host and device share one address space.
    UNIFIED_ADDRESSING = CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING;
    /// The device's number on its PCI bus.
    PCI_DEVICE_ID = CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID;
    /// The number of its PCI bus.
    PCI_BUS_ID = CU_DEVICE_ATTRIBUTE_PCI_BUS_ID;
    /// The number of its PCI domain.
    PCI_DOMAIN_ID = CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID;
    /// The major part of the compute capability.
    COMPUTE_CAPABILITY_MAJOR = CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    /// The minor part of the compute capability.
    COMPUTE_CAPABILITY_MINOR = CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
    /// Whether streams may have priorities.
    STREAM_PRIORITIES_SUPPORTED = CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED;
    /// Whether managed memory can be allocated.
    MANAGED_MEMORY = CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY;
    /// Whether the device reads pageable host memory.
    PAGEABLE_MEMORY_ACCESS = CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS;
    /// Whether host and device may use managed memory at the same time.
    CONCURRENT_MANAGED_ACCESS = CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS;
    /// Whether the device reaches registered memory at its host address.
    CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM =
        CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM;
    /// Whether 64-bit stream memory operations work.
    CAN_USE_64_BIT_STREAM_MEM_OPS = CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS;
    /// Whether host memory can be registered.
    HOST_REGISTER_SUPPORTED = CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED;
    /// Whether host memory can be registered for reading only.
    READ_ONLY_HOST_REGISTER_SUPPORTED = CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED;
    /// Whether the host reaches managed memory on the device without a copy.
    DIRECT_MANAGED_MEM_ACCESS_FROM_HOST = CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST;
    /// Whether addresses can be reserved and memory mapped to them.
    VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED = CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED;
    /// Whether memory can be allocated in stream order.
    MEMORY_POOLS_SUPPORTED = CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED;
    /// Whether memory that is created can be exported as file descriptors.
    HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED =
        CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED;
    /// Whether memory that is created can be exported as handles of a fabric of devices.
    HANDLE_TYPE_FABRIC_SUPPORTED = CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED;
    /// Whether memory that is created can be made for network cards.
    GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED =
        CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
    /// Whether ranges of memory can be exported as dma-buf.
    DMA_BUF_SUPPORTED = CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED;
    /// The host NUMA node that is nearest to the device, or -1.
    HOST_NUMA_ID = CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID;
}
