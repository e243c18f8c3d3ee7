#![expect(unsafe_code, reason = "a slot's state belongs to the holder of its claim")]
//! The ring: which slot of host memory may be filled.
//!
//! A slot is handed out only when the device says that it has read what was submitted in it last;
//! how many slots there are is a capacity, not a guard. The lowest slot that can be had is taken,
//! so as few as possible stay in the caches.
//!
//! ```text
//!   claim ──> Claim ──submit──> in flight ──(is_done)──> claim ...
//!              │ └──drop, put_back──> free
//!              │                   ^
//!              └──hold──> Hold ──drop
//! ```
//!
//! A step to the device is submitted at once: the host is done with its slot. Results are held as
//! long as the host may read them, and come in flight only then: what the device has not written by
//! that time is waited for as if it were a step.
//!
//! * a slot's state: written by claims; read by `claim`. Those of [`SlotWord`]: a claim sees the
//!   state as its last holder left it.

use std::fmt;
use std::ops::{Deref, DerefMut};

#[cfg(feature = "futures")]
use crate::lockfree::slot_state::SlotPhase;
use crate::lockfree::slot_state::{SlotUse, SlotWord};
use crate::sync::UnsafeCell;

/// Slots, each with a state of type `T` that its holder alone uses.
pub(crate) struct Ring<T> {
    slots: Box<[Slot<T>]>,
}

/// Apart from the next one in memory: threads that fill different slots share no cache line.
#[repr(align(128))]
struct Slot<T> {
    word: SlotWord,
    index: usize,
    state: UnsafeCell<T>,
    /// Called with the state of a slot whose claim is dropped.
    let_go: fn(&mut T),
}

// SAFETY: the state of a slot is used through a `Claim`, of which there is one at a time, and may
// come to the next holder's thread.
unsafe impl<T: Send> Sync for Slot<T> {}

/// Exclusive use of a slot, until it is submitted or dropped.
pub(crate) struct Claim<'a, T> {
    slot: &'a Slot<T>,
    this: SlotUse,
}

/// A slot that the device writes and the host reads: in flight only when this is dropped, so that
/// it is not handed out meanwhile.
pub(crate) struct Hold<'a, T> {
    slot: &'a Slot<T>,
    this: SlotUse,
}

impl<T> Ring<T> {
    /// `let_go` is called with the state of a slot that was taken and is given back without having
    /// been submitted.
    pub(crate) fn new(states: impl IntoIterator<Item = T>, let_go: fn(&mut T)) -> Self {
        let slot = |(index, state)| {
            let state = UnsafeCell::new(state);
            Slot { word: SlotWord::free(), index, state, let_go }
        };
        Self { slots: states.into_iter().enumerate().map(slot).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes a slot that is free, or of which `is_done` says that the device has read it. Does not
    /// wait.
    ///
    /// # Errors
    ///
    /// The error of `is_done`.
    #[inline]
    pub(crate) fn claim<E>(
        &self,
        mut is_done: impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<Option<Claim<'_, T>>, E> {
        for slot in &self.slots {
            if let Some(claim) = slot.claim(&mut is_done)? {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// Takes this slot, if it can be had now.
    pub(crate) fn claim_at<E>(
        &self,
        index: usize,
        mut is_done: impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<Option<Claim<'_, T>>, E> {
        self.slots.get(index).map_or(Ok(None), |slot| slot.claim(&mut is_done))
    }

    /// Whether a slot can be had at this moment.
    #[cfg(feature = "futures")]
    pub(crate) fn has_room<E>(
        &self,
        mut is_done: impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<bool, E> {
        for (index, slot) in self.slots.iter().enumerate() {
            let has_room = match slot.word.phase() {
                SlotPhase::Free => true,
                SlotPhase::InFlight => is_done(index)?,
                SlotPhase::Filling => false,
            };
            if has_room {
                return Ok(true);
            }
        }
        Ok(false)
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

impl<T> Slot<T> {
    /// Takes the slot if it is free, or if `is_done` says that the device has read it.
    #[inline]
    fn claim<E>(
        &self,
        is_done: &mut impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<Option<Claim<'_, T>>, E> {
        let taken = match self.word.in_flight() {
            None => self.word.begin(),
            // For this use alone: if another thread was faster, the slot may be in flight again.
            Some(this) if is_done(self.index)? => self.word.refill(this),
            Some(_) => return Ok(None),
        };
        Ok(taken.ok().map(|this| Claim { slot: self, this }))
    }
}

impl<T> Claim<'_, T> {
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.slot.index
    }

    /// Which use of the slot it is.
    #[inline]
    pub(crate) fn this(&self) -> SlotUse {
        self.this
    }

    /// Gives a slot back that was not written, with its state as it was found: the device has read
    /// it, so it is free.
    pub(crate) fn put_back(self) {
        let cancelled = self.slot.word.cancel(self.this);
        debug_assert!(cancelled.is_ok(), "{cancelled:?}");
        #[expect(clippy::mem_forget, reason = "the drop would cancel again; a claim owns nothing")]
        std::mem::forget(self);
    }

    /// Hands the slot to the device.
    #[inline]
    pub(crate) fn submit(self) {
        self.slot.word.submit(self.this);
        #[expect(clippy::mem_forget, reason = "the drop would cancel; a claim owns nothing")]
        std::mem::forget(self);
    }
}

impl<'a, T> Claim<'a, T> {
    /// Keeps the slot for the host, while the device writes it and after.
    #[inline]
    pub(crate) fn hold(self) -> Hold<'a, T> {
        let hold = Hold { slot: self.slot, this: self.this };
        #[expect(clippy::mem_forget, reason = "the drop would cancel; a claim owns nothing")]
        std::mem::forget(self);
        hold
    }

    /// The same, for an owner that keeps the ring alive in another way than by a borrow.
    ///
    /// # Safety
    ///
    /// The ring lives as long as the result, and as what is made of it.
    #[inline]
    pub(crate) unsafe fn outlive<'b>(self) -> Claim<'b, T>
    where
        T: 'b,
    {
        // SAFETY: the caller's promise.
        let slot = unsafe { &*std::ptr::from_ref(self.slot) };
        let claim = Claim { slot, this: self.this };
        #[expect(clippy::mem_forget, reason = "the drop would cancel; a claim owns nothing")]
        std::mem::forget(self);
        claim
    }
}

impl<T> Hold<'_, T> {
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.slot.index
    }
}

impl<T> Deref for Claim<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `begin` or `refill` gave the slot to this claim alone, until it is submitted or
        // dropped.
        self.slot.state.with(|state| unsafe { &*state })
    }
}

impl<T> DerefMut for Claim<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the claim is borrowed alone.
        self.slot.state.with_mut(|state| unsafe { &mut *state })
    }
}

impl<T> Deref for Hold<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as for the claim that it was, which is not submitted before it is dropped.
        self.slot.state.with(|state| unsafe { &*state })
    }
}

impl<T> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        (self.slot.let_go)(self);
        let cancelled = self.slot.word.cancel(self.this);
        debug_assert!(cancelled.is_ok(), "{cancelled:?}");
    }
}

impl<T> Drop for Hold<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.slot.word.submit(self.this);
    }
}

impl<T> fmt::Debug for Hold<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Hold");
        out.field("index", &self.index()).field("this", &self.this).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Claim<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("index", &self.index())
            .field("this", &self.this)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| slot.word.phase())).finish()
    }
}
