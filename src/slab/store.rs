//! The shared half of a pool: the runs of a span, and the blocks in them.
//!
//! ```text
//!   room[class]     set of runs: slabs of the class that may have a free block
//!   empty[length]   set of runs: runs of that length that may be all free
//!        |
//!        v hints: a reader checks the state, and removes a hint that was wrong
//!   runs[slice]     state word; first slice and length of the run; idle since
//!   blocks[slice]   bitmap of the run that starts there: 1 = free; unused where the run has one
//!                   block, which the state counts
//!   raw[slice]      bitmap of the same blocks: 1 = handed out as a bare address
//!
//!   slices          free slices of the granules that are cut
//!   granules        granules that are not committed
//! ```
//!
//! A run is set up, released and given another class only while its state word says that it is
//! claimed; everything else happens between a reservation and a return in that word. Allocation is
//! in this file, freeing in `free`, the way from an address to its block in `locate`; how runs
//! begin and end is in `growth`, `claim` and `trim`.
//!
//! * `runs[s].state`: written and read as `lockfree::slab_state` says.
//! * `runs[s].head`, `runs[s].len`: written by the thread that has claimed the run; read by all.
//!   Relaxed: published by the `Release` of the run's `open`; a thread that has a block of it, or
//!   reads the state with `Acquire`, sees them.
//! * `runs[s].idle`: written by frees, trim; read by trim. Relaxed: an estimate.
//! * `used`: written by the thread that commits a run; read by scans. Relaxed: a run that is missed
//!   was not there when the scan began.
//! * `cut`: written by the thread that cuts a granule, or has taken all its slices; read by trim,
//!   the drop. Relaxed or more: a hint; `slices` decides.
//! * hints: written and read as `lockfree::bitmap` says. The state is read again after a hint is
//!   removed, so none is lost.

use super::budget::Budget;
use super::geometry::{Geometry, LARGE, most_blocks};
use super::number::{SliceCount, SliceId};
use super::recall::Recalls;
use super::size_class::SizeClass;
use super::span::PoolSpan;
use crate::lockfree::bitmap::{Bitmap, Bitmaps};
use crate::lockfree::run_map::RunMap;
use crate::lockfree::slab_state::{SlabState, SlabWord};
use crate::lockfree::slice_map::SliceMap;
use crate::lockfree::transfer_cache::TransferCache;
use crate::lockfree::turn::Turns;
use crate::memory::MemoryResource;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sync::hint;

/// The runs of one span.
#[derive(Debug)]
pub(crate) struct Store<R> {
    pub(crate) span: PoolSpan<R>,
    pub(super) geometry: Geometry,
    pub(crate) budget: Budget,
    pub(super) granules: RunMap,
    pub(super) slices: SliceMap,
    /// Granules of which parts are runs or free, each on its own.
    cut: Bitmaps,
    pub(super) runs: Box<[RunRecord]>,
    pub(super) blocks: Bitmaps,
    pub(super) raw: Bitmaps,
    pub(super) room: Bitmaps,
    empty: Bitmaps,
    /// One thread at a time grows a class.
    pub(super) growing: Box<[Turns]>,
    /// One thread at a time commits a granule and cuts it.
    pub(super) cutting: Turns,
    pub(super) recalls: Recalls,
    /// Blocks of the classes with magazines, on their way from one cache to another.
    pub(crate) transfer_cache: TransferCache,
    /// Slices below the end of the highest run there ever was: what a scan has to look at.
    pub(super) used: AtomicU32,
}

/// The metadata of the run that starts at a slice, and the first slice of the run that the slice
/// belongs to.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct RunRecord {
    pub(super) state: SlabWord,
    /// The first slice of the run that this slice belongs to.
    pub(super) head: AtomicU32,
    /// Slices in the run; of the first slice only.
    pub(super) len: AtomicU32,
    /// When a trim first saw the run empty, or, of the first slice of a granule that is cut, the
    /// granule; [`JUST_EMPTIED`] until then.
    pub(super) idle: AtomicU64,
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
    pub(crate) state: SlabState,
    /// The size of its blocks, in bytes.
    pub(crate) block_size: usize,
}

/// Classes with magazines: blocks of up to 1 MiB. The models make do with 1 KiB.
pub(crate) const CACHED_CLASSES: usize = if cfg!(all(test, loom)) { 4 } else { 44 };

/// Batches of each class in the transfer cache.
const BATCHES: usize = 1;

/// No trim has seen the run empty yet.
pub(super) const JUST_EMPTIED: u64 = u64::MAX;

impl<R: MemoryResource> Store<R> {
    /// A store of `geometry`'s granules, none of them committed.
    pub(crate) fn new(resource: R, geometry: Geometry, limit: usize) -> Self {
        let (granules, slices) = (geometry.granules(), geometry.slices().get());
        let most = most_blocks(geometry.slice());
        Self {
            span: PoolSpan::new(resource),
            budget: Budget::new(limit),
            granules: RunMap::new(granules),
            slices: SliceMap::new(granules, geometry.slices_in(1).get()),
            cut: Bitmaps::new(1, granules),
            runs: (0..slices).map(|_| RunRecord::new()).collect(),
            blocks: Bitmaps::new(slices, most),
            raw: Bitmaps::new(slices, most),
            room: Bitmaps::new(SizeClass::COUNT, slices),
            empty: Bitmaps::new(geometry.lengths(), slices),
            used: AtomicU32::new(0),
            growing: (0..SizeClass::COUNT).map(|_| Turns::new()).collect(),
            cutting: Turns::new(),
            recalls: Recalls::new(),
            transfer_cache: TransferCache::new(CACHED_CLASSES, BATCHES),
            geometry,
        }
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

    /// Takes the one block of a run that was just set up for it, and reserved it; its address.
    pub(super) fn collect_large(&self, head: SliceId) -> u64 {
        let address = self.geometry.address(head);
        self.span.heaps.take(address, self.geometry.bytes(self.len(head)));
        address
    }

    /// Makes a claimed run a slab with `capacity` blocks, `reserved` of which are the caller's.
    /// `class` may be [`LARGE`].
    pub(super) fn set_up(&self, head: SliceId, class: u8, capacity: u32, reserved: u32) {
        let state = &self.run(head).state;
        // Where the run had more blocks before, their bits are still set.
        let before = state.load().capacity();
        self.blocks.get(head.index()).fill_again(capacity as usize, before as usize);
        // Before the run is open: afterwards another thread may have set the hint, and rightly.
        self.empties(self.len(head)).remove(head.index());
        let opened = state.open(class, capacity, capacity - reserved);
        debug_assert!(opened.is_ok(), "run {head:?} is not ours: {:?}", state.load());
        if capacity > reserved
            && let Some(class) = SizeClass::from_index(class.into())
        {
            self.room.get(class.index()).insert(head.index());
        }
    }

    /// The runs of `len` slices that may be empty.
    pub(super) fn empties(&self, len: SliceCount) -> Bitmap<'_> {
        self.empty.get(self.geometry.length(len))
    }

    /// The sets of runs that may be empty, longest runs first.
    pub(super) fn all_empties(&self) -> impl Iterator<Item = Bitmap<'_>> {
        (0..self.geometry.lengths()).rev().map(|length| self.empty.get(length))
    }

    /// Granules of which parts are runs or free.
    pub(super) fn cut(&self) -> Bitmap<'_> {
        self.cut.get(0)
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
        self.open_runs()
            .map(|run| (run.state.capacity() - run.state.free()) as usize * run.block_size)
            .sum()
    }

    /// Notes how many bytes are taken, for the peak.
    pub(super) fn note_peak(&self) {
        self.budget.note_taken(self.taken());
    }

    /// All slabs and large blocks at this moment.
    pub(crate) fn open_runs(&self) -> impl Iterator<Item = OpenRun> {
        let used = self.used.load(Relaxed) as usize;
        self.runs[..used].iter().enumerate().filter_map(|(index, run)| {
            let (head, state) = (SliceId::new(index), run.state.load());
            let block_size = self.block_size(state, self.len(head)).filter(|_| state.is_open())?;
            Some(OpenRun { head, state, block_size })
        })
    }

    /// The size of the blocks of a run in `state`.
    pub(super) fn block_size(&self, state: SlabState, len: SliceCount) -> Option<usize> {
        match state.class() {
            LARGE => Some(self.geometry.bytes(len)),
            class => SizeClass::from_index(class.into()).map(SizeClass::block_size),
        }
    }
}

impl RunRecord {
    fn new() -> Self {
        Self {
            state: SlabWord::vacant(),
            head: AtomicU32::new(0),
            len: AtomicU32::new(0),
            idle: AtomicU64::new(JUST_EMPTIED),
        }
    }
}
