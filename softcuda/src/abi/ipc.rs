#![expect(unsafe_code, reason = "exports C functions")]
//! Memory and events of other processes.
//!
//! A machine exists in one process, so these calls are not supported: devices report
//! `CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED` as zero, by which the reference lets programs "test
//! their device for IPC functionality". Memory of `cuMemCreate` can be shared between processes
//! by its descriptors.

use core::ffi::c_uint;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::{exports, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::event::INTERPROCESS;
use crate::handle::number;
use crate::memory::Kind;

exports! {
    Normal PFN_cuIpcGetEventHandle_v4010: cuIpcGetEventHandle(
        handle: *mut CUipcEventHandle_v1, event: CUevent,
    ) => get_event_handle;
    Normal PFN_cuIpcOpenEventHandle_v4010: cuIpcOpenEventHandle(
        event: *mut CUevent, handle: CUipcEventHandle_v1,
    ) => open_event_handle;
    Normal PFN_cuIpcGetMemHandle_v4010: cuIpcGetMemHandle(
        handle: *mut CUipcMemHandle_v1, pointer: CUdeviceptr,
    ) => get_mem_handle;
    Normal PFN_cuIpcOpenMemHandle_v11000: cuIpcOpenMemHandle_v2(
        pointer: *mut CUdeviceptr, handle: CUipcMemHandle_v1, flags: c_uint,
    ) => open_mem_handle;
    Normal PFN_cuIpcCloseMemHandle_v4010: cuIpcCloseMemHandle(
        pointer: CUdeviceptr,
    ) => close_mem_handle;
}

fn get_event_handle(call: Call, handle: *mut CUipcEventHandle_v1, event: CUevent) -> Status {
    let state = call.lock();
    let known = state.events.get(number(event)).ok_or(CudaError::INVALID_HANDLE)?;
    // "This event must have been created with the CU_EVENT_INTERPROCESS … flag."
    if !valid(handle) || known.flags & INTERPROCESS == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    Err(CudaError::NOT_SUPPORTED)
}

fn open_event_handle(call: Call, event: *mut CUevent, _: CUipcEventHandle_v1) -> Status {
    call.context(&call.lock())?;
    Err(if valid(event) { CudaError::NOT_SUPPORTED } else { CudaError::INVALID_VALUE })
}

fn get_mem_handle(call: Call, handle: *mut CUipcMemHandle_v1, pointer: CUdeviceptr) -> Status {
    let state = call.lock();
    call.context(&state)?;
    // "A pointer to the base of an existing device memory allocation created with cuMemAlloc."
    let block = state.memory.find(pointer).filter(|block| block.kind == Kind::Device);
    if !valid(handle) || block.is_none() {
        return Err(CudaError::INVALID_VALUE);
    }
    Err(CudaError::NOT_SUPPORTED)
}

fn open_mem_handle(
    call: Call,
    pointer: *mut CUdeviceptr,
    _: CUipcMemHandle_v1,
    flags: c_uint,
) -> Status {
    call.context(&call.lock())?;
    // "Must be specified as CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS", which is one.
    if !valid(pointer) || flags != 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    Err(CudaError::NOT_SUPPORTED)
}

/// Nothing was ever opened.
fn close_mem_handle(call: Call, _: CUdeviceptr) -> Status {
    call.context(&call.lock())?;
    Err(CudaError::INVALID_VALUE)
}
