//! Visits: whether the owner of a cache is at its magazines, and whether another thread is. The
//! protocol is in `taking`.
//!
//! * `busy`: written by the owner; read by takers. The `Release` of the owner's exit pairs with the
//!   `Acquire` of the taker: it sees the magazines as the owner left them.
//! * `lock`: written by takers (CAS), one at a time; read by the owner. The `Release` of the unlock
//!   pairs with the `Acquire` of the owner, and of the next taker.

use crate::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::sync::{light_fence, thread};

/// Whether the owner of a cache is at its magazines, and whether a taker is.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(super) busy: AtomicU32,
    pub(super) lock: AtomicU32,
}

/// The owner is at its magazines until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Held<'a> {
    visit: &'a Visit,
    /// What the word was: 1 within another such time.
    before: u32,
}

impl Visit {
    pub(super) fn new() -> Self {
        Self { busy: AtomicU32::new(0), lock: AtomicU32::new(0) }
    }

    /// The owner begins a use that reads one length and writes it at most once.
    #[inline]
    pub(super) fn enter(&self) {
        self.busy.store(1, Relaxed);
        light_fence();
    }

    /// The owner ends it.
    #[inline]
    pub(super) fn exit(&self) {
        // Release: pairs with the Acquire of `is_busy`.
        self.busy.store(0, Release);
    }

    /// The owner begins any use; `None` while another thread is taking.
    pub(super) fn hold(&self) -> Option<Held<'_>> {
        let before = self.busy.load(Relaxed);
        let held = Held { visit: self, before };
        if before == 0 {
            self.enter();
            // Acquire: pairs with the Release of `unlock`.
            if self.lock.load(Acquire) != 0 {
                return None;
            }
        }
        Some(held)
    }

    /// As [`hold`](Self::hold), after the other thread is done.
    pub(super) fn hold_at_last(&self) -> Held<'_> {
        loop {
            match self.hold() {
                Some(held) => return held,
                None => thread::yield_now(),
            }
        }
    }

    pub(super) fn try_lock(&self) -> bool {
        // Acquire: pairs with the Release of `unlock`.
        self.lock.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
    }

    pub(super) fn unlock(&self) {
        // Release: pairs with the Acquire of `hold` and `try_lock`.
        self.lock.store(0, Release);
    }

    pub(super) fn is_busy(&self) -> bool {
        // Acquire: pairs with the Release of `exit`.
        self.busy.load(Acquire) != 0
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of `is_busy`.
        self.visit.busy.store(self.before, Release);
    }
}
