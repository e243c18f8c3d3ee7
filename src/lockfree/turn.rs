//! A thread's turn to do what only one may do at a time. Nobody has to wait for it.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `taken` | who has or had the turn | who wants it | the `Release` of the end of a turn pairs with the `Acquire` of the next: who comes after sees what was done |

use crate::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns {
    taken: AtomicBool,
}

/// The caller's turn, until dropped.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Nobody's turn.
    pub(crate) fn new() -> Self {
        Self { taken: AtomicBool::new(false) }
    }

    /// The turn, if nobody has it.
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
