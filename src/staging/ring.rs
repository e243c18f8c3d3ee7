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

/// Slots, each with a state of type `T` that its holder alone uses, and an open part of type `O`.
pub(crate) struct Ring<T, O = ()> {
    slots: Box<[Slot<T, O>]>,
}

/// Apart from the next one in memory: threads that fill different slots share no cache line.
#[repr(C, align(128))]
struct Slot<T, O> {
    word: SlotWord,
    index: usize,
    /// What all threads may use.
    open: O,
    state: UnsafeCell<T>,
    /// Called with the state of a slot whose claim is dropped.
    let_go: fn(&mut T),
}

// SAFETY: the state of a slot is used through a `Claim`, of which there is one at a time, and may
// come to the next holder's thread.
unsafe impl<T: Send, O: Sync> Sync for Slot<T, O> {}

/// Exclusive use of a slot, until it is submitted or dropped.
pub(crate) struct Claim<'a, T, O = ()> {
    slot: &'a Slot<T, O>,
}

/// A slot that the device writes and the host reads: in flight only when this is dropped, so that
/// it is not handed out meanwhile.
pub(crate) struct Hold<'a, T, O = ()> {
    slot: &'a Slot<T, O>,
    this: SlotUse,
}

impl<T> Ring<T> {
    /// Slots without an open part.
    #[cfg(test)]
    pub(crate) fn new(states: impl IntoIterator<Item = T>, let_go: fn(&mut T)) -> Self {
        Self::with(states.into_iter().map(|state| ((), state)), let_go)
    }
}

impl<T, O> Ring<T, O> {
    /// `let_go` is called with the state of a slot that was taken and is given back without having
    /// been submitted.
    pub(crate) fn with(parts: impl IntoIterator<Item = (O, T)>, let_go: fn(&mut T)) -> Self {
        let slot = |(index, (open, state))| {
            let state = UnsafeCell::new(state);
            Slot { word: SlotWord::free(), index, open, state, let_go }
        };
        Self { slots: parts.into_iter().enumerate().map(slot).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The open part of a slot.
    pub(crate) fn open(&self, index: usize) -> &O {
        &self.slots[index].open
    }

    /// As [`claim`](Self::claim), where the open part alone says that the device has read a slot.
    #[inline]
    pub(crate) fn claim_open(&self, is_done: impl Fn(&O) -> bool) -> Option<Claim<'_, T, O>> {
        self.slots.iter().find_map(|slot| slot.claim_if(|| is_done(&slot.open)))
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
    ) -> Result<Option<Claim<'_, T, O>>, E> {
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
    ) -> Result<Option<Claim<'_, T, O>>, E> {
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

#[cfg(all(test, not(loom)))]
impl<T, O> Ring<T, O> {
    /// The alignment of slots, in bytes; where in a slot its word begins, and where its open part
    /// ends.
    pub(crate) fn layout() -> [usize; 3] {
        let [word, open] = [
            std::mem::offset_of!(Slot<T, O>, word),
            std::mem::offset_of!(Slot<T, O>, open) + size_of::<O>(),
        ];
        [align_of::<Slot<T, O>>(), word, open]
    }
}

impl<T, O> Slot<T, O> {
    /// Takes the slot if it is free, or if `is_done` says that the device has read it.
    #[inline]
    fn claim<E>(
        &self,
        is_done: &mut impl FnMut(usize) -> Result<bool, E>,
    ) -> Result<Option<Claim<'_, T, O>>, E> {
        let mut failed = None;
        let claim = self.claim_if(|| match is_done(self.index) {
            Ok(done) => done,
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        failed.map_or(Ok(claim), Err)
    }

    #[inline]
    fn claim_if(&self, is_done: impl FnOnce() -> bool) -> Option<Claim<'_, T, O>> {
        let taken = match self.word.in_flight() {
            None => self.word.begin(),
            // For this use alone: if another thread was faster, the slot may be in flight again.
            Some(this) if is_done() => self.word.refill(this),
            Some(_) => return None,
        };
        taken.ok().map(|_| Claim { slot: self })
    }
}

impl<T, O> Claim<'_, T, O> {
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.slot.index
    }

    /// Which use of the slot it is.
    #[inline]
    pub(crate) fn this(&self) -> SlotUse {
        self.slot.word.this()
    }

    /// The open part of the slot.
    #[inline]
    pub(crate) fn open(&self) -> &O {
        &self.slot.open
    }

    /// Gives a slot back that was not written, with its state as it was found: the device has read
    /// it, so it is free.
    pub(crate) fn put_back(self) {
        let cancelled = self.slot.word.cancel(self.this());
        debug_assert!(cancelled.is_ok(), "{cancelled:?}");
        #[expect(clippy::mem_forget, reason = "the drop would cancel again; a claim owns nothing")]
        std::mem::forget(self);
    }

    /// Hands the slot to the device. Returns which use of it that is.
    #[inline]
    pub(crate) fn submit(self) -> SlotUse {
        let this = self.this();
        self.slot.word.submit(this);
        #[expect(clippy::mem_forget, reason = "the drop would cancel; a claim owns nothing")]
        std::mem::forget(self);
        this
    }
}

impl<'a, T, O> Claim<'a, T, O> {
    /// Keeps the slot for the host, while the device writes it and after.
    #[inline]
    pub(crate) fn hold(self) -> Hold<'a, T, O> {
        let hold = Hold { slot: self.slot, this: self.this() };
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
    pub(crate) unsafe fn outlive<'b>(self) -> Claim<'b, T, O>
    where
        T: 'b,
        O: 'b,
    {
        // SAFETY: the caller's promise.
        let slot = unsafe { &*std::ptr::from_ref(self.slot) };
        let claim = Claim { slot };
        #[expect(clippy::mem_forget, reason = "the drop would cancel; a claim owns nothing")]
        std::mem::forget(self);
        claim
    }
}

impl<T, O> Hold<'_, T, O> {
    #[inline]
    pub(crate) fn index(&self) -> usize {
        self.slot.index
    }
}

impl<T, O> Deref for Claim<'_, T, O> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `begin` or `refill` gave the slot to this claim alone, until it is submitted or
        // dropped.
        self.slot.state.with(|state| unsafe { &*state })
    }
}

impl<T, O> DerefMut for Claim<'_, T, O> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the claim is borrowed alone.
        self.slot.state.with_mut(|state| unsafe { &mut *state })
    }
}

impl<T, O> Deref for Hold<'_, T, O> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as for the claim that it was, which is not submitted before it is dropped.
        self.slot.state.with(|state| unsafe { &*state })
    }
}

impl<T, O> Drop for Claim<'_, T, O> {
    fn drop(&mut self) {
        (self.slot.let_go)(self);
        let cancelled = self.slot.word.cancel(self.this());
        debug_assert!(cancelled.is_ok(), "{cancelled:?}");
    }
}

impl<T, O> Drop for Hold<'_, T, O> {
    #[inline]
    fn drop(&mut self) {
        self.slot.word.submit(self.this);
    }
}

impl<T, O> fmt::Debug for Hold<'_, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Hold");
        out.field("index", &self.index()).field("this", &self.this).finish_non_exhaustive()
    }
}

impl<T, O> fmt::Debug for Claim<'_, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim")
            .field("index", &self.index())
            .field("this", &self.this())
            .finish_non_exhaustive()
    }
}

impl<T, O> fmt::Debug for Ring<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| slot.word.phase())).finish()
    }
}
