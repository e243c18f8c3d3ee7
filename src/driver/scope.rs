#![expect(unsafe_code, reason = "calls the driver")]
//! The time during which a context is current on a thread.
//!
//! The innermost scope of a thread leaves a mark: its context and its serial number. While the mark
//! names the wanted context, no call is needed to know that it is current. A scope that ends
//! out of order removes the mark, and the next one asks the driver again.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use wharf_sys::bindings::{CUcontext, CUctx_st};

use super::{Context, Driver, context, release};
use crate::error::Error;
use crate::sync::atomic::Ordering::Relaxed;

/// A context is current on this thread; dropped, the previous one is again.
///
/// Scopes end in the reverse order of their beginning. What runs inside may make other contexts
/// current for a while, by scopes or by driver calls, and leaves the context as it was.
/// `cudaSetDevice` and cudarc's `bind_to_thread`, which most calls of cudarc make, do not: after
/// them submissions to this context's default streams go to another device, and copies may fail.
/// Calls that create something (streams, events, graphs, memory, pinned pages) and
/// [`Context::synchronize`] ask the driver which context is current and are right in any case;
/// [`Driver::verify_scopes`] makes every call do so.
///
/// The scope stays on its thread; a forgotten one leaves its context current.
///
/// # Examples
///
/// ```compile_fail,E0277
/// fn assert_send<T: Send>() {}
/// assert_send::<wharf::ContextScope<'static>>();
/// ```
#[must_use = "the previous context is restored when the scope is dropped"]
pub struct ContextScope<'a> {
    driver: &'a Driver,
    mark: Mark,
    outer: Mark,
    /// The context to make current again, if it is another one.
    previous: Option<*mut CUctx_st>,
    thread_bound: PhantomData<*const ()>,
}

impl<'a> ContextScope<'a> {
    /// Makes `raw` current, unless a scope has.
    #[inline]
    pub(super) fn enter_raw(driver: &'a Driver, raw: CUcontext) -> Result<Self, Error> {
        let is_current = SCOPES.with(|scopes| scopes.innermost.get().context == raw);
        if is_current && !driver.verifies_scopes() && !driver.is_forked() {
            return Ok(Self::begin(driver, raw, None));
        }
        Self::make_current(driver, raw)
    }

    /// Makes `raw` current, unless the driver says that it is, or a [work
    /// scope](super::work::WorkScope) has.
    pub(super) fn make_current(driver: &'a Driver, raw: CUcontext) -> Result<Self, Error> {
        let is_innermost = SCOPES.with(|scopes| scopes.innermost.get().context == raw);
        if is_innermost && driver.is_at_work() && !driver.verifies_scopes() {
            return Ok(Self::begin(driver, raw, None));
        }
        let previous = switch(driver, raw)?;
        Ok(Self::begin(driver, raw, previous))
    }

    fn begin(driver: &'a Driver, raw: CUcontext, previous: Option<CUcontext>) -> Self {
        let (mark, outer) = SCOPES.with(|scopes| {
            let mark = Mark { context: raw, serial: scopes.last.get() + 1 };
            scopes.last.set(mark.serial);
            (mark, scopes.innermost.replace(mark))
        });
        Self { driver, mark, outer, previous, thread_bound: PhantomData }
    }

    /// The driver's handle of the context.
    pub fn as_raw(&self) -> CUcontext {
        self.mark.context
    }
}

impl Context {
    /// Whether a scope of this context is the innermost of the calling thread.
    #[inline]
    pub fn is_entered(&self) -> bool {
        SCOPES.with(|scopes| scopes.innermost.get().context == self.as_raw())
    }

    /// Whether a call needs no scope of its own: as [`is_entered`](Self::is_entered), but for
    /// [`Driver::verify_scopes`].
    #[inline]
    pub(crate) fn is_taken_as_current(&self) -> bool {
        self.is_entered() && !self.driver().verifies_scopes()
    }

    /// As [`enter`](Self::enter), but asks the driver also inside a scope of the same context: for
    /// calls that act on the current context whatever they are given, such as those that create
    /// something.
    pub(crate) fn make_current(&self) -> Result<ContextScope<'_>, Error> {
        ContextScope::make_current(self.driver(), self.as_raw())
    }

    /// Makes it current for one call of the driver; asks the driver.
    pub(crate) fn visit(&self) -> Result<Visit<'_>, Error> {
        let driver = self.driver();
        Ok(Visit { driver, previous: switch(driver, self.as_raw())? })
    }
}

impl fmt::Debug for ContextScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextScope").field("context", &self.mark.context).finish_non_exhaustive()
    }
}

impl Drop for ContextScope<'_> {
    fn drop(&mut self) {
        SCOPES.with(|scopes| {
            let in_order = scopes.innermost.get().serial == self.mark.serial;
            scopes.innermost.set(if in_order { self.outer } else { Mark::NONE });
        });
        restore(self.driver, self.previous);
    }
}

/// A context is current for one call of the driver, beside the scopes of the thread: nothing of
/// this crate runs meanwhile, so it leaves no mark.
pub(crate) struct Visit<'a> {
    driver: &'a Driver,
    previous: Option<CUcontext>,
}

impl Drop for Visit<'_> {
    #[inline]
    fn drop(&mut self) {
        restore(self.driver, self.previous);
    }
}

impl Driver {
    /// Sets whether every call asks the driver which context is current, also inside a
    /// [`ContextScope`].
    ///
    /// One driver call more for each call of this crate's. It is for programs in which other code
    /// makes contexts current and does not restore them, and to find out whether a program is one.
    /// `false` at first; it may change at any time, for all clones and threads.
    pub fn verify_scopes(&self, verify: bool) {
        self.0.verifies_scopes.store(verify, Relaxed);
    }

    #[inline]
    fn verifies_scopes(&self) -> bool {
        // Relaxed: an option, nothing is read through it.
        self.0.verifies_scopes.load(Relaxed)
    }
}

/// Makes `raw` current and returns what was, if that was something else.
fn switch(driver: &Driver, raw: CUcontext) -> Result<Option<CUcontext>, Error> {
    let previous = context::current(driver)?;
    if previous == raw {
        return Ok(None);
    }
    // SAFETY: `raw` is a context of this driver that the caller keeps alive.
    unsafe { driver.api().ctx_set_current.call(raw) }?;
    Ok(Some(previous))
}

/// Makes the context current again that [`switch`] found, if that was another.
fn restore(driver: &Driver, previous: Option<CUcontext>) {
    let Some(previous) = previous else { return };
    // SAFETY: `previous` was current when the scope began. If it was destroyed since, the driver
    // answers with an error (Driver API, cuCtxSetCurrent: CUDA_ERROR_INVALID_CONTEXT) and this
    // thread has nothing to go back to.
    let restored = unsafe { driver.api().ctx_set_current.call(previous) };
    if release::tell(driver, restored) {
        SCOPES.with(|scopes| scopes.innermost.set(Mark::NONE));
    }
}

/// The context of a scope, and which scope it was.
#[derive(Clone, Copy)]
struct Mark {
    context: CUcontext,
    serial: u64,
}

impl Mark {
    /// No scope is known: null is no context and 0 no serial number.
    const NONE: Self = Self { context: ptr::null_mut(), serial: 0 };
}

/// What a thread knows of its scopes. One variable: in a shared library each look at one is a call.
struct Scopes {
    innermost: Cell<Mark>,
    /// The serial number of the last one that began.
    last: Cell<u64>,
}

crate::sync::thread_local! {
    /// Has no destructor, so it works in those of others.
    static SCOPES: Scopes =
        const { Scopes { innermost: Cell::new(Mark::NONE), last: Cell::new(0) } };
}
