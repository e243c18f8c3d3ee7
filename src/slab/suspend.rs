//! How a store falls asleep and wakes; see `sleep`.

use std::ops::Range;

use super::number::SliceId;
use super::sleep::{Interrupted, Keeper};
use super::space::Slices;
use super::store::Store;
use super::trim::EVERYTHING;
use crate::error::Error;
use crate::memory::MemoryResource;
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering::Relaxed;

impl<R: MemoryResource> Store<R> {
    /// Takes the memory behind all pieces away, after `keeper` has saved what is held. Returns how
    /// many bytes that were.
    pub(crate) fn sleep(&self, keeper: &mut dyn Keeper) -> Result<usize, Interrupted> {
        let awake = |error| Interrupted { error, is_asleep: false };
        let growing = self.lock_growing().map_err(awake)?;
        self.sleep.check(&growing).map_err(|error| Interrupted { error, is_asleep: true })?;
        let (pieces, held) = {
            let space = self.folded().map_err(awake)?;
            (space.all_pieces().collect::<Vec<_>>(), space.held())
        };
        keeper.save(&self.addresses(held)).map_err(awake)?;
        self.sleep.is_asleep.store(true, Relaxed);
        let Err(error) = self.suspend(&growing, pieces) else {
            let bytes = self.sleep.bytes();
            // While they are suspended that is no call, so nothing is lost.
            let _left = self.leave_idle(&growing, EVERYTHING);
            return Ok(bytes);
        };
        if self.sleep.suspended.lock().is_empty() {
            // Nothing is gone, and what is there may be newer than what was saved.
            self.sleep.is_asleep.store(false, Relaxed);
            return Err(awake(error));
        }
        // What follows is on the way back: its error is not the cause.
        let is_asleep = self.resume(&growing, keeper).is_err();
        Err(Interrupted { error, is_asleep })
    }

    /// Puts memory behind all pieces of a store that sleeps, and has `keeper` restore what they
    /// held. Returns how many bytes that were.
    pub(crate) fn wake(&self, keeper: &dyn Keeper) -> Result<usize, Interrupted> {
        let asleep = |error| Interrupted { error, is_asleep: true };
        let growing = self.lock_growing().map_err(asleep)?;
        let _left = self.leave_idle(&growing, EVERYTHING);
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

    fn addresses(&self, ranges: Vec<Slices>) -> Vec<Range<u64>> {
        let address = |slice: u32| self.geometry.address(SliceId::new(slice as usize));
        ranges.into_iter().map(|range| address(range.start)..address(range.end)).collect()
    }
}
