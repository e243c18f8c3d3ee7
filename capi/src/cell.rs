#![expect(unsafe_code, reason = "hands its content out by a word")]
//! A place for what one call at a time may use, and whose handles become stale.
//!
//! ```text
//!   word   life (58) | 0 (4) | awaited | taken
//! ```
//!
//! One change of the word finds a stale handle and keeps other calls out, so a call pays for both
//! once. Calls that meet in a cell are rare: those that wait do so under one lock of the process.
//!
//! * word: written by `take`, `begin`, and by the drop of `Taken`; read by the same. The `Release`
//!   of the drop pairs with the `Acquire` of `take`: a call sees the content as the last one left
//!   it.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::step::PLACE_BITS;

/// A content, and which life of the place it is.
#[derive(Default)]
pub(crate) struct Cell<T> {
    word: AtomicU64,
    content: UnsafeCell<T>,
}

// SAFETY: the content is used through a `Taken`, of which there is one at a time, and comes to the
// threads of later ones, ordered by the word.
unsafe impl<T: Send> Sync for Cell<T> {}

/// Exclusive use of a cell.
pub(crate) struct Taken<'a, T> {
    cell: &'a Cell<T>,
    /// The word of the cell when it is given back.
    word: u64,
}

impl<T> Cell<T> {
    /// Takes the cell in this life, when no other call has it. `None` if it is in another.
    #[inline]
    pub(crate) fn take(&self, life: u64) -> Option<Taken<'_, T>> {
        let word = life << FLAGS;
        // Acquire: pairs with the Release of the drop of `Taken`.
        match self.word.compare_exchange(word, word | TAKEN, Acquire, Relaxed) {
            Ok(_) => Some(Taken { cell: self, word }),
            Err(_) => self.take_later(life),
        }
    }

    /// Takes the cell and begins its next life: handles of the one before are stale.
    #[inline]
    pub(crate) fn begin(&self) -> Taken<'_, T> {
        loop {
            if let Some(mut taken) = self.take(self.word.load(Relaxed) >> FLAGS) {
                taken.word += 1 << FLAGS;
                return taken;
            }
        }
    }

    #[cold]
    fn take_later(&self, life: u64) -> Option<Taken<'_, T>> {
        if self.word.load(Relaxed) >> FLAGS != life {
            return None;
        }
        let mut turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let word = self.word.load(Relaxed);
            if word >> FLAGS != life {
                return None;
            }
            let is_taken = word & TAKEN != 0;
            let next = if is_taken { word | AWAITED } else { word | TAKEN };
            // Acquire: pairs with the Release of the drop of `Taken`.
            if self.word.compare_exchange(word, next, Acquire, Relaxed).is_err() {
                continue;
            }
            if !is_taken {
                return Some(Taken { cell: self, word });
            }
            // The call that gives it back takes the lock before it wakes, so not before this waits.
            turn = GIVEN_BACK.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Taken<'_, T> {
    /// How many lives the cell has begun.
    #[inline]
    pub(crate) fn life(&self) -> u64 {
        self.word >> FLAGS
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the cell was taken for this alone, until it is dropped.
        unsafe { &*self.cell.content.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and this is borrowed alone.
        unsafe { &mut *self.cell.content.get() }
    }
}

impl<T> Drop for Taken<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the Acquire of `take`.
        if self.cell.word.swap(self.word, Release) & AWAITED != 0 {
            wake();
        }
    }
}

impl<T> fmt::Debug for Cell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let life = self.word.load(Relaxed) >> FLAGS;
        f.debug_struct("Cell").field("life", &life).finish_non_exhaustive()
    }
}

#[cold]
fn wake() {
    drop(TURN.lock().unwrap_or_else(PoisonError::into_inner));
    GIVEN_BACK.notify_all();
}

/// Held between the look at a word and the wait for its next one.
static TURN: Mutex<()> = Mutex::new(());
static GIVEN_BACK: Condvar = Condvar::new();

const TAKEN: u64 = 1;
const AWAITED: u64 = 2;
/// The bits below a life: more than both need, and as many as a step's number has below its life,
/// so that one mask makes a word of the number.
const FLAGS: u32 = PLACE_BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_stale_when_the_cell_has_begun_again() {
        let cell = Cell::<u32>::default();
        let mut begun = cell.begin();
        *begun = 7;
        assert_eq!(begun.life(), 1);
        drop(begun);
        assert_eq!(cell.take(1).map(|taken| *taken), Some(7));
        assert!(
            cell.take(0).is_none()
                && cell.take(2).is_none()
                && cell.take(u64::MAX >> FLAGS).is_none()
        );
        assert_eq!(cell.begin().life(), 2);
        assert!(cell.take(1).is_none());
    }

    #[test]
    fn calls_that_meet_in_a_cell_have_it_one_after_the_other() {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 2000;
        let cell = Cell::<u64>::default();
        let life = cell.begin().life();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let mut taken = cell.take(life).unwrap();
                        let before = *taken;
                        std::thread::yield_now();
                        *taken = before + 1;
                    }
                });
            }
        });
        assert_eq!(*cell.take(life).unwrap(), THREADS * ROUNDS);
    }

    #[test]
    fn a_cell_begins_its_next_life_when_a_call_of_the_last_has_given_it_back() {
        let cell = Cell::<u64>::default();
        let taken = cell.take(0).unwrap();
        std::thread::scope(|scope| {
            let begins = scope.spawn(|| cell.begin().life());
            while cell.word.load(Relaxed) & AWAITED == 0 {
                std::thread::yield_now();
            }
            drop(taken);
            assert_eq!(begins.join().unwrap(), 1);
        });
        assert!(cell.take(0).is_none());
    }
}
