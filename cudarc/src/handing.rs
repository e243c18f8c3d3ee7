//! Addresses for cudarc's calls, which the views of slots and of buffers hand out.

use cudarc::driver::{CudaStream, SyncOnDrop, sys::CUdeviceptr};
use wharf::Error;
use wharf::driver::CaptureStatus;
use wharf::graph::GraphError;

use crate::error::{from_cudarc, not_in_a_capture, of_graph, to_cudarc};
use crate::stream::BorrowedStream;

/// The address of a slot whose view is of `home`, for work on `stream`, and what is to be done
/// behind the work. In a capture on `home`, `keep` gives the graph a share of the memory; elsewhere
/// the host waits for the work.
pub(crate) fn slot<'b>(
    address: CUdeviceptr,
    home: &BorrowedStream,
    stream: &'b CudaStream,
    keep: impl FnOnce(&BorrowedStream) -> Result<(), GraphError>,
) -> (CUdeviceptr, SyncOnDrop<'b>) {
    address_or_none(stream, || {
        let behind = if is_kept(home, stream, keep)? {
            SyncOnDrop::Sync(None)
        } else {
            // The set may be dropped behind the call, and does not know of the work.
            SyncOnDrop::Sync(Some(stream))
        };
        Ok((address, behind))
    })
}

/// What `take` gives, or no address: the traits have no errors, so an error is recorded in cudarc's
/// context.
pub(crate) fn address_or_none<'b>(
    stream: &CudaStream,
    take: impl FnOnce() -> Result<(CUdeviceptr, SyncOnDrop<'b>), Error>,
) -> (CUdeviceptr, SyncOnDrop<'b>) {
    take().unwrap_or_else(|error| {
        stream.context().record_err::<()>(Err(to_cudarc(&error)));
        (0, SyncOnDrop::Sync(None))
    })
}

/// Returns whether a stream that no view is of is being captured.
pub(crate) fn is_captured(stream: &CudaStream) -> Result<bool, Error> {
    let status = stream.capture_status().map_err(from_cudarc)?;
    Ok(status != cudarc::driver::sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE)
}

/// Returns whether the graph that the stream captures has a share of the memory now.
fn is_kept(
    home: &BorrowedStream,
    stream: &CudaStream,
    keep: impl FnOnce(&BorrowedStream) -> Result<(), GraphError>,
) -> Result<bool, Error> {
    if !home.is(stream) {
        let call = "capturing a slot on another stream than its view's";
        return if is_captured(stream)? { Err(not_in_a_capture(call)) } else { Ok(false) };
    }
    if home.capture_status()? != CaptureStatus::Active {
        return Ok(false);
    }
    keep(home).map_err(of_graph)?;
    Ok(true)
}
