#![expect(unsafe_code, reason = "hands out addresses whose uses it records")]
//! Buffers as cudarc's device memory.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{
    CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop, sys::CUdeviceptr,
};
use wharf::driver::CaptureStatus;
use wharf::element::Element;
use wharf::graph::keep_alive_in_capture;
use wharf::pool::Buffer;
use wharf::{CudaError, Error};

use crate::error::{from_cudarc, not_in_a_capture, of_graph};
use crate::handing::{address_or_none, is_captured};
use crate::stream::BorrowedStream;

/// A buffer as cudarc's copies, fills and launches take device memory.
///
/// On the stream that it is made with, and on those that it is [told of](Self::with), work is
/// ordered behind earlier owners of the memory, and recorded when the view is dropped. Another
/// stream waits, on the device, for the view's stream, and the host waits for what it is given: a
/// view that should be fast knows all of its streams.
///
/// On a stream that is being captured, the graph gets a share of the buffer, and no use is
/// recorded: record it behind each launch if the buffer is read by other streams or by the host.
///
/// The traits have no errors, so an error is recorded in cudarc's context, whose next call returns
/// it, and the address is null, which no copy accepts.
#[derive(Debug)]
pub struct DeviceView<'a, T: Element> {
    /// A handle of its own: a view that is leaked keeps the memory from being reused.
    buffer: Buffer<T>,
    home: &'a BorrowedStream,
    others: Vec<&'a BorrowedStream>,
    /// A bit for each stream that was given work: the home, then the others.
    used: Mutex<u64>,
}

impl<'a, T: Element> DeviceView<'a, T> {
    /// A view of all elements, for work on `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`OUT_OF_MEMORY`](CudaError::OUT_OF_MEMORY): there are 2^28 handles
    /// to the block.
    pub fn new(buffer: &Buffer<T>, stream: &'a BorrowedStream) -> Result<Self, Error> {
        let call = "sharing a buffer";
        let shared = buffer.slice(..);
        let buffer = shared.ok_or(Error::Driver { call, code: CudaError::OUT_OF_MEMORY })?;
        Ok(Self { buffer, home: stream, others: Vec::new(), used: Mutex::default() })
    }

    /// The same view, for work on `stream` too. Beyond 63 more the others are as unknown.
    #[must_use]
    pub fn with(mut self, stream: &'a BorrowedStream) -> Self {
        if self.others.len() < MOST_OTHERS {
            self.others.push(stream);
        }
        self
    }

    /// The streams that the view knows, with their bits.
    fn streams(&self) -> impl Iterator<Item = (u64, &'a BorrowedStream)> {
        let all = std::iter::once(self.home).chain(self.others.iter().copied());
        all.enumerate().map(|(place, stream)| (1 << place, stream))
    }

    fn take<'b>(&'b self, stream: &'b CudaStream) -> (CUdeviceptr, SyncOnDrop<'b>) {
        address_or_none(stream, || self.prepare(stream))
    }

    /// Orders a stream behind the owners before; the address, and what is to be done behind the
    /// work.
    fn prepare<'b>(&self, stream: &'b CudaStream) -> Result<(CUdeviceptr, SyncOnDrop<'b>), Error> {
        // SAFETY: ordered below, and recorded in `drop`, where the work is not waited for or the
        // graph does not keep the buffer; a view that is leaked keeps its handle.
        let address = unsafe { self.buffer.as_device_ptr() }?;
        let Some((bit, known)) = self.streams().find(|(_, known)| known.is(stream)) else {
            self.order_unknown(stream)?;
            return Ok((address, SyncOnDrop::Sync(Some(stream))));
        };
        if known.capture_status()? == CaptureStatus::Active {
            let call = "sharing a buffer with a graph";
            let share = self.buffer.slice(..);
            let share = share.ok_or(Error::Driver { call, code: CudaError::OUT_OF_MEMORY })?;
            keep_alive_in_capture(known, share).map_err(of_graph)?;
        } else {
            self.buffer.acquire(known)?;
            *self.used.lock().unwrap_or_else(PoisonError::into_inner) |= bit;
        }
        Ok((address, SyncOnDrop::Sync(None)))
    }

    /// Orders a stream that wharf does not know behind the view's.
    fn order_unknown(&self, stream: &CudaStream) -> Result<(), Error> {
        if is_captured(stream)? {
            return Err(not_in_a_capture("capturing a view on a stream that it does not know"));
        }
        self.buffer.acquire(self.home)?;
        let event = self.home.cudarc().record_event(None).map_err(from_cudarc)?;
        stream.wait(&event).map_err(from_cudarc)
    }
}

impl<T: Element> Drop for DeviceView<'_, T> {
    fn drop(&mut self) {
        let used = *self.used.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, stream) in self.streams().filter(|(bit, _)| used & bit != 0) {
            // What cannot be recorded is leaked, and counted by the pool.
            _ = self.buffer.record_use(stream);
        }
    }
}

impl<T: Element> DeviceSlice<T> for DeviceView<'_, T> {
    fn len(&self) -> usize {
        self.buffer.len()
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.home.cudarc()
    }
}

impl<T: Element> DevicePtr<T> for DeviceView<'_, T> {
    fn device_ptr<'b>(&'b self, stream: &'b CudaStream) -> (CUdeviceptr, SyncOnDrop<'b>) {
        self.take(stream)
    }
}

impl<T: Element> DevicePtrMut<T> for DeviceView<'_, T> {
    fn device_ptr_mut<'b>(&'b mut self, stream: &'b CudaStream) -> (CUdeviceptr, SyncOnDrop<'b>) {
        self.take(stream)
    }
}

/// A bit each, with one for the home.
const MOST_OTHERS: usize = 63;
