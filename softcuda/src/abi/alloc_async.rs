#![expect(unsafe_code, reason = "exports C functions")]
//! Stream-ordered allocation.

use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::{Call, Status, exports, out, valid};
use crate::handle::number;
use crate::memory::{Block, Kind};
use crate::pool::Place;
use crate::submit::Return;
use crate::task::Task;

exports! {
    Normal PFN_cuMemAllocAsync_v11020: cuMemAllocAsync(pointer: *mut CUdeviceptr, size: usize, stream: CUstream) | cuMemAllocAsync_ptsz => alloc_async;
    Normal PFN_cuMemAllocFromPoolAsync_v11020: cuMemAllocFromPoolAsync(
        pointer: *mut CUdeviceptr, size: usize, pool: CUmemoryPool, stream: CUstream,
    ) | cuMemAllocFromPoolAsync_ptsz => alloc_from_pool_async;
    Normal PFN_cuMemFreeAsync_v11020: cuMemFreeAsync(pointer: CUdeviceptr, stream: CUstream) | cuMemFreeAsync_ptsz => free_async;
}

impl Call {
    pub(super) fn require_pools(self) -> Status {
        self.require_anywhere(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)
    }

    /// Allocates from `pool` in the order of `stream`: from the device's current pool for none.
    fn alloc_pooled(self, size: usize, pool: Option<u64>, stream: CUstream) -> Status<Arc<Block>> {
        let mut state = self.lock();
        let handle = self.stream(&mut state, stream)?;
        if let Some(capture) = state.capture_of(handle)? {
            return self.capture_alloc(&mut state, capture, handle, size);
        }
        let context = state.streams.get(handle).map_or(0, |stream| stream.context);
        let ordinal = state.contexts.get(context).map_or(0, |context| context.ordinal);
        let pool = pool.unwrap_or_else(|| state.pools.current_of(Place::device(ordinal)));
        let block = state.place_pooled(pool, size)?;
        if let Err(code) = state.reserve_pooled(&block, self.limit(block.kind)) {
            state.memory.remove(&block);
            return Err(code);
        }
        drop(state);
        self.poison(&block, 0xA5);
        if let Err(code) = self.submit(stream, &Task::Alloc(Arc::clone(&block)), Return::Enqueued) {
            let mut state = self.lock();
            state.memory.remove(&block);
            state.return_pooled(&block);
            return Err(code);
        }
        Ok(block)
    }

    /// `cuMemFree` of a pool's allocation: "this API will not perform any implicit
    /// synchronization".
    pub(super) fn free_pooled(self, block: &Arc<Block>) -> Status {
        let mut state = self.lock();
        self.forbid_while_capturing(&mut state, None)?;
        // Another thread may have freed it in the meantime.
        if state.memory.at(block.device).is_none_or(|known| known.id != block.id) {
            return Err(CudaError::INVALID_VALUE);
        }
        state.memory.forget(block);
        state.finish_free(block);
        Ok(())
    }
}

fn alloc_async(call: Call, pointer: *mut CUdeviceptr, size: usize, stream: CUstream) -> Status {
    call.require_pools()?;
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    out(pointer, call.alloc_pooled(size, None, stream)?.device)
}

fn alloc_from_pool_async(
    call: Call,
    pointer: *mut CUdeviceptr,
    size: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> Status {
    call.require_pools()?;
    if !valid(pointer) {
        return Err(CudaError::INVALID_VALUE);
    }
    out(pointer, call.alloc_pooled(size, Some(number(pool)), stream)?.device)
}

/// "After this API returns, accessing the memory from any subsequent work … results in undefined
/// behavior": the address is unknown from here on, the memory is freed in stream order.
fn free_async(call: Call, pointer: CUdeviceptr, stream: CUstream) -> Status {
    call.require_pools()?;
    let mut state = call.lock();
    let handle = call.stream(&mut state, stream)?;
    if let Some(capture) = state.capture_of(handle)? {
        return call.capture_free(&mut state, capture, handle, pointer);
    }
    let block = state.memory.at(pointer).cloned().ok_or(CudaError::INVALID_VALUE)?;
    if block.kind == Kind::Graph {
        drop(state);
        return call.free_of_graph(&block, stream);
    }
    if !matches!(block.kind, Kind::Pool { .. } | Kind::Device | Kind::Managed { .. }) {
        return Err(CudaError::INVALID_VALUE);
    }
    state.memory.forget(&block);
    drop(state);
    let freed = call.submit(stream, &Task::Free(Arc::clone(&block)), Return::Enqueued);
    if freed.is_err() {
        call.lock().memory.recall(&block);
    }
    freed
}
