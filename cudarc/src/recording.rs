//! Captures by cudarc.

use std::fmt;

use cudarc::driver::{CudaGraph, DriverError, sys};
use wharf::driver::CaptureElsewhere;

use crate::stream::BorrowedStream;

/// A capture by cudarc that wharf knows of: meanwhile steps refuse streams that are being captured.
///
/// Dropped without [`end`](Self::end), the capture is over, and what was captured is dropped.
#[must_use = "the capture ends when this is dropped"]
pub struct Recording<'a> {
    stream: &'a BorrowedStream,
    is_over: bool,
    _announced: CaptureElsewhere,
}

impl<'a> Recording<'a> {
    /// Begins to capture a stream. Other threads may go on meanwhile.
    ///
    /// # Errors
    ///
    /// cudarc's: the legacy default stream cannot be captured, nor can one that is.
    pub fn begin(stream: &'a BorrowedStream) -> Result<Self, DriverError> {
        let announced = stream.context().driver().capture_elsewhere();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.cudarc().begin_capture(mode)?;
        Ok(Self { stream, is_over: false, _announced: announced })
    }

    /// Ends the capture; the graph, made executable, or nothing if nothing was captured.
    ///
    /// # Errors
    ///
    /// cudarc's: a call that captures forbid was made meanwhile, or one that has no error of its
    /// own failed. The capture is over.
    pub fn end(mut self) -> Result<Option<CudaGraph>, DriverError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<Option<CudaGraph>, DriverError> {
        self.is_over = true;
        let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // Before it calls the driver, cudarc returns an error that was recorded, and the stream
        // would be captured for ever.
        let told = self.stream.cudarc().context().check_err();
        let ended = self.stream.cudarc().end_capture(flags);
        told.and(ended)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let context = self.stream.cudarc().context().clone();
            context.record_err(self.finish());
        }
    }
}

impl fmt::Debug for Recording<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recording").field(&self.stream).finish()
    }
}
