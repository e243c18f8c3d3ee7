#![expect(unsafe_code, reason = "owners travel through C as pointers")]
//! Owners that were given up where the driver may not be called, until somebody may drop them.
//!
//! The destructor of a CUDA user object runs on a thread of the driver's that may not call it, and
//! what a graph kept alive is freed by calling it. So the destructor only links the owner in here,
//! and the next call that changes graphs drops it, see [`Driver::drop_deferred`](super::Driver).
//! The list is Treiber's stack, taken whole: nothing is ever popped one by one, so no address can
//! come back between a look and an exchange.
//!
//! ```text
//!   head --> Parcel --> Parcel --> null
//! ```
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `head` | `push` (`Release`), `take` (`Acquire`) | both | `take` sees the parcels as `push` linked them |

use core::ffi::c_void;
use core::ptr;
use std::sync::Arc;

use crate::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// A list of owners to be dropped.
#[derive(Debug)]
pub(crate) struct Deferred {
    head: AtomicPtr<Parcel>,
}

/// An owner on its way through the driver.
pub(crate) struct Parcel {
    next: *mut Self,
    /// Where it goes; taken when it does, so that a list does not hold itself.
    list: Option<Arc<Deferred>>,
    owner: Box<dyn Send>,
}

impl Deferred {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Drops what is in the list; how many owners that was.
    pub(crate) fn drain(&self) -> usize {
        let mut count = 0;
        let mut next = self.take();
        while !next.is_null() {
            // SAFETY: `push` made it of a box, and `take` has unlinked it for this thread alone.
            let parcel = unsafe { Box::from_raw(next) };
            next = parcel.next;
            drop(parcel.owner);
            count += 1;
        }
        count
    }

    /// Whether there is nothing to drop, at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Relaxed).is_null()
    }

    /// Adds an owner. Neither waits nor allocates.
    pub(crate) fn push(&self, mut parcel: Box<Parcel>) {
        let mut head = self.head.load(Relaxed);
        parcel.next = head;
        let raw = Box::into_raw(parcel);
        // Release: pairs with the Acquire of `take`.
        while let Err(now) = self.head.compare_exchange_weak(head, raw, Release, Relaxed) {
            head = now;
            // SAFETY: made of a box above, and not yet in the list.
            unsafe { (*raw).next = head };
        }
    }

    fn take(&self) -> *mut Parcel {
        // Acquire: pairs with the Release of `push`.
        self.head.swap(ptr::null_mut(), Acquire)
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.drain();
    }
}

impl Parcel {
    /// Packs `owner`, to go to `list` when it is given up.
    pub(crate) fn new(owner: Box<dyn Send>, list: &Arc<Deferred>) -> Box<Self> {
        Box::new(Self { next: ptr::null_mut(), list: Some(Arc::clone(list)), owner })
    }

    /// Gives the parcel up.
    pub(crate) fn send(mut self: Box<Self>) {
        if let Some(list) = self.list.take() {
            list.push(self);
        }
    }
}

/// The destructor of a user object: gives up the parcel behind `data`.
///
/// # Safety
///
/// `data` is a `Parcel` of a box, and this is its only owner.
pub(crate) unsafe extern "C" fn give_up(data: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { Box::from_raw(data.cast::<Parcel>()) }.send();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn owners_are_dropped_once_and_by_the_drain() {
        let (list, owner) = (Arc::new(Deferred::new()), Arc::new(()));
        for _ in 0..3 {
            Parcel::new(Box::new(Arc::clone(&owner)), &list).send();
        }
        assert_eq!(Arc::strong_count(&owner), 4);
        assert_eq!((list.drain(), Arc::strong_count(&owner)), (3, 1));
        assert_eq!((list.drain(), list.is_empty()), (0, true));
    }

    #[test]
    fn a_list_that_goes_takes_its_owners_along() {
        let (list, owner) = (Arc::new(Deferred::new()), Arc::new(()));
        Parcel::new(Box::new(Arc::clone(&owner)), &list).send();
        drop(list);
        assert_eq!(Arc::strong_count(&owner), 1);
    }
}
