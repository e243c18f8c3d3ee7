#![expect(unsafe_code, reason = "exports C functions")]
//! Stream-ordered allocation.

use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::handle::number;
use crate::machine::{State, Work};
use crate::memory::{Block, Kind};
use crate::pool::Place;
use crate::submit::Return;
use crate::task::Task;

exports! {
    Normal PFN_cuMemAllocAsync_v11020: cuMemAllocAsync(
        pointer: *mut CUdeviceptr, size: usize, stream: CUstream,
    ) | cuMemAllocAsync_ptsz => alloc_async;
    Normal PFN_cuMemAllocFromPoolAsync_v11020: cuMemAllocFromPoolAsync(
        pointer: *mut CUdeviceptr, size: usize, pool: CUmemoryPool, stream: CUstream,
    ) | cuMemAllocFromPoolAsync_ptsz => alloc_from_pool_async;
    Normal PFN_cuMemFreeAsync_v11020: cuMemFreeAsync(
        pointer: CUdeviceptr, stream: CUstream,
    ) | cuMemFreeAsync_ptsz => free_async;
}

impl Call<'_> {
    pub(super) fn require_pools(self) -> Status {
        self.require_anywhere(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED)
    }

    /// Allocates from `pool` in the order of `stream`: from the device's current pool for none.
    fn alloc_pooled(self, size: usize, pool: Option<u64>, stream: CUstream) -> Status<Arc<Block>> {
        let mut state = self.lock();
        let handle = self.stream(&mut state, stream)?;
        if let Some(capture) = state.capture_of(handle)? {
            let managed = pool.is_some_and(|pool| state.pools.is_managed(pool));
            return self.capture_alloc(&mut state, capture, handle, size, managed);
        }
        let context = state.streams.get(handle).map_or(0, |stream| stream.context);
        let ordinal = state.contexts.get(context).map_or(0, |context| context.ordinal);
        let pool = pool.unwrap_or_else(|| state.pools.current_of(Place::device(ordinal)));
        let stream_id = state.streams.get(handle).map_or(0, |stream| stream.id);
        // The address is given out at the call, and the memory is charged now: a pool that is full
        // must fail here and not in the stream.
        let State { pools, memory, .. } = &mut *state;
        let block = pools.place(memory, pool, size, stream_id)?;
        if let Err(code) = pools.reserve(memory, &block, self.machine.limit(block.kind)) {
            memory.remove(&block);
            return Err(code);
        }
        drop(state);
        if let Err(code) = self.submit(stream, &Task::Alloc(Arc::clone(&block)), Return::Enqueued) {
            let State { pools, memory, .. } = &mut *self.lock();
            memory.remove(&block);
            pools.give_back(memory, &block);
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
        state.memory.recycle(block, 0);
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
    if matches!(block.kind, Kind::Graph { .. }) {
        drop(state);
        let work = Work::End(Arc::clone(&block), |_, block| block.free());
        return call.free_of_graph(&block, stream, work);
    }
    if !matches!(block.kind, Kind::Pool { .. } | Kind::Device | Kind::Managed { .. }) {
        return Err(CudaError::INVALID_VALUE);
    }
    // From this call on the address is invalid to the program, whenever the stream gets there.
    state.memory.leave(&block);
    let stream_id = state.streams.get(handle).map_or(0, |stream| stream.id);
    drop(state);
    let freed = call.submit(stream, &Task::Free(Arc::clone(&block)), Return::Enqueued);
    let mut state = call.lock();
    match freed {
        Ok(()) => state.memory.recycle(&block, stream_id),
        Err(_) => state.memory.recall(&block),
    }
    freed
}
