//! Waiting for ring slots.

use std::time::Duration;

use super::completion::Completion;
use super::error::StageError;
use super::guard::Ends;
use super::in_place::{InPlace, Reading};
use super::launches::Launch;
use super::shared::Shared;
use super::stall::{Stall, StallCause};
use super::state::SlotClaim;
use super::transfer::Transfer;
use crate::graph::Direction;
use crate::profile::range;
use crate::timeline::GaveUp;

impl Transfer {
    /// Takes a ring slot; waits for one until the deadline.
    #[inline]
    pub(super) fn claim(&self) -> Result<SlotClaim<'_>, StageError> {
        // Where a word alone says it, there is no error to be carried about.
        let is_done = |launch: &Launch| self.in_place.is_empty() && launch.is_done();
        match self.ring.claim_open(is_done) {
            Some(claim) => Ok(claim),
            None => self.wait_for_claim(),
        }
    }

    #[cold]
    fn wait_for_claim(&self) -> Result<SlotClaim<'_>, StageError> {
        let _range = range!("staging::wait");
        let mut claim = None;
        let waited = self.sentinel.wait(self.options.deadline, || {
            claim = self.try_claim()?;
            Ok(claim.is_some())
        });
        match (waited, claim) {
            (Ok(()), Some(claim)) => Ok(claim),
            (Err(GaveUp::Driver(error)), _) => Err(StageError::Driver(error)),
            (Err(GaveUp::Deadline { probes, .. }), _) => {
                Err(StageError::Stalled(self.stall(probes)))
            }
            (Ok(()), None) => Err(StageError::WouldBlock),
        }
    }

    /// The report of a wait that timed out: about the slot that is longest in flight.
    pub(super) fn stall(&self, probes: u32) -> Stall {
        let is_waited_for = |index: &usize| !self.is_done(*index).unwrap_or(false);
        let waited_for = self.ring.in_flight().filter(is_waited_for);
        let since = |index: &usize| self.ring.open(*index).since();
        let Some(ring_slot) = waited_for.min_by_key(since) else {
            let cause = match self.plan.direction {
                Direction::Dtoh => StallCause::Held,
                _ => StallCause::Filling,
            };
            return Stall { ring_slot: 0, stream: 0, age: Duration::ZERO, probes, cause };
        };
        let (stream, age) = (self.stream_of(ring_slot), self.ticks.age(since(&ring_slot)));
        Stall { ring_slot, stream, age, probes, cause: self.cause(ring_slot) }
    }

    /// The driver's handle of the stream of a ring slot's last launch, as a number.
    pub(super) fn stream_of(&self, ring_slot: usize) -> usize {
        self.ring.open(ring_slot).stream()
    }

    /// Why a ring slot in flight is not free.
    fn cause(&self, index: usize) -> StallCause {
        if !self.host.is_done(index).unwrap_or(false) {
            return match self.options.completion {
                Completion::Neither => StallCause::NotSaid,
                _ => StallCause::Copy,
            };
        }
        match self.in_place(index).map(InPlace::reading) {
            Some(Ok(Reading::Open)) => StallCause::ReaderOpen,
            Some(Ok(Reading::Undeclared)) => StallCause::ReaderUndeclared,
            _ => StallCause::Read,
        }
    }
}

impl Shared {
    /// Waits until no ring slot is in flight, or the deadline. If no read of the last step's
    /// zero-copy slots was declared, its streams' work up to now is taken for the readers.
    pub(super) fn wait_for_all(&self) -> Result<(), StageError> {
        self.check_fork()?;
        // No later step will end these reads, so their ends are looked for now.
        let mut undeclared = self.ends_of_last()?;
        let waited = self.sentinel.wait(self.options.deadline, || {
            while let Some((_, ends)) = &mut undeclared
                && let Some(end) = ends.last()
            {
                if !end.query()? {
                    return Ok(false);
                }
                ends.pop();
            }
            for index in self.ring.in_flight() {
                let is_undeclared = undeclared.as_ref().is_some_and(|(last, _)| *last == index);
                if !(if is_undeclared { self.host.is_done(index)? } else { self.is_done(index)? }) {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        waited.map_err(|gave_up| match gave_up {
            GaveUp::Driver(error) => StageError::Driver(error),
            GaveUp::Deadline { probes, .. } => StageError::Stalled(self.stall(probes)),
        })
    }

    /// The ring slot of the last step and the ends of its undeclared reads, if it has zero-copy
    /// slots of which no read was declared.
    fn ends_of_last(&self) -> Result<Option<(usize, Ends)>, StageError> {
        for (index, read) in self.in_place.iter().enumerate() {
            if self.ring.in_flight().any(|at| at == index) && read.reading()? == Reading::Undeclared
            {
                return Ok(Some((index, self.guard.ends_of_last(read)?)));
            }
        }
        Ok(None)
    }
}
