//! The tier of one object, its holders there and its move, in one word.
//!
//! An object is in one tier at a time. A copy to another tier runs beside readers: it reads what
//! they read. Only its end decides: the object moves unless it is held then. So a reader never
//! waits for a move away, and no move takes anything away from under a pin. A writer waits, under
//! its pin, for the end of the move before it writes what the copy reads; that end finds the pin.
//! The thread that begins a move owns it to its end, so there is one at a time.
//!
//! ```text
//!     28     27    26      25       24        23      22      21      20   19 18 17 16 15   0
//!  +-------+------+-----+---------+----------+-------+-------+---------+------+----+------+------+
//!  | fresh | live |place| dropped | referred | clean | write |cancelled| move | to | tier | pins |
//!  +-------+------+-----+---------+----------+-------+-------+---------+------+----+------+------+
//!
//!            begin(to)                      end, copied, not pinned, not cancelled
//!   Resident(tier) --------> Moving(tier, to) -----------------------------> Resident(to)
//!     ^   pin, unpin  ^        |  pin, unpin, cancel
//!     |_______________|________|  end, otherwise
//!
//!   drop: no pin and no begin any more; the transition that leaves neither pin nor move frees
//! ```
//!
//! `place` says which of the object's two places is the current one; the owner of a move writes the
//! other. `referred` is the second chance of
//! [Corbató's clock](https://multicians.org/paging-experiment.pdf); the pin that an object was
//! moved for, the first one after `fresh`, earns none, so that an object that is used once leaves
//! first. `clean` says that the object's file holds the same bytes.
//!
//! * state: written by `end`; read by `pin`, `try_pin`, `is_moving`. Its `Release` pairs with their
//!   `Acquire`: a holder sees the object's new place and bytes; a writer comes after the copy.
//! * state: written by `unpin`; read by `begin`, `end`, `pin` for writing, `drop`. Its `Release`
//!   pairs with their `Acquire`: a move, a write or the free comes after the last reader.
//! * state: written by `begin`; read by `end`. One owner; ordered by itself.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::atomic::{
    Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::try_update;

/// The number of tiers the word can name.
pub(crate) const TIERS: usize = 4;

/// The tier whose places are an object's file, which stays its own while it is elsewhere.
pub(crate) const FILE: usize = TIERS - 1;

/// The state word of one object.
#[derive(Debug)]
pub(crate) struct TierWord(AtomicU64);

/// One value of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TierState(u64);

/// Why a transition is not possible now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The object is in another tier, and not on its way.
    Elsewhere,
    /// A move of the object is under way.
    Moving,
    /// The object is held.
    Pinned,
    /// The object is held for writing.
    Written,
    /// There is no such object (any more).
    Gone,
    /// The clock's hand has passed it for the first time.
    SecondChance,
}

/// What a transition has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Kept,
    /// The object is in the tier that it was moved to; its old place is the caller's.
    Landed,
    /// The object and all its places are the caller's, to free.
    Free,
}

impl TierWord {
    /// The word of no object.
    pub(crate) fn vacant() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The state at this moment: a hint, unless the caller holds the object or owns its move.
    pub(crate) fn load(&self) -> TierState {
        TierState(self.0.load(Relaxed))
    }

    /// Whether a move is under way. If not, the caller comes after the copy of the last one.
    pub(crate) fn is_moving(&self) -> bool {
        // Acquire: pairs with the Release of `end`: a writer comes after the copy that read.
        TierState(self.0.load(Acquire)).is_moving()
    }

    /// Makes an object in `tier`; the caller owns the word.
    pub(crate) fn occupy(&self, tier: usize, clean: bool) {
        let clean = if clean { CLEAN } else { 0 };
        // Release: pairs with the Acquire of `pin`.
        self.0.store(LIVE | FRESH | clean | (tier as u64) << TIER_SHIFT, Release);
    }

    /// Makes the word that of no object; the caller owns what is left of it.
    pub(crate) fn vacate(&self) {
        // Release: pairs with the Acquire of `begin`, which finds no object.
        self.0.store(0, Release);
    }

    /// Holds the object where it is, in `tier` if one is given, for reading or for `write`.
    pub(crate) fn pin(&self, tier: Option<usize>, write: bool) -> Result<TierState, Refusal> {
        // Acquire: pairs with the Release of `end`, `occupy` and, for a writer, `unpin`.
        self.update(Acquire, |state| state.pin(tier, write))
    }

    /// As [`pin`](Self::pin) for reading in `tier`, if nothing changes the word meanwhile.
    pub(crate) fn try_pin(&self, tier: usize) -> Option<TierState> {
        let seen = self.load();
        let pinned = seen.pin(Some(tier), false).ok()?;
        // Acquire: pairs with the Release of `end` and `occupy`.
        self.0.compare_exchange(seen.0, pinned.0, Acquire, Relaxed).ok().map(TierState)
    }

    /// Ends one hold.
    pub(crate) fn unpin(&self) -> Outcome {
        // AcqRel: Release pairs with the Acquire of `begin`, `end` and `pin`; Acquire with the
        // Release of other holders: the free comes after them.
        let before = self.update(AcqRel, |state| Ok(state.unpinned()));
        before.map_or(Outcome::Kept, |state| state.unpinned().fate())
    }

    /// Begins a move to `to`, which the caller then owns; the state before.
    pub(crate) fn begin(&self, to: usize) -> Result<TierState, Refusal> {
        // Acquire: pairs with the Release of `unpin`.
        self.update(Acquire, |state| state.begin(to))
    }

    /// The clock's hand passes an object of `tier`: takes its second chance, or says that it may
    /// go.
    pub(crate) fn pass(&self, tier: usize) -> Result<TierState, Refusal> {
        let old = self.update(Relaxed, |state| state.passed(tier))?;
        if old.0 & REFERRED != 0 { Err(Refusal::SecondChance) } else { Ok(old) }
    }

    /// Ends the caller's move. It lands if the bytes were `copied` and nothing came in between.
    ///
    /// Returns what is free then: the old place if it landed, the new one if not, both if the
    /// object is gone.
    pub(crate) fn end(&self, copied: bool) -> Outcome {
        let mut landed = false;
        // AcqRel: Release publishes the new place to
        // `pin`; Acquire pairs with the Release of `unpin`: the old place is used no more.
        let before = self.update(AcqRel, |state| {
            landed = copied && state.may_land();
            Ok(state.ended(landed))
        });
        match before.map(|state| state.ended(landed).fate()) {
            Ok(Outcome::Free) => Outcome::Free,
            _ if landed => Outcome::Landed,
            _ => Outcome::Kept,
        }
    }

    /// Lets a move that is under way, if any, end where it began.
    pub(crate) fn cancel(&self) {
        // Relaxed: the owner of the move decides by the word alone.
        let _none = self.update(Relaxed, |state| {
            if state.is_moving() {
                Ok(TierState(state.0 | CANCELLED))
            } else {
                Err(Refusal::Elsewhere)
            }
        });
    }

    /// Ends the object for its user: the last thread that has it pinned or moves it frees it.
    pub(crate) fn drop_object(&self) -> Outcome {
        // AcqRel: Acquire pairs with the Release of `unpin`; Release with the Acquire of `end` and
        // `unpin`, one of which may free.
        let before = self.update(AcqRel, |state| Ok(state.dropped()));
        before.map_or(Outcome::Kept, |state| state.dropped().fate())
    }

    fn update(
        &self,
        order: Ordering,
        mut next: impl FnMut(TierState) -> Result<TierState, Refusal>,
    ) -> Result<TierState, Refusal> {
        try_update(&self.0, order, |word| next(TierState(word)).map(|state| state.0)).map(TierState)
    }
}

impl TierState {
    /// The tier that the object is in.
    pub(crate) fn tier(self) -> usize {
        (self.0 >> TIER_SHIFT & 3) as usize
    }

    /// The tier that a move under way goes to.
    pub(crate) fn to(self) -> usize {
        (self.0 >> TO_SHIFT & 3) as usize
    }

    /// The current one of the two places.
    pub(crate) fn place(self) -> usize {
        (self.0 >> PLACE_SHIFT & 1) as usize
    }

    pub(crate) fn pins(self) -> u64 {
        self.0 & PINS
    }

    pub(crate) fn is_moving(self) -> bool {
        self.0 & MOVE != 0
    }

    pub(crate) fn is_clean(self) -> bool {
        self.0 & CLEAN != 0
    }

    /// Whether there is an object that its user has not dropped.
    pub(crate) fn is_live(self) -> bool {
        self.0 & (LIVE | DROPPED) == LIVE
    }

    fn pin(self, tier: Option<usize>, write: bool) -> Result<Self, Refusal> {
        if !self.is_live() {
            return Err(Refusal::Gone);
        }
        if tier.is_some_and(|tier| tier != self.tier()) {
            return Err(if self.is_moving() { Refusal::Moving } else { Refusal::Elsewhere });
        }
        if self.0 & WRITE != 0 {
            return Err(Refusal::Written);
        }
        if self.pins() == PINS || (write && self.pins() > 0) {
            return Err(Refusal::Pinned);
        }
        let earned = if self.0 & FRESH == 0 { REFERRED } else { 0 };
        let pinned = ((self.0 | earned) & !FRESH) + 1;
        Ok(Self(if write { (pinned | WRITE) & !CLEAN } else { pinned }))
    }

    fn unpinned(self) -> Self {
        Self((self.0 - u64::from(self.pins() > 0)) & !WRITE)
    }

    fn begin(self, to: usize) -> Result<Self, Refusal> {
        match () {
            () if !self.is_live() => Err(Refusal::Gone),
            () if self.is_moving() => Err(Refusal::Moving),
            () if self.pins() > 0 => Err(Refusal::Pinned),
            () if self.tier() == to => Err(Refusal::Elsewhere),
            () => Ok(Self(self.0 & !(3 << TO_SHIFT) | MOVE | (to as u64) << TO_SHIFT)),
        }
    }

    fn passed(self, tier: usize) -> Result<Self, Refusal> {
        match () {
            () if !self.is_live() => Err(Refusal::Gone),
            () if self.tier() != tier => Err(Refusal::Elsewhere),
            () if self.is_moving() => Err(Refusal::Moving),
            () if self.pins() > 0 => Err(Refusal::Pinned),
            () => Ok(Self(self.0 & !REFERRED)),
        }
    }

    fn may_land(self) -> bool {
        self.0 & (CANCELLED | DROPPED) == 0 && self.pins() == 0
    }

    fn ended(self, landed: bool) -> Self {
        let kept = self.0 & !(MOVE | CANCELLED | 3 << TO_SHIFT);
        if !landed {
            return Self(kept);
        }
        // What comes from the file, or goes to it, is the same there.
        let clean = if self.tier() == FILE || self.to() == FILE { CLEAN } else { 0 };
        let moved = kept & !(3 << TIER_SHIFT | REFERRED) | (self.to() as u64) << TIER_SHIFT;
        Self((moved | clean | FRESH) ^ 1 << PLACE_SHIFT)
    }

    fn dropped(self) -> Self {
        Self(self.0 | DROPPED)
    }

    /// What the transition that ended the last hold has to do with the object.
    fn fate(self) -> Outcome {
        let busy = self.pins() > 0 || self.is_moving();
        if self.0 & DROPPED != 0 && !busy { Outcome::Free } else { Outcome::Kept }
    }
}

const PINS: u64 = 0xffff;
const TIER_SHIFT: u32 = 16;
const TO_SHIFT: u32 = 18;
const MOVE: u64 = 1 << 20;
const CANCELLED: u64 = 1 << 21;
const WRITE: u64 = 1 << 22;
const CLEAN: u64 = 1 << 23;
const REFERRED: u64 = 1 << 24;
const DROPPED: u64 = 1 << 25;
const PLACE_SHIFT: u32 = 26;
const LIVE: u64 = 1 << 27;
const FRESH: u64 = 1 << 28;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn word(tier: usize) -> TierWord {
        let word = TierWord::vacant();
        assert_eq!(word.pin(None, false), Err(Refusal::Gone));
        word.occupy(tier, true);
        word
    }

    #[test]
    fn a_move_lands_only_where_the_object_is_not_held() {
        let word = word(2);
        assert_eq!(word.pin(Some(0), false), Err(Refusal::Elsewhere));
        word.begin(0).unwrap();
        assert_eq!(word.begin(1), Err(Refusal::Moving));
        assert_eq!(word.pin(Some(0), false), Err(Refusal::Moving));
        word.pin(Some(2), false).unwrap();
        assert_eq!(word.end(true), Outcome::Kept);
        assert_eq!((word.load().tier(), word.load().place()), (2, 0));
        assert_eq!(word.begin(0), Err(Refusal::Pinned));
        assert_eq!(word.unpin(), Outcome::Kept);
        word.begin(0).unwrap();
        // A hold that has ended does no harm.
        word.pin(Some(2), false).unwrap();
        word.unpin();
        assert_eq!(word.end(true), Outcome::Landed);
        assert_eq!((word.load().tier(), word.load().place()), (0, 1));
        assert!(word.load().is_clean());
    }

    #[test]
    fn a_writer_keeps_the_object_where_it_is_and_excludes_readers() {
        let word = word(2);
        word.begin(0).unwrap();
        word.pin(None, true).unwrap();
        assert_eq!(word.pin(None, false), Err(Refusal::Written));
        assert_eq!(word.end(true), Outcome::Kept);
        word.unpin();
        assert_eq!((word.load().tier(), word.load().is_clean()), (2, false));
        word.pin(None, false).unwrap();
        assert_eq!(word.pin(None, true), Err(Refusal::Pinned));
    }

    #[test]
    fn a_cancelled_or_failed_move_leaves_the_object() {
        let word = word(1);
        word.begin(3).unwrap();
        word.cancel();
        assert_eq!(word.end(true), Outcome::Kept);
        word.begin(3).unwrap();
        assert_eq!(word.end(false), Outcome::Kept);
        word.cancel();
        word.begin(3).unwrap();
        assert_eq!(word.end(true), Outcome::Landed);
        assert_eq!(word.load().tier(), 3);
    }

    #[test]
    fn the_last_to_let_go_of_a_dropped_object_frees_it() {
        let dropped = word(0);
        assert_eq!(dropped.drop_object(), Outcome::Free);
        let held = word(0);
        held.pin(None, false).unwrap();
        held.begin(1).unwrap_err();
        assert_eq!(held.drop_object(), Outcome::Kept);
        assert_eq!(held.pin(None, false), Err(Refusal::Gone));
        assert_eq!(held.unpin(), Outcome::Free);
        let moving = word(0);
        moving.begin(1).unwrap();
        moving.pin(None, false).unwrap();
        assert_eq!(moving.drop_object(), Outcome::Kept);
        assert_eq!(moving.unpin(), Outcome::Kept);
        assert_eq!(moving.end(true), Outcome::Free);
    }

    #[test]
    fn the_clock_gives_a_second_chance() {
        let word = word(0);
        assert_eq!(word.pass(1), Err(Refusal::Elsewhere));
        // The use that it came for is no reason to stay.
        word.pin(None, false).unwrap();
        word.unpin();
        assert!(word.pass(0).is_ok());
        word.pin(None, false).unwrap();
        assert_eq!(word.pass(0), Err(Refusal::Pinned));
        word.unpin();
        assert_eq!(word.pass(0), Err(Refusal::SecondChance));
    }
}
