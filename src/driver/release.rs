//! What becomes of errors that nobody can return.

use crate::driver::Driver;
use crate::error::{CudaError, Error};
use crate::profile;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A function that hears of an error in a drop: the entry point, and what it returned.
///
/// It runs inside the drop, on the dropping thread, so it should be short.
pub type DropErrorHook = fn(&'static str, CudaError);

/// The counters of a context that outlive it, for callbacks that the device still owes.
#[derive(Debug, Default)]
pub(crate) struct Release {
    errors: AtomicU64,
    panics: AtomicU64,
}

impl Release {
    /// Takes note of the outcome of a release: counts an error and tells the hook.
    ///
    /// The driver is going away with the process when it answers
    /// [`CudaError::DEINITIALIZED`], so that is no error.
    pub(crate) fn note(&self, driver: &Driver, outcome: Result<(), Error>) {
        static DROP_ERROR: profile::Name = profile::Name::new("wharf::drop_error");
        let Err(error) = outcome else { return };
        if error.code() == Some(CudaError::DEINITIALIZED) {
            return;
        }
        self.errors.fetch_add(1, Ordering::Relaxed);
        profile::mark(&DROP_ERROR);
        if let (Some(hook), Some(code)) = (driver.drop_error_hook(), error.code()) {
            hook(error.call(), code);
        }
    }

    /// Counts a callback that panicked.
    pub(crate) fn note_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}
