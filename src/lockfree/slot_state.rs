//! Who owns one slot of a staging ring, in one word.
//!
//! The three states are those of the belts of
//! [wgpu](https://github.com/gfx-rs/wgpu/blob/trunk/wgpu/src/util/belt.rs), with a generation, so
//! that a completion that comes late, for an earlier use of the slot, changes nothing.
//!
//! ```text
//!   63                    2 1   0
//!  +-----------------------+-----+        begin           submit
//!  |      generation       |phase|  Free ------> Filling ------> InFlight
//!  +-----------------------+-----+   ^ \___________/                |
//!                                    |    cancel                    |
//!                                    +------------------------------+
//!                                               complete
//! ```
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | state | `complete`, `cancel` | `begin` | their `Release` pairs with the `Acquire` of `begin`: the next filler writes after the copy out of the slot was seen to be over |
//! | state | `submit` | `complete`, `in_flight` | its `Release` pairs with their `Acquire`: who retires the slot sees what was submitted, and looks at a completion that was reset |

use crate::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use crate::sync::try_update;

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
    /// Nobody uses it.
    Free,
    /// The host is writing it.
    Filling,
    /// The device may be reading it.
    InFlight,
}

impl SlotWord {
    /// A slot that nobody uses.
    pub(crate) fn free() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes a free slot to fill it.
    pub(crate) fn begin(&self) -> Result<SlotUse, NotNow> {
        // Acquire: pairs with the Release of `complete` and `cancel`.
        let old = try_update(&self.0, Acquire, |word| step(word, None, SlotPhase::Free))?;
        Ok(SlotUse { generation: (old >> PHASE_BITS) + 1 })
    }

    /// Hands a filled slot to the device.
    pub(crate) fn submit(&self, this: SlotUse) -> Result<(), NotNow> {
        // Release: pairs with the Acquire of `complete`.
        try_update(&self.0, Release, |word| step(word, Some(this), SlotPhase::Filling))?;
        Ok(())
    }

    /// Takes the slot back from the device, whose last read of it is over.
    pub(crate) fn complete(&self, this: SlotUse) -> Result<(), NotNow> {
        // AcqRel: Acquire pairs with the Release of `submit`, Release with the Acquire of `begin`.
        try_update(&self.0, AcqRel, |word| step(word, Some(this), SlotPhase::InFlight))?;
        Ok(())
    }

    /// Gives up a slot that was being filled.
    pub(crate) fn cancel(&self, this: SlotUse) -> Result<(), NotNow> {
        // Release: pairs with the Acquire of `begin`.
        try_update(&self.0, Release, |word| {
            step(word, Some(this), SlotPhase::Filling).map(|next| next & !PHASE_MASK)
        })?;
        Ok(())
    }

    /// The use that the device may be reading in, at this moment.
    pub(crate) fn in_flight(&self) -> Option<SlotUse> {
        // Acquire: pairs with the Release of `submit`: what says that this use is complete was reset
        // before.
        let word = self.0.load(Acquire);
        (phase(word) == SlotPhase::InFlight).then_some(SlotUse { generation: word >> PHASE_BITS })
    }

    /// The state at this moment.
    pub(crate) fn phase(&self) -> SlotPhase {
        // Acquire: pairs with the Release of `complete`, for those who wait for it.
        phase(self.0.load(Acquire))
    }
}

/// The word after `from`, if it is in `from` and, where `this` is given, in that use.
fn step(word: u64, this: Option<SlotUse>, from: SlotPhase) -> Result<u64, NotNow> {
    let found = phase(word);
    let same_use = this.is_none_or(|this| this.generation == word >> PHASE_BITS);
    if found != from || !same_use {
        return Err(NotNow { found });
    }
    Ok(match from {
        SlotPhase::Free => (((word >> PHASE_BITS) + 1) << PHASE_BITS) | 1,
        SlotPhase::Filling => word + 1,
        SlotPhase::InFlight => word & !PHASE_MASK,
    })
}

fn phase(word: u64) -> SlotPhase {
    match word & PHASE_MASK {
        0 => SlotPhase::Free,
        1 => SlotPhase::Filling,
        _ => SlotPhase::InFlight,
    }
}

const PHASE_BITS: u32 = 2;
const PHASE_MASK: u64 = 3;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_late_completion_changes_nothing() {
        let slot = SlotWord::free();
        let first = slot.begin().unwrap();
        assert_eq!(slot.begin(), Err(NotNow { found: SlotPhase::Filling }));
        slot.submit(first).unwrap();
        slot.complete(first).unwrap();
        let second = slot.begin().unwrap();
        slot.submit(second).unwrap();
        assert_eq!(slot.complete(first), Err(NotNow { found: SlotPhase::InFlight }));
        assert_eq!(slot.phase(), SlotPhase::InFlight);
        slot.complete(second).unwrap();
        assert_eq!(slot.phase(), SlotPhase::Free);
    }

    #[test]
    fn a_cancelled_slot_is_free_again() {
        let slot = SlotWord::free();
        let first = slot.begin().unwrap();
        slot.cancel(first).unwrap();
        assert_eq!(slot.submit(first), Err(NotNow { found: SlotPhase::Free }));
        assert_ne!(slot.begin().unwrap(), first);
    }
}
