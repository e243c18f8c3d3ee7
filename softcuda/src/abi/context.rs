#![expect(unsafe_code, reason = "exports C functions")]
//! Contexts: primary and created, and which one is current.

use core::ffi::{c_int, c_uint, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::{Call, Status, exports, out, valid};
use crate::context::Context;
use crate::handle::{number, to_pointer};
use crate::machine::State;

#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuDevicePrimaryCtxRelease_v7000 = PFN_cuDevicePrimaryCtxRelease_v11000;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuDevicePrimaryCtxReset_v7000 = PFN_cuDevicePrimaryCtxReset_v11000;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuDevicePrimaryCtxSetFlags_v7000 = PFN_cuDevicePrimaryCtxSetFlags_v11000;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuCtxDestroy_v2000 = PFN_cuCtxDestroy_v4000;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuCtxPushCurrent_v2000 = PFN_cuCtxPushCurrent_v4000;
#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuCtxPopCurrent_v2000 = PFN_cuCtxPopCurrent_v4000;

/// The forms with execution affinity and graphics clients, which this device has neither of.
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuCtxCreate_v11040 =
    Option<unsafe extern "C" fn(*mut CUcontext, *mut c_void, c_int, c_uint, CUdevice) -> CUresult>;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuCtxCreate_v12050 =
    Option<unsafe extern "C" fn(*mut CUcontext, *mut CreateParams, c_uint, CUdevice) -> CUresult>;

exports! {
    Always PFN_cuDevicePrimaryCtxRetain_v7000: cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) => primary_retain;
    Always PFN_cuDevicePrimaryCtxRelease_v7000: cuDevicePrimaryCtxRelease(device: CUdevice) => primary_release;
    Always PFN_cuDevicePrimaryCtxRelease_v11000: cuDevicePrimaryCtxRelease_v2(device: CUdevice) => primary_release;
    Always PFN_cuDevicePrimaryCtxReset_v7000: cuDevicePrimaryCtxReset(device: CUdevice) => primary_reset;
    Always PFN_cuDevicePrimaryCtxReset_v11000: cuDevicePrimaryCtxReset_v2(device: CUdevice) => primary_reset;
    Always PFN_cuDevicePrimaryCtxSetFlags_v7000: cuDevicePrimaryCtxSetFlags(device: CUdevice, flags: c_uint) => primary_set_flags;
    Always PFN_cuDevicePrimaryCtxSetFlags_v11000: cuDevicePrimaryCtxSetFlags_v2(device: CUdevice, flags: c_uint) => primary_set_flags;
    Always PFN_cuDevicePrimaryCtxGetState_v7000: cuDevicePrimaryCtxGetState(device: CUdevice, flags: *mut c_uint, active: *mut c_int) => primary_get_state;
    Always PFN_cuCtxCreate_v3020: cuCtxCreate_v2(context: *mut CUcontext, flags: c_uint, device: CUdevice) => create;
    Always PFN_cuCtxCreate_v11040: cuCtxCreate_v3(context: *mut CUcontext, affinities: *mut c_void, count: c_int, flags: c_uint, device: CUdevice) => create_with_affinity;
    Always PFN_cuCtxCreate_v12050: cuCtxCreate_v4(context: *mut CUcontext, params: *mut CreateParams, flags: c_uint, device: CUdevice) => create_with_params;
    Always PFN_cuCtxDestroy_v2000: cuCtxDestroy(context: CUcontext) => destroy;
    Always PFN_cuCtxDestroy_v4000: cuCtxDestroy_v2(context: CUcontext) => destroy;
    Always PFN_cuCtxPushCurrent_v2000: cuCtxPushCurrent(context: CUcontext) => push_current;
    Always PFN_cuCtxPushCurrent_v4000: cuCtxPushCurrent_v2(context: CUcontext) => push_current;
    Always PFN_cuCtxPopCurrent_v2000: cuCtxPopCurrent(context: *mut CUcontext) => pop_current;
    Always PFN_cuCtxPopCurrent_v4000: cuCtxPopCurrent_v2(context: *mut CUcontext) => pop_current;
    Always PFN_cuCtxSetCurrent_v4000: cuCtxSetCurrent(context: CUcontext) => set_current;
    Always PFN_cuCtxGetCurrent_v4000: cuCtxGetCurrent(context: *mut CUcontext) => get_current;
    Always PFN_cuCtxGetDevice_v2000: cuCtxGetDevice(device: *mut CUdevice) => get_device;
    Always PFN_cuCtxGetDevice_v13000: cuCtxGetDevice_v2(device: *mut CUdevice, context: CUcontext) => get_device_of;
    Normal PFN_cuCtxGetFlags_v7000: cuCtxGetFlags(flags: *mut c_uint) => get_flags;
    Normal PFN_cuCtxSetFlags_v12010: cuCtxSetFlags(flags: c_uint) => set_flags;
    Always PFN_cuCtxGetId_v12000: cuCtxGetId(context: CUcontext, id: *mut u64) => get_id;
    Always PFN_cuCtxGetApiVersion_v3020: cuCtxGetApiVersion(context: CUcontext, version: *mut c_uint) => get_api_version;
    Normal PFN_cuCtxSynchronize_v2000: cuCtxSynchronize() => synchronize;
    Normal PFN_cuCtxSynchronize_v13000: cuCtxSynchronize_v2(context: CUcontext) => synchronize_one;
    Normal PFN_cuCtxGetStreamPriorityRange_v5050: cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) => get_stream_priority_range;
    Normal PFN_cuCtxSetLimit_v3010: cuCtxSetLimit(limit: CUlimit, value: usize) => set_limit;
    Normal PFN_cuCtxGetLimit_v3010: cuCtxGetLimit(value: *mut usize, limit: CUlimit) => get_limit;
    Normal PFN_cuCtxGetCacheConfig_v3020: cuCtxGetCacheConfig(config: *mut CUfunc_cache) => get_cache_config;
    Normal PFN_cuCtxSetCacheConfig_v3020: cuCtxSetCacheConfig(config: CUfunc_cache) => set_cache_config;
    Normal PFN_cuCtxGetSharedMemConfig_v4020: cuCtxGetSharedMemConfig(config: *mut CUsharedconfig) => get_shared_mem_config;
    Normal PFN_cuCtxSetSharedMemConfig_v4020: cuCtxSetSharedMemConfig(config: CUsharedconfig) => set_shared_mem_config;
    Normal PFN_cuCtxResetPersistingL2Cache_v11000: cuCtxResetPersistingL2Cache() => reset_persisting_l2_cache;
    Normal PFN_cuCtxEnablePeerAccess_v4000: cuCtxEnablePeerAccess(peer: CUcontext, flags: c_uint) => enable_peer_access;
    Normal PFN_cuCtxDisablePeerAccess_v4000: cuCtxDisablePeerAccess(peer: CUcontext) => disable_peer_access;
}

/// The lowest and the highest priority of a stream: smaller is more urgent.
pub(crate) const PRIORITIES: (c_int, c_int) = (0, -5);

/// Flags of a context: three bits of scheduling, mapped host memory, local memory, dumps, sync.
const FLAGS: c_uint = 0xff;

fn check_flags(flags: c_uint) -> Status {
    // At most one way of scheduling.
    if flags & !FLAGS != 0 || (flags & 7).count_ones() > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(())
}

impl State {
    fn new_context(&mut self, ordinal: i32, flags: u32, retained: Option<u32>) -> u64 {
        self.next_id += 1;
        self.contexts.insert(Context::new(ordinal, flags, self.next_id, retained))
    }

    /// The handle of the device's primary context, made active if it is not.
    fn activate_primary(&mut self, ordinal: i32) -> u64 {
        let flags = self.primary_flags.get(&ordinal).copied().unwrap_or(0);
        let Some(handle) = self.primaries.get(&ordinal).copied() else {
            let handle = self.new_context(ordinal, flags, Some(0));
            self.primaries.insert(ordinal, handle);
            return handle;
        };
        if !self.contexts.contains(handle) {
            self.next_id += 1;
            self.contexts.restore(handle, Context::new(ordinal, flags, self.next_id, Some(0)));
        }
        handle
    }

    /// The device's primary context, if it is active.
    fn active_primary(&self, ordinal: i32) -> Option<u64> {
        self.primaries.get(&ordinal).copied().filter(|handle| self.contexts.contains(*handle))
    }
}

/// The handle of a live context, or why it is none.
fn live(state: &State, context: CUcontext) -> Status<u64> {
    let handle = number(context);
    if state.contexts.contains(handle) { Ok(handle) } else { Err(CudaError::INVALID_CONTEXT) }
}

fn primary_retain(call: Call, context: *mut CUcontext, device: CUdevice) -> Status {
    if !valid(context) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    let mut state = call.lock();
    let handle = state.activate_primary(device);
    if let Some(retained) = state.contexts.get_mut(handle).and_then(|context| context.retained.as_mut()) {
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

fn primary_get_state(call: Call, device: CUdevice, flags: *mut c_uint, active: *mut c_int) -> Status {
    if !valid(flags) || !valid(active) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    let state = call.lock();
    out(flags, state.primary_flags.get(&device).copied().unwrap_or(0))?;
    out(active, c_int::from(state.active_primary(device).is_some()))
}

fn create(call: Call, context: *mut CUcontext, flags: c_uint, device: CUdevice) -> Status {
    if !valid(context) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.device(device)?;
    check_flags(flags)?;
    let handle = call.lock().new_context(device, flags, None);
    call.thread.push_context(handle);
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
    let params = super::call::input(params.cast_const())?;
    if !params.graphics_client.is_null() {
        return Err(CudaError::NOT_SUPPORTED);
    }
    create_with_affinity(call, context, params.affinities, params.affinity_count, flags, device)
}

pub(super) fn destroy(call: Call, context: CUcontext) -> Status {
    let mut state = call.lock();
    let handle = live(&state, context)?;
    if state.contexts.get(handle).is_some_and(|context| context.retained.is_some()) {
        // "It is an error to call cuCtxDestroy on a primary context."
        return Err(CudaError::INVALID_CONTEXT);
    }
    state = call.machine.wait_for_context(state, handle);
    state.destroy_context(handle);
    drop(state);
    // "If hCtx is current to the calling thread then hCtx will also be popped."
    if call.thread.context() == handle {
        call.thread.pop_context();
    }
    Ok(())
}

fn push_current(call: Call, context: CUcontext) -> Status {
    let handle = live(&call.lock(), context)?;
    call.thread.push_context(handle);
    Ok(())
}

fn pop_current(call: Call, context: *mut CUcontext) -> Status {
    let handle = call.thread.pop_context().ok_or(CudaError::INVALID_CONTEXT)?;
    super::call::out_if_any(context, to_pointer(handle))
}

fn set_current(call: Call, context: CUcontext) -> Status {
    if context.is_null() {
        call.thread.set_context(0);
        return Ok(());
    }
    // The context may be another machine's, which the thread then talks to.
    let machine = crate::machine::Machine::of_context(number(context)).ok_or(CudaError::INVALID_CONTEXT)?;
    let handle = live(&machine.lock(), context)?;
    call.thread.set_context(handle);
    Ok(())
}

fn get_current(call: Call, context: *mut CUcontext) -> Status {
    out(context, to_pointer(call.thread.context()))
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

fn get_stream_priority_range(call: Call, least: *mut c_int, greatest: *mut c_int) -> Status {
    call.context(&call.lock())?;
    super::call::out_if_any(least, PRIORITIES.0)?;
    super::call::out_if_any(greatest, PRIORITIES.1)
}

/// The limits that exist, and what they are until set, in bytes or counts.
fn default_limit(limit: CUlimit) -> Option<usize> {
    match limit {
        CUlimit::CU_LIMIT_STACK_SIZE => Some(1024),
        CUlimit::CU_LIMIT_PRINTF_FIFO_SIZE => Some(1 << 20),
        CUlimit::CU_LIMIT_MALLOC_HEAP_SIZE => Some(8 << 20),
        CUlimit::CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH => Some(2),
        CUlimit::CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT => Some(2048),
        CUlimit::CU_LIMIT_MAX_L2_FETCH_GRANULARITY => Some(64),
        CUlimit::CU_LIMIT_PERSISTING_L2_CACHE_SIZE => Some(0),
        _ => None,
    }
}

fn set_limit(call: Call, limit: CUlimit, value: usize) -> Status {
    default_limit(limit).ok_or(CudaError::UNSUPPORTED_LIMIT)?;
    let mut state = call.lock();
    let context = call.context(&state)?;
    if let Some(context) = state.contexts.get_mut(context) {
        context.limits.insert(limit.0, value);
    }
    Ok(())
}

fn get_limit(call: Call, value: *mut usize, limit: CUlimit) -> Status {
    let unset = default_limit(limit).ok_or(CudaError::UNSUPPORTED_LIMIT)?;
    let state = call.lock();
    let context = call.context(&state)?;
    let set = state.contexts.get(context).and_then(|context| context.limits.get(&limit.0).copied());
    out(value, set.unwrap_or(unset))
}

/// Cache and bank preferences are hints that this device ignores, as the reference allows.
fn get_cache_config(call: Call, config: *mut CUfunc_cache) -> Status {
    call.context(&call.lock())?;
    out(config, CUfunc_cache::CU_FUNC_CACHE_PREFER_NONE)
}

fn set_cache_config(call: Call, config: CUfunc_cache) -> Status {
    call.context(&call.lock())?;
    if config.0 <= CUfunc_cache::CU_FUNC_CACHE_PREFER_EQUAL.0 {
        Ok(())
    } else {
        Err(CudaError::INVALID_VALUE)
    }
}

fn get_shared_mem_config(call: Call, config: *mut CUsharedconfig) -> Status {
    call.context(&call.lock())?;
    out(config, CUsharedconfig::CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE)
}

fn set_shared_mem_config(call: Call, config: CUsharedconfig) -> Status {
    call.context(&call.lock())?;
    if config.0 <= CUsharedconfig::CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE.0 {
        Ok(())
    } else {
        Err(CudaError::INVALID_VALUE)
    }
}

fn reset_persisting_l2_cache(call: Call) -> Status {
    call.context(&call.lock()).map(|_| ())
}

fn enable_peer_access(call: Call, peer: CUcontext, flags: c_uint) -> Status {
    if flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let context = call.context(&state)?;
    let peer = live(&state, peer)?;
    let ordinal = |state: &State, handle| state.contexts.get(handle).map(|context: &Context| context.ordinal);
    if peer == context || ordinal(&state, peer) == ordinal(&state, context) {
        return Err(CudaError::INVALID_CONTEXT);
    }
    let known = state.contexts.get_mut(context).ok_or(CudaError::INVALID_CONTEXT)?;
    if known.peers.contains(&peer) {
        return Err(CudaError::PEER_ACCESS_ALREADY_ENABLED);
    }
    known.peers.push(peer);
    Ok(())
}

fn disable_peer_access(call: Call, peer: CUcontext) -> Status {
    let mut state = call.lock();
    let context = call.context(&state)?;
    let peer = live(&state, peer)?;
    let known = state.contexts.get_mut(context).ok_or(CudaError::INVALID_CONTEXT)?;
    let position = known.peers.iter().position(|other| *other == peer);
    known.peers.swap_remove(position.ok_or(CudaError::PEER_ACCESS_NOT_ENABLED)?);
    Ok(())
}
