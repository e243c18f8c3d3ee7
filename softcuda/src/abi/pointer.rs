#![expect(unsafe_code, reason = "exports C functions")]
//! Attributes of addresses.

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, inputs};
use super::{exports, out};
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;
use crate::location::Location;
use crate::machine::State;
use crate::memory::table::host_address;
use crate::memory::{Block, Kind};

exports! {
    Normal PFN_cuPointerGetAttribute_v4000: cuPointerGetAttribute(
        data: *mut c_void, attribute: CUpointer_attribute, pointer: CUdeviceptr,
    ) => get_attribute;
    Normal PFN_cuPointerGetAttributes_v7000: cuPointerGetAttributes(
        count: c_uint, attributes: *mut CUpointer_attribute, data: *mut *mut c_void,
        pointer: CUdeviceptr,
    ) => get_attributes;
    Normal PFN_cuPointerSetAttribute_v6000: cuPointerSetAttribute(
        value: *const c_void, attribute: CUpointer_attribute, pointer: CUdeviceptr,
    ) => set_attribute;
}

/// An attribute's value, with its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    /// An `int`, an `unsigned int`, a boolean or an enumeration.
    Word(u32),
    /// An address, a handle, a size or an identity.
    Wide(u64),
}

impl Value {
    fn flag(set: bool) -> Self {
        Self::Word(u32::from(set))
    }

    fn size(size: usize) -> Self {
        Self::Wide(size as u64)
    }

    fn write(self, data: *mut c_void) -> Status {
        match self {
            Self::Word(word) => out(data.cast::<u32>(), word),
            Self::Wide(wide) => out(data.cast::<u64>(), wide),
        }
    }

    /// The value of an attribute of an unknown pointer: zero, of the attribute's width.
    fn null(attribute: CUpointer_attribute) -> Status<Self> {
        match attribute {
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPED
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE => {
                Ok(Self::Word(0))
            }
            // CU_DEVICE_INVALID
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => {
                Ok(Self::Word((-2_i32).cast_unsigned()))
            }
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_CONTEXT
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPING_SIZE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID => Ok(Self::Wide(0)),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }
}

fn get_attribute(
    call: Call,
    data: *mut c_void,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
) -> Status {
    let state = call.lock();
    if attribute == CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER {
        // "If there is no current CUcontext then CUDA_ERROR_INVALID_CONTEXT is returned."
        call.context(&state)?;
    }
    value_of(call, &state, attribute, pointer)?.write(data)
}

/// "Unlike cuPointerGetAttribute, this function will not return an error when the `ptr`
/// encountered is not a valid CUDA pointer. Instead, the attributes are assigned default NULL
/// values."
fn get_attributes(
    call: Call,
    count: c_uint,
    attributes: *mut CUpointer_attribute,
    data: *mut *mut c_void,
    pointer: CUdeviceptr,
) -> Status {
    if count == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let attributes = inputs(attributes, count as usize)?;
    let data = inputs(data, count as usize)?;
    let state = call.lock();
    for (attribute, data) in attributes.into_iter().zip(data) {
        let null = Value::null(attribute)?;
        value_of(call, &state, attribute, pointer).unwrap_or(null).write(data)?;
    }
    Ok(())
}

fn value_of(
    call: Call,
    state: &State,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
) -> Status<Value> {
    Value::null(attribute)?;
    if let Some(block) = state.memory.find(pointer) {
        return of_block(call, state, attribute, pointer, block);
    }
    // Reserved addresses without a mapping are known too.
    let reservation = state.vmm.reservation(pointer).ok_or(CudaError::INVALID_VALUE)?;
    match attribute {
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR => {
            Ok(Value::Wide(reservation.address()))
        }
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE => Ok(Value::size(reservation.size())),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPED => Ok(Value::flag(false)),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

fn of_block(
    call: Call,
    state: &State,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
    block: &Arc<Block>,
) -> Status<Value> {
    type A = CUpointer_attribute;
    let host = host_address(block, pointer);
    let is_managed = state.is_managed(block.kind);
    let (range, range_size) = match state.vmm.reservation(pointer) {
        Some(reservation) => (reservation.address(), reservation.size()),
        None => (block.device, block.size),
    };
    Ok(match attribute {
        // Null for memory that belongs to a device: of pools and of mappings.
        A::CU_POINTER_ATTRIBUTE_CONTEXT => Value::Wide(block.context),
        A::CU_POINTER_ATTRIBUTE_MEMORY_TYPE => {
            let host = CUmemorytype::CU_MEMORYTYPE_HOST;
            let device = CUmemorytype::CU_MEMORYTYPE_DEVICE;
            Value::Word(if block.kind.is_host() { host.0 } else { device.0 })
        }
        A::CU_POINTER_ATTRIBUTE_DEVICE_POINTER => Value::Wide(block.device + (host - block.host)),
        A::CU_POINTER_ATTRIBUTE_HOST_POINTER => {
            if !block.kind.is_host() && !is_managed {
                return Err(CudaError::INVALID_VALUE);
            }
            Value::Wide(host)
        }
        A::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS => Value::flag(block.always_synchronises()),
        A::CU_POINTER_ATTRIBUTE_BUFFER_ID => Value::Wide(block.id),
        A::CU_POINTER_ATTRIBUTE_IS_MANAGED => Value::flag(is_managed),
        A::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => Value::Word(block.ordinal.cast_unsigned()),
        A::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR => Value::Wide(range),
        A::CU_POINTER_ATTRIBUTE_RANGE_SIZE => Value::size(range_size),
        A::CU_POINTER_ATTRIBUTE_MAPPED => Value::flag(true),
        A::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES => Value::Wide(handle_types(state, block)),
        A::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS => Value::Word(access(call, state, block)?),
        A::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE => match block.kind {
            Kind::Pool { pool, .. } => Value::Wide(pool),
            _ => Value::Wide(0),
        },
        A::CU_POINTER_ATTRIBUTE_MAPPING_SIZE => Value::size(block.size),
        A::CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR => Value::Wide(block.device),
        A::CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID => match block.kind {
            // Handles of physical memory are no allocation's number.
            Kind::Mapping { physical, .. } => Value::Wide(physical),
            _ => Value::Wide(block.id),
        },
        A::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE => {
            Value::flag(is_rdma_capable(call, state, block))
        }
        // Between processes, decompressed: never.
        _ => Value::flag(false),
    })
}

/// As what the memory at a pointer can be exported.
fn handle_types(state: &State, block: &Block) -> u64 {
    let Kind::Mapping { physical, .. } = block.kind else { return 0 };
    state.vmm.physicals.get(physical).map_or(0, |physical| physical.handle_types.into())
}

/// Whether other hardware reaches the memory: where that was asked for at its creation, and the
/// device can.
fn is_rdma_capable(call: Call, state: &State, block: &Block) -> bool {
    let Kind::Mapping { physical, host: false } = block.kind else { return false };
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED;
    let is_able =
        attributes::of(&call.machine.config, attribute, block.ordinal).is_some_and(|it| it != 0);
    is_able && state.vmm.physicals.get(physical).is_some_and(|physical| physical.rdma != 0)
}

/// The access of the current context's device.
fn access(call: Call, state: &State, block: &Block) -> Status<u32> {
    let location = Location::Device(call.ordinal(state)?);
    let is_mapping = matches!(block.kind, Kind::Mapping { .. });
    Ok(if is_mapping { state.vmm.access(block, location) } else { block.access() })
}

/// "A boolean attribute … `value` will be considered as a pointer to an unsigned integer."
fn set_attribute(
    call: Call,
    value: *const c_void,
    attribute: CUpointer_attribute,
    pointer: CUdeviceptr,
) -> Status {
    let set = input(value.cast::<c_int>())? != 0;
    let state = call.lock();
    let block = state.memory.find(pointer).cloned().ok_or(CudaError::INVALID_VALUE)?;
    if attribute != CUpointer_attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS {
        return Err(CudaError::INVALID_VALUE);
    }
    if matches!(block.kind, Kind::Mapping { .. }) {
        // As drivers answer for memory of `cuMemMap`.
        return Err(CudaError::NOT_SUPPORTED);
    }
    // Relaxed: read under the machine's lock.
    block.sync_memops.store(set, Ordering::Relaxed);
    if set {
        // "The function does not return until those memory operations are complete."
        let context = call.context(&state)?;
        drop(call.machine.wait_for_context(state, context));
    }
    Ok(())
}
