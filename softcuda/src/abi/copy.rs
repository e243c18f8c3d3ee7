#![expect(unsafe_code, reason = "exports C functions")]
//! Linear copies.

use core::ffi::c_void;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::exports;
use crate::call::Call;
use crate::errors::Status;
use crate::handle::number;
use crate::submit::Return;
use crate::task::{CopyTask, Operand, Place, Task};

exports! {
    Normal PFN_cuMemcpy_v4000: cuMemcpy(
        dst: CUdeviceptr, src: CUdeviceptr, size: usize,
    ) | cuMemcpy_ptds => copy;
    Normal PFN_cuMemcpyAsync_v4000: cuMemcpyAsync(
        dst: CUdeviceptr, src: CUdeviceptr, size: usize, stream: CUstream,
    ) | cuMemcpyAsync_ptsz => copy_async;
    Normal PFN_cuMemcpyHtoD_v3020: cuMemcpyHtoD_v2(
        dst: CUdeviceptr, src: *const c_void, size: usize,
    ) | cuMemcpyHtoD_v2_ptds => htod;
    Normal PFN_cuMemcpyHtoDAsync_v3020: cuMemcpyHtoDAsync_v2(
        dst: CUdeviceptr, src: *const c_void, size: usize, stream: CUstream,
    ) | cuMemcpyHtoDAsync_v2_ptsz => htod_async;
    Normal PFN_cuMemcpyDtoH_v3020: cuMemcpyDtoH_v2(
        dst: *mut c_void, src: CUdeviceptr, size: usize,
    ) | cuMemcpyDtoH_v2_ptds => dtoh;
    Normal PFN_cuMemcpyDtoHAsync_v3020: cuMemcpyDtoHAsync_v2(
        dst: *mut c_void, src: CUdeviceptr, size: usize, stream: CUstream,
    ) | cuMemcpyDtoHAsync_v2_ptsz => dtoh_async;
    Normal PFN_cuMemcpyDtoD_v3020: cuMemcpyDtoD_v2(
        dst: CUdeviceptr, src: CUdeviceptr, size: usize,
    ) | cuMemcpyDtoD_v2_ptds => dtod;
    Normal PFN_cuMemcpyDtoDAsync_v3020: cuMemcpyDtoDAsync_v2(
        dst: CUdeviceptr, src: CUdeviceptr, size: usize, stream: CUstream,
    ) | cuMemcpyDtoDAsync_v2_ptsz => dtod_async;
    Normal PFN_cuMemcpyPeer_v4000: cuMemcpyPeer(
        dst: CUdeviceptr, to: CUcontext, src: CUdeviceptr, from: CUcontext, size: usize,
    ) | cuMemcpyPeer_ptds => peer;
    Normal PFN_cuMemcpyPeerAsync_v4000: cuMemcpyPeerAsync(
        dst: CUdeviceptr, to: CUcontext, src: CUdeviceptr, from: CUcontext, size: usize,
        stream: CUstream,
    ) | cuMemcpyPeerAsync_ptsz => peer_async;
}

/// The address in a pointer of the program's.
pub(crate) fn host<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

fn linear(dst: (u64, Place), src: (u64, Place), size: usize) -> CopyTask {
    let (dst, src) = (Operand::linear(dst.0, dst.1), Operand::linear(src.0, src.1));
    CopyTask::linear(dst, src, size)
}

impl Call<'_> {
    /// A copy that has no stream: on a default stream, complete on return unless `returns`
    /// says otherwise and no operand is set to always synchronise.
    pub(super) fn copy_now(self, task: CopyTask, returns: Return) -> Status {
        self.forbid_synchronous()?;
        let state = self.lock();
        let always = |side: &Operand| {
            state.memory.find(side.address).is_some_and(|block| block.always_synchronises())
        };
        let returns =
            if always(&task.dst) || always(&task.src) { Return::Complete } else { returns };
        drop(state);
        self.submit(core::ptr::null_mut(), &Task::Copy(task), returns)
    }

    fn copy_later(
        self,
        dst: (u64, Place),
        src: (u64, Place),
        size: usize,
        stream: CUstream,
    ) -> Status {
        self.submit(stream, &Task::Copy(linear(dst, src, size)), Return::AsDocumented)
    }
}

fn copy(call: Call, dst: CUdeviceptr, src: CUdeviceptr, size: usize) -> Status {
    call.copy_now(linear((dst, Place::Unified), (src, Place::Unified), size), Return::Complete)
}

fn copy_async(
    call: Call,
    dst: CUdeviceptr,
    src: CUdeviceptr,
    size: usize,
    stream: CUstream,
) -> Status {
    call.copy_later((dst, Place::Unified), (src, Place::Unified), size, stream)
}

fn htod(call: Call, dst: CUdeviceptr, src: *const c_void, size: usize) -> Status {
    call.copy_now(linear((dst, Place::Device), (host(src), Place::Host), size), Return::Complete)
}

fn htod_async(
    call: Call,
    dst: CUdeviceptr,
    src: *const c_void,
    size: usize,
    stream: CUstream,
) -> Status {
    call.copy_later((dst, Place::Device), (host(src), Place::Host), size, stream)
}

fn dtoh(call: Call, dst: *mut c_void, src: CUdeviceptr, size: usize) -> Status {
    call.copy_now(linear((host(dst), Place::Host), (src, Place::Device), size), Return::Complete)
}

fn dtoh_async(
    call: Call,
    dst: *mut c_void,
    src: CUdeviceptr,
    size: usize,
    stream: CUstream,
) -> Status {
    call.copy_later((host(dst), Place::Host), (src, Place::Device), size, stream)
}

/// "For transfers from device memory to device memory, no host-side synchronization is
/// performed."
fn dtod(call: Call, dst: CUdeviceptr, src: CUdeviceptr, size: usize) -> Status {
    call.copy_now(linear((dst, Place::Device), (src, Place::Device), size), Return::Enqueued)
}

fn dtod_async(
    call: Call,
    dst: CUdeviceptr,
    src: CUdeviceptr,
    size: usize,
    stream: CUstream,
) -> Status {
    call.copy_later((dst, Place::Device), (src, Place::Device), size, stream)
}

/// A copy between two live contexts, each of whose devices reaches its own side.
fn between(
    call: Call,
    (dst, to): (CUdeviceptr, CUcontext),
    (src, from): (CUdeviceptr, CUcontext),
    size: usize,
) -> Status<CopyTask> {
    let (to, from) = (number(to), number(from));
    let state = call.lock();
    if !state.contexts.contains(to) || !state.contexts.contains(from) {
        return Err(CudaError::INVALID_CONTEXT);
    }
    let mut task = linear((dst, Place::Device), (src, Place::Device), size);
    (task.dst.context, task.src.context) = (Some(to), Some(from));
    Ok(task)
}

fn peer(
    call: Call,
    dst: CUdeviceptr,
    to: CUcontext,
    src: CUdeviceptr,
    from: CUcontext,
    size: usize,
) -> Status {
    call.copy_now(between(call, (dst, to), (src, from), size)?, Return::Enqueued)
}

fn peer_async(
    call: Call,
    dst: CUdeviceptr,
    to: CUcontext,
    src: CUdeviceptr,
    from: CUcontext,
    size: usize,
    stream: CUstream,
) -> Status {
    let task = between(call, (dst, to), (src, from), size)?;
    call.submit(stream, &Task::Copy(task), Return::AsDocumented)
}
