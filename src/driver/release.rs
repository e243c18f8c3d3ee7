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
    pub(crate) fn note(&self, driver: &Driver, outcome: Result<(), Error>) {
        if tell(driver, outcome) {
            self.errors.fetch_add(1, Ordering::Relaxed);
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

/// Tells the hook of an error that a drop met, and says whether there was one.
///
/// The driver is going away with the process when it answers [`CudaError::DEINITIALIZED`], so
/// that is none.
pub(super) fn tell(driver: &Driver, outcome: Result<(), Error>) -> bool {
    static DROP_ERROR: profile::Name = profile::Name::new(c"wharf::drop_error");
    let Err(error) = outcome else { return false };
    if error.code() == Some(CudaError::DEINITIALIZED) {
        return false;
    }
    profile::mark(&DROP_ERROR);
    if let (Some(hook), Some(code)) = (driver.drop_error_hook(), error.code()) {
        hook(error.call(), code);
    }
    true
}
