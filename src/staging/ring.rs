#![expect(unsafe_code, reason = "a slot's state belongs to whoever has claimed the slot")]
//! The ring: which slot of host memory may be filled.
//!
//! A slot is handed out only when the device says that it has read what was submitted in it last;
//! how many slots there are is a capacity, not a guard. The lowest slot that can be had is taken, so
//! as few as possible stay in the caches.
//!
//! ```text
//!   claim ──> Claim ──submit──> in flight ──(is_done)──> claim ...
//!               └──drop──> free
//! ```
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | a slot's state | claims | `claim` | those of [`SlotWord`]: whoever claims sees the state as its last holder left it |

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::lockfree::slot_state::{SlotUse, SlotWord};

/// Slots, each with a state of type `T` that its holder alone uses.
pub(crate) struct Ring<T> {
    slots: Box<[Slot<T>]>,
}

struct Slot<T> {
    word: SlotWord,
    state: UnsafeCell<T>,
}

// SAFETY: the state of a slot is used through a `Claim`, of which there is one at a time, and may
// come to the next holder's thread.
unsafe impl<T: Send> Sync for Slot<T> {}

/// A slot that nobody else uses, until it is submitted or dropped.
pub(crate) struct Claim<'a, T> {
    slot: &'a Slot<T>,
    index: usize,
    this: SlotUse,
}

impl<T> Ring<T> {
    pub(crate) fn new(states: impl IntoIterator<Item = T>) -> Self {
        let slot = |state| Slot { word: SlotWord::free(), state: UnsafeCell::new(state) };
        Self { slots: states.into_iter().map(slot).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot that is free, or of which `is_done` says that the device has read it. Does not wait.
    ///
    /// # Errors
    ///
    /// What `is_done` returns.
    pub(crate) fn claim<E>(
        &self,
        mut is_done: impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<Option<Claim<'_, T>>, E> {
        for (index, slot) in self.slots.iter().enumerate() {
            if let Some(this) = slot.word.in_flight() {
                if !is_done(index)? {
                    continue;
                }
                // If somebody else was faster, it may be free, taken, or in flight again.
                let _retired = slot.word.complete(this);
            }
            if let Ok(this) = slot.word.begin() {
                return Ok(Some(Claim { slot, index, this }));
            }
        }
        Ok(None)
    }

    /// Takes one slot if it is free, or if `is_done` says that the device has read it. Does not wait.
    ///
    /// # Errors
    ///
    /// What `is_done` returns.
    pub(crate) fn claim_at<E>(
        &self,
        index: usize,
        is_done: impl FnOnce(usize) -> Result<bool, E>,
    ) -> Result<Option<Claim<'_, T>>, E> {
        if let Some(this) = self.slots.get(index).and_then(|slot| slot.word.in_flight()) {
            if !is_done(index)? {
                return Ok(None);
            }
            // If somebody else was faster, it may be free, taken, or in flight again.
            let _retired = self.slots[index].word.complete(this);
        }
        Ok(self.claim_free(index))
    }

    /// Takes a slot if it is free.
    pub(crate) fn claim_free(&self, index: usize) -> Option<Claim<'_, T>> {
        let slot = self.slots.get(index)?;
        let this = slot.word.begin().ok()?;
        Some(Claim { slot, index, this })
    }

    /// The slots that are in flight at this moment.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|index| self.slots[*index].word.in_flight().is_some())
    }

    /// Whether a slot is still in the use that `this` was.
    pub(crate) fn is_in_flight(&self, index: usize, this: SlotUse) -> bool {
        self.slots.get(index).is_some_and(|slot| slot.word.in_flight() == Some(this))
    }
}

impl<T> Claim<'_, T> {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Hands the slot to the device.
    pub(crate) fn submit(self) -> SlotUse {
        let this = self.this;
        let submitted = self.slot.word.submit(this);
        debug_assert!(submitted.is_ok(), "{submitted:?}");
        #[expect(clippy::mem_forget, reason = "the drop would cancel; a claim owns nothing")]
        std::mem::forget(self);
        this
    }
}

impl<T> Deref for Claim<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `begin` gave the slot to this claim alone, until it is submitted or dropped.
        unsafe { &*self.slot.state.get() }
    }
}

impl<T> DerefMut for Claim<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the claim is borrowed alone.
        unsafe { &mut *self.slot.state.get() }
    }
}

impl<T> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        let cancelled = self.slot.word.cancel(self.this);
        debug_assert!(cancelled.is_ok(), "{cancelled:?}");
    }
}

impl<T> fmt::Debug for Claim<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("index", &self.index).field("this", &self.this).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| slot.word.phase())).finish()
    }
}
