//! Counts of slabs and blocks, kept as they change: statistics and refusals look at no slab.
//!
//! * all: written by the thread that reserves, frees, opens or folds; read by statistics. Relaxed:
//!   each number is right for some moment.

use super::geometry::LARGE;
use super::size_class::SizeClass;
use crate::address::to_usize;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counts of a store.
#[derive(Debug)]
pub(super) struct Counts {
    classes: Box<[ClassCounts]>,
    large: ClassCounts,
    /// Bytes of large blocks.
    large_bytes: AtomicU64,
}

/// The counts of one class: in a line of its own, since threads count in many classes at once.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct ClassCounts {
    slabs: AtomicU64,
    blocks: AtomicU64,
    taken: AtomicU64,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            classes: SizeClass::all().map(|_| ClassCounts::default()).collect(),
            large: ClassCounts::default(),
            large_bytes: AtomicU64::new(0),
        }
    }

    /// Counts a new run of a class with so many blocks.
    pub(super) fn open(&self, class: u8, blocks: u32) {
        self.of(class).slabs.fetch_add(1, Relaxed);
        self.of(class).blocks.fetch_add(blocks.into(), Relaxed);
    }

    /// Counts a run that is gone.
    pub(super) fn close(&self, class: u8, blocks: u32) {
        self.of(class).slabs.fetch_sub(1, Relaxed);
        self.of(class).blocks.fetch_sub(blocks.into(), Relaxed);
    }

    /// Counts blocks that are taken.
    #[inline]
    pub(super) fn take(&self, class: u8, blocks: u32) {
        self.of(class).taken.fetch_add(blocks.into(), Relaxed);
    }

    /// Counts blocks that are free again.
    #[inline]
    pub(super) fn give(&self, class: u8, blocks: u32) {
        self.of(class).taken.fetch_sub(blocks.into(), Relaxed);
    }

    /// Counts the bytes of a large block.
    pub(super) fn take_large(&self, bytes: usize) {
        self.large_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts the bytes of a large block that is free again.
    pub(super) fn give_large(&self, bytes: usize) {
        self.large_bytes.fetch_sub(bytes as u64, Relaxed);
    }

    /// Bytes of blocks that are taken.
    pub(super) fn taken(&self) -> usize {
        let classes = SizeClass::all().zip(&self.classes);
        let bytes = classes.map(|(class, counts)| class.block_size() * counts.read().2);
        bytes.sum::<usize>() + to_usize(self.large_bytes.load(Relaxed))
    }

    /// The counts of a class.
    pub(super) fn of(&self, class: u8) -> &ClassCounts {
        if class == LARGE {
            &self.large
        } else {
            &self.classes[usize::from(class) % SizeClass::COUNT]
        }
    }
}

impl ClassCounts {
    /// Slabs, the blocks in them, and how many of these are taken.
    pub(super) fn read(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicU64| to_usize(count.load(Relaxed));
        (read(&self.slabs), read(&self.blocks), read(&self.taken))
    }
}
