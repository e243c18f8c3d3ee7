//! What the handles of a pool share.

use std::time::{Duration, Instant};

use super::Tier;
use super::error::{Obstacle, TierError};
use super::file::MappedFile;
use super::moves::Move;
use super::pace::Pace;
use super::record::Record;
use super::shelf::{Place, Shelf};
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
    pub(super) records: Box<[Record]>,
    pub(super) free: Bitmaps,
    /// Records that are or were in use are below this.
    pub(super) used: AtomicUsize,
    pub(super) shelves: [Option<Shelf>; FILE + 1],
    pub(super) moves: Slots<Move>,
    pub(super) leases: Slots<Lease>,
    /// The stream of all copies.
    pub(super) stream: Stream,
    pub(super) sentinel: Sentinel,
    pub(super) pace: Pace,
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
pub(super) enum Stop {
    /// A later one may.
    Wait(Obstacle),
    /// No later one will.
    Fail(TierError),
}

impl<E: Into<TierError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fail(error.into())
    }
}

impl Stop {
    /// What a transition's refusal means for a caller who holds a handle to the object.
    pub(super) fn of(refusal: Refusal) -> Self {
        Self::Wait(match refusal {
            Refusal::Moving | Refusal::Elsewhere => Obstacle::Copying,
            _ => Obstacle::Held,
        })
    }

    /// The error of a call that does not wait.
    pub(super) fn at_once(self) -> TierError {
        match self {
            Self::Wait(obstacle) => TierError::Busy { obstacle, age: Duration::ZERO },
            Self::Fail(error) => error,
        }
    }
}

impl Core {
    pub(super) fn shelf(&self, tier: usize) -> Result<&Shelf, TierError> {
        self.shelves[tier].as_ref().ok_or(TierError::Absent(Tier::from_index(tier)))
    }

    /// Makes an object of `size` bytes in `tier`, of whatever bytes are there; waits for room.
    pub(super) fn alloc(&self, size: usize, tier: usize) -> Result<usize, TierError> {
        self.shelf(tier)?;
        let index = self.take_record()?;
        match self.until(self.wait, || self.room(tier, size)) {
            Ok(place) => {
                let home = (tier == FILE).then_some(place);
                self.records[index].set_up(size, place, home, None);
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
    pub(super) fn adopt(&self, file: &MappedFile, place: Place, size: usize) -> Result<usize, TierError> {
        let index = self.take_record()?;
        self.records[index].set_up(size, place, Some(place), Some(file.clone()));
        self.records[index].word.occupy(FILE, true);
        Ok(index)
    }

    /// Holds an object in `tier`, or where it is, and moves it there if it is elsewhere. The slot for
    /// the end of the hold.
    pub(super) fn hold(
        &self,
        index: usize,
        tier: Option<usize>,
        write: bool,
    ) -> Result<(usize, TierState), Stop> {
        let Some(lease) = self.leases.reserve() else {
            self.settle()?;
            return Err(Stop::Wait(Obstacle::Pins));
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
        Err(Stop::of(refusal))
    }

    /// Ends a hold that the device has come past, or never knew of.
    pub(super) fn unhold(&self, index: usize) {
        let outcome = self.records[index].word.unpin();
        self.free_if(outcome, index);
    }

    /// Takes note of what the device is past: copies and holds. Does not wait.
    pub(super) fn settle(&self) -> Result<(), Error> {
        self.leases.drain(|lease| lease.ticket.poll(), |lease| self.unhold(lease.index))?;
        self.moves.drain(|it| it.ticket.poll(), |it| self.finish(&it))?;
        Ok(())
    }

    /// Room for `size` bytes in a tier. Where there is none, the coldest objects begin to leave.
    pub(super) fn room(&self, tier: usize, size: usize) -> Result<Place, Stop> {
        let (shelf, name) = (self.shelf(tier)?, Tier::from_index(tier));
        if size > shelf.limit {
            return Err(TierError::TooLarge { tier: name, size, max: shelf.limit }.into());
        }
        let take = || shelf.take(size).map_err(|error| TierError::of_slab(error, name, size));
        if let Some(place) = take()? {
            return Ok(place);
        }
        self.settle()?;
        if let Some(place) = take()? {
            return Ok(place);
        }
        let lack = shelf.lack(size);
        let stopped = if lack > 0 { self.demote(tier, lack).err() } else { None };
        // Some leave without a copy.
        match (take()?, stopped) {
            (Some(place), _) => Ok(place),
            (None, Some(stop)) => Err(stop),
            (None, None) => Err(Stop::Wait(Obstacle::Copying)),
        }
    }

    /// Gives back a place that nobody uses; one in the file is kept with the object.
    pub(super) fn give_place(&self, tier: usize, place: Place) {
        if let (Some(shelf), true) = (&self.shelves[tier], tier != FILE) {
            shelf.give(place.address);
        }
    }

    /// Frees an object if that is the caller's to do.
    pub(super) fn free_if(&self, outcome: Outcome, index: usize) {
        if outcome != Outcome::Free {
            return;
        }
        let record = &self.records[index];
        let state = record.word.load();
        self.give_place(state.tier(), record.place(state.place()));
        if let (Some(home), Some(shelf), false) = (record.home(), &self.shelves[FILE], record.is_fixed()) {
            shelf.give(home.address);
        }
        record.clear();
        record.word.vacate();
        self.give_record(index);
    }

    /// Repeats an attempt until it succeeds or fails for good, for at most `limit`.
    pub(super) fn until<T>(
        &self,
        limit: Duration,
        mut attempt: impl FnMut() -> Result<T, Stop>,
    ) -> Result<T, TierError> {
        let mut last = match attempt() {
            Ok(done) => return Ok(done),
            Err(Stop::Fail(error)) => return Err(error),
            Err(stop) => stop,
        };
        let (start, mut end) = (Instant::now(), None);
        let waited = self.sentinel.wait(limit, || {
            match attempt() {
                Err(Stop::Wait(obstacle)) => last = Stop::Wait(obstacle),
                Err(Stop::Fail(error)) => end = Some(Err(error)),
                Ok(done) => end = Some(Ok(done)),
            }
            Ok(end.is_some())
        });
        match (end, waited, last) {
            (Some(end), ..) => end,
            (None, Err(GaveUp::Driver(error)), _) => Err(error.into()),
            (None, _, Stop::Wait(obstacle)) => Err(TierError::Busy { obstacle, age: start.elapsed() }),
            (None, _, Stop::Fail(error)) => Err(error),
        }
    }

    fn take_record(&self) -> Result<usize, TierError> {
        let taken = self.free.get(0).take(0, 1).and_then(Bits::highest);
        let index = taken.ok_or(TierError::TooManyObjects { max: self.records.len() })?;
        self.used.fetch_max(index + 1, Relaxed);
        Ok(index)
    }

    fn give_record(&self, index: usize) {
        // Nobody else has it.
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
            if waiting == 0 { Ok(()) } else { Err(Stop::Wait(Obstacle::Copying)) }
        });
        if let Err(TierError::Driver(error)) = done {
            let context = self.stream.context();
            context.release().note(context.driver(), Err(error));
        }
    }
}
