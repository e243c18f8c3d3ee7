//! A fixed number of things that wait for the device.
//!
//! ```text
//!   free  --reserve-->  the caller's  --fill-->  filled  --drain, done-->  free
//!     ^______release_________|              ^______not yet____|
//! ```
//!
//! A slot is in one bitmap or the other, or one thread's, so its lock never finds another thread
//! inside: it is there because the value is not a word, and costs one exchange.
//!
//! * `free`, `filled`: written by who gives a slot; read by who takes it. Those of
//!   [`Bitmap`](crate::lockfree::bitmap): `Release` and `Acquire`.

use crate::lockfree::bitmap::{Bitmap, Bitmaps, Bits};
use crate::sync::{Mutex, MutexGuard};

/// Slots for values of one kind.
#[derive(Debug)]
pub(super) struct Slots<T> {
    free: Bitmaps,
    filled: Bitmaps,
    values: Box<[Mutex<Option<T>>]>,
}

impl<T> Slots<T> {
    pub(super) fn new(len: usize) -> Self {
        let free = Bitmaps::new(1, len);
        free.get(0).fill(len);
        Self {
            free,
            filled: Bitmaps::new(1, len),
            values: (0..len).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// A slot for the caller, if one is free.
    pub(super) fn reserve(&self) -> Option<usize> {
        self.free.get(0).take(0, 1).and_then(Bits::highest)
    }

    /// Gives back a slot of the caller's.
    pub(super) fn release(&self, slot: usize) {
        give(self.free.get(0), slot);
    }

    /// Lets a value wait in a slot of the caller's.
    pub(super) fn fill(&self, slot: usize, value: T) {
        *self.value(slot) = Some(value);
        give(self.filled.get(0), slot);
    }

    /// Ends the waits of values that are `done`, and returns how many. One whose question fails
    /// stays, and the error goes to the caller.
    pub(super) fn drain<E>(
        &self,
        mut is_done: impl FnMut(&T) -> Result<bool, E>,
        mut done: impl FnMut(T),
    ) -> Result<usize, E> {
        let filled = self.filled.get(0);
        let mut count = 0;
        for slot in filled.snapshot().flat_map(Bits::indices) {
            if !filled.take_exact(Bits::one(slot)) {
                continue;
            }
            let answer = self.value(slot).as_ref().map_or(Ok(false), &mut is_done);
            if matches!(answer, Ok(true)) {
                let value = self.value(slot).take();
                give(self.free.get(0), slot);
                value.into_iter().for_each(&mut done);
                count += 1;
            } else {
                give(filled, slot);
                answer?;
            }
        }
        Ok(count)
    }

    /// How many values wait at this moment.
    pub(super) fn len(&self) -> usize {
        self.filled.get(0).snapshot().map(|bits| bits.count() as usize).sum()
    }

    fn value(&self, slot: usize) -> MutexGuard<'_, Option<T>> {
        self.values[slot].lock()
    }
}

fn give(set: Bitmap<'_>, slot: usize) {
    // The slot is the caller's, so it is in neither set.
    let given = set.give(Bits::one(slot));
    debug_assert!(given.is_ok(), "{given:?}");
}

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
