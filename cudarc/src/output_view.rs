//! Slots of results as cudarc's device memory.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{
    CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, SyncOnDrop, sys::CUdeviceptr,
};
use wharf::element::Element;
use wharf::graph::keep_alive_in_capture;
use wharf::staging::{OutputBuffers, SlotId};

use crate::handing;
use crate::stream::BorrowedStream;

/// A slot of results in device memory, to be written by the graphs that cudarc captures and by its
/// copies and launches: a fetch reads it in its place in its stream.
///
/// In a capture on the stream that it is made with, the graph keeps the set. Elsewhere the host
/// waits for what writes it, and work of wharf's on other streams is the caller's to order.
///
/// The traits have no errors, so an error is recorded in cudarc's context, whose next call returns
/// it, and the address is null, which no copy accepts.
pub struct OutputView<'a, T: Element, Tag: 'static> {
    /// The set, and not its device memory alone: a slot's source may be the engine's own, which
    /// lives as long as the set.
    outputs: Arc<OutputBuffers<Tag>>,
    slot: SlotId<T, Tag>,
    address: CUdeviceptr,
    len: usize,
    stream: &'a BorrowedStream,
}

impl<'a, T: Element, Tag> OutputView<'a, T, Tag> {
    /// A slot in the bucket that holds `tokens`.
    ///
    /// `None` for a slot of another set, and above the largest bucket.
    pub fn new(
        outputs: &Arc<OutputBuffers<Tag>>,
        slot: SlotId<T, Tag>,
        tokens: usize,
        stream: &'a BorrowedStream,
    ) -> Option<Self> {
        let buffers = outputs.static_buffers();
        let (address, len) = (buffers.device_ptr(slot, tokens)?, buffers.len(slot, tokens)?);
        Some(Self { outputs: Arc::clone(outputs), slot, address, len, stream })
    }

    fn take<'b>(&self, stream: &'b CudaStream) -> (CUdeviceptr, SyncOnDrop<'b>) {
        handing::slot(self.address, self.stream, stream, |captured| {
            keep_alive_in_capture(captured, Arc::clone(&self.outputs))
        })
    }
}

impl<T: Element, Tag> DeviceSlice<T> for OutputView<'_, T, Tag> {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.stream.cudarc()
    }
}

impl<T: Element, Tag> DevicePtr<T> for OutputView<'_, T, Tag> {
    fn device_ptr<'b>(&'b self, stream: &'b CudaStream) -> (CUdeviceptr, SyncOnDrop<'b>) {
        self.take(stream)
    }
}

impl<T: Element, Tag> DevicePtrMut<T> for OutputView<'_, T, Tag> {
    fn device_ptr_mut<'b>(&'b mut self, stream: &'b CudaStream) -> (CUdeviceptr, SyncOnDrop<'b>) {
        self.take(stream)
    }
}

impl<T: Element, Tag> fmt::Debug for OutputView<'_, T, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputView").field("slot", &self.slot).field("len", &self.len).finish()
    }
}
