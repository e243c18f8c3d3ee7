#![expect(unsafe_code, reason = "exports C functions")]
//! User objects.

use core::ffi::{c_uint, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::sched::work::UserData;

exports! {
    Normal PFN_cuUserObjectCreate_v11030: cuUserObjectCreate(
        object: *mut CUuserObject, data: *mut c_void, destructor: CUhostFn, count: c_uint,
        flags: c_uint,
    ) => create;
    Always PFN_cuUserObjectRetain_v11030: cuUserObjectRetain(
        object: CUuserObject, count: c_uint,
    ) => retain;
    Always PFN_cuUserObjectRelease_v11030: cuUserObjectRelease(
        object: CUuserObject, count: c_uint,
    ) => release;
    Normal PFN_cuGraphRetainUserObject_v11030: cuGraphRetainUserObject(
        graph: CUgraph, object: CUuserObject, count: c_uint, flags: c_uint,
    ) => graph_retain;
    Always PFN_cuGraphReleaseUserObject_v11030: cuGraphReleaseUserObject(
        graph: CUgraph, object: CUuserObject, count: c_uint,
    ) => graph_release;
}

/// The one flag that must be given: `CU_USER_OBJECT_NO_DESTRUCTOR_SYNC`.
const NO_DESTRUCTOR_SYNC: c_uint = 1;
/// `CU_GRAPH_USER_OBJECT_MOVE`
const MOVE: c_uint = 1;

/// "Must be nonzero and not larger than `INT_MAX`."
fn check_count(count: c_uint) -> Status<u64> {
    if count == 0 || i32::try_from(count).is_err() {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(count.into())
}

fn create(
    call: Call,
    object: *mut CUuserObject,
    data: *mut c_void,
    destructor: CUhostFn,
    count: c_uint,
    flags: c_uint,
) -> Status {
    let count = check_count(count)?;
    if !valid(object) || destructor.is_none() || flags != NO_DESTRUCTOR_SYNC {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let handle = call.machine.create_user_object(&mut state, destructor, UserData(data), count);
    out(object, to_pointer(handle))
}

fn retain(call: Call, object: CUuserObject, count: c_uint) -> Status {
    let count = check_count(count)?;
    call.lock().graphs.retain_user_object(number(object), count)
}

fn release(call: Call, object: CUuserObject, count: c_uint) -> Status {
    let count = check_count(count)?;
    call.lock().graphs.release_user_object(number(object), count)
}

fn graph_retain(
    call: Call,
    graph: CUgraph,
    object: CUuserObject,
    count: c_uint,
    flags: c_uint,
) -> Status {
    let count = check_count(count)?;
    if flags & !MOVE != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    state.graphs.graph_retain_object(number(graph), number(object), count, flags == MOVE)
}

fn graph_release(call: Call, graph: CUgraph, object: CUuserObject, count: c_uint) -> Status {
    let count = check_count(count)?;
    call.lock().graphs.graph_release_object(number(graph), number(object), count)
}
