//! Captures that other code begins.

use core::fmt;

use super::Driver;
use crate::sync::atomic::Ordering::Relaxed;

/// Announces that other code may be capturing streams: while it lives, staging asks each stream
/// that it is given whether it is being captured, one driver call each time, and refuses those that
/// are.
///
/// A capture that was begun by [`CaptureScope`](crate::graph::CaptureScope) is known without this;
/// one that an engine begins by the driver itself is not. Pools and tickets ask in any case.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// let elsewhere = driver.capture_elsewhere();
/// // The engine captures its model here, and may stage on other streams meanwhile.
/// drop(elsewhere);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "captures are no longer expected when this is dropped"]
pub struct CaptureElsewhere(Driver);

impl Driver {
    /// Announces captures that other code begins, until the result is dropped. To be called before
    /// they begin, on any thread; there may be several. Makes no driver call.
    pub fn capture_elsewhere(&self) -> CaptureElsewhere {
        self.begin_capture();
        CaptureElsewhere(self.clone())
    }

    /// Counts a capture, before it begins.
    pub(crate) fn begin_capture(&self) {
        self.0.captures.fetch_add(1, Relaxed);
    }

    /// Counts one less, when it has ended or did not begin.
    pub(crate) fn end_capture(&self) {
        self.0.captures.fetch_sub(1, Relaxed);
    }

    /// Whether a capture is open that was begun here, or announced, by any thread. A thread that
    /// may use the capturing stream knows of its beginning, and so sees it counted.
    #[inline]
    pub(crate) fn may_be_capturing(&self) -> bool {
        self.0.captures.load(Relaxed) != 0
    }
}

impl fmt::Debug for CaptureElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureElsewhere").finish_non_exhaustive()
    }
}

impl Drop for CaptureElsewhere {
    fn drop(&mut self) {
        self.0.end_capture();
    }
}
