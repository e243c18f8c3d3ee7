//! Moves: a copy from one tier to another, from its beginning to its end.
//!
//! ```text
//!   begin: the word   room in the other tier   a slot, the pace   the copy   ...   end: the word
//!   `-- whatever fails before the copy undoes what came before it --'
//! ```

#![expect(unsafe_code, reason = "copies between blocks that it owns")]

use super::core::{Core, Stop};
use super::error::Obstacle;
use super::record::Record;
use super::shelf::Place;
use crate::lockfree::tier_state::{FILE, Outcome, TierState};
use crate::profile::range;
use crate::stream::Transfer;
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::Ticket;

/// A move whose copy is ready to be submitted. Its owner submits or abandons it.
#[derive(Debug)]
pub(super) struct Planned {
    index: usize,
    slot: usize,
    from: usize,
    to: usize,
    source: Place,
    target: Place,
    size: usize,
}

/// A move whose copy is in the stream.
#[derive(Debug)]
pub(super) struct Move {
    planned: Planned,
    /// Whether the driver took the copy.
    copied: bool,
    pub(super) ticket: Ticket,
}

impl Core {
    /// Begins to move an object that a user wants in another tier.
    pub(super) fn start(&self, index: usize, to: usize) -> Result<(), Stop> {
        match self.plan(index, to)? {
            Some(planned) => self.submit(vec![planned]),
            None => Ok(()),
        }
    }

    /// Begins a move, and gets it all it needs but the copy. `None` if none is needed: the object has
    /// moved.
    pub(super) fn plan(&self, index: usize, to: usize) -> Result<Option<Planned>, Stop> {
        let record = &self.records[index];
        let before = record.word.begin(to).map_err(Stop::of)?;
        let source = record.place(before.place());
        if let (FILE, true, Some(home)) = (to, before.is_clean(), record.home()) {
            record.set_place(1 - before.place(), home);
            self.land(index, before, home, source, true);
            self.counters.clean.fetch_add(1, Relaxed);
            return Ok(None);
        }
        match self.equip(record, to) {
            Ok((target, slot)) => {
                let (from, size) = (before.tier(), record.size());
                Ok(Some(Planned { index, slot, from, to, source, target, size }))
            }
            Err(stop) => {
                self.free_if(record.word.end(false), index);
                Err(stop)
            }
        }
    }

    /// Room, a slot and the time for a copy.
    fn equip(&self, record: &Record, to: usize) -> Result<(Place, usize), Stop> {
        let target = match record.home().filter(|_| to == FILE) {
            Some(_) if record.is_fixed() => return Err(Stop::Wait(Obstacle::Held)),
            Some(home) => home,
            None => self.room(to, record.size())?,
        };
        if to == FILE {
            record.set_home(target);
        }
        let slot = self.moves.reserve();
        let stop = match slot {
            None => Obstacle::InFlight,
            Some(slot) if self.pace.admit(record.size()) => return Ok((target, slot)),
            Some(slot) => {
                self.moves.release(slot);
                Obstacle::Pace
            }
        };
        self.give_place(to, target);
        Err(Stop::Wait(stop))
    }

    /// Submits the copies of moves. After an error none of them lands.
    pub(super) fn submit(&self, batch: Vec<Planned>) -> Result<(), Stop> {
        let _range = range!("wharf::tier::copy", batch.iter().map(|it| it.size).sum());
        let copy = |it: &Planned| Transfer {
            destination: it.target.address,
            source: it.source.address,
            size: it.size,
        };
        let copies: Vec<_> = batch.iter().map(copy).collect();
        // SAFETY: source and target are blocks of the objects' sizes. A source is given back, and a
        // target used otherwise, only after the ticket below; a write to a source in between spoils
        // the move, and so its copy is never read.
        let submitted = unsafe { self.stream.copy_batch(&copies) };
        // Made with the pool, so this is no driver call, and does not fail.
        let ticket = self.stream.ticket()?;
        for planned in batch {
            self.count_leaving(&planned, true);
            let slot = planned.slot;
            let copied = submitted.is_ok();
            self.moves.fill(slot, Move { planned, copied, ticket: ticket.clone() });
        }
        if submitted.is_err() {
            self.counters.failed.fetch_add(copies.len() as u64, Relaxed);
        }
        Ok(submitted?)
    }

    /// Ends a move whose copy is complete.
    pub(super) fn finish(&self, it: &Move) {
        let Planned { index, from, to, source, target, size, .. } = it.planned;
        self.count_leaving(&it.planned, false);
        let record = &self.records[index];
        let before = record.word.load();
        record.set_place(1 - before.place(), target);
        record.near.store(from > to, Relaxed);
        if it.copied {
            self.attract(to, target, size, from > to);
        }
        if self.land(index, before, target, source, it.copied) {
            self.counters.moved[to].fetch_add(size as u64, Relaxed);
        }
    }

    /// Ends a move of the caller's; whether it landed. One of the two places is free then.
    fn land(&self, index: usize, before: TierState, target: Place, source: Place, copied: bool) -> bool {
        let record = &self.records[index];
        // While the move is the caller's: afterwards the object may go on.
        let (from, to) = (before.tier(), record.word.load().to());
        let outcome = record.word.end(copied);
        if outcome == Outcome::Landed {
            self.give_place(from, source);
            return true;
        }
        self.counters.in_vain.fetch_add(u64::from(copied), Relaxed);
        self.give_place(to, target);
        self.free_if(outcome, index);
        false
    }

    /// Asks the driver to bring managed memory to the device, or to the host. It need not.
    pub(super) fn attract(&self, tier: usize, place: Place, size: usize, to_device: bool) {
        let Some(shelf) = &self.shelves[tier] else { return };
        if shelf.attract(place, size, to_device, &self.stream).is_err() {
            self.counters.refused_hints.fetch_add(1, Relaxed);
        }
    }

    /// Counts an object in or out of those that leave a tier.
    fn count_leaving(&self, it: &Planned, begins: bool) {
        let Some(shelf) = &self.shelves[it.from] else { return };
        if begins {
            shelf.leaving.fetch_add(it.size, Relaxed);
        } else {
            shelf.leaving.fetch_sub(it.size, Relaxed);
        }
    }
}
