//! Stream slots: a pool's view of a stream, and what is free for it.
//!
//! A block that only one stream has used is free for that stream at once, since the stream runs in
//! order. It waits in the list of its class in the stream's slot; others may have it when the
//! device is past its last use.
//!
//! ```text
//!   Timeline ──seat──> StreamSlot | timeline | users | lists of class 0 to 31 | of large sizes |
//! ```
//!
//! A slot whose stream is gone, or has no object any more, is given to another as soon as the
//! device is past the stream's last ticket. The tickets of one slot count on from stream to stream,
//! so a use that names a slot is complete for ever when a later stream has the slot, and no record
//! needs to know:
//!
//! ```text
//!   stream A  1 2 3 (closed, complete)         stream B  1 2 3 ...
//!   slot      1 2 3 ........................ base = 3:   4 5 6 ...
//! ```
//!
//! * `id`: written by `claim`, under the write lock; read by `StreamSlots::of`. The `Release` of
//!   `claim` pairs with the `Acquire` of `is_of`: who finds its stream's number finds the `base` of
//!   that stream.
//! * `base`: written by `claim`, before `id`; read by `StreamSlot::ticket`, by a holder of the
//!   stream. Relaxed: see `id`; the slot of a stream that has an object is not claimed.
//! * `unmarked`: written by threads that allocate for the stream; read by the same. Relaxed: an
//!   estimate.
//! * a timeline's seat: written by `StreamSlots::of`; read by `StreamSlots::seat`. Relaxed: a hint,
//!   checked by `id`.

use super::chunks::Chunks;
use super::record::{LISTS, Use};
use crate::lockfree::index_stack::IndexStack;
use crate::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::{Mutex, RwLock, RwLockReadGuard};
use crate::timeline::Timeline;

/// A stream as a pool knows it.
#[derive(Debug)]
pub(crate) struct StreamSlot {
    /// The number of the stream's timeline; 0 before the first.
    id: AtomicU64,
    /// The last ticket of the streams that had the slot before.
    base: AtomicU64,
    /// Written by who claims the slot; read by `try_read`, so that nothing waits.
    stream: RwLock<Option<Timeline>>,
    /// Records of blocks that are free for the stream, by class; of large ones by size.
    pub(crate) lists: Box<[IndexStack; LISTS]>,
    /// Bytes that the stream has retired into the map since its last marker there.
    pub(crate) unmarked: AtomicU64,
}

impl StreamSlot {
    fn new() -> Self {
        Self {
            id: AtomicU64::new(0),
            base: AtomicU64::new(0),
            stream: RwLock::new(None),
            lists: Box::new(std::array::from_fn(|_| IndexStack::new())),
            unmarked: AtomicU64::new(0),
        }
    }

    /// Whether the slot is that of a timeline, which the caller holds.
    #[inline]
    fn is_of(&self, timeline: &Timeline) -> bool {
        // Acquire: pairs with the Release of `claim`.
        self.id.load(Acquire) == timeline.id()
    }

    /// The slot's number of a ticket that was issued by its stream, which the caller holds.
    #[inline]
    pub(crate) fn ticket(&self, issued: u64) -> u64 {
        self.base.load(Relaxed) + issued
    }

    /// The timeline and its own number of a ticket, unless that is known to be complete.
    pub(crate) fn pending(&self, ticket: u64) -> Option<(Timeline, u64)> {
        let stream = self.stream.read();
        let (timeline, issued) = (stream.as_ref()?, self.issued(ticket)?);
        (!timeline.is_complete(issued)).then(|| (timeline.clone(), issued))
    }

    /// The timeline, and its own number of a ticket for all that is submitted by now.
    pub(crate) fn now(&self) -> Option<(Timeline, u64)> {
        let timeline = self.stream.read().clone()?;
        let ticket = timeline.last_or_issue();
        Some((timeline, ticket))
    }

    /// Whether the stream is behind a ticket. In doubt it is not.
    pub(crate) fn is_complete(&self, ticket: u64) -> bool {
        let Some(stream) = self.read() else { return false };
        match (stream.as_ref(), self.issued(ticket)) {
            (Some(timeline), Some(issued)) => timeline.is_complete(issued),
            _ => true,
        }
    }

    /// The last of the slot's tickets that is known to be complete. In doubt it is an earlier one.
    pub(crate) fn completed(&self) -> Option<u64> {
        let stream = self.read()?;
        Some(self.base.load(Relaxed) + stream.as_ref().map_or(0, Timeline::completed))
    }

    /// The stream's own number of a ticket, unless it is an earlier stream's. The caller holds the
    /// lock.
    fn issued(&self, ticket: u64) -> Option<u64> {
        ticket.checked_sub(self.base.load(Relaxed)).filter(|issued| *issued > 0)
    }

    /// The handle of the stream, as a number; it may be gone.
    pub(crate) fn handle(&self) -> Option<usize> {
        self.read()?.as_ref().map(Timeline::stream)
    }

    fn read(&self) -> Option<RwLockReadGuard<'_, Option<Timeline>>> {
        self.stream.try_read()
    }

    /// Gives the slot to `timeline`, if it is vacant, or its stream is over.
    fn claim(&self, timeline: &Timeline) -> bool {
        if !self.read().is_some_and(|held| held.as_ref().is_none_or(Timeline::is_over)) {
            return false;
        }
        let mut held = self.stream.write();
        // Between the look and the lock another thread may have given it to another stream.
        let old = match &*held {
            Some(old) if !old.is_over() => return false,
            Some(old) => old.last_ticket(),
            None => 0,
        };
        self.base.store(self.base.load(Relaxed) + old, Relaxed);
        // Release: pairs with the Acquire of `is_of`.
        self.id.store(timeline.id(), Release);
        let old = held.replace(timeline.clone());
        // The end of a timeline may call the driver.
        drop(held);
        drop(old);
        true
    }
}

/// A stream's slot, with its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<'a> {
    pub(crate) number: u32,
    pub(crate) slot: &'a StreamSlot,
}

impl Seat<'_> {
    /// A use by the slot's stream, which the caller holds, behind all that was submitted to it.
    #[inline]
    pub(crate) fn use_now(self, timeline: &Timeline) -> Use {
        Use { slot: self.number as usize, ticket: self.slot.ticket(timeline.issue()) }
    }
}

/// The slots of a pool.
#[derive(Debug)]
pub(crate) struct StreamSlots {
    pool: u64,
    slots: Chunks<StreamSlot, CHUNK, CHUNKS>,
    used: AtomicU32,
    /// Whether the lists of slots that come to be used are closed. Held while one does.
    is_closed: Mutex<bool>,
}

impl StreamSlots {
    /// Streams of a pool at a time, at most.
    pub(crate) const MOST: usize = CHUNKS * CHUNK;

    pub(crate) fn new(pool: u64) -> Self {
        Self { pool, slots: Chunks::new(), used: AtomicU32::new(0), is_closed: Mutex::new(false) }
    }

    /// The slot with a number.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> &StreamSlot {
        self.slots.get(number, StreamSlot::new)
    }

    /// A stream's slot, if it is where it was last.
    #[inline]
    pub(crate) fn seat(&self, timeline: &Timeline) -> Option<Seat<'_>> {
        let hint = timeline.seat(self.pool).load(Relaxed);
        if hint >> SEAT_SHIFT != self.pool {
            return None;
        }
        let number = u32::from(u16::try_from(hint & u64::from(u16::MAX)).unwrap_or(0));
        let slot = self.slots.find(number as usize)?;
        slot.is_of(timeline).then_some(Seat { number, slot })
    }

    /// The slot with a number, if this thread sees that it is made.
    #[inline]
    pub(crate) fn made(&self, number: usize) -> Option<&StreamSlot> {
        self.slots.find(number)
    }

    /// A stream's slot, made if need be; `None` if there can be no more.
    pub(crate) fn of(&self, timeline: &Timeline) -> Option<Seat<'_>> {
        let number = self.find(timeline).or_else(|| self.add(timeline))?;
        timeline.seat(self.pool).store(self.pool << SEAT_SHIFT | number as u64, Relaxed);
        Some(Seat { number: u32::try_from(number).ok()?, slot: self.get(number) })
    }

    /// Has the lists of slots closed that come to be used from now on: all others are in
    /// [`all`](Self::all) by then, to be closed by the caller.
    pub(crate) fn close(&self) {
        *self.is_closed.lock() = true;
    }

    /// All slots that are or were in use, with their numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &StreamSlot)> {
        (0..self.used.load(Acquire) as usize).map(|number| (number, self.get(number)))
    }

    /// Whether the device is past a use.
    pub(crate) fn is_complete(&self, of: Use) -> bool {
        self.get(of.slot).is_complete(of.ticket)
    }

    /// The last ticket of a slot that is known to be complete.
    pub(crate) fn completed(&self, slot: usize) -> Option<u64> {
        self.get(slot).completed()
    }

    /// The rest of a use: a timeline, and the ticket on it to wait for.
    pub(crate) fn pending(&self, of: Use) -> Option<(Timeline, u64)> {
        self.get(of.slot).pending(of.ticket)
    }

    fn find(&self, timeline: &Timeline) -> Option<usize> {
        self.all().find(|(_, slot)| slot.is_of(timeline)).map(|(number, _)| number)
    }

    /// Gives the stream a slot. Two threads may give it two, of which one is used only by the
    /// records that name it already.
    fn add(&self, timeline: &Timeline) -> Option<usize> {
        let claim = |(number, slot): (usize, &StreamSlot)| slot.claim(timeline).then_some(number);
        if let Some(number) = self.all().find_map(claim) {
            return Some(number);
        }
        let is_closed = self.is_closed.lock();
        let fresh = (self.used.load(Relaxed) as usize..Self::MOST).find(|number| {
            let slot = self.get(*number);
            if *is_closed {
                // Nothing is in the lists of a slot that no stream has had.
                slot.lists.iter().for_each(|list| _ = list.close());
            }
            let claimed = slot.claim(timeline);
            // Release: pairs with the Acquire of `all`.
            self.used.fetch_max(u32::try_from(number + 1).unwrap_or(u32::MAX), Release);
            claimed
        });
        drop(is_closed);
        // Streams that nothing but a pool knows any more are only remembered.
        fresh.or_else(|| {
            self.all().find_map(|(number, slot)| {
                let stream = slot.read()?.clone()?;
                (stream.close_if_unheld() && slot.claim(timeline)).then_some(number)
            })
        })
    }
}

const SEAT_SHIFT: u32 = 16;
const CHUNK: usize = if cfg!(all(test, loom)) { 1 } else { 16 };
const CHUNKS: usize = if cfg!(all(test, loom)) { 4 } else { 256 };
