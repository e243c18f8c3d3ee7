#![expect(unsafe_code, reason = "exports C functions")]
//! Settings of contexts: limits, hints, priorities, and which other contexts' memory they reach.

use core::ffi::{c_int, c_uint};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::out_if_any;
use super::context::live;
use super::{exports, out};
use crate::call::Call;
use crate::context::Context;
use crate::errors::Status;
use crate::machine::State;

exports! {
    Normal PFN_cuCtxGetStreamPriorityRange_v5050: cuCtxGetStreamPriorityRange(
        least: *mut c_int, greatest: *mut c_int,
    ) => get_stream_priority_range;
    Normal PFN_cuCtxSetLimit_v3010: cuCtxSetLimit(limit: CUlimit, value: usize) => set_limit;
    Normal PFN_cuCtxGetLimit_v3010: cuCtxGetLimit(value: *mut usize, limit: CUlimit) => get_limit;
    Normal PFN_cuCtxGetCacheConfig_v3020: cuCtxGetCacheConfig(
        config: *mut CUfunc_cache,
    ) => get_cache_config;
    Normal PFN_cuCtxSetCacheConfig_v3020: cuCtxSetCacheConfig(
        config: CUfunc_cache,
    ) => set_cache_config;
    Normal PFN_cuCtxGetSharedMemConfig_v4020: cuCtxGetSharedMemConfig(
        config: *mut CUsharedconfig,
    ) => get_shared_mem_config;
    Normal PFN_cuCtxSetSharedMemConfig_v4020: cuCtxSetSharedMemConfig(
        config: CUsharedconfig,
    ) => set_shared_mem_config;
    Normal PFN_cuCtxResetPersistingL2Cache_v11000:
        cuCtxResetPersistingL2Cache() => reset_persisting_l2_cache;
    Normal PFN_cuCtxEnablePeerAccess_v4000: cuCtxEnablePeerAccess(
        peer: CUcontext, flags: c_uint,
    ) => enable_peer_access;
    Normal PFN_cuCtxDisablePeerAccess_v4000: cuCtxDisablePeerAccess(
        peer: CUcontext,
    ) => disable_peer_access;
}

/// The lowest and the highest priority of a stream: smaller is more urgent.
pub(crate) const PRIORITIES: (c_int, c_int) = (0, -5);

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

fn get_stream_priority_range(call: Call, least: *mut c_int, greatest: *mut c_int) -> Status {
    call.context(&call.lock())?;
    out_if_any(least, PRIORITIES.0)?;
    out_if_any(greatest, PRIORITIES.1)
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
    let ordinal =
        |state: &State, handle| state.contexts.get(handle).map(|context: &Context| context.ordinal);
    // A context reaches the memory of its own device without this call.
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
