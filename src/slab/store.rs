//! The shared half of a pool: the runs of a span, and the blocks in them.
//!
//! ```text
//!   room[class]     set of runs: slabs of the class that may have a free block
//!        |
//!        v a hint: a reader checks the state, and removes a hint that was wrong
//!   runs[slice]     state word and length of the run that starts there
//!   blocks[slice]   bitmap of the same run: 1 = free; unused where the run has one block, which
//!                   the state counts
//!   raw[slice]      bitmap of the same blocks: 1 = handed out as a bare address
//!   heads[slice]    the first slice of the run that the slice belongs to
//!
//!   emptied         list of runs that may be all free
//!        |
//!        v folded into the map by the thread that takes its lock next
//!   space           the map: what has memory, what of it is free
//! ```
//!
//! A run is set up, ended and given another class only while its state word says that it is
//! claimed, by the thread that has the lock of the map. Everything else happens between a
//! reservation and a return in that word, without a lock. Allocation is in this file, freeing in
//! `free`, the way from an address to its block in `locate`; how runs begin and end is in `growth`,
//! `fold` and `trim`.
//!
//! * `heads`, `whole`: written by the thread that opens a run; read by all. Relaxed: published by
//!   the `Release` of the run's `open`; a thread that has a block of it, or reads the state with
//!   `Acquire`, sees them.
//! * hints: written and read as `lockfree::bitmap` says. The state is read again after a hint is
//!   removed, so none is lost.

use super::budget::{Budget, CacheBudget};
use super::counts::Counts;
use super::geometry::{Geometry, LARGE, most_blocks};
use super::number::{NO_SLICE, SliceCount, SliceId};
use super::recall::Recalls;
use super::run::RunRecord;
use super::size_class::SizeClass;
use super::sleep::Sleep;
use super::space::{PiecePolicy, Space};
use super::span::PoolSpan;
use crate::lockfree::bitmap::Bitmaps;
use crate::lockfree::index_stack::IndexStack;
use crate::lockfree::slab_state::SlabState;
use crate::lockfree::transfer_cache::TransferCache;
use crate::memory::MemoryResource;
use crate::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, hint, zeroed};

/// The runs of one span.
#[derive(Debug)]
pub(crate) struct Store<R> {
    pub(crate) span: PoolSpan<R>,
    pub(super) geometry: Geometry,
    pub(crate) budget: Budget,
    pub(super) space: Mutex<Space>,
    /// Held by the thread that commits or decommits, and not by one that has the map.
    pub(super) growing: Mutex<()>,
    pub(super) sleep: Sleep,
    pub(super) emptied: IndexStack,
    /// Whether a search looks at what is free before emptied runs are folded, which may be used
    /// again as they are.
    pub(super) folds_late: bool,
    pub(super) runs: Box<[RunRecord]>,
    pub(super) heads: Box<[AtomicU32]>,
    /// As `heads`, of granules that are part of one large run.
    pub(super) whole: Box<[AtomicU32]>,
    pub(super) blocks: Bitmaps,
    pub(super) raw: Bitmaps,
    pub(super) room: Bitmaps,
    /// The large block that was freed last, by its length modulo so many: hints, of a store that
    /// folds late.
    pub(super) freed_last: [AtomicU32; FREED_LAST],
    pub(super) counts: Counts,
    pub(super) recalls: Recalls,
    pub(super) caches: CacheBudget,
    /// Blocks of the classes with magazines, on their way from one cache to another.
    pub(crate) transfer_cache: TransferCache,
    /// Local caches so far. Relaxed: a number for each, and no more.
    pub(super) local_caches: AtomicUsize,
}

/// Free blocks of one slab that are the caller's to take.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Reserved {
    pub(crate) head: SliceId,
    pub(crate) class: SizeClass,
    pub(crate) count: u32,
}

/// A slab or the run of a large block, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenRun {
    pub(crate) head: SliceId,
    pub(crate) len: SliceCount,
    pub(crate) state: SlabState,
    /// The size of its blocks, in bytes.
    pub(crate) block_size: usize,
}

/// Classes with magazines: blocks of up to 1 MiB. The models make do with 1 KiB.
pub(crate) const CACHED_CLASSES: usize = if cfg!(all(test, loom)) { 4 } else { SizeClass::COUNT };

/// Lengths of which the large block that was freed last is remembered.
pub(super) const FREED_LAST: usize = if cfg!(all(test, loom)) { 1 } else { 4 };

/// Batches of each class in the transfer cache: threads that share no place do not wait for each
/// other's lines.
const BATCHES: usize = if cfg!(all(test, loom)) { 1 } else { 4 };

impl<R: MemoryResource> Store<R> {
    /// A store of `geometry`'s granules, none of them committed; `None` if there is no memory for
    /// its tables.
    pub(crate) fn new(
        span: PoolSpan<R>,
        geometry: Geometry,
        limit: usize,
        policy: PiecePolicy,
    ) -> Option<Self> {
        let slices = geometry.slices();
        let (most, each) = (most_blocks(geometry.slice()), geometry.slices_in(1));
        Some(Self {
            span,
            budget: Budget::new(limit),
            space: Mutex::new(Space::new(slices.word(), each.word(), policy)),
            growing: Mutex::new(()),
            sleep: Sleep::new(),
            emptied: IndexStack::new(),
            folds_late: false,
            runs: zeroed(slices.get())?,
            heads: zeroed(slices.get())?,
            whole: zeroed(geometry.granules())?,
            blocks: Bitmaps::new(slices.get(), most)?,
            raw: Bitmaps::new(slices.get(), most)?,
            room: Bitmaps::new(SizeClass::COUNT, slices.get())?,
            freed_last: std::array::from_fn(|_| AtomicU32::new(NO_SLICE)),
            counts: Counts::new(),
            recalls: Recalls::new(),
            caches: CacheBudget::of(limit),
            transfer_cache: TransferCache::new(CACHED_CLASSES, BATCHES),
            local_caches: AtomicUsize::new(0),
            geometry,
        })
    }

    /// Leaves emptied runs what they are until a search finds no place without them: for pools
    /// whose threads free and allocate blocks of the same classes all the time.
    pub(crate) fn fold_late(self, folds_late: bool) -> Self {
        Self { folds_late, ..self }
    }

    /// Reserves 1 to `want` free blocks of `class`, in the slab at `preferred` if it has some,
    /// else in the lowest that has.
    pub(crate) fn reserve(
        &self,
        class: SizeClass,
        want: u32,
        preferred: Option<SliceId>,
    ) -> Option<Reserved> {
        if let Some(reserved) = preferred.and_then(|head| self.reserve_in(head, class, want)) {
            return Some(reserved);
        }
        let room = self.room.get(class.index());
        let mut from = 0;
        while let Some(index) = room.next(from) {
            let head = SliceId::new(index);
            if let Some(reserved) = self.reserve_in(head, class, want) {
                return Some(reserved);
            }
            room.remove(index);
            // A free between the look at the state and the removal set the hint in vain.
            if self.run(head).state.load().has_room(class.number()) {
                room.insert(index);
            }
            from = index + 1;
        }
        None
    }

    /// Reserves 1 to `want` blocks of the run at `head`, if it is a slab of `class` with room.
    pub(super) fn reserve_in(
        &self,
        head: SliceId,
        class: SizeClass,
        want: u32,
    ) -> Option<Reserved> {
        let count = self.run(head).state.reserve(class.number(), want).ok()?;
        self.counts.take(class.number(), count);
        Some(Reserved { head, class, count })
    }

    /// Takes the blocks of a reservation; `put` gets their addresses.
    #[inline]
    pub(crate) fn collect(&self, reserved: Reserved, mut put: impl FnMut(u64)) {
        let Reserved { head, class, mut count } = reserved;
        let start = self.geometry.address(head);
        // The state word alone counts the block of a slab that has one.
        if self.geometry.slab(class).is_some_and(|shape| shape.capacity == 1) {
            self.span.heaps.take(start, class.block_size());
            return put(start);
        }
        while count > 0 {
            let Some(bits) = self.blocks.get(head.index()).take_reserved(count) else {
                // The blocks are there, and move while others take and free: look again.
                hint::spin_loop();
                continue;
            };
            count -= bits.count();
            for index in bits.indices() {
                let address = start + (index * class.block_size()) as u64;
                self.span.heaps.take(address, class.block_size());
                put(address);
            }
        }
    }

    /// Takes the block of a reservation of one.
    pub(crate) fn collect_one(&self, reserved: Reserved) -> u64 {
        let mut block = 0;
        self.collect(reserved, |address| block = address);
        block
    }

    pub(super) fn run(&self, head: SliceId) -> &RunRecord {
        &self.runs[head.index()]
    }

    /// The length of a run.
    pub(super) fn len(&self, head: SliceId) -> SliceCount {
        SliceCount::from_word(self.run(head).len.load(Relaxed))
    }

    /// Bytes of blocks that are not free: handed out or in a thread's cache.
    pub(crate) fn taken(&self) -> usize {
        self.counts.taken()
    }

    /// Notes how many bytes are taken, for the peak.
    pub(super) fn note_peak(&self) {
        self.budget.note_taken(self.taken());
    }

    /// The run at `head`, if a slab or large block is there.
    pub(super) fn open_run(&self, head: SliceId) -> Option<OpenRun> {
        let (state, len) = (self.run(head).state.load(), self.len(head));
        let block_size = self.block_size(state, len).filter(|_| state.is_open())?;
        Some(OpenRun { head, len, state, block_size })
    }

    /// The size of the blocks of a run in `state`.
    pub(super) fn block_size(&self, state: SlabState, len: SliceCount) -> Option<usize> {
        match state.class() {
            LARGE => Some(self.geometry.bytes(len)),
            class => SizeClass::from_index(class.into()).map(SizeClass::block_size),
        }
    }
}
