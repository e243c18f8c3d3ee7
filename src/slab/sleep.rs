//! Sleep: all memory goes and comes back at the same addresses, and what is held stays held.
//!
//! A sleeping store has its map, its slabs and its limit as before; only the memory behind its
//! pieces is gone. Frees go on. Nothing is committed: a thread that is to grow the store asks, with
//! the lock of growth, whether it sleeps. What is free when it falls asleep or wakes is given up.
//!
//! ```text
//!   sleep   save what is held -> suspend piece by piece -> free pieces leave
//!             | fails: awake     | fails: resumed, restored, awake; else asleep
//!   wake    free pieces leave -> resume piece by piece -> restore what was held
//!                                  | fails: suspended again, asleep
//! ```
//!
//! * `is_asleep`: written by the thread that has the lock of growth; read with that lock. Relaxed.
//! * `bytes`: written by the same; read by statistics. Relaxed: an estimate to others.

use std::ops::Range;

use super::number::SliceId;
use super::space::Slices;
use super::store::Store;
use super::trim::Trimmed;
use crate::error::Error;
use crate::memory::MemoryResource;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// Whether a store sleeps, and which of its pieces have no memory.
#[derive(Debug)]
pub(crate) struct Sleep {
    is_asleep: AtomicBool,
    bytes: AtomicUsize,
    suspended: Mutex<Vec<Slices>>,
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

impl<R: MemoryResource> Store<R> {
    /// Takes the memory behind all pieces away, after `keeper` has saved what is held. Returns how
    /// many bytes that were.
    pub(crate) fn sleep(&self, keeper: &mut dyn Keeper) -> Result<usize, Interrupted> {
        let growing = self.growing.lock();
        let awake = |error| Interrupted { error, is_asleep: false };
        self.sleep.check(&growing).map_err(|error| Interrupted { error, is_asleep: true })?;
        let (pieces, held) = {
            let space = self.folded().map_err(awake)?;
            (space.all_pieces().collect::<Vec<_>>(), space.held())
        };
        keeper.save(&self.addresses(held)).map_err(awake)?;
        self.sleep.is_asleep.store(true, Relaxed);
        let Err(error) = self.suspend(&growing, pieces) else {
            let bytes = self.sleep.bytes();
            self.leave_free(&growing);
            return Ok(bytes);
        };
        // What follows is on the way back: its error is not the cause.
        let is_asleep = self.resume(&growing, keeper).is_err();
        Err(Interrupted { error, is_asleep })
    }

    /// Puts memory behind all pieces of a store that sleeps, and has `keeper` restore what they
    /// held. Returns how many bytes that were.
    pub(crate) fn wake(&self, keeper: &dyn Keeper) -> Result<usize, Interrupted> {
        let growing = self.growing.lock();
        self.leave_free(&growing);
        let (bytes, pieces) = (self.sleep.bytes(), self.sleep.suspended.lock().clone());
        self.resume(&growing, keeper).map_err(|error| {
            let still = self.sleep.suspended.lock().clone();
            let resumed = pieces.into_iter().filter(|piece| !still.contains(piece));
            // What stays is resumed already when the next call comes.
            let _stays = self.suspend(&growing, resumed);
            Interrupted { error, is_asleep: true }
        })?;
        Ok(bytes)
    }

    /// Takes the memory behind pieces away, up to the first error.
    fn suspend(
        &self,
        _growing: &MutexGuard<'_, ()>,
        pieces: impl IntoIterator<Item = Slices>,
    ) -> Result<(), Error> {
        for piece in pieces {
            let bytes = self.bytes(&piece);
            self.span.suspend(self.offset(&piece), bytes)?;
            self.sleep.bytes.fetch_add(bytes, Relaxed);
            self.sleep.suspended.lock().push(piece);
        }
        Ok(())
    }

    /// Puts memory behind all pieces that have none, restores everything, and is awake. After an
    /// error it is not.
    fn resume(&self, _growing: &MutexGuard<'_, ()>, keeper: &dyn Keeper) -> Result<(), Error> {
        let next = || self.sleep.suspended.lock().last().cloned();
        while let Some(piece) = next() {
            let bytes = self.bytes(&piece);
            self.span.resume(self.offset(&piece), bytes)?;
            self.sleep.forget(&piece, bytes);
        }
        let pieces = self.folded()?.all_pieces().collect::<Vec<_>>();
        keeper.restore(&self.addresses(pieces))?;
        self.sleep.is_asleep.store(false, Relaxed);
        Ok(())
    }

    /// Gives up pieces of which all is free: while they are suspended that is no call.
    fn leave_free(&self, growing: &MutexGuard<'_, ()>) {
        let leaving = self.folded().map(|mut space| space.leave_idle(0, 0, 0));
        for piece in leaving.unwrap_or_default() {
            self.decommit(growing, piece, &mut Trimmed::default());
        }
    }

    fn addresses(&self, ranges: Vec<Slices>) -> Vec<Range<u64>> {
        let address = |slice: u32| self.geometry.address(SliceId::new(slice as usize));
        ranges.into_iter().map(|range| address(range.start)..address(range.end)).collect()
    }
}
