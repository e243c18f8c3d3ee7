//! Errors of drops, which have no caller to return them to.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(doc)]
use super::Context;
use super::{Driver, work};
use crate::error::{CudaError, Error};
use crate::profile;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A function that is told of errors in drops.
pub(super) type DropErrorHook = Box<dyn Fn(&Error) + Send + Sync>;

/// The driver has a hook for errors in drops already, see [`Driver::on_drop_error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookAlreadySet;

impl fmt::Display for HookAlreadySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the hook for drop errors was set before: it can be set once for each driver")
    }
}

impl std::error::Error for HookAlreadySet {}

impl Driver {
    /// Sets the function that is told of errors that a drop met, such as a handle that could not
    /// be destroyed. Without one they are only counted, see [`Context::drop_errors`].
    ///
    /// `hook` runs inside the drop, on the dropping thread, so it should be short; a panic in it
    /// ends there. [`CudaError::DEINITIALIZED`], which a drop at process exit meets, and
    /// [`Error::Forked`] are not reported.
    ///
    /// # Errors
    ///
    /// [`HookAlreadySet`]: the hook can be set once.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// let (log, _lines) = std::sync::mpsc::channel();
    /// driver.on_drop_error(move |error| _ = log.send(format!("not destroyed: {error}")))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_drop_error(
        &self,
        hook: impl Fn(&Error) + Send + Sync + 'static,
    ) -> Result<(), HookAlreadySet> {
        self.0.hook.set(Box::new(hook)).map_err(|_| HookAlreadySet)
    }

    fn drop_error_hook(&self) -> Option<&DropErrorHook> {
        self.0.hook.get()
    }
}

/// The counters of a context that outlive it, for callbacks that the device still owes.
#[derive(Debug, Default)]
pub(crate) struct Release {
    errors: AtomicU64,
    panics: AtomicU64,
}

impl Release {
    /// Notes the outcome of a release: counts an error and calls the hook.
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

/// Reports an error of a drop to the hook. Returns whether there was one.
///
/// The driver is going away with the process when it answers [`CudaError::DEINITIALIZED`], so
/// that is none. A drop in a forked child has nothing to take back, so [`Error::Forked`] is none
/// either.
pub(super) fn tell(driver: &Driver, outcome: Result<(), Error>) -> bool {
    static DROP_ERROR: profile::Name = profile::Name::new(c"drop_error");
    let Err(error) = outcome else { return false };
    if error.code() == Some(CudaError::DEINITIALIZED) || error == Error::Forked {
        return false;
    }
    profile::mark(&DROP_ERROR);
    if let Some(hook) = driver.drop_error_hook() {
        work::interrupt();
        // The panic's own hook has told of it.
        let _panicked = catch_unwind(AssertUnwindSafe(|| hook(&error)));
    }
    true
}
