#![expect(unsafe_code, reason = "calls the driver with a handle")]
//! A stream's handle, and what the driver says of it.

use wharf_sys::bindings::{CUstream, CUstreamCaptureStatus};

use super::Context;
use crate::error::Error;

/// The driver's handle of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawStream(pub(crate) CUstream);

// SAFETY: a stream belongs to a context, not to a thread; the driver's functions may be called
// from any. The per-thread handle is a constant that each thread reads as its own, so its users
// check the thread first.
unsafe impl Send for RawStream {}
// SAFETY: as above; the driver is thread-safe, and orders submissions from several threads.
unsafe impl Sync for RawStream {}

/// Whether work submitted to a stream runs or is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaptureStatus {
    /// It runs.
    Inactive,
    /// It is recorded into a graph.
    Active,
    /// An error has invalidated the recording; the capture must be ended.
    Invalidated,
}

/// Returns whether `stream` is capturing.
///
/// # Errors
///
/// `CUDA_ERROR_STREAM_CAPTURE_IMPLICIT` for the legacy default stream while a blocking stream of
/// the context is capturing; the capture stays valid.
///
/// # Safety
///
/// `stream` is a live stream of `context`, or a default stream; `context` is current.
pub(crate) unsafe fn capture_status(
    stream: CUstream,
    context: &Context,
) -> Result<CaptureStatus, Error> {
    let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    let entry = &context.driver().api().stream_is_capturing;
    // SAFETY: the stream is alive by the caller's promise, and `status` is valid for writes.
    unsafe { entry.call(stream, &raw mut status) }?;
    Ok(match status {
        CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE => CaptureStatus::Inactive,
        CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE => CaptureStatus::Active,
        _ => CaptureStatus::Invalidated,
    })
}
