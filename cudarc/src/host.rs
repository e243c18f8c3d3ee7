#![expect(unsafe_code, reason = "cudarc's trait is of unsafe functions; slices of pinned memory")]
//! Pinned buffers as the host's side of cudarc's copies.
//!
//! cudarc takes a plain `[T]` for pageable memory, whose copy is over when the call returns; that
//! of pinned memory is not. These know which stream copies, and record that.

use std::fmt;
use std::time::Duration;

use cudarc::driver::{CudaStream, HostSlice, SyncOnDrop};
use wharf::driver::CaptureStatus;
use wharf::element::Element;
use wharf::pool::{Buffer, HostError, HostView};
use wharf::{CudaError, Error};

use crate::error::{not_in_a_capture, to_cudarc};
use crate::handing::is_captured;
use crate::stream::BorrowedStream;

/// A view of a pinned buffer as the source of cudarc's copies to the device.
///
/// The view's memory is not written before the copies are done. On another stream than the one that
/// this is made with, the host waits for the copy.
pub struct HostSource<'a, T: Element> {
    /// One of its own: a source that is leaked keeps the memory from being written.
    view: HostView<T>,
    stream: &'a BorrowedStream,
}

impl<'a, T: Element> HostSource<'a, T> {
    /// The elements of a view, for copies on `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`OUT_OF_MEMORY`](CudaError::OUT_OF_MEMORY): there are 2^28 handles
    /// to the block.
    pub fn new(view: &HostView<T>, stream: &'a BorrowedStream) -> Result<Self, Error> {
        let call = "sharing a view";
        let view = view.try_clone();
        let view = view.ok_or(Error::Driver { call, code: CudaError::OUT_OF_MEMORY })?;
        Ok(Self { view, stream })
    }
}

impl<T: Element> Drop for HostSource<'_, T> {
    fn drop(&mut self) {
        // What cannot be recorded is leaked, and counted by the pool.
        _ = self.view.record_use(self.stream);
    }
}

impl<T: Element> HostSlice<T> for HostSource<'_, T> {
    fn len(&self) -> usize {
        self.view.len()
    }

    unsafe fn stream_synced_slice<'b>(
        &'b self,
        stream: &'b CudaStream,
    ) -> (&'b [T], SyncOnDrop<'b>) {
        match behind(self.stream, stream) {
            Ok(behind) => (&self.view, behind),
            Err(error) => {
                stream.context().record_err::<()>(Err(to_cudarc(&error)));
                (&[], SyncOnDrop::Sync(None))
            }
        }
    }

    unsafe fn stream_synced_mut_slice<'b>(
        &'b mut self,
        stream: &'b CudaStream,
    ) -> (&'b mut [T], SyncOnDrop<'b>) {
        let error = Error::Driver { call: "writing a source", code: CudaError::NOT_PERMITTED };
        stream.context().record_err::<()>(Err(to_cudarc(&error)));
        (&mut [], SyncOnDrop::Sync(None))
    }
}

impl<T: Element> fmt::Debug for HostSource<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostSource").field(&self.view).finish()
    }
}

/// A pinned buffer as the target of cudarc's copies to the host.
///
/// [`into_buffer`](Self::into_buffer) gives the buffer back, and [`Buffer::host_mut`] or
/// [`Buffer::into_host`] then waits for the copies. A copy waits first for what the device does
/// with the buffer already. On another stream than the one that this is made with, the host waits
/// for the copy.
pub struct HostTarget<'a, T: Element> {
    /// Owned, so that a target that is leaked keeps the memory. Always there before the drop.
    buffer: Option<Buffer<T>>,
    stream: &'a BorrowedStream,
    limit: Duration,
}

impl<'a, T: Element> HostTarget<'a, T> {
    /// A buffer, for copies on `stream`; each waits for earlier uses at most `limit`.
    pub fn new(buffer: Buffer<T>, stream: &'a BorrowedStream, limit: Duration) -> Self {
        Self { buffer: Some(buffer), stream, limit }
    }

    /// The buffer, with its uses recorded.
    ///
    /// # Errors
    ///
    /// As [`Buffer::record_use`]; the buffer is dropped, and its memory leaked.
    pub fn into_buffer(mut self) -> Result<Buffer<T>, Error> {
        let taken = self.buffer.take();
        let gone = Error::Driver { call: "taking a target's buffer", code: CudaError::NOT_FOUND };
        let buffer = taken.ok_or(gone)?;
        buffer.record_use(self.stream)?;
        Ok(buffer)
    }

    fn slice(&mut self, stream: &CudaStream) -> Result<&mut [T], Error> {
        if stream_is_capturing(self.stream, stream)? {
            return Err(not_in_a_capture("capturing a copy to a pinned buffer"));
        }
        let limit = self.limit;
        let Some(buffer) = &mut self.buffer else { return Ok(&mut []) };
        buffer.host_mut(limit).map_err(|error| match error {
            HostError::Busy(wharf::timeline::WaitError::Driver(error)) => error,
            HostError::Busy(_) => {
                Error::Driver { call: "waiting for a target", code: CudaError::NOT_READY }
            }
            _ => Error::Driver { call: "writing a target", code: CudaError::INVALID_VALUE },
        })
    }
}

impl<T: Element> Drop for HostTarget<'_, T> {
    fn drop(&mut self) {
        if let Some(buffer) = &self.buffer {
            // What cannot be recorded is leaked, and counted by the pool.
            _ = buffer.record_use(self.stream);
        }
    }
}

impl<T: Element> HostSlice<T> for HostTarget<'_, T> {
    fn len(&self) -> usize {
        self.buffer.as_ref().map_or(0, Buffer::len)
    }

    unsafe fn stream_synced_slice<'b>(
        &'b self,
        stream: &'b CudaStream,
    ) -> (&'b [T], SyncOnDrop<'b>) {
        let error = Error::Driver { call: "reading a target", code: CudaError::NOT_PERMITTED };
        stream.context().record_err::<()>(Err(to_cudarc(&error)));
        (&[], SyncOnDrop::Sync(None))
    }

    unsafe fn stream_synced_mut_slice<'b>(
        &'b mut self,
        stream: &'b CudaStream,
    ) -> (&'b mut [T], SyncOnDrop<'b>) {
        let ours = self.stream;
        match self.slice(stream).and_then(|slice| Ok((slice, behind(ours, stream)?))) {
            Ok(taken) => taken,
            Err(error) => {
                stream.context().record_err::<()>(Err(to_cudarc(&error)));
                (&mut [], SyncOnDrop::Sync(None))
            }
        }
    }
}

impl<T: Element> fmt::Debug for HostTarget<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostTarget").field(&self.buffer).finish()
    }
}

/// The wait behind a copy on `stream`: none on ours, whose use is recorded.
fn behind<'b>(ours: &BorrowedStream, stream: &'b CudaStream) -> Result<SyncOnDrop<'b>, Error> {
    if stream_is_capturing(ours, stream)? {
        return Err(not_in_a_capture("capturing a copy of pinned memory"));
    }
    Ok(SyncOnDrop::Sync((!ours.is(stream)).then_some(stream)))
}

fn stream_is_capturing(ours: &BorrowedStream, stream: &CudaStream) -> Result<bool, Error> {
    if ours.is(stream) {
        return Ok(ours.capture_status()? != CaptureStatus::Inactive);
    }
    is_captured(stream)
}
