//! Numbers that say how far a queue of work has come.
//!
//! A use of memory gets the number of the next marker, so issuing a ticket is one load, and one
//! marker serves all uses before it. A marker may be written long after the uses it covers: that is
//! late, never wrong.
//!
//! ```text
//!   the queue    work  work  [1]  work  [2]  work        [m]: marker m
//!   their tickets   1     1          2          3        next = 3, marked = 2
//! ```
//!
//! Why a marker covers every use that holds its number: suppose that marker
//! `m` went into the queue before some work. `begin_marker` came before that, and the queue itself
//! orders what is put in first before what is put in later, so the thread that put the work in then
//! reads a `next` above `m`.
//!
//! * `next`: written by `begin_marker`; read by `issue`. Relaxed: ordered by the queue, see above.
//! * `marked`: written by `end_marker`; read by `is_marked`. Relaxed: says whether a marker is
//!   still needed.
//! * `seen`: written by `observe`; read by `is_complete`. The `Release` of
//!   `observe` pairs with the `Acquire` of `completed`: a thread that finds a ticket complete comes
//!   after the one that saw the device say so.

use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// The tickets of one queue.
#[derive(Debug)]
pub(crate) struct Tickets {
    next: AtomicU64,
    marked: AtomicU64,
    seen: AtomicU64,
}

impl Tickets {
    /// No marker yet; the first will be 1.
    pub(crate) fn new() -> Self {
        Self { next: AtomicU64::new(1), marked: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }

    /// The ticket of work that is in the queue by now.
    #[inline]
    pub(crate) fn issue(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// The number of a marker, before the caller puts it into the queue. Callers take turns, so
    /// that markers enter the queue in the order of their numbers.
    pub(crate) fn begin_marker(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    /// Marker `number` is in the queue.
    pub(crate) fn end_marker(&self, number: u64) {
        self.marked.fetch_max(number, Relaxed);
    }

    /// Whether a marker that covers `ticket` is in the queue.
    pub(crate) fn is_marked(&self, ticket: u64) -> bool {
        self.marked.load(Relaxed) >= ticket
    }

    /// The queue has come to marker `number`.
    pub(crate) fn observe(&self, number: u64) {
        // Release: pairs with the Acquire of `completed`.
        self.seen.fetch_max(number, Release);
    }

    /// Whether the queue was seen at or behind the marker that covers `ticket`.
    #[inline]
    pub(crate) fn is_complete(&self, ticket: u64) -> bool {
        self.completed() >= ticket
    }

    /// The last marker that the queue was seen at.
    pub(crate) fn completed(&self) -> u64 {
        // Acquire: pairs with the Release of `observe`.
        self.seen.load(Acquire)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_marker_covers_all_uses_before_it() {
        let tickets = Tickets::new();
        let (first, second) = (tickets.issue(), tickets.issue());
        let marker = tickets.begin_marker();
        let third = tickets.issue();
        assert!(!tickets.is_marked(first));
        tickets.end_marker(marker);
        assert!(tickets.is_marked(second) && !tickets.is_marked(third));
        tickets.observe(marker);
        assert!(
            tickets.is_complete(first)
                && tickets.is_complete(second)
                && !tickets.is_complete(third)
        );
    }
}
