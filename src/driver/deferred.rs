#![expect(unsafe_code, reason = "owners travel through C as pointers")]
//! Owners that were given up where the driver may not be called, until they may be dropped.
//!
//! The destructor of a CUDA user object runs on a thread of the driver's that may not call it, and
//! what a graph kept alive is freed by calling it. So the destructor only links the owner in here,
//! and the next call that may drops it, see [`Driver::drop_deferred`](super::Driver).
//! The list is Treiber's stack, taken whole: nothing is ever popped one by one, so no address can
//! come back between a look and an exchange.
//!
//! ```text
//!   head --> Parcel --> Parcel --> null
//! ```
//!
//! # Ends
//!
//! An owner keeps its context, and so the driver and this list. While something outside of owners
//! holds the driver, a call comes that drops what is here, at the latest the drop of the last
//! [`Driver`]. Owners that are given up later find no [user](Deferred::join): a thread of its own
//! drops them.
//!
//! * `head`: written by `push`, `take`; read by both. `take` sees the parcels as `push` linked
//!   them.
//! * `alive`: written by `Parcel::new`, its drop; read by `len`. A reader of 0 sees the effects
//!   of the owners' drops.
//! * `users`: written by `join`, `leave`; read by `leave`, `push`. With `head`: of a last
//!   `leave` and a `push`, one sees the other.
//! * `is_attended`: written by `push`, `attend`; read by both. With `head`: a parcel that starts no
//!   thread is seen by the one that runs.

use core::ffi::c_void;
use core::panic::AssertUnwindSafe;
use core::ptr;
use std::panic::catch_unwind;
use std::sync::{Arc, Weak};

use super::{Driver, Inner, work};
use crate::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use crate::sync::thread;

/// A list of owners to be dropped.
#[derive(Debug)]
pub(crate) struct Deferred {
    head: AtomicPtr<Parcel>,
    /// Owners that are on their way or here.
    alive: AtomicUsize,
    /// Holders of the driver outside of owners.
    users: AtomicUsize,
    /// Whether a thread was started that has not yet looked.
    is_attended: AtomicBool,
    driver: Weak<Inner>,
}

/// An owner on its way through the driver.
pub(crate) struct Parcel {
    next: *mut Self,
    /// Where it goes; taken when it does, so that a list does not hold itself.
    list: Option<Arc<Deferred>>,
    owner: Option<Box<dyn Send>>,
}

impl Deferred {
    /// The list of a driver, with one user: it.
    pub(super) fn of(driver: Weak<Inner>) -> Self {
        let (head, alive) = (AtomicPtr::new(ptr::null_mut()), AtomicUsize::new(0));
        Self {
            head,
            alive,
            users: AtomicUsize::new(1),
            is_attended: AtomicBool::new(false),
            driver,
        }
    }

    /// A list whose holder drains it.
    pub(crate) fn new() -> Self {
        Self::of(Weak::new())
    }

    /// Drops the owners in the list. Returns how many. A panic of an owner's drop ends here.
    pub(crate) fn drain(&self) -> usize {
        let mut count = 0;
        let mut next = self.take();
        while !next.is_null() {
            // SAFETY: `push` made it of a box, and `take` has unlinked it for this thread alone.
            let mut parcel = unsafe { Box::from_raw(next) };
            next = parcel.next;
            parcel.list = None;
            parcel.open(self);
            count += 1;
        }
        count
    }

    /// Whether there is nothing to drop, at this moment.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Relaxed).is_null()
    }

    /// How many owners are not dropped yet: the driver has them, or they are here.
    pub(crate) fn len(&self) -> usize {
        // Acquire: pairs with the Release of `Parcel::open`.
        self.alive.load(Acquire)
    }

    /// Counts one more that holds the driver outside of owners and will [`leave`](Self::leave).
    pub(crate) fn join(&self) {
        // Relaxed: a user has the driver from another user, who has not left.
        self.users.fetch_add(1, Relaxed);
    }

    /// Counts one less. Returns whether that was the last user, which then drops what is here.
    pub(crate) fn leave(&self) -> bool {
        // AcqRel: pairs with itself in
        // `push`, which sees that no user is left, or else happens before the look at `head` that
        // follows.
        self.users.fetch_sub(1, AcqRel) == 1
    }

    /// Adds an owner. Neither waits nor allocates. Returns whether no thread will come to drop it,
    /// since the driver has no user.
    pub(crate) fn push(&self, mut parcel: Box<Parcel>) -> bool {
        let mut head = self.head.load(Relaxed);
        parcel.next = head;
        let raw = Box::into_raw(parcel);
        // Release: pairs with the Acquire of `take`.
        while let Err(now) = self.head.compare_exchange_weak(head, raw, Release, Relaxed) {
            head = now;
            // SAFETY: made of a box above, and not yet in the list.
            unsafe { (*raw).next = head };
        }
        // AcqRel: pairs with itself in `leave`. An addition, since it must read the newest value.
        self.users.fetch_add(0, AcqRel) == 0
    }

    /// Has `start` start a thread that [looks](Self::look), unless one was that has not yet done
    /// so.
    pub(crate) fn attend(self: &Arc<Self>, start: impl FnOnce(Arc<Self>) -> bool) {
        // AcqRel: pairs with itself in `look`.
        if self.is_attended.swap(true, AcqRel) {
            return;
        }
        if !start(Arc::clone(self)) {
            // The parcels wait for the next owner. AcqRel: as above.
            self.is_attended.swap(false, AcqRel);
        }
    }

    /// Drops what no other thread will.
    pub(crate) fn look(&self) {
        // AcqRel: pairs with itself in `attend`. An owner that came before is in the list; one that
        // comes later starts another thread.
        self.is_attended.swap(false, AcqRel);
        match self.driver.upgrade() {
            Some(driver) => _ = Driver::joined(driver).drop_deferred(),
            None => _ = self.drain(),
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
        // Relaxed: nothing is read through the count before it goes down.
        list.alive.fetch_add(1, Relaxed);
        Box::new(Self { next: ptr::null_mut(), list: Some(Arc::clone(list)), owner: Some(owner) })
    }

    /// Gives the parcel up.
    pub(crate) fn send(mut self: Box<Self>) {
        let Some(list) = self.list.take() else { return };
        if list.push(self) && list.driver.strong_count() > 0 {
            list.attend(|list| {
                let thread = thread::Builder::new().name("wharf-deferred".to_owned());
                thread.spawn(move || list.look()).is_ok()
            });
        }
    }

    /// Drops the owner, of which `list` has counted one.
    fn open(&mut self, list: &Deferred) {
        let owner = self.owner.take();
        work::interrupt();
        // What panics has been told by the panic's hook; the list goes on.
        let _panicked = catch_unwind(AssertUnwindSafe(|| drop(owner)));
        // Release: pairs with the Acquire of `Deferred::len`.
        list.alive.fetch_sub(1, Release);
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        // It was not sent: the driver did not take it.
        if let Some(list) = self.list.take() {
            self.open(&list);
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
        assert_eq!((Arc::strong_count(&owner), list.len()), (4, 3));
        assert_eq!((list.drain(), Arc::strong_count(&owner)), (3, 1));
        assert_eq!((list.drain(), list.is_empty(), list.len()), (0, true, 0));
    }

    #[test]
    fn a_list_that_goes_takes_its_owners_along() {
        let (list, owner) = (Arc::new(Deferred::new()), Arc::new(()));
        Parcel::new(Box::new(Arc::clone(&owner)), &list).send();
        drop(list);
        assert_eq!(Arc::strong_count(&owner), 1);
    }

    #[test]
    fn an_owner_is_counted_until_it_is_dropped_sent_or_not() {
        let list = Arc::new(Deferred::new());
        let (one, other) = (Parcel::new(Box::new(()), &list), Parcel::new(Box::new(()), &list));
        assert_eq!((list.len(), list.drain()), (2, 0));
        drop(one);
        other.send();
        assert_eq!((list.len(), list.drain(), list.len()), (1, 1, 0));
    }

    #[test]
    fn a_panic_of_an_owner_loses_no_other() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                std::panic::resume_unwind(Box::new("an owner's"));
            }
        }
        let (list, owner) = (Arc::new(Deferred::new()), Arc::new(()));
        Parcel::new(Box::new(Arc::clone(&owner)), &list).send();
        Parcel::new(Box::new(Panics), &list).send();
        Parcel::new(Box::new(Arc::clone(&owner)), &list).send();
        assert_eq!((list.drain(), list.len(), Arc::strong_count(&owner)), (3, 0, 1));
    }
}
