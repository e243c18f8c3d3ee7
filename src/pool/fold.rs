//! Large blocks that were dropped, on their way into the map of the slabs.
//!
//! A large block that a stream has dropped stays in a list of that stream for the next request of
//! exactly its size, without a lock. When a request finds no such block, what its stream has
//! dropped goes to the map, as memory that is free for that stream: it serves requests of any size,
//! in parts and joined with what is free. Before the pool grows, so does what the other streams
//! have dropped.
//!
//! ```text
//!   drop ──> list of the stream ──exact size──> the stream's next buffer
//!                  |
//!                  v fold, a ticket with it
//!            map: retired by the stream ──any size──> the stream's next buffer
//!                  |                    ──take over── another stream, which waits on the device
//!                  v poll, when complete
//!            map: free for all
//! ```

use super::core::{Core, Request};
use super::drain::Drained;
use super::record::{BufferRecord, LARGE_LIST, Use};
use crate::error::Error;
use crate::lockfree::index_stack::IndexStack;
use crate::slab::{AllocError, Retirement};
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::Timeline;

impl Core {
    /// Takes a block of exactly the request's size that its stream has dropped, and begins its
    /// life.
    pub(super) fn pop_kept(&self, request: &Request<'_>) -> Option<(u32, &BufferRecord)> {
        let kept = &request.seat.slot.lists[request.list()];
        let (index, record) = self.pop(kept)?;
        if request.class.is_none() && record.size() != request.size {
            kept.push(index, |_| &record.next);
            return None;
        }
        self.begin_behind(record, request.seat.number, request.asked);
        Some((index, record))
    }

    /// Takes the record on top of a list.
    #[inline]
    pub(super) fn pop(&self, kept: &IndexStack) -> Option<(u32, &BufferRecord)> {
        // It is there: the push comes after the making of the record.
        kept.pop_found(|index| self.records.found(index).map(|record| (&record.next, record)))
    }

    /// Moves the large blocks that a stream has dropped into the map.
    pub(super) fn fold(&self, slot: usize) {
        let mut bytes = 0;
        for list in &self.slots.get(slot).lists[LARGE_LIST..] {
            while let Some(index) = list.pop(|index| self.records.link(index)) {
                bytes += self.fold_one(index, self.records.get(index));
            }
        }
        self.slots.get(slot).unmarked.fetch_add(bytes as u64, Relaxed);
    }

    /// Moves the large blocks that any stream has dropped into the map.
    pub(super) fn fold_all(&self) {
        self.slots.all().for_each(|(slot, _)| self.fold(slot));
    }

    /// Moves a block of the caller's, which at most one stream has used, into the map. Returns its
    /// size, if the stream may still use it.
    fn fold_one(&self, index: u32, record: &BufferRecord) -> usize {
        let (size, last) = (record.size(), record.uses().max_by_key(|of| of.ticket));
        let pending = last.filter(|of| !self.slots.is_complete(*of));
        let Some(Use { slot, ticket }) = pending else {
            self.give_back(index, record);
            return 0;
        };
        let owner = u32::try_from(slot).unwrap_or(u32::MAX);
        let by = Retirement { owner, ticket };
        self.empty(index, record, |block| self.upstream.retire(block, by));
        size
    }

    /// Puts a marker into the caller's stream each time that it has retired a 128th of what is
    /// committed: what is behind it is known to be free for all before the pool has to ask.
    pub(super) fn mark_now_and_then(&self, request: &Request<'_>) -> Result<(), Error> {
        let unmarked = &request.seat.slot.unmarked;
        let bytes = unmarked.load(Relaxed);
        if bytes == 0 || bytes < self.upstream.reserved() as u64 / MARKS {
            return Ok(());
        }
        unmarked.store(0, Relaxed);
        let ticket = request.timeline.issue();
        request.timeline.advance(ticket, true)
    }

    /// Frees what is complete in the map.
    pub(super) fn poll(&self) {
        for first in self.retirers() {
            let slot = first.owner as usize;
            let Some(ticket) = self.slots.completed(slot).filter(|it| *it >= first.ticket) else {
                continue;
            };
            self.upstream.complete(Retirement { ticket, ..first });
        }
    }

    /// As [`poll`](Self::poll), after markers were put behind everything that is retired. `own` is
    /// the timeline of the caller's stream.
    pub(super) fn poll_all(&self, own: Option<&Timeline>) {
        for first in self.retirers() {
            let last = self.upstream.last_retirement(first.owner).unwrap_or(first.ticket);
            let of = Use { slot: first.owner as usize, ticket: last };
            let Some((timeline, ticket)) = self.slots.pending(of) else { continue };
            let is_own = own.is_some_and(|own| own.id() == timeline.id());
            if let Err(error) = timeline.advance(ticket, is_own) {
                self.note_error(error);
            }
        }
        self.poll();
    }

    /// Makes memory that other streams have retired the request's stream's, which waits for them on
    /// the device, one after the other until there is a block.
    pub(super) fn take_over(
        &self,
        request: &Request<'_>,
        left: &mut Drained,
    ) -> Result<Option<u32>, AllocError> {
        for first in self.retirers() {
            if first.owner as usize == request.slot() {
                continue;
            }
            if !self.take_over_from(first, request)? {
                continue;
            }
            if let Some(index) = self.alloc_alone(request)? {
                return Ok(Some(index));
            }
        }
        self.take_over_mixed(request, left)
    }

    /// Takes all that a stream has retired. Returns whether the request's stream waits for it now.
    ///
    /// Before the wait it is taken out of the other stream's hands: what that reuses and retires
    /// again meanwhile may come behind the event.
    fn take_over_from(&self, first: Retirement, request: &Request<'_>) -> Result<bool, Error> {
        let Some(last) = self.upstream.last_retirement(first.owner) else { return Ok(false) };
        let from = Retirement { ticket: last, ..first };
        let held = Retirement { owner: HELD | (self.holds.fetch_add(1, Relaxed) % HELD), ..from };
        self.upstream.hand_over(from, held);
        let of = Use { slot: first.owner as usize, ticket: last };
        let ordered = self.order(of, request.stream);
        let is_ordered = ordered == Ok(true);
        let to = if is_ordered { self.retirement_now(request) } else { from };
        self.upstream.hand_over(held, to);
        ordered.inspect_err(|error| self.note_error(*error))
    }

    /// The streams that have retired memory into the map, each with its first ticket.
    pub(super) fn retirers(&self) -> impl Iterator<Item = Retirement> {
        self.upstream.retirers().into_iter().filter(|first| first.owner < HELD)
    }

    /// The same of blocks that several streams have used.
    fn take_over_mixed(
        &self,
        request: &Request<'_>,
        left: &mut Drained,
    ) -> Result<Option<u32>, AllocError> {
        let Some(_turn) = self.turn() else { return Ok(None) };
        let (mut failed, mut moved) = (None, 0);
        self.sort(&self.mixed, |index, record| {
            if record.list() < LARGE_LIST || failed.is_some() {
                return false;
            }
            let ordered = record
                .uses()
                .map(|of| self.order(of, request.stream))
                .try_fold(true, |all, one| Ok(all && one?));
            match ordered {
                Ok(true) => {
                    let to = self.retirement_now(request);
                    moved += record.size();
                    self.empty(index, record, |block| self.upstream.retire(block, to));
                    true
                }
                Ok(false) => false,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        });
        if let Some(error) = failed {
            self.note_error(error);
            return Err(AllocError::Upstream(error));
        }
        left.in_lists = left.in_lists.saturating_sub(moved);
        if moved == 0 { Ok(None) } else { self.alloc_alone(request) }
    }

    /// The place in the request's stream behind all that is submitted.
    fn retirement_now(&self, request: &Request<'_>) -> Retirement {
        let ticket = request.seat.slot.ticket(request.timeline.issue());
        Retirement { owner: request.seat.number, ticket }
    }
}

/// Owners from here on are no streams, but threads that are taking memory over.
const HELD: u32 = 1 << 31;

/// Markers that a stream gets for as many bytes as the pool has committed.
const MARKS: u64 = 128;
