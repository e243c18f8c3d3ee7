#![expect(unsafe_code, reason = "exports C functions")]
//! What is known about an address.

use core::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::call::{input, inputs};
use super::{Call, Status, exports, out};
use crate::location::Location;
use crate::machine::State;
use crate::memory::table::host_address;
use crate::memory::{Block, Kind};

exports! {
    Normal PFN_cuPointerGetAttribute_v4000: cuPointerGetAttribute(
        data: *mut c_void, attribute: CUpointer_attribute, pointer: CUdeviceptr,
    ) => get_attribute;
    Normal PFN_cuPointerGetAttributes_v7000: cuPointerGetAttributes(
        count: c_uint, attributes: *mut CUpointer_attribute, data: *mut *mut c_void, pointer: CUdeviceptr,
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

    /// What an attribute of an unknown pointer is: a null value of the attribute's width.
    fn null(attribute: CUpointer_attribute) -> Status<Self> {
        match attribute {
            CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPED
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS
            | CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE => Ok(Self::Word(0)),
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
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR => Ok(Value::Wide(reservation.address())),
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
    let host = host_address(block, pointer);
    let is_managed = matches!(block.kind, Kind::Managed { .. }) || state.pools.is_managed(block.kind);
    let (range, range_size) = match state.vmm.reservation(pointer) {
        Some(reservation) => (reservation.address(), reservation.size()),
        None => (block.device, block.size),
    };
    Ok(match attribute {
        // Null for memory that belongs to a device: of pools and of mappings.
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_CONTEXT => Value::Wide(block.context),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE => {
            let host = CUmemorytype::CU_MEMORYTYPE_HOST;
            let device = CUmemorytype::CU_MEMORYTYPE_DEVICE;
            Value::Word(if block.kind.is_host() { host.0 } else { device.0 })
        }
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER => {
            Value::Wide(block.device + (host - block.host))
        }
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER => {
            if !block.kind.is_host() && !is_managed {
                return Err(CudaError::INVALID_VALUE);
            }
            Value::Wide(host)
        }
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_SYNC_MEMOPS => Value::flag(block.always_synchronises()),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID => Value::Wide(block.id),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED => Value::flag(is_managed),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL => {
            Value::Word(block.ordinal.cast_unsigned())
        }
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR => Value::Wide(range),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE => Value::size(range_size),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPED => Value::flag(true),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES => {
            Value::Wide(handle_types(state, block))
        }
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_ACCESS_FLAGS => Value::Word(access(call, state, block)?),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE => match block.kind {
            Kind::Pool { pool, .. } => Value::Wide(pool),
            _ => Value::Wide(0),
        },
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPING_SIZE => Value::size(block.size),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR => Value::Wide(block.device),
        CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID => match block.kind {
            // Handles of physical memory are no allocation's number.
            Kind::Mapping { physical, .. } => Value::Wide(physical),
            _ => Value::Wide(block.id),
        },
        // Between processes, with other hardware, decompressed: never.
        _ => Value::flag(false),
    })
}

/// As what the memory at a pointer can be exported.
fn handle_types(state: &State, block: &Block) -> u64 {
    let Kind::Mapping { physical, .. } = block.kind else { return 0 };
    state.vmm.physicals.get(physical).map_or(0, |physical| physical.handle_types.into())
}

/// What the current context's device may do.
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
    // Relaxed: read under the machine's lock.
    block.sync_memops.store(set, Ordering::Relaxed);
    if set {
        // "The function does not return until those memory operations are complete."
        let context = call.context(&state)?;
        drop(call.machine.wait_for_context(state, context));
    }
    Ok(())
}
