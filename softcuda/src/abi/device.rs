#![expect(unsafe_code, reason = "exports C functions")]
//! Devices and their attributes.

use core::ffi::{CStr, c_char, c_int, c_uint};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::out_array;
use super::{exports, out, valid};
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;

/// `CUexecAffinityType` is an enumeration of one value.
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuDeviceGetExecAffinitySupport_v11040 =
    Option<unsafe extern "C" fn(*mut c_int, c_uint, CUdevice) -> CUresult>;

exports! {
    Normal PFN_cuDeviceGet_v2000: cuDeviceGet(device: *mut CUdevice, ordinal: c_int) => get;
    Normal PFN_cuDeviceGetCount_v2000: cuDeviceGetCount(count: *mut c_int) => get_count;
    Normal PFN_cuDeviceGetName_v2000: cuDeviceGetName(
        name: *mut c_char, len: c_int, device: CUdevice,
    ) => get_name;
    Normal PFN_cuDeviceGetUuid_v9020: cuDeviceGetUuid(
        uuid: *mut CUuuid, device: CUdevice,
    ) => get_uuid;
    Normal PFN_cuDeviceGetUuid_v11040: cuDeviceGetUuid_v2(
        uuid: *mut CUuuid, device: CUdevice,
    ) => get_uuid;
    Normal PFN_cuDeviceGetLuid_v10000: cuDeviceGetLuid(
        luid: *mut c_char, mask: *mut c_uint, device: CUdevice,
    ) => get_luid;
    Normal PFN_cuDeviceTotalMem_v3020: cuDeviceTotalMem_v2(
        bytes: *mut usize, device: CUdevice,
    ) => total_mem;
    Normal PFN_cuDeviceGetAttribute_v2000: cuDeviceGetAttribute(
        value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice,
    ) => get_attribute;
    Normal PFN_cuDeviceGetProperties_v2000: cuDeviceGetProperties(
        properties: *mut CUdevprop_v1, device: CUdevice,
    ) => get_properties;
    Normal PFN_cuDeviceComputeCapability_v2000: cuDeviceComputeCapability(
        major: *mut c_int, minor: *mut c_int, device: CUdevice,
    ) => compute_capability;
    Normal PFN_cuDeviceGetPCIBusId_v4010: cuDeviceGetPCIBusId(
        id: *mut c_char, len: c_int, device: CUdevice,
    ) => get_pci_bus_id;
    Normal PFN_cuDeviceGetByPCIBusId_v4010: cuDeviceGetByPCIBusId(
        device: *mut CUdevice, id: *const c_char,
    ) => get_by_pci_bus_id;
    Normal PFN_cuDeviceCanAccessPeer_v4000: cuDeviceCanAccessPeer(
        can: *mut c_int, device: CUdevice, peer: CUdevice,
    ) => can_access_peer;
    Normal PFN_cuDeviceGetP2PAttribute_v8000: cuDeviceGetP2PAttribute(
        value: *mut c_int, attribute: CUdevice_P2PAttribute, from: CUdevice, to: CUdevice,
    ) => get_p2p_attribute;
    Normal PFN_cuDeviceGetExecAffinitySupport_v11040: cuDeviceGetExecAffinitySupport(
        supported: *mut c_int, kind: c_uint, device: CUdevice,
    ) => get_exec_affinity_support;
}

/// The name of every device.
const NAME: &CStr = c"softcuda";

impl Call<'_> {
    /// Checks that `device` is one of the machine's.
    pub(crate) fn device(self, device: CUdevice) -> Status {
        let exists = u32::try_from(device).is_ok_and(|device| device < self.machine.config.devices);
        if exists { Ok(()) } else { Err(CudaError::INVALID_DEVICE) }
    }
}

/// No context is limited to some multiprocessors.
fn get_exec_affinity_support(
    call: Call,
    supported: *mut c_int,
    kind: c_uint,
    device: CUdevice,
) -> Status {
    call.device(device)?;
    if kind != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    out(supported, 0)
}

fn get(call: Call, device: *mut CUdevice, ordinal: c_int) -> Status {
    if !valid(device) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(ordinal)?;
    out(device, ordinal)
}

fn get_count(call: Call, count: *mut c_int) -> Status {
    out(count, c_int::try_from(call.machine.config.devices).unwrap_or(c_int::MAX))
}

fn get_name(call: Call, name: *mut c_char, len: c_int, device: CUdevice) -> Status {
    call.device(device)?;
    out_text(name, len, NAME.to_bytes())
}

/// Writes as much of a text as fits, and a closing zero.
fn out_text(text: *mut c_char, len: c_int, bytes: &[u8]) -> Status {
    let room =
        usize::try_from(len).ok().filter(|room| *room > 0).ok_or(CudaError::INVALID_VALUE)?;
    let shown = bytes.len().min(room - 1);
    let mut buffer = bytes[..shown].to_vec();
    buffer.push(0);
    out_array(text.cast::<u8>(), &buffer)
}

fn get_uuid(call: Call, uuid: *mut CUuuid, device: CUdevice) -> Status {
    call.device(device)?;
    let mut bytes = *b"softcuda device\0";
    bytes[15] = device.to_le_bytes()[0];
    out(uuid, CUuuid { bytes: bytes.map(|byte| c_char::from_ne_bytes([byte])) })
}

/// A locally unique identifier is a Windows notion.
fn get_luid(call: Call, luid: *mut c_char, mask: *mut c_uint, device: CUdevice) -> Status {
    call.device(device)?;
    if !valid(luid) || !valid(mask) {
        return Err(CudaError::INVALID_VALUE);
    }
    Err(CudaError::NOT_SUPPORTED)
}

fn total_mem(call: Call, bytes: *mut usize, device: CUdevice) -> Status {
    call.device(device)?;
    out(bytes, usize::try_from(call.machine.config.device_memory).unwrap_or(usize::MAX))
}

fn get_attribute(
    call: Call,
    value: *mut c_int,
    attribute: CUdevice_attribute,
    device: CUdevice,
) -> Status {
    if !valid(value) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    out(
        value,
        attributes::of(&call.machine.config, attribute, device).ok_or(CudaError::INVALID_VALUE)?,
    )
}

fn get_properties(call: Call, properties: *mut CUdevprop_v1, device: CUdevice) -> Status {
    call.device(device)?;
    let of = |attribute| attributes::of(&call.machine.config, attribute, device).unwrap_or(0);
    out(
        properties,
        CUdevprop_v1 {
            maxThreadsPerBlock: of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
            maxThreadsDim: [1024, 1024, 64],
            maxGridSize: [i32::MAX, 65_535, 65_535],
            sharedMemPerBlock: of(
                CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK,
            ),
            totalConstantMemory: of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY),
            SIMDWidth: of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_WARP_SIZE),
            memPitch: of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_PITCH),
            regsPerBlock: of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK),
            clockRate: of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
            textureAlign: of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT),
        },
    )
}

fn compute_capability(
    call: Call,
    major: *mut c_int,
    minor: *mut c_int,
    device: CUdevice,
) -> Status {
    call.device(device)?;
    let of = |attribute| attributes::of(&call.machine.config, attribute, device).unwrap_or(0);
    if !valid(minor) {
        return Err(CudaError::INVALID_VALUE);
    }
    out(major, of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR))?;
    out(minor, of(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR))
}

fn pci_bus_id(device: CUdevice) -> String {
    format!("0000:{device:02X}:00.0")
}

fn get_pci_bus_id(call: Call, id: *mut c_char, len: c_int, device: CUdevice) -> Status {
    call.device(device)?;
    out_text(id, len, pci_bus_id(device).as_bytes())
}

fn get_by_pci_bus_id(call: Call, device: *mut CUdevice, id: *const c_char) -> Status {
    if !valid(id) || !valid(device) {
        return Err(CudaError::INVALID_VALUE);
    }
    // SAFETY: in user space; that it is a C string is the program's promise.
    let wanted = unsafe { CStr::from_ptr(id) }.to_string_lossy().to_uppercase();
    let count = c_int::try_from(call.machine.config.devices).unwrap_or(c_int::MAX);
    // The forms [domain]:[bus]:[device].[function], [domain]:[bus]:[device], [bus]:[device].
    let matches = |ordinal: &c_int| {
        let full = pci_bus_id(*ordinal);
        full == wanted || full[..10] == wanted || full[5..10] == wanted
    };
    out(device, (0..count).find(matches).ok_or(CudaError::INVALID_VALUE)?)
}

fn can_access_peer(call: Call, can: *mut c_int, device: CUdevice, peer: CUdevice) -> Status {
    call.device(device)?;
    call.device(peer)?;
    out(can, c_int::from(device != peer))
}

fn get_p2p_attribute(
    call: Call,
    value: *mut c_int,
    attribute: CUdevice_P2PAttribute,
    from: CUdevice,
    to: CUdevice,
) -> Status {
    call.device(from)?;
    call.device(to)?;
    if from == to {
        return Err(CudaError::INVALID_DEVICE);
    }
    out(
        value,
        match attribute {
            // All pairs are equal, so every pair has the best rank.
            CUdevice_P2PAttribute::CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK => 0,
            CUdevice_P2PAttribute::CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED => 1,
            CUdevice_P2PAttribute::CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED
            | CUdevice_P2PAttribute::CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED => 0,
            _ => return Err(CudaError::INVALID_VALUE),
        },
    )
}
