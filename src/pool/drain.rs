//! Retired blocks on their way to other streams and back to the slabs.
//!
//! A thread that takes a list apart has the turn, so that no other thread finds a list empty and
//! gives up while its blocks are being moved. Only an allocation at the limit waits for the turn.

use std::time::Duration;

use super::core::{Core, Request};
use super::record::{BufferRecord, LARGE_LIST, Use};
use crate::lockfree::index_stack::IndexStack;
use crate::lockfree::turn::Turn;
use crate::profile::range;
use crate::slab::Block;
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::{Timeline, WaitError};

/// Reclaim complete blocks a drain gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// Those that an earlier pass has seen in the same life.
    Aged,
    All,
}

/// What a drain gave back, and what it left.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    /// Blocks that went back to the slabs.
    pub(super) blocks: usize,
    /// Bytes of blocks in lists, which no handle holds and the device may still use.
    pub(super) in_lists: usize,
    /// The oldest use of those, of the first stream that has one.
    oldest: Option<Use>,
}

impl Drained {
    /// Counts a record that is left.
    fn note(&mut self, record: &BufferRecord) {
        self.in_lists += record.size();
        let uses = record.uses().chain(self.oldest);
        self.oldest = uses.min_by_key(|of| (of.slot, of.ticket));
    }
}

impl Core {
    /// The turn to take lists apart, if no thread has it.
    pub(super) fn turn(&self) -> Option<Turn<'_>> {
        self.draining.take()
    }

    /// Gives retired blocks that the device is done with back to the slabs, and puts markers behind
    /// the others; large ones go to the map first. Returns what is left. `own` is the timeline of
    /// the caller's stream.
    pub(super) fn drain(
        &self,
        _turn: &Turn<'_>,
        which: Reclaim,
        own: Option<&Timeline>,
    ) -> Drained {
        let _range = range!("pool::drain");
        self.fold_all();
        self.poll_all(own);
        let pass = self.passes.fetch_add(1, Relaxed) + 1;
        let small = self.slots.all().flat_map(|(_, slot)| slot.lists[..LARGE_LIST].iter());
        let mut drained = Drained::default();
        for list in small.chain([&self.mixed]) {
            self.sort(list, |index, record| {
                let is_idle = self.is_idle(record) || self.request_completion(record, own);
                let seen = record.seen.load(Relaxed);
                let is_young = which == Reclaim::Aged && (seen == 0 || seen == pass);
                if is_idle && !is_young {
                    self.give_back(index, record);
                    drained.blocks += 1;
                    return true;
                }
                if is_idle {
                    record.seen.store(pass, Relaxed);
                }
                drained.note(record);
                false
            });
        }
        self.counters.drain(drained.blocks);
        drained
    }

    /// Brings blocks of the request's size that other streams have used, and the device is past, to
    /// the request's stream; one of them is the caller's.
    ///
    /// Puts a marker behind what the request's stream has passed on to others, and with `urgent`
    /// behind everything.
    pub(super) fn gather(
        &self,
        _turn: &Turn<'_>,
        request: &Request<'_>,
        urgent: bool,
    ) -> Option<u32> {
        // A large block is free for all when the map is told.
        request.class?;
        let own = &request.seat.slot.lists[request.list()];
        let others = self.slots.all().filter(|(number, _)| *number != request.slot());
        for list in others.map(|(_, slot)| &slot.lists[request.list()]).chain([&self.mixed]) {
            let mut requested = false;
            self.sort(list, |index, record| {
                if record.list() != request.list() {
                    return false;
                }
                let mut idle = self.is_idle(record);
                // One marker serves all that are in the list.
                if !idle && !requested && (urgent || record.home() == request.slot()) {
                    requested = true;
                    idle = self.request_completion(record, Some(request.timeline));
                }
                if idle {
                    record.set_use(None);
                    own.push(index, |index| self.records.link(index));
                }
                idle
            });
        }
        own.pop(|index| self.records.link(index))
    }

    /// Takes the first record of a list for which `is_wanted` holds.
    pub(super) fn take_first(
        &self,
        _turn: &Turn<'_>,
        list: &IndexStack,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut found = None;
        self.sort(list, |index, _| {
            let take = found.is_none() && is_wanted(index);
            if take {
                found = Some(index);
            }
            take
        });
        found
    }

    /// Shows `take` every record of a list, see [`IndexStack::sort`].
    pub(super) fn sort(&self, list: &IndexStack, mut take: impl FnMut(u32, &BufferRecord) -> bool) {
        list.sort(|index| self.records.link(index), |index| take(index, self.records.get(index)));
    }

    /// Ensures that the uses of a record will complete. Returns whether they have by now.
    fn request_completion(&self, record: &BufferRecord, own: Option<&Timeline>) -> bool {
        for of in record.uses() {
            let Some((timeline, ticket)) = self.slots.pending(of) else { continue };
            let is_own = own.is_some_and(|own| own.id() == timeline.id());
            if let Err(error) = timeline.advance(ticket, is_own) {
                self.note_error(error);
                return false;
            }
        }
        self.is_idle(record)
    }

    /// Gives the block of an idle record of the caller's back to the slabs.
    pub(super) fn give_back(&self, index: u32, record: &BufferRecord) {
        self.empty(index, record, |block| self.upstream.dealloc(block));
    }

    /// Takes the block out of a record of the caller's, which has none then.
    pub(super) fn empty(&self, index: u32, record: &BufferRecord, take: impl FnOnce(Block)) {
        record.set_use(None);
        // Not the last reference: who gives a block back has one.
        drop(record.unpark());
        record.state.reclaim();
        self.peaks.give(record.list(), record.size());
        if let Some(block) = record.take_block() {
            take(block);
        }
        self.spare.push(index, |index| self.records.link(index));
        self.limit.remove();
    }

    /// Bytes of blocks without a handle. Takes time proportional to the number of blocks.
    pub(super) fn retired(&self) -> usize {
        let retired = self.records.all().filter(|(_, record)| record.state.load().handles() == 0);
        retired.map(|(_, record)| record.size()).sum::<usize>() + self.upstream.retired()
    }

    /// Waits, for at most `limit`, for the oldest use of what is retired, of the first stream that
    /// has something. Returns whether there is one.
    pub(super) fn wait_for_one(&self, left: &Drained, limit: Duration) -> Result<bool, WaitError> {
        let in_map = self.retirers().map(|of| Use { slot: of.owner as usize, ticket: of.ticket });
        let uses = in_map.chain(left.oldest).filter(|of| !self.slots.is_complete(*of));
        let Some(of) = uses.min_by_key(|of| (of.slot, of.ticket)) else { return Ok(false) };
        if let Some((timeline, ticket)) = self.slots.pending(of) {
            timeline.wait(ticket, limit)?;
        }
        Ok(true)
    }

    /// Gives back what the device is done with, if no other thread does, and has markers put behind
    /// the rest.
    pub(super) fn drain_all(&self) {
        if let Some(turn) = self.turn() {
            self.drain(&turn, Reclaim::All, None);
        }
    }
}
