//! Moves: a copy from one tier to another, from its beginning to its end.
//!
//! ```text
//!   begin: the word   room in the other tier   a slot, the rate   the copy   ...   end: the word
//!   `-- whatever fails before the copy undoes what came before it --'
//! ```

#![expect(unsafe_code, reason = "copies between blocks that it owns")]

use super::core::{AttemptError, Core};
use super::error::Blocked;
use super::memory::TierBlock;
use super::planned::{Move, Planned};
use super::record::ObjectRecord;
use crate::lockfree::tier_state::{FILE, Outcome, TierState};
use crate::profile::range;
use crate::stream::{Transfer, parts};
use crate::sync::atomic::Ordering::Relaxed;

impl Core {
    /// Begins to move an object that a user wants in another tier.
    pub(super) fn start(&self, index: usize, to: usize) -> Result<(), AttemptError> {
        match self.plan(index, to)? {
            Some(planned) => self.submit(vec![planned]),
            None => Ok(()),
        }
    }

    /// Begins a move, and gets it all it needs but the copy. `None` if none is needed: the object
    /// has moved.
    pub(super) fn plan(&self, index: usize, to: usize) -> Result<Option<Planned>, AttemptError> {
        let record = &self.records[index];
        let before = record.word.begin(to).map_err(AttemptError::of)?;
        let source = record.block(before.place());
        if let (FILE, true, Some(home)) = (to, before.is_clean(), record.home()) {
            record.set_block(1 - before.place(), home);
            self.land(index, before, home, source, true);
            self.counters.clean.fetch_add(1, Relaxed);
            return Ok(None);
        }
        match self.equip(record, to) {
            Ok((target, slot)) => {
                let (from, size) = (before.tier(), record.size());
                Ok(Some(Planned { index, slot, from, to, source, target, size }))
            }
            Err(error) => {
                self.free_if(record.word.end(false), index);
                Err(error)
            }
        }
    }

    /// Room, a slot and the time for a copy.
    fn equip(&self, record: &ObjectRecord, to: usize) -> Result<(TierBlock, usize), AttemptError> {
        let target = match record.home().filter(|_| to == FILE) {
            Some(_) if record.is_fixed() => return Err(AttemptError::Blocked(Blocked::Held)),
            Some(home) => home,
            None => self.room(to, record.size())?,
        };
        if to == FILE {
            record.set_home(target);
        }
        let slot = self.moves.reserve();
        let blocked = match slot {
            None => Blocked::InFlight,
            Some(slot) if self.rate.admit(record.size()) => return Ok((target, slot)),
            Some(slot) => {
                self.moves.release(slot);
                Blocked::RateLimit
            }
        };
        self.give_block(to, target);
        Err(AttemptError::Blocked(blocked))
    }

    /// Submits the copies of moves. After an error none of them lands.
    pub(super) fn submit(&self, batch: Vec<Planned>) -> Result<(), AttemptError> {
        let _range = range!("tier::copy", batch.iter().map(|it| it.size).sum());
        let copies: Vec<_> = batch.iter().flat_map(|it| self.copies(it)).collect();
        let moves = batch.len() as u64;
        // SAFETY: source and target are blocks of the objects' sizes. A source is given back, and a
        // target used otherwise, only after the ticket below; a writer of a source waits, under its
        // pin, for the move's end, which comes after that ticket too.
        let submitted = unsafe { self.stream.copy_batch(&copies) };
        // Made with the pool, so this is no driver call, and does not fail.
        let ticket = self.stream.ticket()?;
        // Its end is waited for, and not that of copies that are submitted later. An error comes
        // again with the question.
        let _marked = self.stream.mark();
        for planned in batch {
            self.count_leaving(&planned, true);
            let slot = planned.slot;
            let copied = submitted.is_ok();
            self.moves.fill(slot, Move { planned, copied, ticket: ticket.clone() });
        }
        if submitted.is_err() {
            self.counters.failed.fetch_add(moves, Relaxed);
        }
        Ok(submitted?)
    }

    /// The copies of a move: one for each piece of memory.
    fn copies(&self, it: &Planned) -> impl Iterator<Item = Transfer> {
        let &Planned { index, from, to, source, target, size, .. } = it;
        let reach = move |at: usize, left| {
            let in_source = self.piece_len(index, from, source.address + at as u64, left);
            in_source.min(self.piece_len(index, to, target.address + at as u64, left))
        };
        parts(size, reach).map(move |part| Transfer {
            destination: target.address + part.start as u64,
            source: source.address + part.start as u64,
            size: part.len(),
        })
    }

    /// Ends a move whose copy is complete.
    pub(super) fn finish(&self, it: &Move) {
        let Planned { index, from, to, source, target, size, .. } = it.planned;
        self.count_leaving(&it.planned, false);
        let record = &self.records[index];
        let before = record.word.load();
        record.set_block(1 - before.place(), target);
        record.near.store(from > to, Relaxed);
        if it.copied {
            self.prefetch(to, target, size, from > to);
        }
        if self.land(index, before, target, source, it.copied) {
            self.counters.moved[to].fetch_add(size as u64, Relaxed);
        }
    }

    /// Ends a move of the caller's. Returns whether it landed. One of the two blocks is free then.
    fn land(
        &self,
        index: usize,
        before: TierState,
        target: TierBlock,
        source: TierBlock,
        copied: bool,
    ) -> bool {
        let record = &self.records[index];
        // While the move is the caller's: afterwards the object may go on.
        let (from, to) = (before.tier(), record.word.load().to());
        let outcome = record.word.end(copied);
        if outcome == Outcome::Landed {
            self.give_block(from, source);
            return true;
        }
        self.counters.in_vain.fetch_add(u64::from(copied), Relaxed);
        self.give_block(to, target);
        self.free_if(outcome, index);
        false
    }

    /// Asks the driver to bring managed memory to the device, or to the host. It need not.
    pub(super) fn prefetch(&self, tier: usize, block: TierBlock, size: usize, to_device: bool) {
        let Some(memory) = &self.tiers[tier] else { return };
        if memory.prefetch(block, size, to_device, &self.stream).is_err() {
            self.counters.refused_hints.fetch_add(1, Relaxed);
        }
    }

    /// Counts an object in or out of those that leave a tier.
    fn count_leaving(&self, it: &Planned, begins: bool) {
        let Some(memory) = &self.tiers[it.from] else { return };
        if begins {
            memory.leaving.fetch_add(it.size, Relaxed);
        } else {
            memory.leaving.fetch_sub(it.size, Relaxed);
        }
    }
}
