#![expect(unsafe_code, reason = "calls the driver")]
//! Calls that a stream capture of other code would forbid.

use core::fmt;
use core::marker::PhantomData;

use wharf_sys::bindings::CUstreamCaptureMode;

use super::{Driver, release};
use crate::error::Error;

/// The calling thread may allocate, pin and free although a stream is capturing; dropped, it is
/// bound by captures as before.
///
/// Without it, a capture in the strictest mode on any thread refuses such calls everywhere, and a
/// refused call invalidates the capture. It is for calls that have nothing to do with what is
/// captured, and stays on its thread.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// let relaxed = driver.relax_capture()?;
/// // Grow a pool here, also while other threads capture.
/// drop(relaxed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "captures bind the thread again when this is dropped"]
pub struct RelaxedCapture<'a> {
    driver: &'a Driver,
    /// The mode to go back to, if it was changed.
    previous: Option<CUstreamCaptureMode>,
    thread_bound: PhantomData<*const ()>,
}

impl Driver {
    /// Frees the calling thread of other captures' restrictions until the result is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuThreadExchangeStreamCaptureMode")]
    pub fn relax_capture(&self) -> Result<RelaxedCapture<'_>, Error> {
        let previous = if self.is_at_work() {
            None
        } else {
            Some(exchange(self, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?)
        };
        Ok(RelaxedCapture { driver: self, previous, thread_bound: PhantomData })
    }
}

impl fmt::Debug for RelaxedCapture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelaxedCapture").field("previous", &self.previous).finish_non_exhaustive()
    }
}

impl Drop for RelaxedCapture<'_> {
    fn drop(&mut self) {
        if let Some(previous) = self.previous {
            let restored = exchange(self.driver, previous);
            release::tell(self.driver, restored.map(drop));
        }
    }
}

/// Sets the thread's mode and returns the one before.
fn exchange(driver: &Driver, mut mode: CUstreamCaptureMode) -> Result<CUstreamCaptureMode, Error> {
    // SAFETY: `mode` is valid for reads and writes for the whole call.
    unsafe { driver.api().thread_exchange_stream_capture_mode.call(&raw mut mode) }?;
    Ok(mode)
}
