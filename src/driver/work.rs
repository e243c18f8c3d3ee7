//! The time during which a thread runs nothing but this crate.
//!
//! Making and dropping something large takes many calls, each of which would ask the driver for the
//! current context and free the thread of captures. Inside a [`WorkScope`] neither is asked for
//! again, until code of others runs: a hook, or the drop of an owner.

use core::cell::Cell;
use core::ptr;
use std::sync::Arc;

use super::{Context, ContextScope, Driver, Inner, RelaxedCapture};
use crate::error::Error;

/// A context is current on this thread and captures of others do not bind it, as this crate alone
/// runs until this is dropped.
pub(crate) struct WorkScope<'a> {
    driver: &'a Driver,
    outer: *const Inner,
    // In the order in which they end.
    _relaxed: RelaxedCapture<'a>,
    _scope: ContextScope<'a>,
}

impl Context {
    /// Makes the context current and frees the thread of captures, for several calls of the driver
    /// with nothing of others between them.
    ///
    /// # Errors
    ///
    /// * [`Error::Forked`]: this process is a child of the context's.
    /// * [`Error::Driver`]: the context is lost or destroyed.
    pub(crate) fn work(&self) -> Result<WorkScope<'_>, Error> {
        let driver = self.driver();
        let scope = self.make_current()?;
        let relaxed = driver.relax_capture()?;
        let outer = WORK.with(|work| work.replace(driver.identity()));
        Ok(WorkScope { driver, outer, _relaxed: relaxed, _scope: scope })
    }
}

impl Drop for WorkScope<'_> {
    fn drop(&mut self) {
        let own = self.driver.identity();
        WORK.with(|work| work.set(if work.get() == own { self.outer } else { ptr::null() }));
    }
}

impl Driver {
    /// Whether a work scope has made the thread's innermost context current and freed it of
    /// captures, and nothing has changed that.
    pub(super) fn is_at_work(&self) -> bool {
        WORK.with(Cell::get) == self.identity() && !self.is_forked()
    }

    fn identity(&self) -> *const Inner {
        Arc::as_ptr(&self.0)
    }
}

/// Lets the thread's work scopes ask the driver again: code of others runs next, which may leave
/// another context current.
pub(super) fn interrupt() {
    WORK.with(|work| work.set(ptr::null()));
}

crate::sync::thread_local! {
    /// The driver of the thread's work scope, or null. Has no destructor, so it works in those of
    /// others.
    static WORK: Cell<*const Inner> = const { Cell::new(ptr::null()) };
}
