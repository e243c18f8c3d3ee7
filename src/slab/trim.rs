//! Trim: pieces of which all is free go back to the resource.
//!
//! A free piece stays committed until a trim, so that a load which comes in waves does not commit
//! in waves. No clock is read when a piece becomes free: the first trim that sees it free writes
//! down when, a later one finds it old enough. A piece that a lease holds stays free and committed.

use super::space::Slices;
use super::store::Store;
use crate::error::Error;
use crate::memory::MemoryResource;
use crate::sync::MutexGuard;

/// What a trim released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// Bytes that were decommitted.
    pub released: usize,
    /// Bytes whose decommit failed. They stay committed and are not used again.
    pub lost: usize,
    /// Bytes that a lease holds: they stay committed and free, for the pool and for a later trim.
    pub leased: usize,
    /// The first of those failures.
    pub error: Option<Error>,
}

/// Which pieces a trim releases. Times are in any unit that only grows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrimPolicy {
    /// The time now.
    pub(crate) now: u64,
    /// How long a piece must have been seen free.
    pub(crate) idle: u64,
    /// Bytes in free pieces to keep.
    pub(crate) keep: usize,
}

/// All free pieces.
pub(super) const EVERYTHING: TrimPolicy = TrimPolicy { now: 0, idle: 0, keep: 0 };

impl<R: MemoryResource> Store<R> {
    /// Releases free pieces by `policy`; those kept are the lowest.
    pub(crate) fn trim(&self, policy: TrimPolicy) -> Trimmed {
        let growing = self.span.resource().check_fork().and_then(|()| self.lock_growing());
        match growing {
            Ok(growing) => self.leave_idle(&growing, policy),
            Err(error) => Trimmed { error: Some(error), ..Trimmed::default() },
        }
    }

    /// The right to commit and decommit.
    pub(super) fn lock_growing(&self) -> Result<MutexGuard<'_, ()>, Error> {
        self.span.check_reentry()?;
        Ok(self.growing.lock())
    }

    /// Gives free pieces up by `policy`; those that a lease holds stay as they are.
    #[must_use = "it may have lost memory"]
    pub(super) fn leave_idle(&self, growing: &MutexGuard<'_, ()>, policy: TrimPolicy) -> Trimmed {
        let mut trimmed = Trimmed::default();
        let TrimPolicy { now, idle, keep } = policy;
        let leaving = self.folded().map(|mut it| it.leave_idle(now, idle, self.slices_of(keep)));
        for piece in leaving.unwrap_or_default() {
            if let Some(leased) = self.decommit(growing, piece, &mut trimmed) {
                self.space.lock().give(leased);
            }
        }
        trimmed
    }

    /// Releases the highest free piece. Returns how many bytes that were.
    pub(super) fn release_one(&self, growing: &MutexGuard<'_, ()>) -> Result<usize, Error> {
        self.release(growing, 1)
    }

    /// Releases free pieces until `bytes` are released or none is left. Returns how many bytes
    /// were.
    pub(super) fn release(
        &self,
        growing: &MutexGuard<'_, ()>,
        bytes: usize,
    ) -> Result<usize, Error> {
        let (mut trimmed, mut leased) = (Trimmed::default(), Vec::new());
        let outcome = loop {
            if trimmed.released >= bytes {
                break Ok(trimmed.released);
            }
            match self.folded().map(|mut space| space.leave()) {
                Ok(Some(piece)) => leased.extend(self.decommit(growing, piece, &mut trimmed)),
                Ok(None) => break Ok(trimmed.released),
                Err(error) => break Err(error),
            }
        };
        // Not before: the highest would be found again.
        leased.into_iter().for_each(|piece| self.space.lock().give(piece));
        outcome
    }

    /// Decommits everything, also what is in use. The store must not be used after that.
    pub(crate) fn decommit_all(&self) {
        let Ok(space) = self.folded() else { return };
        for piece in space.all_pieces() {
            let bytes = self.bytes(&piece);
            if self.span.decommit(self.offset(&piece), bytes).is_ok() {
                self.budget.release(bytes);
            }
        }
    }

    /// Decommits a piece that has been taken out of the map for it. Returns it if a lease holds it:
    /// it is to go back into the map.
    #[must_use = "a piece that is leased is in no map"]
    pub(super) fn decommit(
        &self,
        _growing: &MutexGuard<'_, ()>,
        piece: Slices,
        trimmed: &mut Trimmed,
    ) -> Option<Slices> {
        let bytes = self.bytes(&piece);
        let outcome = self.span.decommit(self.offset(&piece), bytes);
        // One that is leased stays suspended, and comes back when the store wakes.
        if outcome != Err(Error::Leased) {
            self.sleep.forget(&piece, bytes);
        }
        // Before the addresses are free: another commit there counts on the sum.
        match outcome {
            Ok(()) => {
                self.budget.release(bytes);
                trimmed.released += bytes;
                self.space.lock().left(piece);
            }
            Err(Error::Leased) => {
                trimmed.leased += bytes;
                return Some(piece);
            }
            // Never used again: after a failed decommit the state of the range is unknown.
            Err(error) => {
                self.budget.lose(bytes);
                trimmed.lost += bytes;
                trimmed.error = trimmed.error.or(Some(error));
                self.space.lock().lose(&piece);
            }
        }
        None
    }
}
