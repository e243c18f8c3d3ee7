//! The record of a run.

#![expect(unsafe_code, reason = "vouches that zeros are records")]

use crate::lockfree::slab_state::SlabWord;
use crate::sync::Zeroed;
use crate::sync::atomic::{AtomicU32, Ordering::AcqRel};

/// The metadata of the run that starts at a slice.
///
/// * `state`: written and read as `lockfree::slab_state` says.
/// * `len`: written by the thread that opens the run; read by all. Relaxed: published by the
///   `Release` of the run's `open`.
/// * `next`: written and read as `lockfree::index_stack` says.
/// * `queued`: written by frees and by the thread that folds emptied runs, both with `AcqRel`
///   swaps: the thread that takes a run off the list after a free has found it there sees that
///   free.
///
/// As long as a cache line, so that threads with neighbouring runs do not share one; but aligned to
/// no more than what the system's allocator has zeros for: memory that is aligned to a cache line
/// would be filled by hand, and all of a table would be touched when it is made.
#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct RunRecord {
    pub(super) state: SlabWord,
    /// Slices in the run.
    pub(super) len: AtomicU32,
    /// The run below in the list of emptied ones.
    pub(super) next: AtomicU32,
    /// Whether the run is in that list: 1, or 0.
    queued: AtomicU32,
    rest_of_line: [u32; 11],
}

impl RunRecord {
    /// Notes that the run goes to the list of emptied ones. Returns whether it was there already.
    pub(super) fn enqueue(&self) -> bool {
        // AcqRel: Release pairs with the Acquire of `dequeue`.
        self.queued.swap(1, AcqRel) == 1
    }

    /// Notes that the run is off the list.
    pub(super) fn dequeue(&self) {
        // AcqRel: Acquire pairs with the Release of `enqueue`.
        self.queued.swap(0, AcqRel);
    }
}

// SAFETY: all fields are atomics, of which zeros are values: a vacant run of no slices, which is in
// no list. The word of a vacant run is 0, see `SlabWord::vacant`.
unsafe impl Zeroed for RunRecord {
    fn zero() -> Self {
        Self {
            state: SlabWord::vacant(),
            len: AtomicU32::new(0),
            next: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            rest_of_line: [0; 11],
        }
    }
}
