#![expect(unsafe_code, reason = "exports C functions")]
//! Calls for tools: core dumps, flushes of writes by other hardware, handles of memory for it.

use core::ffi::{c_char, c_int, c_void};
use std::os::fd::IntoRawFd;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, inputs, out_array};
use super::{exports, out, valid};
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;
use crate::memory::Kind;

#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuProfilerInitialize_v4000 =
    Option<unsafe extern "C" fn(*const c_char, *const c_char, c_int) -> CUresult>;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuCoredumpGetAttribute_v12010 =
    Option<unsafe extern "C" fn(u32, *mut c_void, *mut usize) -> CUresult>;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuCoredumpGetAttributeGlobal_v12010 = PFN_cuCoredumpGetAttribute_v12010;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuCoredumpSetAttribute_v12010 = PFN_cuCoredumpGetAttribute_v12010;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuCoredumpSetAttributeGlobal_v12010 = PFN_cuCoredumpGetAttribute_v12010;

exports! {
    Normal PFN_cuProfilerInitialize_v4000: cuProfilerInitialize(
        config: *const c_char, output: *const c_char, mode: c_int,
    ) => profiler_initialize;
    Normal PFN_cuCoredumpGetAttribute_v12010: cuCoredumpGetAttribute(
        setting: u32, value: *mut c_void, size: *mut usize,
    ) => coredump_get_of_context;
    Normal PFN_cuCoredumpGetAttributeGlobal_v12010: cuCoredumpGetAttributeGlobal(
        setting: u32, value: *mut c_void, size: *mut usize,
    ) => coredump_get;
    Normal PFN_cuCoredumpSetAttribute_v12010: cuCoredumpSetAttribute(
        setting: u32, value: *mut c_void, size: *mut usize,
    ) => coredump_set_of_context;
    Normal PFN_cuCoredumpSetAttributeGlobal_v12010: cuCoredumpSetAttributeGlobal(
        setting: u32, value: *mut c_void, size: *mut usize,
    ) => coredump_set;
    Normal PFN_cuFlushGPUDirectRDMAWrites_v11030: cuFlushGPUDirectRDMAWrites(
        target: CUflushGPUDirectRDMAWritesTarget, scope: CUflushGPUDirectRDMAWritesScope,
    ) => flush_gpu_direct_rdma_writes;
    Normal PFN_cuMemGetHandleForAddressRange_v11070: cuMemGetHandleForAddressRange(
        handle: *mut c_void, pointer: CUdeviceptr, size: usize, kind: CUmemRangeHandleType,
        flags: u64,
    ) => get_handle_for_address_range;
}

/// `CU_COREDUMP_FILE` and `CU_COREDUMP_PIPE`: texts.
const FILE: u32 = 5;
const PIPE: u32 = 6;
/// `CU_COREDUMP_GENERATION_FLAGS`: the last setting, an integer. All others are booleans.
const GENERATION_FLAGS: u32 = 7;
/// "The maximum length" of a text setting, with its closing zero.
const MOST_TEXT: usize = 1024;

/// "[Deprecated] Note that this function is deprecated and should not be used": there is no
/// profiler that it could initialise.
fn profiler_initialize(_: Call, _: *const c_char, _: *const c_char, _: c_int) -> Status {
    Err(CudaError::NOT_SUPPORTED)
}

/// The size of a setting in bytes; for a text, the largest size.
fn size_of_setting(setting: u32) -> Status<usize> {
    match setting {
        FILE | PIPE => Ok(MOST_TEXT),
        GENERATION_FLAGS => Ok(size_of::<c_int>()),
        1..FILE => Ok(1),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

/// No dump is ever written; a setting is kept and given back.
fn coredump_set(call: Call, setting: u32, value: *mut c_void, size: *mut usize) -> Status {
    let most = size_of_setting(setting)?;
    let size = input(size.cast_const())?;
    let is_text = matches!(setting, FILE | PIPE);
    if size == 0 || is_text && size > most {
        return Err(CudaError::INVALID_VALUE);
    }
    let bytes = inputs(value.cast::<u8>().cast_const(), size.min(most))?;
    call.lock().coredump.insert(setting, bytes);
    Ok(())
}

fn coredump_set_of_context(
    call: Call,
    setting: u32,
    value: *mut c_void,
    size: *mut usize,
) -> Status {
    call.context(&call.lock())?;
    coredump_set(call, setting, value, size)
}

/// "If `value` is NULL, the size … will be placed in `size`."
fn coredump_get(call: Call, setting: u32, value: *mut c_void, size: *mut usize) -> Status {
    let most = size_of_setting(setting)?;
    let room = input(size.cast_const())?;
    let set = call.lock().coredump.get(&setting).cloned();
    let bytes =
        set.unwrap_or_else(|| vec![0; if matches!(setting, FILE | PIPE) { 1 } else { most }]);
    if !value.is_null() {
        if room < bytes.len() {
            return Err(CudaError::INVALID_VALUE);
        }
        out_array(value.cast::<u8>(), &bytes)?;
    }
    out(size, bytes.len())
}

fn coredump_get_of_context(
    call: Call,
    setting: u32,
    value: *mut c_void,
    size: *mut usize,
) -> Status {
    call.context(&call.lock())?;
    coredump_get(call, setting, value, size)
}

/// No other hardware writes to the memory.
fn flush_gpu_direct_rdma_writes(
    call: Call,
    target: CUflushGPUDirectRDMAWritesTarget,
    scope: CUflushGPUDirectRDMAWritesScope,
) -> Status {
    call.context(&call.lock())?;
    let to_owner = CUflushGPUDirectRDMAWritesScope::CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER;
    let to_all = CUflushGPUDirectRDMAWritesScope::CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES;
    if target.0 != 0 || scope != to_owner && scope != to_all {
        return Err(CudaError::INVALID_VALUE);
    }
    call.require(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS)
}

/// A range of device memory for other kernel subsystems, where the device has
/// `CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED`: a descriptor of the file in memory that holds it.
///
/// Only of one whole allocation with a handle type: all others share a file, and a descriptor has
/// no offset.
fn get_handle_for_address_range(
    call: Call,
    handle: *mut c_void,
    pointer: CUdeviceptr,
    size: usize,
    kind: CUmemRangeHandleType,
    flags: u64,
) -> Status {
    let state = call.lock();
    call.context(&state)?;
    let covered = size > 0 && state.memory.cover(pointer, size).is_some();
    let handle = handle.cast::<c_int>();
    if !valid(handle) || !covered {
        return Err(CudaError::INVALID_VALUE);
    }
    let ordinal = call.ordinal(&state)?;
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED;
    if attributes::of(&call.machine.config, attribute, ordinal).is_none_or(|it| it == 0) {
        return Err(CudaError::NOT_SUPPORTED);
    }
    if kind != CUmemRangeHandleType::CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD || flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let block = state.memory.find(pointer).filter(|block| block.device == pointer);
    if let Some(block) = block.filter(|block| block.size == size)
        && let Kind::Mapping { physical, host: false } = block.kind
        && let Some(physical) = state.vmm.physicals.get(physical)
        && physical.handle_types != 0
        && physical.bytes.size() == size as u64
    {
        let descriptor = physical.bytes.export().ok_or(CudaError::OUT_OF_MEMORY)?;
        // The program closes it.
        return out(handle, descriptor.into_raw_fd());
    }
    Err(CudaError::NOT_SUPPORTED)
}
