//! A limit on the number of blocks that a pool has.

use super::record::BufferRecord;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::try_update;

/// How many blocks a pool has, and may have.
///
/// | word | written by | read by | orderings |
/// |---|---|---|---|
/// | `blocks` | `try_add` (CAS), `remove` | `try_add` | Relaxed: the number itself is the fact |
/// | `clock` | `stamp` | | Relaxed: order of releases, as good as it gets between threads |
#[derive(Debug)]
pub(super) struct BufferLimit {
    max: Option<u64>,
    blocks: AtomicU64,
    clock: AtomicU64,
}

impl BufferLimit {
    pub(super) fn new(max: Option<usize>) -> Self {
        Self { max: max.map(|max| max as u64), blocks: AtomicU64::new(0), clock: AtomicU64::new(0) }
    }

    /// The most blocks there may be.
    pub(super) fn max(&self) -> Option<u64> {
        self.max
    }

    /// Counts one block more; not if there are as many as there may be.
    pub(super) fn try_add(&self) -> bool {
        let Some(max) = self.max else { return true };
        try_update(
            &self.blocks,
            Relaxed,
            |blocks| if blocks < max { Ok(blocks + 1) } else { Err(()) },
        )
        .is_ok()
    }

    /// Counts one block less.
    pub(super) fn remove(&self) {
        if self.max.is_some() {
            self.blocks.fetch_sub(1, Relaxed);
        }
    }

    /// The moment of a release.
    #[inline]
    pub(super) fn stamp(&self, record: &BufferRecord) {
        if self.max.is_some() {
            record.stamp.store(self.clock.fetch_add(1, Relaxed), Relaxed);
        }
    }
}
