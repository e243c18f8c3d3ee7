//! The driver's own pool: `cuMemAllocAsync` and `cuMemFreeAsync`.

#![expect(unsafe_code, reason = "calls the driver's allocator")]

use wharf::sys::bindings::CUdeviceptr;
use wharf::{Error, Stream};

use super::Scheme;

/// The current memory pool of the stream's device.
#[derive(Debug)]
pub struct DriverPool;

impl Scheme for DriverPool {
    type Block = CUdeviceptr;

    fn alloc(&self, size: usize, stream: &Stream) -> Result<CUdeviceptr, Error> {
        let context = stream.context();
        let _scope = context.enter()?;
        let mut block = 0;
        let entry = &context.driver().api().mem_alloc_async;
        // SAFETY: `block` is valid for writes for the whole call; the stream lives.
        unsafe { entry.call(&raw mut block, size, stream.as_raw()) }?;
        Ok(block)
    }

    fn address(&self, block: &CUdeviceptr) -> CUdeviceptr {
        *block
    }

    fn free(&self, block: CUdeviceptr, stream: &Stream) -> Result<(), Error> {
        let context = stream.context();
        let _scope = context.enter()?;
        // SAFETY: allocated on this stream and freed once.
        unsafe { context.driver().api().mem_free_async.call(block, stream.as_raw()) }
    }
}
