//! Lanes: a pool's view of a stream, and what is free for it.
//!
//! A block that only one stream has used is free for that stream at once, since the stream runs in
//! order. It waits in the list of its class in the stream's lane; others may have it when the device
//! is past its last use.
//!
//! ```text
//!   Timeline ──seat──> Lane | timeline | users | list of class 0 | ... | list of class 63 | large |
//! ```
//!
//! A lane whose stream is gone is given to another as soon as no record names it.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `id` | `Lanes::add` | `Lanes::of` | Relaxed: compared with the id of a timeline that the caller holds, and which only this lane can hold |
//! | `users` | holders of buffers, owners of records | `Lanes::add` | the `Release` of `leave` pairs with the `Acquire` of `claim`: who takes the lane over comes after every use of it |
//! | a timeline's seat | `Lanes::of` | `Lanes::of` | Relaxed: a hint, checked by `id` |

use std::sync::{OnceLock, RwLock, RwLockReadGuard, TryLockError};

use super::record::{LARGE_LIST, Use};
use crate::lockfree::index_stack::IndexStack;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::timeline::Timeline;

/// A stream as a pool knows it.
#[derive(Debug)]
pub(super) struct Lane {
    id: AtomicU64,
    /// Records that name the lane, and [`CLAIMED`] while it changes streams.
    users: AtomicU32,
    /// Written by who has claimed the lane; read by `try_read`, so that nobody waits.
    timeline: RwLock<Option<Timeline>>,
    /// Records of blocks that are free for the stream, by class.
    pub(super) lists: Box<[IndexStack]>,
}

impl Lane {
    fn new() -> Self {
        Self {
            id: AtomicU64::new(0),
            users: AtomicU32::new(0),
            timeline: RwLock::new(None),
            lists: (0..=LARGE_LIST).map(|_| IndexStack::new()).collect(),
        }
    }

    /// Notes that a record names the lane.
    pub(super) fn enter(&self) {
        // Relaxed: the caller holds the stream or a record that names the lane, so nobody claims it.
        self.users.fetch_add(1, Relaxed);
    }

    /// Notes that a record does not name it any more.
    pub(super) fn leave(&self) {
        // Release: pairs with the Acquire of `claim`.
        self.users.fetch_sub(1, Release);
    }

    /// The timeline, if the lane has one.
    pub(super) fn timeline(&self) -> Option<Timeline> {
        self.read().and_then(|timeline| timeline.clone())
    }

    /// Whether the stream is behind a ticket.
    pub(super) fn is_complete(&self, ticket: u64) -> bool {
        self.read().is_some_and(|timeline| timeline.as_ref().is_none_or(|it| it.is_complete(ticket)))
    }

    fn read(&self) -> Option<RwLockReadGuard<'_, Option<Timeline>>> {
        match self.timeline.try_read() {
            Ok(timeline) => Some(timeline),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Gives the lane to `timeline`, if it is nobody's, or its stream is gone and no record names it.
    fn claim(&self, timeline: &Timeline) -> bool {
        let is_idle = self.read().is_some_and(|held| held.as_ref().is_none_or(Timeline::is_closed));
        // Acquire: pairs with the Release of `leave`.
        if !is_idle || self.users.compare_exchange(0, CLAIMED, Acquire, Relaxed).is_err() {
            return false;
        }
        // Between the look and the claim somebody else may have given it to another stream.
        let mut held = self.timeline.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_ours = held.as_ref().is_none_or(Timeline::is_closed);
        if is_ours {
            *held = Some(timeline.clone());
            self.id.store(timeline.id(), Relaxed);
        }
        drop(held);
        // Release: pairs with the Acquire of the next claim.
        self.users.fetch_sub(CLAIMED, Release);
        is_ours
    }
}

/// The lanes of a pool.
#[derive(Debug)]
pub(super) struct Lanes {
    pool: u64,
    chunks: Box<[OnceLock<Box<[Lane]>>]>,
    used: AtomicU32,
}

impl Lanes {
    pub(super) fn new(pool: u64) -> Self {
        Self { pool, chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(), used: AtomicU32::new(0) }
    }

    /// The lane with a number.
    #[inline]
    pub(super) fn get(&self, number: usize) -> &Lane {
        let lanes = self.chunks[number / CHUNK].get_or_init(|| (0..CHUNK).map(|_| Lane::new()).collect());
        &lanes[number % CHUNK]
    }

    /// The number of a stream's lane, made if need be; `None` if there can be no more.
    #[inline]
    pub(super) fn of(&self, timeline: &Timeline) -> Option<usize> {
        let seat = timeline.seat(self.pool);
        let hint = seat.load(Relaxed);
        let number = usize::from(u16::try_from(hint & u64::from(u16::MAX)).unwrap_or(0));
        if hint >> SEAT_SHIFT == self.pool && self.get(number).id.load(Relaxed) == timeline.id() {
            return Some(number);
        }
        let number = self.find(timeline).or_else(|| self.add(timeline))?;
        seat.store(self.pool << SEAT_SHIFT | number as u64, Relaxed);
        Some(number)
    }

    /// All lanes that are or were in use, with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Lane)> {
        (0..self.used.load(Acquire) as usize).map(|number| (number, self.get(number)))
    }

    /// Whether the device is past a use.
    pub(super) fn is_complete(&self, of: Use) -> bool {
        self.get(of.lane).is_complete(of.ticket)
    }

    #[cold]
    fn find(&self, timeline: &Timeline) -> Option<usize> {
        self.all().find(|(_, lane)| lane.id.load(Relaxed) == timeline.id()).map(|(number, _)| number)
    }

    /// Gives the stream a lane. Two threads may give it two, of which one is used only by the
    /// records that name it already.
    #[cold]
    fn add(&self, timeline: &Timeline) -> Option<usize> {
        if let Some((number, _)) = self.all().find(|(_, lane)| lane.claim(timeline)) {
            return Some(number);
        }
        (self.used.load(Relaxed) as usize..CHUNKS * CHUNK).find(|number| {
            let claimed = self.get(*number).claim(timeline);
            // Release: pairs with the Acquire of `all`.
            self.used.fetch_max(u32::try_from(number + 1).unwrap_or(u32::MAX), Release);
            claimed
        })
    }
}

/// More than there can be records.
const CLAIMED: u32 = 1 << 31;

const SEAT_SHIFT: u32 = 16;
const CHUNK: usize = 16;
const CHUNKS: usize = 256;
