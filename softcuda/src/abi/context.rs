#![expect(unsafe_code, reason = "exports C functions")]
//! Contexts that programs create, and the current one.

use core::ffi::{c_int, c_uint, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, out_if_any};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{Name, number, to_pointer};
use crate::machine::State;

#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuCtxDestroy_v2000 = PFN_cuCtxDestroy_v4000;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuCtxPushCurrent_v2000 = PFN_cuCtxPushCurrent_v4000;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuCtxPopCurrent_v2000 = PFN_cuCtxPopCurrent_v4000;

/// The forms with execution affinity and graphics clients, which this device has neither of.
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuCtxCreate_v11040 =
    Option<unsafe extern "C" fn(*mut CUcontext, *mut c_void, c_int, c_uint, CUdevice) -> CUresult>;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuCtxCreate_v12050 =
    Option<unsafe extern "C" fn(*mut CUcontext, *mut CreateParams, c_uint, CUdevice) -> CUresult>;

exports! {
    Always PFN_cuCtxCreate_v3020: cuCtxCreate_v2(
        context: *mut CUcontext, flags: c_uint, device: CUdevice,
    ) => create;
    Always PFN_cuCtxCreate_v11040: cuCtxCreate_v3(
        context: *mut CUcontext, affinities: *mut c_void, count: c_int, flags: c_uint,
        device: CUdevice,
    ) => create_with_affinity;
    Always PFN_cuCtxCreate_v12050: cuCtxCreate_v4(
        context: *mut CUcontext, params: *mut CreateParams, flags: c_uint, device: CUdevice,
    ) => create_with_params;
    Always PFN_cuCtxDestroy_v2000: cuCtxDestroy(context: CUcontext) => destroy;
    Always PFN_cuCtxDestroy_v4000: cuCtxDestroy_v2(context: CUcontext) => destroy;
    Always PFN_cuCtxPushCurrent_v2000: cuCtxPushCurrent(context: CUcontext) => push_current;
    Always PFN_cuCtxPushCurrent_v4000: cuCtxPushCurrent_v2(context: CUcontext) => push_current;
    Always PFN_cuCtxPopCurrent_v2000: cuCtxPopCurrent(context: *mut CUcontext) => pop_current;
    Always PFN_cuCtxPopCurrent_v4000: cuCtxPopCurrent_v2(context: *mut CUcontext) => pop_current;
    Always PFN_cuCtxSetCurrent_v4000: cuCtxSetCurrent(context: CUcontext) => set_current;
    Always PFN_cuCtxGetCurrent_v4000: cuCtxGetCurrent(context: *mut CUcontext) => get_current;
    Always PFN_cuCtxGetDevice_v2000: cuCtxGetDevice(device: *mut CUdevice) => get_device;
    Always PFN_cuCtxGetDevice_v13000: cuCtxGetDevice_v2(
        device: *mut CUdevice, context: CUcontext,
    ) => get_device_of;
    Normal PFN_cuCtxGetFlags_v7000: cuCtxGetFlags(flags: *mut c_uint) => get_flags;
    Normal PFN_cuCtxSetFlags_v12010: cuCtxSetFlags(flags: c_uint) => set_flags;
    Always PFN_cuCtxGetId_v12000: cuCtxGetId(context: CUcontext, id: *mut u64) => get_id;
    Always PFN_cuCtxGetApiVersion_v3020: cuCtxGetApiVersion(
        context: CUcontext, version: *mut c_uint,
    ) => get_api_version;
    Normal PFN_cuCtxSynchronize_v2000: cuCtxSynchronize() => synchronize;
    Normal PFN_cuCtxSynchronize_v13000: cuCtxSynchronize_v2(context: CUcontext) => synchronize_one;
}

/// Flags of a context: three bits of scheduling, mapped host memory, local memory, dumps, sync.
const FLAGS: c_uint = 0xff;

/// Refuses flags that no context has.
pub(super) fn check_flags(flags: c_uint) -> Status {
    // At most one way of scheduling.
    if flags & !FLAGS != 0 || (flags & 7).count_ones() > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(())
}

/// The handle of a live context, or why it is none.
pub(super) fn live(state: &State, context: CUcontext) -> Status<u64> {
    let handle = number(context);
    if state.contexts.contains(handle) { Ok(handle) } else { Err(CudaError::INVALID_CONTEXT) }
}

/// The name of a live context.
fn live_name(state: &State, context: CUcontext) -> Status<Name> {
    state.contexts.name(number(context)).ok_or(CudaError::INVALID_CONTEXT)
}

fn create(call: Call, context: *mut CUcontext, flags: c_uint, device: CUdevice) -> Status {
    if !valid(context) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    check_flags(flags)?;
    let mut state = call.lock();
    let handle = state.new_context(device, flags, None);
    let name = live_name(&state, to_pointer(handle))?;
    drop(state);
    call.thread.push_context(name);
    out(context, to_pointer(handle))
}

/// `CUctxCreateParams`
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct CreateParams {
    affinities: *mut c_void,
    affinity_count: c_int,
    graphics_client: *mut c_void,
}

fn create_with_affinity(
    call: Call,
    context: *mut CUcontext,
    affinities: *mut c_void,
    count: c_int,
    flags: c_uint,
    device: CUdevice,
) -> Status {
    if count < 0 || (count > 0) == affinities.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    if count > 0 {
        return Err(CudaError::UNSUPPORTED_EXEC_AFFINITY);
    }
    create(call, context, flags, device)
}

fn create_with_params(
    call: Call,
    context: *mut CUcontext,
    params: *mut CreateParams,
    flags: c_uint,
    device: CUdevice,
) -> Status {
    if params.is_null() {
        return create(call, context, flags, device);
    }
    let params = input(params.cast_const())?;
    if !params.graphics_client.is_null() {
        return Err(CudaError::NOT_SUPPORTED);
    }
    create_with_affinity(call, context, params.affinities, params.affinity_count, flags, device)
}

pub(super) fn destroy(call: Call, context: CUcontext) -> Status {
    let mut state = call.lock();
    let name = live_name(&state, context)?;
    let handle = name.raw;
    if state.contexts.get(handle).is_some_and(|context| context.retained.is_some()) {
        // "It is an error to call cuCtxDestroy on a primary context."
        return Err(CudaError::INVALID_CONTEXT);
    }
    state = call.machine.wait_for_context(state, handle);
    state.destroy_context(handle);
    drop(state);
    // "If hCtx is current to the calling thread then hCtx will also be popped."
    if call.thread.context() == name {
        call.thread.pop_context();
    }
    Ok(())
}

fn push_current(call: Call, context: CUcontext) -> Status {
    let name = live_name(&call.lock(), context)?;
    call.thread.push_context(name);
    Ok(())
}

fn pop_current(call: Call, context: *mut CUcontext) -> Status {
    let popped = call.thread.pop_context().ok_or(CudaError::INVALID_CONTEXT)?;
    out_if_any(context, to_pointer(popped.raw))
}

fn set_current(call: Call, context: CUcontext) -> Status {
    if context.is_null() {
        call.thread.set_context(None);
        return Ok(());
    }
    // The context may be another machine's, which the thread then talks to.
    let machine =
        crate::machine::Machine::of_context(number(context)).ok_or(CudaError::INVALID_CONTEXT)?;
    let name = live_name(&machine.lock(), context)?;
    call.thread.set_context(Some(name));
    Ok(())
}

fn get_current(call: Call, context: *mut CUcontext) -> Status {
    out(context, to_pointer(call.thread.context().raw))
}

fn get_device(call: Call, device: *mut CUdevice) -> Status {
    if !valid(device) {
        return Err(CudaError::INVALID_VALUE);
    }
    let ordinal = call.ordinal(&call.lock())?;
    out(device, ordinal)
}

fn get_device_of(call: Call, device: *mut CUdevice, context: CUcontext) -> Status {
    if context.is_null() {
        return get_device(call, device);
    }
    let state = call.lock();
    let handle = live(&state, context)?;
    out(device, state.contexts.get(handle).map_or(0, |context| context.ordinal))
}

fn get_flags(call: Call, flags: *mut c_uint) -> Status {
    if !valid(flags) {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    let context = call.context(&state)?;
    out(flags, state.contexts.get(context).map_or(0, |context| context.flags))
}

fn set_flags(call: Call, flags: c_uint) -> Status {
    check_flags(flags)?;
    let mut state = call.lock();
    let context = call.context(&state)?;
    if let Some(context) = state.contexts.get_mut(context) {
        context.flags = flags;
    }
    Ok(())
}

fn get_id(call: Call, context: CUcontext, id: *mut u64) -> Status {
    let state = call.lock();
    let handle = if context.is_null() { call.context(&state)? } else { live(&state, context)? };
    let known = state.contexts.get(handle).ok_or(CudaError::CONTEXT_IS_DESTROYED)?;
    out(id, known.id)
}

fn get_api_version(call: Call, context: CUcontext, version: *mut c_uint) -> Status {
    let state = call.lock();
    if context.is_null() {
        call.context(&state)?;
    } else {
        live(&state, context)?;
    }
    // The API version of the contexts of all drivers since CUDA 3.2.
    out(version, 3020)
}

fn synchronize(call: Call) -> Status {
    let mut state = call.lock();
    let context = call.context(&state)?;
    call.forbid_while_capturing(&mut state, Some(context))?;
    call.machine.wait_for_context(state, context).lost(context)
}

fn synchronize_one(call: Call, context: CUcontext) -> Status {
    if context.is_null() {
        return synchronize(call);
    }
    let mut state = call.lock();
    let handle = live(&state, context)?;
    call.forbid_while_capturing(&mut state, Some(handle))?;
    call.machine.wait_for_context(state, handle).lost(handle)
}
