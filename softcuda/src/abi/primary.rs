#![expect(unsafe_code, reason = "exports C functions")]
//! Primary contexts.

use core::ffi::{c_int, c_uint};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::context::check_flags;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::to_pointer;

#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuDevicePrimaryCtxRelease_v7000 = PFN_cuDevicePrimaryCtxRelease_v11000;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuDevicePrimaryCtxReset_v7000 = PFN_cuDevicePrimaryCtxReset_v11000;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuDevicePrimaryCtxSetFlags_v7000 = PFN_cuDevicePrimaryCtxSetFlags_v11000;

exports! {
    Always PFN_cuDevicePrimaryCtxRetain_v7000: cuDevicePrimaryCtxRetain(
        context: *mut CUcontext, device: CUdevice,
    ) => primary_retain;
    Always PFN_cuDevicePrimaryCtxRelease_v7000: cuDevicePrimaryCtxRelease(
        device: CUdevice,
    ) => primary_release;
    Always PFN_cuDevicePrimaryCtxRelease_v11000: cuDevicePrimaryCtxRelease_v2(
        device: CUdevice,
    ) => primary_release;
    Always PFN_cuDevicePrimaryCtxReset_v7000: cuDevicePrimaryCtxReset(
        device: CUdevice,
    ) => primary_reset;
    Always PFN_cuDevicePrimaryCtxReset_v11000: cuDevicePrimaryCtxReset_v2(
        device: CUdevice,
    ) => primary_reset;
    Always PFN_cuDevicePrimaryCtxSetFlags_v7000: cuDevicePrimaryCtxSetFlags(
        device: CUdevice, flags: c_uint,
    ) => primary_set_flags;
    Always PFN_cuDevicePrimaryCtxSetFlags_v11000: cuDevicePrimaryCtxSetFlags_v2(
        device: CUdevice, flags: c_uint,
    ) => primary_set_flags;
    Always PFN_cuDevicePrimaryCtxGetState_v7000: cuDevicePrimaryCtxGetState(
        device: CUdevice, flags: *mut c_uint, active: *mut c_int,
    ) => primary_get_state;
}

fn primary_retain(call: Call, context: *mut CUcontext, device: CUdevice) -> Status {
    if !valid(context) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    let mut state = call.lock();
    let handle = state.activate_primary(device);
    if let Some(retained) =
        state.contexts.get_mut(handle).and_then(|context| context.retained.as_mut())
    {
        *retained += 1;
    }
    out(context, to_pointer(handle))
}

fn primary_release(call: Call, device: CUdevice) -> Status {
    call.device(device)?;
    let mut state = call.lock();
    let handle = state.active_primary(device).ok_or(CudaError::INVALID_CONTEXT)?;
    let context = state.contexts.get_mut(handle).ok_or(CudaError::INVALID_CONTEXT)?;
    let retained = context.retained.as_mut().ok_or(CudaError::INVALID_CONTEXT)?;
    *retained = retained.checked_sub(1).ok_or(CudaError::INVALID_CONTEXT)?;
    if *retained == 0 {
        state = call.machine.wait_for_context(state, handle);
        // Another thread may have retained it again while this one waited.
        if state.contexts.get(handle).is_some_and(|context| context.retained == Some(0)) {
            state.destroy_context(handle);
        }
    }
    Ok(())
}

fn primary_reset(call: Call, device: CUdevice) -> Status {
    call.device(device)?;
    let mut state = call.lock();
    if let Some(handle) = state.active_primary(device) {
        state = call.machine.wait_for_context(state, handle);
        state.destroy_context(handle);
    }
    Ok(())
}

fn primary_set_flags(call: Call, device: CUdevice, flags: c_uint) -> Status {
    call.device(device)?;
    check_flags(flags)?;
    let mut state = call.lock();
    state.primary_flags.insert(device, flags);
    if let Some(handle) = state.active_primary(device)
        && let Some(context) = state.contexts.get_mut(handle)
    {
        context.flags = flags;
    }
    Ok(())
}

fn primary_get_state(
    call: Call,
    device: CUdevice,
    flags: *mut c_uint,
    active: *mut c_int,
) -> Status {
    if !valid(flags) || !valid(active) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    let state = call.lock();
    out(flags, state.primary_flags.get(&device).copied().unwrap_or(0))?;
    out(active, c_int::from(state.active_primary(device).is_some()))
}
