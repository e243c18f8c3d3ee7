#![expect(unsafe_code, reason = "calls the driver with a handle")]
//! Waiting for a stream, and ordering streams by events.

use wharf_sys::bindings::CUevent_wait_flags;

use super::Stream;
use crate::driver::{CaptureStatus, ContextScope, Event, StreamKey, capture_status, ready};
#[cfg(doc)]
use crate::error::CudaError;
use crate::error::Error;

impl Stream {
    /// Whether all work submitted so far is done. If so, all tickets issued before are complete.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_UNSUPPORTED`]: the stream is
    ///   capturing, and the capture is now invalid.
    /// * [`Error::Driver`]: work failed.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamQuery")]
    pub fn query(&self) -> Result<bool, Error> {
        let _scope = self.enter_for_proof()?;
        let proof = self.timeline.begin_proof();
        // SAFETY: the stream is alive.
        let is_done =
            ready(unsafe { self.context.driver().api().stream_query.call(self.as_raw()) })?;
        if is_done {
            self.timeline.prove(proof);
        }
        Ok(is_done)
    }

    /// Waits until all work submitted so far is done. All tickets issued before are complete then.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_UNSUPPORTED`]: the stream is
    ///   capturing, and the capture is now invalid.
    /// * [`Error::Driver`]: work failed.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamSynchronize")]
    pub fn synchronize(&self) -> Result<(), Error> {
        let _scope = self.enter_for_proof()?;
        let proof = self.timeline.begin_proof();
        // SAFETY: the stream is alive.
        unsafe { self.context.driver().api().stream_synchronize.call(self.as_raw()) }?;
        self.timeline.prove(proof);
        Ok(())
    }

    /// Records in `event` the work submitted so far, in place of what it held.
    ///
    /// On a capturing stream the record is captured: the event then stands for a point in the
    /// graph and cannot be queried.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::INVALID_HANDLE`]: `event` is of another context.
    ///
    /// # References
    ///
    /// [Event management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html)
    #[doc(alias = "cuEventRecord")]
    pub fn record(&self, event: &Event) -> Result<(), Error> {
        self.submit(|api, stream| {
            // SAFETY: event and stream are alive.
            unsafe { api.event_record.call(event.as_raw(), stream) }
        })
    }

    /// Makes work submitted from here on wait, on the device, for what `event` holds now.
    ///
    /// Later records of the event do not change this wait, and the event may be dropped at once.
    /// It may be of another context.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_ISOLATION`]: the stream is capturing
    /// and `event` was recorded outside the capture.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamWaitEvent")]
    pub fn wait_event(&self, event: &Event) -> Result<(), Error> {
        let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT.0;
        self.submit(|api, stream| {
            // SAFETY: event and stream are alive.
            unsafe { api.stream_wait_event.call(stream, event.as_raw(), flags) }
        })
    }

    /// Whether the stream is capturing.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::STREAM_CAPTURE_IMPLICIT`]: this is the legacy default
    /// stream and a blocking stream of the context is capturing; the capture stays valid.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamIsCapturing")]
    pub fn capture_status(&self) -> Result<CaptureStatus, Error> {
        let _scope = self.enter()?;
        // SAFETY: the stream is alive, and its context is current.
        unsafe { capture_status(self.as_raw(), &self.context) }
    }

    /// As [`enter`](Self::enter), for a call whose answer completes tickets: a default stream's
    /// handle would mean another stream in another context, so there the driver is asked which one
    /// is current.
    fn enter_for_proof(&self) -> Result<ContextScope<'_>, Error> {
        if !StreamKey::of(self.as_raw()).is_default() {
            return self.enter();
        }
        self.check()?;
        self.context.make_current()
    }
}
