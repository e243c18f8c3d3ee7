//! What the handles of a pool share.

use std::time::{Duration, Instant};

use super::Tier;
use super::error::{Blocked, TierError};
use super::file::MappedFile;
use super::memory::{TierBlock, TierMemory};
use super::planned::Move;
use super::rate_limit::RateLimit;
use super::record::ObjectRecord;
use super::slots::Slots;
use super::stats::Counters;
use crate::error::Error;
use crate::lockfree::bitmap::{Bitmaps, Bits};
use crate::lockfree::tier_state::{FILE, Outcome, Refusal, TierState};
use crate::stream::Stream;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::timeline::{GaveUp, Sentinel, Ticket};

/// Objects, tiers, and what waits for the device.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) records: Box<[ObjectRecord]>,
    pub(super) free: Bitmaps,
    /// Records that are or were in use are below this.
    pub(super) used: AtomicUsize,
    pub(super) tiers: [Option<TierMemory>; FILE + 1],
    pub(super) moves: Slots<Move>,
    pub(super) leases: Slots<Lease>,
    /// Holds of objects that were in their tier, by the slot for their end: counted by its owner.
    pub(super) hits: Box<[AtomicU64]>,
    /// The stream of all copies.
    pub(super) stream: Stream,
    pub(super) sentinel: Sentinel,
    pub(super) rate: RateLimit,
    pub(super) wait: Duration,
    pub(super) step: AtomicU64,
    pub(super) counters: Counters,
}

/// A hold that has ended for its user and lasts until the device is past it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) index: usize,
    pub(super) ticket: Ticket,
}

/// Why an attempt has not succeeded.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttemptError {
    /// A later one may.
    Blocked(Blocked),
    /// No later one will.
    Failed(TierError),
}

impl<E: Into<TierError>> From<E> for AttemptError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl AttemptError {
    /// What a transition's refusal means for a caller who holds a handle to the object.
    pub(super) fn of(refusal: Refusal) -> Self {
        Self::Blocked(match refusal {
            Refusal::Moving | Refusal::Elsewhere => Blocked::Copying,
            _ => Blocked::Held,
        })
    }

    /// The error of a call that does not wait.
    pub(super) fn at_once(self) -> TierError {
        match self {
            Self::Blocked(blocked) => TierError::Busy { blocked, age: Duration::ZERO },
            Self::Failed(error) => error,
        }
    }
}

impl Core {
    pub(super) fn memory(&self, tier: usize) -> Result<&TierMemory, TierError> {
        self.tiers[tier].as_ref().ok_or(TierError::Absent(Tier::from_index(tier)))
    }

    /// Makes sure that a stream may use objects in a tier.
    #[inline]
    pub(super) fn check_reach(&self, tier: usize, stream: &Stream) -> Result<(), Error> {
        let ordinal = self.stream.context().device().ordinal();
        let peers = || self.memory(tier).map_or(&[][..], TierMemory::peers);
        Tier::from_index(tier).kind().check_reach(Some(ordinal), peers, stream.context())
    }

    /// Makes an object of `size` bytes in `tier`, of whatever bytes are there; waits for room.
    pub(super) fn alloc(
        &self,
        size: usize,
        tier: usize,
        limit: Duration,
    ) -> Result<usize, TierError> {
        self.stream.context().driver().check_fork()?;
        self.memory(tier)?;
        let index = self.take_record()?;
        match self.until(limit, || self.room(tier, size)) {
            Ok(block) => {
                let home = (tier == FILE).then_some(block);
                self.records[index].set_up(size, block, home, None);
                self.records[index].word.occupy(tier, false);
                Ok(index)
            }
            Err(error) => {
                self.give_record(index);
                Err(error)
            }
        }
    }

    /// Makes an object of a part of a file.
    pub(super) fn adopt(
        &self,
        file: &MappedFile,
        block: TierBlock,
        size: usize,
    ) -> Result<usize, TierError> {
        self.stream.context().driver().check_fork()?;
        let index = self.take_record()?;
        self.records[index].set_up(size, block, Some(block), Some(file.clone()));
        self.records[index].word.occupy(FILE, true);
        Ok(index)
    }

    /// Holds an object in `tier` for a reader, if nothing is in the way and the stream's device is
    /// the pool's; `hold` finds out what else there is.
    #[inline]
    pub(super) fn try_hold(
        &self,
        index: usize,
        tier: usize,
        stream: &Stream,
    ) -> Option<(usize, TierState)> {
        let ordinals = [&self.stream, stream].map(|of| of.context().device().ordinal());
        if ordinals[0] != ordinals[1] {
            return None;
        }
        let lease = self.leases.reserve_next()?;
        let state = self.records[index].word.try_pin(tier);
        if state.is_none() {
            self.leases.release(lease);
        }
        Some((lease, state?))
    }

    /// Counts a hold of an object that was in its tier, by the owner of the slot for its end.
    #[inline]
    pub(super) fn count_hit(&self, lease: usize) {
        let hits = &self.hits[lease];
        hits.store(hits.load(Relaxed) + 1, Relaxed);
    }

    /// Holds an object in `tier`, or where it is, and moves it there if it is elsewhere. The slot
    /// for the end of the hold.
    pub(super) fn hold(
        &self,
        index: usize,
        tier: Option<usize>,
        write: bool,
    ) -> Result<(usize, TierState), AttemptError> {
        let Some(lease) = self.leases.reserve() else {
            self.settle()?;
            return Err(AttemptError::Blocked(Blocked::Pins));
        };
        let refusal = match self.records[index].word.pin(tier, write) {
            Ok(state) => return Ok((lease, state)),
            Err(refusal) => refusal,
        };
        self.leases.release(lease);
        self.settle()?;
        if let (Refusal::Elsewhere, Some(to)) = (refusal, tier) {
            self.start(index, to)?;
        }
        Err(AttemptError::of(refusal))
    }

    /// Makes sure that no copy reads an object that the caller holds for writing. One that was
    /// under way when the hold began is in vain, and none begins as long as it lasts.
    pub(super) fn end_copy(&self, index: usize) -> Result<(), AttemptError> {
        let word = &self.records[index].word;
        if word.is_moving() {
            self.settle()?;
        }
        if word.is_moving() { Err(AttemptError::Blocked(Blocked::Copying)) } else { Ok(()) }
    }

    /// Ends a hold that the device never knew of.
    pub(super) fn abandon(&self, index: usize, lease: usize) {
        self.leases.release(lease);
        self.unhold(index);
    }

    /// Ends a hold that the device has come past, or never knew of.
    pub(super) fn unhold(&self, index: usize) {
        let outcome = self.records[index].word.unpin();
        self.free_if(outcome, index);
    }

    /// Takes note of what the device is past: copies and holds. Does not wait.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.stream.context().driver().check_fork()?;
        self.leases.drain(|lease| lease.ticket.poll(), |lease| self.unhold(lease.index))?;
        self.moves.drain(|it| it.ticket.poll(), |it| self.finish(&it))?;
        Ok(())
    }

    /// Room for `size` bytes in a tier. Where there is none, the coldest objects begin to leave.
    pub(super) fn room(&self, tier: usize, size: usize) -> Result<TierBlock, AttemptError> {
        let (memory, name) = (self.memory(tier)?, Tier::from_index(tier));
        if size > memory.limit {
            return Err(TierError::TooLarge { tier: name, size, max: memory.limit }.into());
        }
        let take = || memory.take(size).map_err(|error| TierError::of_slab(error, name, size));
        if let Some(block) = take()? {
            return Ok(block);
        }
        self.settle()?;
        if let Some(block) = take()? {
            return Ok(block);
        }
        let lack = memory.lack(size);
        let stopped = if lack > 0 { self.demote(tier, lack).err() } else { None };
        // Some leave without a copy.
        match (take()?, stopped) {
            (Some(block), _) => Ok(block),
            (None, Some(error)) => Err(error),
            (None, None) => Err(AttemptError::Blocked(Blocked::Copying)),
        }
    }

    /// Gives back a block that is not in use; one in the file is kept with the object.
    pub(super) fn give_block(&self, tier: usize, block: TierBlock) {
        if let (Some(memory), true) = (&self.tiers[tier], tier != FILE) {
            memory.give(block);
        }
    }

    /// How many of `len` bytes of an object, from an address in one of its blocks on, one copy may
    /// take.
    pub(super) fn piece_len(&self, index: usize, tier: usize, address: u64, len: usize) -> usize {
        let record = &self.records[index];
        match &self.tiers[tier] {
            _ if tier == FILE && record.is_fixed() => record.file_piece_len(address, len),
            Some(memory) => memory.piece_len(address, len),
            None => len,
        }
    }

    /// Frees an object if that is the caller's to do.
    pub(super) fn free_if(&self, outcome: Outcome, index: usize) {
        if outcome != Outcome::Free {
            return;
        }
        let record = &self.records[index];
        let state = record.word.load();
        self.give_block(state.tier(), record.block(state.place()));
        if let (Some(home), Some(memory), false) =
            (record.home(), &self.tiers[FILE], record.is_fixed())
        {
            memory.give(home);
        }
        record.clear();
        record.word.vacate();
        self.give_record(index);
    }

    /// Repeats an attempt until it succeeds or fails for good, for at most `limit`; once, if that
    /// is zero.
    pub(super) fn until<T>(
        &self,
        limit: Duration,
        mut attempt: impl FnMut() -> Result<T, AttemptError>,
    ) -> Result<T, TierError> {
        let mut last = match attempt() {
            Ok(done) => return Ok(done),
            Err(AttemptError::Failed(error)) => return Err(error),
            Err(error) if limit.is_zero() => return Err(error.at_once()),
            Err(error) => error,
        };
        let (start, mut end) = (Instant::now(), None);
        let waited = self.sentinel.wait(limit, || {
            match attempt() {
                Err(AttemptError::Blocked(blocked)) => last = AttemptError::Blocked(blocked),
                Err(AttemptError::Failed(error)) => end = Some(Err(error)),
                Ok(done) => end = Some(Ok(done)),
            }
            Ok(end.is_some())
        });
        match (end, waited, last) {
            (Some(end), ..) => end,
            (None, Err(GaveUp::Driver(error)), _) => Err(error.into()),
            (None, _, AttemptError::Blocked(blocked)) => {
                Err(TierError::Busy { blocked, age: start.elapsed() })
            }
            (None, _, AttemptError::Failed(error)) => Err(error),
        }
    }

    fn take_record(&self) -> Result<usize, TierError> {
        let taken = self.free.get(0).take(0, 1).and_then(Bits::highest);
        let index = taken.ok_or(TierError::TooManyObjects { max: self.records.len() })?;
        self.used.fetch_max(index + 1, Relaxed);
        Ok(index)
    }

    fn give_record(&self, index: usize) {
        // No other thread has it.
        let given = self.free.get(0).give(Bits::one(index));
        debug_assert!(given.is_ok(), "{given:?}");
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // What the device still uses keeps its block, so the slabs leak their memory.
        let done = self.until(self.wait, || {
            self.settle()?;
            let waiting = self.leases.len() + self.moves.len();
            if waiting == 0 { Ok(()) } else { Err(AttemptError::Blocked(Blocked::Copying)) }
        });
        if let Err(TierError::Driver(error)) = done {
            let context = self.stream.context();
            context.release().note(context.driver(), Err(error));
        }
    }
}
