#![expect(unsafe_code, reason = "vouches for memory that owners keep")]
//! wharf's device memory as cuda-core's buffers.

use std::sync::Arc;
use std::time::Duration;

use cuda_core::{DeviceAllocation, DeviceBuffer, DeviceCopy, RawDeviceBuffer};
use wharf::element::Element;
use wharf::pool::Buffer;
use wharf::staging::{Counts, InputBuffers, OutputBuffers, SlotId};
use wharf::timeline::WaitError;
use wharf::{Context, CudaError, Error};

use crate::error::from_cuda_core;
use crate::stream::BorrowedStream;

/// Device memory of wharf's, and what keeps it.
struct Owned<T> {
    owner: T,
    address: u64,
    size: usize,
    context: Arc<cuda_core::Context>,
}

// SAFETY: `owner` keeps the memory at `address`, of `size` bytes of the context's device, and is
// dropped with this; the context is kept.
unsafe impl<T: Send + Sync + 'static> DeviceAllocation for Owned<T> {
    fn device_ptr(&self) -> u64 {
        let _kept = &self.owner;
        self.address
    }

    fn len_bytes(&self) -> usize {
        self.size
    }

    fn context(&self) -> Arc<cuda_core::Context> {
        Arc::clone(&self.context)
    }
}

/// A buffer of device or managed memory as cuda-core's, for its copies and kernels on any stream of
/// the context of `stream`. It goes back to its pool when cuda-core's last handle and the work that
/// was given any are gone.
///
/// Waits on the host, for at most `limit`, until the device is past earlier uses of the memory:
/// cuda-core may use it on any stream, and its own uses alone are in the order that it keeps. Made
/// once and kept, as engines keep their activations, that is no cost; for memory of every step use
/// wharf's own buffers. Uses of the block through other handles of wharf's are the caller's to
/// order.
///
/// # Errors
///
/// * [`Error::OtherDevice`]: the stream's device does not reach the memory.
/// * [`Error::Driver`] with [`NOT_READY`](CudaError::NOT_READY): the device was not there after
///   `limit`; otherwise the driver's.
pub fn device_buffer<T: Element + DeviceCopy>(
    buffer: Buffer<T>,
    stream: &BorrowedStream,
    limit: Duration,
) -> Result<DeviceBuffer<T>, Error> {
    // Refuses memory that the device does not reach.
    buffer.acquire(stream)?;
    buffer.wait(limit).map_err(|error| match error {
        WaitError::Driver(error) => error,
        _ => Error::Driver { call: "waiting for a buffer", code: CudaError::NOT_READY },
    })?;
    // SAFETY: no work by wharf's callers is before cuda-core's, as waited for above; cuda-core
    // keeps the buffer until its own is done, and other handles are the caller's to order.
    let address = unsafe { buffer.as_device_ptr() }?;
    let (size, len) = (buffer.size(), buffer.len());
    typed(buffer, (address, size), len, stream)
}

/// The device memory of a slot of inputs, in the bucket that holds `counts`, or so many tokens: for
/// kernels and graphs that read it. It is kept as long as the result, and what cuda-core was given
/// of it.
///
/// The elements are those of the step that the reading stream is behind: launch on the step's
/// stream, or between the two ends of a [`reader`](wharf::staging::Staged::reader).
///
/// # Errors
///
/// [`Error::Driver`] with [`INVALID_CONTEXT`](CudaError::INVALID_CONTEXT): the stream is of another
/// context than the set; with [`INVALID_VALUE`](CudaError::INVALID_VALUE): the slot has no memory
/// of its own on the device, or is of another set, or no bucket holds the counts.
pub fn input_buffer<T: Element + DeviceCopy, Tag: 'static>(
    inputs: &InputBuffers<Tag>,
    slot: SlotId<T, Tag>,
    counts: impl Into<Counts>,
    stream: &BorrowedStream,
) -> Result<DeviceBuffer<T>, Error> {
    check(inputs.context(), stream)?;
    let (buffers, counts) = (inputs.static_buffers(), counts.into());
    let address = buffers.device_ptr(slot, counts).ok_or_else(nowhere)?;
    let len = buffers.len(slot, counts).ok_or_else(nowhere)?;
    typed(buffers, (address, len * size_of::<T>()), len, stream)
}

/// The device memory of a slot of results, as [`input_buffer`], for kernels and graphs that write
/// it: a fetch reads it in its place in its stream. The set is kept as long as the result.
///
/// # Errors
///
/// As [`input_buffer`].
pub fn output_buffer<T: Element + DeviceCopy, Tag: 'static>(
    outputs: &Arc<OutputBuffers<Tag>>,
    slot: SlotId<T, Tag>,
    counts: impl Into<Counts>,
    stream: &BorrowedStream,
) -> Result<DeviceBuffer<T>, Error> {
    check(outputs.context(), stream)?;
    let (buffers, counts) = (outputs.static_buffers(), counts.into());
    let address = buffers.device_ptr(slot, counts).ok_or_else(nowhere)?;
    let len = buffers.len(slot, counts).ok_or_else(nowhere)?;
    // The set, and not its device memory alone: a slot's source may be the engine's own, which
    // lives as long as the set.
    typed(Arc::clone(outputs), (address, len * size_of::<T>()), len, stream)
}

fn typed<T: DeviceCopy, O: Send + Sync + 'static>(
    owner: O,
    (address, size): (u64, usize),
    len: usize,
    stream: &BorrowedStream,
) -> Result<DeviceBuffer<T>, Error> {
    let context = Arc::clone(stream.cuda_core().context());
    let storage = RawDeviceBuffer::foreign(Arc::new(Owned { owner, address, size, context }), size);
    // SAFETY: the types are elements, of which every pattern of bits is a value, so memory that
    // nothing has written holds some too; the length is the memory's.
    unsafe { DeviceBuffer::from_storage_copy(storage, len) }.map_err(from_cuda_core)
}

fn check(ours: &Context, stream: &BorrowedStream) -> Result<(), Error> {
    if ours.as_raw().addr() == stream.context().as_raw().addr() {
        return Ok(());
    }
    let call = "a slot's memory for a stream of another context";
    Err(Error::Driver { call, code: CudaError::INVALID_CONTEXT })
}

#[cold]
fn nowhere() -> Error {
    Error::Driver { call: "a slot without a fixed place", code: CudaError::INVALID_VALUE }
}
