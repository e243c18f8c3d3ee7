//! Whether a pool allocates: not after a fault of the device, and not while it sleeps. And whether
//! that is all there is to an allocation, or it is noted where it comes from.
//!
//! * `word`: written by the thread that notes a fault, and by that which puts the pool to sleep or
//!   wakes it; read by all. The `Release` of `note_fault` pairs with the `Acquire` of `check`: a
//!   thread that finds the bit finds the fault. Sleep hangs on no other data here.

use crate::error::Error;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// What allocations ask first.
#[derive(Debug)]
pub(super) struct Gate {
    word: AtomicU32,
    /// What the driver said when it lost the context.
    fault: OnceLock<Error>,
}

impl Gate {
    pub(super) fn new(is_tracked: bool) -> Self {
        let word = if is_tracked { TRACKED } else { 0 };
        Self { word: AtomicU32::new(word), fault: OnceLock::new() }
    }

    /// Whether nothing is in the way of an allocation, and nothing to be noted of it.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        // Acquire: pairs with the Release of `note_fault`.
        self.word.load(Acquire) == 0
    }

    /// Refuses an allocation of a pool that has none to make.
    ///
    /// # Errors
    ///
    /// The driver's fault, or [`Error::Asleep`].
    #[inline]
    pub(super) fn check(&self) -> Result<(), Error> {
        // Acquire: pairs with the Release of `note_fault`.
        if self.word.load(Acquire) & !TRACKED == 0 { Ok(()) } else { Err(self.why()) }
    }

    /// Whether the pool sleeps, or is on its way there or back.
    pub(super) fn is_asleep(&self) -> bool {
        self.word.load(Relaxed) & ASLEEP != 0
    }

    /// Closes the gate while the pool sleeps, or opens it again.
    pub(super) fn set_asleep(&self, is_asleep: bool) {
        if is_asleep {
            self.word.fetch_or(ASLEEP, Relaxed);
        } else {
            self.word.fetch_and(!ASLEEP, Relaxed);
        }
    }

    /// Closes the gate for ever. The first fault is the cause.
    pub(super) fn note_fault(&self, error: Error) {
        let _first = self.fault.set(error);
        // Release: pairs with the Acquire of `check`.
        self.word.fetch_or(LOST, Release);
    }

    #[cold]
    fn why(&self) -> Error {
        self.fault.get().copied().unwrap_or(Error::Asleep)
    }
}

const LOST: u32 = 1;
const ASLEEP: u32 = 2;
const TRACKED: u32 = 4;
