#![expect(unsafe_code, reason = "exports C functions")]
//! Streams and what is launched on the host from them.

use core::ffi::{c_int, c_uint, c_ulonglong, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::out_if_any;
use super::context_settings::PRIORITIES;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::machine::{State, Work};
use crate::memory::Kind;
use crate::sched::work::UserData;
use crate::stream::{NON_BLOCKING, Role, Stream};
use crate::submit::Return;
use crate::task::Task;

#[expect(non_camel_case_types, reason = "named as NVIDIA\'s header names them")]
type PFN_cuStreamDestroy_v2000 = PFN_cuStreamDestroy_v4000;

exports! {
    Normal PFN_cuStreamCreate_v2000: cuStreamCreate(stream: *mut CUstream, flags: c_uint) => create;
    Normal PFN_cuStreamCreateWithPriority_v5050: cuStreamCreateWithPriority(
        stream: *mut CUstream, flags: c_uint, priority: c_int,
    ) => create_with_priority;
    Always PFN_cuStreamDestroy_v2000: cuStreamDestroy(stream: CUstream) => destroy;
    Always PFN_cuStreamDestroy_v4000: cuStreamDestroy_v2(stream: CUstream) => destroy;
    Normal PFN_cuStreamGetPriority_v5050: cuStreamGetPriority(
        stream: CUstream, priority: *mut c_int,
    ) | cuStreamGetPriority_ptsz => get_priority;
    Normal PFN_cuStreamGetFlags_v5050: cuStreamGetFlags(
        stream: CUstream, flags: *mut c_uint,
    ) | cuStreamGetFlags_ptsz => get_flags;
    Normal PFN_cuStreamGetId_v12000: cuStreamGetId(
        stream: CUstream, id: *mut c_ulonglong,
    ) | cuStreamGetId_ptsz => get_id;
    Normal PFN_cuStreamGetCtx_v9020: cuStreamGetCtx(
        stream: CUstream, context: *mut CUcontext,
    ) | cuStreamGetCtx_ptsz => get_ctx;
    Normal PFN_cuStreamGetCtx_v12050: cuStreamGetCtx_v2(
        stream: CUstream, context: *mut CUcontext, green: *mut CUgreenCtx,
    ) | cuStreamGetCtx_v2_ptsz => get_ctx_v2;
    Normal PFN_cuStreamGetDevice_v12080: cuStreamGetDevice(
        stream: CUstream, device: *mut CUdevice,
    ) | cuStreamGetDevice_ptsz => get_device;
    Normal PFN_cuStreamQuery_v2000: cuStreamQuery(stream: CUstream) | cuStreamQuery_ptsz => query;
    Normal PFN_cuStreamSynchronize_v2000: cuStreamSynchronize(
        stream: CUstream,
    ) | cuStreamSynchronize_ptsz => synchronize;
    Normal PFN_cuStreamAddCallback_v5000: cuStreamAddCallback(
        stream: CUstream, callback: CUstreamCallback, data: *mut c_void, flags: c_uint,
    ) | cuStreamAddCallback_ptsz => add_callback;
    Normal PFN_cuLaunchHostFunc_v10000: cuLaunchHostFunc(
        stream: CUstream, function: CUhostFn, data: *mut c_void,
    ) | cuLaunchHostFunc_ptsz => launch_host_func;
    Normal PFN_cuLaunchHostFunc_v13010: cuLaunchHostFunc_v2(
        stream: CUstream, function: CUhostFn, data: *mut c_void, sync_mode: c_uint,
    ) | cuLaunchHostFunc_v2_ptsz => launch_host_func_v2;
    Normal PFN_cuStreamAttachMemAsync_v6000: cuStreamAttachMemAsync(
        stream: CUstream, pointer: CUdeviceptr, len: usize, flags: c_uint,
    ) | cuStreamAttachMemAsync_ptsz => attach_mem_async;
}

fn create(call: Call, stream: *mut CUstream, flags: c_uint) -> Status {
    create_with_priority(call, stream, flags, 0)
}

fn create_with_priority(
    call: Call,
    stream: *mut CUstream,
    flags: c_uint,
    priority: c_int,
) -> Status {
    if !valid(stream) || flags & !NON_BLOCKING != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    // "If the specified priority is outside the numerical range returned by
    // cuCtxGetStreamPriorityRange, it will automatically be clamped."
    let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
    let mut state = call.lock();
    let context = call.context(&state)?;
    let handle = state.new_stream(context, Role::Created, flags, priority);
    out(stream, to_pointer(handle))
}

fn destroy(call: Call, stream: CUstream) -> Status {
    let mut state = call.lock();
    let handle = number(stream);
    let known = state.streams.get(handle).ok_or(CudaError::INVALID_HANDLE)?;
    if known.role != Role::Created {
        return Err(CudaError::INVALID_HANDLE);
    }
    // "The function will return immediately and the resources associated with the stream will
    // be released automatically once the device has completed all work in it": operations in
    // flight do not need the stream.
    state.graphs.abandon_capture(handle);
    state.streams.remove(handle);
    Ok(())
}

/// Reads something of a stream.
fn get<T>(
    call: Call,
    stream: CUstream,
    to: *mut T,
    read: impl FnOnce(&State, &Stream) -> T,
) -> Status {
    if !valid(to) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    let known = state.streams.get(handle).ok_or(CudaError::INVALID_HANDLE)?;
    out(to, read(&state, known))
}

fn get_priority(call: Call, stream: CUstream, priority: *mut c_int) -> Status {
    get(call, stream, priority, |_, stream| stream.priority)
}

fn get_flags(call: Call, stream: CUstream, flags: *mut c_uint) -> Status {
    get(call, stream, flags, |_, stream| stream.flags)
}

fn get_id(call: Call, stream: CUstream, id: *mut c_ulonglong) -> Status {
    get(call, stream, id, |_, stream| stream.id)
}

fn get_ctx(call: Call, stream: CUstream, context: *mut CUcontext) -> Status {
    get(call, stream, context, |_, stream| to_pointer(stream.context))
}

/// There are no green contexts.
fn get_ctx_v2(
    call: Call,
    stream: CUstream,
    context: *mut CUcontext,
    green: *mut CUgreenCtx,
) -> Status {
    get_ctx(call, stream, context)?;
    out_if_any(green, core::ptr::null_mut())
}

fn get_device(call: Call, stream: CUstream, device: *mut CUdevice) -> Status {
    get(call, stream, device, |state, stream| {
        state.contexts.get(stream.context).map_or(0, |context| context.ordinal)
    })
}

fn query(call: Call, stream: CUstream) -> Status {
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    call.forbid_on_capturing(&mut state, handle)?;
    let tail = state.stream_tail(handle)?;
    let context = state.streams.get(handle).map_or(0, |stream| stream.context);
    call.machine.is_complete(state, &tail, context)
}

fn synchronize(call: Call, stream: CUstream) -> Status {
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    call.forbid_on_capturing(&mut state, handle)?;
    let tail = state.stream_tail(handle)?;
    call.wait(state, &tail, handle)
}

fn add_callback(
    call: Call,
    stream: CUstream,
    callback: CUstreamCallback,
    data: *mut c_void,
    flags: c_uint,
) -> Status {
    if flags != 0 || callback.is_none() {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    call.forbid_on_capturing(&mut state, handle)?;
    let work = Work::Callback(callback, number(stream), UserData(data));
    call.enqueue(state, handle, work, &[]).map(|_| ())
}

fn launch_host_func(call: Call, stream: CUstream, function: CUhostFn, data: *mut c_void) -> Status {
    if function.is_none() {
        return Err(CudaError::INVALID_VALUE);
    }
    call.submit(stream, &Task::Host(function, UserData(data)), Return::Enqueued)
}

/// The mode says how the host's thread is to wait, which it does as it likes.
fn launch_host_func_v2(
    call: Call,
    stream: CUstream,
    function: CUhostFn,
    data: *mut c_void,
    sync_mode: c_uint,
) -> Status {
    if sync_mode > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    launch_host_func(call, stream, function, data)
}

/// Attaching managed memory to a stream restricts who may touch it; here everybody may always.
fn attach_mem_async(
    call: Call,
    stream: CUstream,
    pointer: CUdeviceptr,
    len: usize,
    flags: c_uint,
) -> Status {
    let state = call.lock();
    let block = state.memory.find(pointer).ok_or(CudaError::INVALID_VALUE)?;
    let is_whole = len == 0 || block.device == pointer && len == block.size;
    if !matches!(block.kind, Kind::Managed { .. }) || !is_whole || !matches!(flags, 1 | 2 | 4) {
        return Err(CudaError::INVALID_VALUE);
    }
    drop(state);
    call.submit(stream, &Task::Empty, Return::Enqueued)
}
