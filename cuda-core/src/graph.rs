#![expect(unsafe_code, reason = "cuda-async's trait has an unsafe function; submits a copy")]
//! A copy for cuda-async's graphs.

use std::fmt;
use std::future::IntoFuture;

use cuda_async::device_future::DeviceFuture;
use cuda_async::device_operation::{BoxedDeviceOp, DeviceOp, ExecutionContext, GraphNode};
use cuda_async::error::DeviceError;
use cuda_core::sys::cudaError_enum_CUDA_ERROR_INVALID_VALUE as INVALID_VALUE;
use cuda_core::{DeviceBuffer, DeviceCopy, DriverError, RawDeviceBuffer};

/// A copy from device memory to device memory, to be recorded in a graph or run by itself; [`copy`]
/// makes one.
#[must_use = "nothing is copied before the operation is recorded or run"]
pub struct Copy {
    from: RawDeviceBuffer,
    to: RawDeviceBuffer,
}

/// A copy of all elements of `from` to the start of `to`. cuda-async has none of its own that a
/// [scope](cuda_async::cuda_graph::Scope::record) takes.
///
/// # Errors
///
/// [`DriverError`] `CUDA_ERROR_INVALID_VALUE`: `to` is shorter.
pub fn copy<T: DeviceCopy>(
    from: &DeviceBuffer<T>,
    to: &mut DeviceBuffer<T>,
) -> Result<Copy, DriverError> {
    if to.num_bytes() < from.num_bytes() {
        return Err(DriverError(INVALID_VALUE));
    }
    Ok(Copy { from: from.storage().clone(), to: to.storage().clone() })
}

impl DeviceOp for Copy {
    type Output = ();

    unsafe fn execute(self, context: &ExecutionContext) -> Result<(), DeviceError> {
        let (to, from, size) =
            (self.to.cu_deviceptr(), self.from.cu_deviceptr(), self.from.len_bytes());
        context.retain_buffer(self.from, false)?;
        context.retain_buffer(self.to, true)?;
        context.context().bind_to_thread()?;
        let stream = context.get_cuda_stream().cu_stream();
        // SAFETY: both have so many bytes, and are retained until the copy, or the graph that has
        // it, is over.
        Ok(unsafe { cuda_core::memory::memcpy_dtod_async(to, from, size, stream) }?)
    }
}

// It allocates nothing.
impl GraphNode for Copy {}

impl IntoFuture for Copy {
    type Output = Result<(), DeviceError>;
    type IntoFuture = DeviceFuture<(), BoxedDeviceOp<()>>;

    fn into_future(self) -> Self::IntoFuture {
        self.boxed().into_future()
    }
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").field("from", &self.from).field("to", &self.to).finish()
    }
}
