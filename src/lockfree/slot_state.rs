//! The owner of one slot of a staging ring, in one word.
//!
//! The three states are those of the belts of
//! [wgpu](https://github.com/gfx-rs/wgpu/blob/trunk/wgpu/src/util/belt.rs), with a generation, so
//! that a completion that comes late, for an earlier use of the slot, changes nothing. A
//! thread that has seen that the device is done takes the slot itself, in one step.
//!
//! ```text
//!   63                    2 1   0                          submit
//!  +-----------------------+-----+        begin           -------->
//!  |      generation       |phase|  Free ------> Filling            InFlight
//!  +-----------------------+-----+       <------          <--------
//!                                        cancel             refill
//! ```
//!
//! * state: written by `cancel`; read by `begin`. Its `Release` pairs with the `Acquire` of
//!   `begin`: the next filler writes after the one that gave up.
//! * state: written by `submit`; read by `refill`, `in_flight`. Its `Release` pairs with their
//!   `Acquire`: the next filler sees what was submitted, and looks at a completion that was reset.

use crate::sync::atomic::{
    AtomicU64, Ordering, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// The state word of one slot.
#[derive(Debug)]
pub(crate) struct SlotWord(AtomicU64);

/// One use of a slot: what `begin` hands out and the other transitions ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotUse {
    generation: u64,
}

/// The slot is in another state, or in another use than the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotNow {
    /// The state found.
    pub(crate) found: SlotPhase,
}

/// What a slot is being used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotPhase {
    /// Not in use.
    Free,
    /// The host is writing it.
    Filling,
    /// The device may be reading it.
    InFlight,
}

impl SlotWord {
    /// A slot that is not in use.
    pub(crate) fn free() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes a free slot to fill it.
    #[inline]
    pub(crate) fn begin(&self) -> Result<SlotUse, NotNow> {
        let word = self.0.load(Relaxed);
        if phase(word) != SlotPhase::Free {
            return Err(NotNow { found: phase(word) });
        }
        let this = SlotUse::after(word);
        // Acquire: pairs with the Release of `cancel`.
        self.change(word, this.word(FILLING), Acquire).map(|()| this)
    }

    /// The use that the slot is being filled in, for its holder.
    #[inline]
    pub(crate) fn this(&self) -> SlotUse {
        // Relaxed: the holder alone changes the word.
        let word = self.0.load(Relaxed);
        debug_assert_eq!(phase(word), SlotPhase::Filling, "not the holder of the use");
        SlotUse { generation: word >> PHASE_BITS }
    }

    /// Hands a filled slot to the device. A store: while a slot is being filled, the holder of that
    /// use alone changes its word.
    #[inline]
    pub(crate) fn submit(&self, this: SlotUse) {
        debug_assert_eq!(self.0.load(Relaxed), this.word(FILLING), "not the holder of the use");
        // Release: pairs with the Acquire of `refill`.
        self.0.store(this.word(IN_FLIGHT), Release);
    }

    /// Takes a slot to fill it again, from the device, which the caller knows to have read it in
    /// the use `this`.
    #[inline]
    pub(crate) fn refill(&self, this: SlotUse) -> Result<SlotUse, NotNow> {
        let word = this.word(IN_FLIGHT);
        let next = SlotUse::after(word);
        // Acquire: pairs with the Release of `submit`.
        self.change(word, next.word(FILLING), Acquire).map(|()| next)
    }

    /// Gives up a slot that was being filled.
    #[inline]
    pub(crate) fn cancel(&self, this: SlotUse) -> Result<(), NotNow> {
        // Release: pairs with the Acquire of `begin`.
        self.change(this.word(FILLING), this.word(FREE), Release)
    }

    /// The use that the device may be reading in, at this moment.
    #[inline]
    pub(crate) fn in_flight(&self) -> Option<SlotUse> {
        // Acquire: pairs with the Release of `submit`: what says that this use is complete was
        // reset before.
        let word = self.0.load(Acquire);
        (phase(word) == SlotPhase::InFlight).then_some(SlotUse { generation: word >> PHASE_BITS })
    }

    /// The state at this moment.
    pub(crate) fn phase(&self) -> SlotPhase {
        // Acquire: pairs with the Release of `cancel` and `submit`, for threads that wait for them.
        phase(self.0.load(Acquire))
    }

    /// Every transition: from one word, which says the state and the use, to the next.
    #[inline]
    fn change(&self, from: u64, to: u64, store: Ordering) -> Result<(), NotNow> {
        match self.0.compare_exchange(from, to, store, Relaxed) {
            Ok(_) => Ok(()),
            Err(word) => Err(NotNow { found: phase(word) }),
        }
    }
}

impl SlotUse {
    /// The use that follows on a word.
    #[inline]
    fn after(word: u64) -> Self {
        Self { generation: (word >> PHASE_BITS) + 1 }
    }

    /// The word of this use in a state.
    #[inline]
    fn word(self, phase: u64) -> u64 {
        self.generation << PHASE_BITS | phase
    }
}

#[inline]
fn phase(word: u64) -> SlotPhase {
    match word & PHASE_MASK {
        FREE => SlotPhase::Free,
        FILLING => SlotPhase::Filling,
        _ => SlotPhase::InFlight,
    }
}

const PHASE_BITS: u32 = 2;
const PHASE_MASK: u64 = 3;
const FREE: u64 = 0;
const FILLING: u64 = 1;
const IN_FLIGHT: u64 = 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_late_completion_changes_nothing() {
        let slot = SlotWord::free();
        let first = slot.begin().unwrap();
        assert_eq!(slot.begin(), Err(NotNow { found: SlotPhase::Filling }));
        slot.submit(first);
        let second = slot.refill(first).unwrap();
        slot.submit(second);
        assert_eq!(slot.refill(first), Err(NotNow { found: SlotPhase::InFlight }));
        assert_eq!(slot.phase(), SlotPhase::InFlight);
        let third = slot.refill(second).unwrap();
        slot.cancel(third).unwrap();
        assert_eq!(slot.phase(), SlotPhase::Free);
    }

    #[test]
    fn a_cancelled_slot_is_free_again() {
        let slot = SlotWord::free();
        let first = slot.begin().unwrap();
        slot.cancel(first).unwrap();
        assert_eq!(slot.cancel(first), Err(NotNow { found: SlotPhase::Free }));
        assert_ne!(slot.begin().unwrap(), first);
    }
}
