//! The numbers by which ids are told from those of another set.

use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A number for a new set: even, and never given again.
pub(super) fn next() -> usize {
    numbers().fetch_add(1 + NOT_FLAT, Relaxed)
}

/// The bit of a slot's mark where the slot is no run of elements in a ring slot: steps write it in
/// another way, or not at all.
pub(super) const NOT_FLAT: usize = 1;

crate::sync::global! {
    /// The number of the next set.
    const fn numbers() -> &AtomicUsize = AtomicUsize::new(2);
}
