//! A try-lock: `take` never blocks; a caller that fails does something else or tries again.
//!
//! * `taken`: written by the thread that has or had the turn; read by threads that want it. The
//!   `Release` of the end of a turn pairs with the `Acquire` of the next, which sees what was done.

use crate::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Whether a thread has the turn.
#[derive(Debug)]
pub(crate) struct Turns {
    taken: AtomicBool,
}

/// The caller's turn, until dropped.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// No thread has the turn.
    pub(crate) fn new() -> Self {
        Self { taken: AtomicBool::new(false) }
    }

    /// Takes the turn, if no thread has it.
    pub(crate) fn take(&self) -> Option<Turn<'_>> {
        // Acquire: pairs with the Release in `drop`.
        self.taken.compare_exchange(false, true, Acquire, Relaxed).ok().map(|_| Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `take`.
        self.0.taken.store(false, Release);
    }
}
