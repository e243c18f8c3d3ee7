//! A fixed number of things that wait for the device.
//!
//! ```text
//!   FREE  --reserve-->  OWNED  --fill-->  FILLED  --drain, done-->  FREE
//!     ^_____release_______|                  ^______not yet____|
//! ```
//!
//! A slot that is owned is one thread's, which alone touches its value and moves it on by a store:
//! a hold costs one locked instruction here, and its end none.
//!
//! * `states[i]`: written by `reserve` and `drain` (CAS), and by the slot's owner; read by the
//!   same. The `Release` of `fill` pairs with the `Acquire` of `drain`: the thread that takes a
//!   value sees it whole. The `Release` of `release` pairs with the `Acquire` of `reserve`: the
//!   next owner comes after the last.
//! * `values[i]`: written by the slot's owner.
//! * `first`: written by `reserve`, `drain`; read by `reserve`. Relaxed: a hint.
//! * `used`: written by `reserve`; read by `drain`. Relaxed: a slot that is filled later is drained
//!   by a later call.

#![expect(unsafe_code, reason = "the owner of a slot has its value alone")]

use crate::sync::UnsafeCell;
use crate::sync::atomic::{
    AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

/// Slots for values of one kind.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    states: Box<[AtomicU32]>,
    values: Box<[UnsafeCell<Option<T>>]>,
    /// Where to look for a free slot.
    first: AtomicUsize,
    /// Slots that are or were reserved are below this.
    used: AtomicUsize,
}

// SAFETY: a value is touched by the owner of its slot alone, and each comes after the one before,
// see `states`; no reference to a value leaves the owner's call.
unsafe impl<T: Send> Sync for Slots<T> {}

impl<T> Slots<T> {
    pub(crate) fn new(len: usize) -> Self {
        Self {
            states: (0..len).map(|_| AtomicU32::new(FREE)).collect(),
            values: (0..len).map(|_| UnsafeCell::new(None)).collect(),
            first: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
        }
    }

    /// A slot for the caller, if one is free.
    pub(crate) fn reserve(&self) -> Option<usize> {
        let (first, len) = (self.first.load(Relaxed), self.states.len());
        let first = first.min(len);
        let slot = (first..len).chain(0..first).find(|slot| self.take(*slot, FREE))?;
        self.first.store(slot + 1, Relaxed);
        if slot >= self.used.load(Relaxed) {
            // Some more than one: that is a locked instruction now and then.
            let used = (slot + 1).next_multiple_of(STEP).min(self.states.len());
            self.used.fetch_max(used, Relaxed);
        }
        Some(slot)
    }

    /// As [`reserve`](Self::reserve), if the slot that is expected to be free is, and was in use
    /// before.
    #[inline]
    pub(crate) fn reserve_next(&self) -> Option<usize> {
        let slot = self.first.load(Relaxed);
        if slot >= self.used.load(Relaxed) || !self.take(slot, FREE) {
            return None;
        }
        self.first.store(slot + 1, Relaxed);
        Some(slot)
    }

    /// Makes a slot in that state the caller's.
    #[inline]
    fn take(&self, slot: usize, state: u32) -> bool {
        self.states.get(slot).is_some_and(|word| {
            // Acquire: pairs with the Release of `release` and of `fill`. A look first: slots in
            // other hands cost no locked instruction.
            word.load(Relaxed) == state
                && word.compare_exchange(state, OWNED, Acquire, Relaxed).is_ok()
        })
    }

    /// Gives back a slot of the caller's.
    #[inline]
    pub(crate) fn release(&self, slot: usize) {
        // Release: pairs with the Acquire of `take`.
        self.states[slot].store(FREE, Release);
    }

    /// Lets a value wait in a slot of the caller's.
    #[inline]
    pub(crate) fn fill(&self, slot: usize, value: T) {
        // SAFETY: the caller owns the slot, which holds nothing that would have to be dropped.
        self.values[slot].with_mut(|place| unsafe { place.write(Some(value)) });
        self.wait_in(slot);
    }

    /// Lets the value of a slot of the caller's wait.
    #[inline]
    fn wait_in(&self, slot: usize) {
        // Release: pairs with the Acquire of `take`.
        self.states[slot].store(FILLED, Release);
    }

    /// Ends the waits of values that are `done`, and returns how many. One whose question fails
    /// stays, and the error goes to the caller.
    pub(crate) fn drain<E>(
        &self,
        mut is_done: impl FnMut(&T) -> Result<bool, E>,
        mut done: impl FnMut(T),
    ) -> Result<usize, E> {
        let mut count = 0;
        for slot in 0..self.used.load(Relaxed) {
            if !self.take(slot, FILLED) {
                continue;
            }
            // SAFETY: this thread owns the slot.
            let answer = self.values[slot]
                .with(|place| unsafe { &*place }.as_ref().map_or(Ok(false), &mut is_done));
            if matches!(answer, Ok(true)) {
                // SAFETY: as above.
                let value = self.values[slot].with_mut(|place| unsafe { &mut *place }.take());
                self.release(slot);
                // The lowest first, so that few are ever in use and a drain looks at few.
                self.first.store(slot.min(self.first.load(Relaxed)), Relaxed);
                value.into_iter().for_each(&mut done);
                count += 1;
            } else {
                self.wait_in(slot);
                answer?;
            }
        }
        Ok(count)
    }

    /// How many values wait at this moment.
    pub(crate) fn len(&self) -> usize {
        let used = &self.states[..self.used.load(Relaxed)];
        used.iter().filter(|state| state.load(Relaxed) == FILLED).count()
    }
}

/// By how many the slots that are looked at become more.
const STEP: usize = 64;

/// No value, and no owner.
const FREE: u32 = 0;
/// One thread's.
const OWNED: u32 = 1;
/// A value that waits.
const FILLED: u32 = 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_waits_until_it_is_done() {
        let slots = Slots::new(2);
        let (first, second) = (slots.reserve().unwrap(), slots.reserve().unwrap());
        assert_eq!(slots.reserve(), None);
        slots.fill(first, 1);
        slots.fill(second, 2);
        let mut done = Vec::new();
        let count = slots.drain::<()>(|value| Ok(*value == 2), |value| done.push(value));
        assert_eq!((count, &done, slots.len()), (Ok(1), &vec![2], 1));
        assert_eq!(slots.reserve(), Some(second));
        assert_eq!(slots.drain(|_| Err(7), |_| ()), Err(7));
        assert_eq!(slots.drain::<()>(|_| Ok(true), |value| done.push(value)), Ok(1));
        assert_eq!(done, [2, 1]);
    }
}
