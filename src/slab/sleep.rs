//! Sleep: all memory goes and comes back at the same addresses, and what is held stays held.
//!
//! A sleeping store has its map, its slabs and its limit as before; only the memory behind its
//! pieces is gone. Frees go on. Nothing is committed: a thread that is to grow the store asks, with
//! the lock of growth, whether it sleeps. Pieces that are free when it falls asleep
//! or wakes are given up.
//!
//! ```text
//!   sleep   save what is held -> suspend piece by piece -> free pieces leave
//!             | fails: awake     | fails: resumed, restored, awake; else asleep. Of the first
//!                                  piece: awake, and nothing is restored
//!   wake    free pieces leave -> resume piece by piece -> restore what was held
//!                                  | fails: suspended again, asleep
//! ```
//!
//! * `is_asleep`: written by the thread that has the lock of growth; read with that lock. Relaxed.
//! * `bytes`: written by the same; read by statistics. Relaxed: an estimate to others.

use std::ops::Range;

use super::space::Slices;
use crate::error::Error;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// Whether a store sleeps, and which of its pieces have no memory.
#[derive(Debug)]
pub(crate) struct Sleep {
    pub(super) is_asleep: AtomicBool,
    pub(super) bytes: AtomicUsize,
    pub(super) suspended: Mutex<Vec<Slices>>,
}

/// Keeps what memory holds while there is none.
pub(crate) trait Keeper {
    /// Saves ranges of addresses, before their memory goes.
    fn save(&mut self, held: &[Range<u64>]) -> Result<(), Error>;

    /// Restores what was saved and lies in `pieces`, ranges of addresses in their order, and waits
    /// for that, also after an error.
    fn restore(&self, pieces: &[Range<u64>]) -> Result<(), Error>;
}

/// A store did not fall asleep, or did not wake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    pub(crate) error: Error,
    /// Whether it sleeps now.
    pub(crate) is_asleep: bool,
}

impl Sleep {
    pub(super) fn new() -> Self {
        Self {
            is_asleep: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            suspended: Mutex::new(Vec::new()),
        }
    }

    /// Refuses growth of a store that sleeps.
    pub(super) fn check(&self, _growing: &MutexGuard<'_, ()>) -> Result<(), Error> {
        if self.is_asleep.load(Relaxed) { Err(Error::Asleep) } else { Ok(()) }
    }

    /// Bytes that count as reserved and have no memory behind them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// A piece that may be suspended is given up.
    pub(super) fn forget(&self, piece: &Slices, bytes: usize) {
        let mut suspended = self.suspended.lock();
        if let Some(at) = suspended.iter().position(|it| it == piece) {
            suspended.swap_remove(at);
            self.bytes.fetch_sub(bytes, Relaxed);
        }
    }
}
