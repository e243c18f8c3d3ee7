//! Slots of sets as cudarc's device memory.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{CudaStream, DevicePtr, DeviceSlice, SyncOnDrop, sys::CUdeviceptr};
use wharf::element::Element;
use wharf::staging::{InputBuffers, SlotId, StaticBuffers};

use crate::handing;
use crate::stream::BorrowedStream;

/// A slot's device memory, which steps write, to be read by the graphs that cudarc captures and by
/// its copies.
///
/// In a capture on the stream that it is made with, the graph keeps the memory. Elsewhere the host
/// waits for what reads it. The elements are those of the step that the reading stream is behind:
/// launch on the step's stream, or between the two ends of a
/// [`reader`](wharf::staging::Staged::reader).
///
/// The trait has no errors, so an error is recorded in cudarc's context, whose next call returns
/// it, and the address is null, which no copy accepts.
pub struct StaticView<'a, T: Element, Tag> {
    buffers: StaticBuffers<Tag>,
    slot: SlotId<T, Tag>,
    tokens: usize,
    len: usize,
    stream: &'a BorrowedStream,
}

impl<'a, T: Element, Tag> StaticView<'a, T, Tag> {
    /// A slot in the bucket that holds `tokens`.
    ///
    /// `None` for a slot that has no memory of its own on the device, or of another set, and above
    /// the largest bucket.
    pub fn new(
        inputs: &InputBuffers<Tag>,
        slot: SlotId<T, Tag>,
        tokens: usize,
        stream: &'a BorrowedStream,
    ) -> Option<Self> {
        let buffers = inputs.static_buffers();
        let len = buffers.len(slot, tokens)?;
        Some(Self { buffers, slot, tokens, len, stream })
    }
}

impl<T: Element, Tag> DeviceSlice<T> for StaticView<'_, T, Tag> {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.stream.cudarc()
    }
}

impl<T: Element, Tag> DevicePtr<T> for StaticView<'_, T, Tag> {
    fn device_ptr<'b>(&'b self, stream: &'b CudaStream) -> (CUdeviceptr, SyncOnDrop<'b>) {
        let address = self.buffers.device_ptr(self.slot, self.tokens).unwrap_or(0);
        handing::slot(address, self.stream, stream, |captured| {
            self.buffers.keep_alive_in_capture(captured)
        })
    }
}

impl<T: Element, Tag> fmt::Debug for StaticView<'_, T, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticView").field("slot", &self.slot).field("len", &self.len).finish()
    }
}
