//! Indices that nobody uses any more except, until a ticket completes, the device.
//!
//! A set, not a queue: each index has a ticket of its own, and a [`Bitmap`] says which indices
//! are retired, so an index whose ticket never completes holds up no other. The belts of
//! [wgpu](https://github.com/gfx-rs/wgpu/blob/trunk/wgpu/src/util/belt.rs) keep lists instead,
//! for one owner.
//!
//! ```text
//!   retired   bit i: index i waits       tickets[i]   for this ticket
//! ```
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `tickets[i]` | `retire`, which owns `i` | `reclaim` | a hint until `i` is taken from `retired`, exact after |
//! | `retired` | `retire` (`give`), `reclaim` (`take_exact`) | `reclaim` | those of [`Bitmap`]: the `Release` of `give` publishes the ticket and all that was done with the index |

use super::bitmap::{AlreadyFree, Bitmap, Bitmaps, Bits};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Indices below a fixed number, each with the ticket it waits for.
#[derive(Debug)]
pub(crate) struct RetireList {
    retired: Bitmaps,
    tickets: Box<[AtomicU64]>,
}

impl RetireList {
    /// A list for indices `0..len`, none retired.
    pub(crate) fn new(len: usize) -> Self {
        Self { retired: Bitmaps::new(1, len), tickets: (0..len).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Retires `index`, which the caller owns, until `ticket` completes.
    ///
    /// The error says that it is retired already; its ticket is then unspecified.
    pub(crate) fn retire(&self, index: usize, ticket: u64) -> Result<(), AlreadyFree> {
        self.tickets[index].store(ticket, Relaxed);
        self.set().give(Bits::one(index))
    }

    /// Takes an index whose ticket is complete; it is the caller's then.
    pub(crate) fn reclaim(&self, is_complete: impl Fn(u64) -> bool) -> Option<usize> {
        self.set().snapshot().flat_map(Bits::indices).find(|&index| {
            // A first look without taking it; most tickets are not complete.
            is_complete(self.tickets[index].load(Relaxed)) && self.take(index, &is_complete)
        })
    }

    /// How many indices wait at this moment.
    pub(crate) fn len(&self) -> usize {
        self.set().snapshot().map(|bits| bits.count() as usize).sum()
    }

    /// Takes `index` if it is retired and its ticket, looked at again, is complete.
    fn take(&self, index: usize, is_complete: impl Fn(u64) -> bool) -> bool {
        if !self.set().take_exact(Bits::one(index)) {
            return false;
        }
        // Between the first look and the taking, somebody else may have reclaimed the index,
        // used it and retired it again, with a ticket that is not complete.
        if is_complete(self.tickets[index].load(Relaxed)) {
            return true;
        }
        // It is ours, so it cannot be retired at the same time.
        let given = self.set().give(Bits::one(index));
        debug_assert!(given.is_ok(), "{given:?}");
        false
    }

    fn set(&self) -> Bitmap<'_> {
        self.retired.get(0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_ticket_holds_up_no_other() {
        let list = RetireList::new(100);
        list.retire(3, 10).unwrap();
        list.retire(99, 5).unwrap();
        assert!(list.retire(3, 4).is_err());
        list.retire(7, 4).unwrap();
        assert_eq!(list.len(), 3);
        assert_eq!(list.reclaim(|ticket| ticket <= 3), None);
        let done = |ticket| ticket <= 5 && ticket != 4;
        assert_eq!(list.reclaim(done), Some(99));
        assert_eq!(list.reclaim(done), None);
        assert_eq!(list.len(), 2);
    }
}
