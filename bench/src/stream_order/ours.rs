//! `Pool`, with a use noted for each write.

#![expect(unsafe_code, reason = "hands out a buffer's address")]

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{AllocError, Buffer, Pool};
use wharf::sys::bindings::CUdeviceptr;
use wharf::{Context, CudaError, Error, Stream};

use super::{Failure, Scheme};

/// A pool of device memory.
#[derive(Debug)]
pub struct Ours(Pool);

impl Ours {
    /// A pool on a span of its own.
    ///
    /// # Errors
    ///
    /// What the driver said.
    pub fn new(context: &Context) -> Result<Self, Failure> {
        Ok(Self(Pool::builder().build(DeviceMemoryResource::new(context, SPAN)?)?))
    }
}

impl Scheme for Ours {
    type Block = Buffer<u8>;

    fn alloc(&self, size: usize, stream: &Stream) -> Result<Buffer<u8>, Error> {
        self.0.alloc(size, stream).map_err(|error| match error {
            AllocError::Upstream(error) => error,
            _ => Error::Driver { call: "Pool::alloc", code: CudaError::OUT_OF_MEMORY },
        })
    }

    fn address(&self, block: &Buffer<u8>) -> CUdeviceptr {
        // SAFETY: the use is recorded in `free`, and the stream is the one it was allocated for.
        unsafe { block.as_device_ptr() }.unwrap_or(0)
    }

    fn free(&self, block: Buffer<u8>, stream: &Stream) -> Result<(), Error> {
        block.record_use(stream)
    }
}

const SPAN: usize = 8 << 30;
