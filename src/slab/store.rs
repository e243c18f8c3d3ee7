//! The shared half of a pool: all runs of a span, and blocks taken from and given to them.
//!
//! ```text
//!   room[class]     set of runs: slabs of the class that may have a free block
//!   empty[length]   set of runs: runs of that length that may be all free
//!        |
//!        v hints: who comes by looks at the state, and removes a hint that was wrong
//!   runs[slice]     state word; first slice and length of the run; idle since
//!   blocks[slice]   bitmap of the run that starts there: 1 = free; of no meaning where the run has one block,
//!                   which the state counts
//!   raw[slice]      bitmap of the same blocks: 1 = handed out as a bare address
//!
//!   slices          free slices of the granules that are cut
//!   granules        granules that are not committed
//! ```
//!
//! A run is set up, released and given another class only while its state word says that it is
//! claimed; everything else happens between a reservation and a return in that word.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `runs[s].state` | see `lockfree::slab_state` | | |
//! | `runs[s].head`, `runs[s].len` | who claimed the run | all | Relaxed: published by the `Release` of the run's `open`; whoever has a block of it, or reads the state with `Acquire`, sees them |
//! | `runs[s].idle` | freers, trim | trim | Relaxed: an estimate |
//! | `used` | who commits a run | scans | Relaxed: a run that is missed was not there when the scan began |
//! | `cut` | who cuts a granule, who has taken all its slices | trim, the drop | Relaxed or more: a hint; `slices` decides |
//! | hints | see `lockfree::bitmap` | | the state is read again after a hint is removed, so none is lost |

use super::budget::Budget;
use super::geometry::{Geometry, LARGE, most_blocks};
use super::recall::Recalls;
use super::size_class::SizeClass;
use super::span::Span;
use crate::lockfree::bitmap::{Bitmap, Bitmaps, Bits, WORD};
use crate::lockfree::parcels::Parcels;
use crate::lockfree::run_map::RunMap;
use crate::lockfree::slab_state::{SlabState, SlabWord};
use crate::lockfree::slice_map::SliceMap;
use crate::lockfree::turn::Turns;
use crate::memory::MemoryResource;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sync::hint;

/// The runs of one span.
#[derive(Debug)]
pub(crate) struct Store<R> {
    pub(crate) span: Span<R>,
    pub(super) geometry: Geometry,
    pub(crate) budget: Budget,
    pub(super) granules: RunMap,
    pub(super) slices: SliceMap,
    /// Granules of which parts are runs or free, each on its own.
    cut: Bitmaps,
    pub(super) runs: Box<[RunRecord]>,
    blocks: Bitmaps,
    raw: Bitmaps,
    room: Bitmaps,
    empty: Bitmaps,
    pub(super) growing: Box<[Turns]>,
    /// Whose turn it is to commit a granule and cut it.
    pub(super) cutting: Turns,
    pub(super) recalls: Recalls,
    /// Blocks of the classes with magazines, on their way from one cache to another.
    pub(crate) parcels: Parcels,
    /// Slices below the end of the highest run there ever was: what a scan has to look at.
    pub(super) used: AtomicU32,
}

/// What is known of the run that starts at a slice, and of the run a slice belongs to.
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
    pub(crate) head: usize,
    pub(crate) class: SizeClass,
    pub(crate) count: u32,
}

/// A block found by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) head: usize,
    pub(crate) index: usize,
    /// The address of the block's first byte.
    pub(crate) start: usize,
    pub(crate) size: usize,
    /// The class number, or [`LARGE`].
    pub(crate) class: u8,
}

/// Classes with magazines: blocks of up to 1 MiB. The models make do with 1 KiB.
pub(crate) const CACHED_CLASSES: usize = if cfg!(all(test, loom)) { 4 } else { 44 };

/// Parcels of each class.
const PARCELS: usize = 1;

/// No trim has seen the run empty yet.
pub(super) const JUST_EMPTIED: u64 = u64::MAX;

impl<R: MemoryResource> Store<R> {
    /// A store of `geometry`'s granules, none of them committed.
    pub(crate) fn new(resource: R, geometry: Geometry, limit: usize) -> Self {
        let (granules, slices) = (geometry.granules(), geometry.slices());
        let most = most_blocks(geometry.slice());
        Self {
            span: Span::new(resource),
            budget: Budget::new(limit),
            granules: RunMap::new(granules),
            slices: SliceMap::new(granules, geometry.slices_each()),
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
            parcels: Parcels::new(CACHED_CLASSES, PARCELS),
            geometry,
        }
    }

    /// Reserves 1 to `want` free blocks of `class`, in the slab at `preferred` if it has some,
    /// else in the lowest that has.
    pub(crate) fn reserve(&self, class: SizeClass, want: u32, preferred: usize) -> Option<Reserved> {
        let reserve = |head: usize| {
            let count = self.runs.get(head)?.state.reserve(class.number(), want).ok()?;
            Some(Reserved { head, class, count })
        };
        if preferred < self.runs.len()
            && let Some(reserved) = reserve(preferred)
        {
            return Some(reserved);
        }
        let room = self.room.get(class.index());
        let mut from = 0;
        while let Some(head) = room.next(from) {
            if let Some(reserved) = reserve(head) {
                return Some(reserved);
            }
            room.remove(head);
            // A free between the look at the state and the removal set the hint in vain.
            if self.runs[head].state.load().has_room(class.number()) {
                room.insert(head);
            }
            from = head + 1;
        }
        None
    }

    /// Takes the blocks of a reservation; `put` gets their addresses.
    #[inline]
    pub(crate) fn collect(&self, reserved: Reserved, mut put: impl FnMut(usize)) {
        let Reserved { head, class, mut count } = reserved;
        let start = self.geometry.address(head);
        if self.geometry.slab(class).is_some_and(|shape| shape.capacity == 1) {
            self.span.heaps.take(start as u64, class.block_size());
            return put(start);
        }
        while count > 0 {
            let Some(bits) = self.blocks.get(head).take_reserved(count) else {
                // The blocks are there, and move while others take and free: look again.
                hint::spin_loop();
                continue;
            };
            count -= bits.count();
            for index in bits.indices() {
                let address = start + index * class.block_size();
                self.span.heaps.take(address as u64, class.block_size());
                put(address);
            }
        }
    }

    /// Takes the one block of a run that was just set up for it, and reserved it.
    pub(super) fn collect_large(&self, head: usize) {
        self.span.heaps.take(self.geometry.address(head) as u64, self.geometry.offset(self.len(head)));
    }

    /// Gives blocks of one class back; the addresses are sorted on the way.
    ///
    /// They are from caches, of which a pool that a memory checker hears of has none.
    pub(crate) fn give(&self, class: SizeClass, addresses: &mut [usize]) {
        addresses.sort_unstable();
        self.give_sorted(class, addresses);
    }

    /// Gives blocks of one class back, lowest address first: neighbours in one word go with one
    /// instruction.
    pub(crate) fn give_sorted(&self, class: SizeClass, addresses: &[usize]) {
        let mut rest = addresses;
        while let Some(&first) = rest.first() {
            let (head, index) = self.block_of(class, first);
            if self.has_one_block(head) {
                self.put_back(head, 1);
                rest = &rest[1..];
                continue;
            }
            let start = self.geometry.address(head);
            let end = start + self.geometry.offset(self.len(head));
            let (mut bits, mut freed, mut next) = (Bits::one(index), 0, 1);
            while let Some(&address) = rest.get(next).filter(|&&address| address < end) {
                let bit = Bits::one(class.block_at(address - start));
                if bit.word == bits.word {
                    bits.mask |= bit.mask;
                } else {
                    freed += self.give_bits(head, bits);
                    bits = bit;
                }
                next += 1;
            }
            freed += self.give_bits(head, bits);
            self.put_back(head, freed);
            rest = &rest[next..];
        }
    }

    /// Gives the blocks that lie in parcels back to their slabs.
    pub(crate) fn unpack(&self) {
        for class in SizeClass::all().take(CACHED_CLASSES) {
            loop {
                let (blocks, count) = self.parcels.take(class.index());
                if count == 0 {
                    break;
                }
                let mut blocks = blocks.map(|block| usize::try_from(block).unwrap_or(usize::MAX));
                self.give(class, &mut blocks[..count]);
            }
        }
    }

    /// Blocks of each class in parcels at this moment.
    pub(crate) fn parked(&self) -> impl Iterator<Item = (SizeClass, usize)> {
        SizeClass::all().take(CACHED_CLASSES).map(|class| (class, self.parcels.count(class.index())))
    }

    /// Gives a large block back.
    pub(crate) fn give_large(&self, address: usize) {
        if let Some(head) = self.geometry.slice_at(address) {
            self.give_one(head, 0);
        }
    }

    /// Gives one block back.
    pub(crate) fn give_one(&self, head: usize, index: usize) {
        if self.span.heaps.are_told() {
            let size = self.block_size(self.runs[head].state.load(), self.len(head)).unwrap_or(0);
            self.span.heaps.give((self.geometry.address(head) + index * size) as u64);
        }
        self.put_back(
            head,
            if self.has_one_block(head) { 1 } else { self.give_bits(head, Bits::one(index)) },
        );
    }

    /// Whether a run of which the caller has a block has no other.
    fn has_one_block(&self, head: usize) -> bool {
        self.runs[head].state.load().capacity() == 1
    }

    /// Sets the bits of blocks; how many of them were not free.
    #[inline]
    fn give_bits(&self, head: usize, bits: Bits) -> u32 {
        let given = self.blocks.get(head).give(bits);
        debug_assert!(given.is_ok(), "block freed twice: {given:?} of run {head}");
        // A block that is free already is not counted again: the error stays where it is.
        bits.count() - given.err().map_or(0, |twice| twice.bits.count())
    }

    /// Counts blocks whose bits are set as free, and leaves the hints that follow from it.
    #[inline]
    fn put_back(&self, head: usize, count: u32) {
        let run = &self.runs[head];
        let returned = run.state.put_back(count);
        debug_assert!(returned.is_ok(), "more blocks than run {head} has: {:?}", run.state.load());
        let Ok(before) = returned else { return };
        if before.free() == 0
            && let Some(class) = SizeClass::from_index(before.class().into())
        {
            self.room.get(class.index()).insert(head);
        }
        if before.free() + count == before.capacity() {
            run.idle.store(JUST_EMPTIED, Relaxed);
            self.empties(self.len(head)).insert(head);
        }
    }

    /// The runs of `len` slices that may be empty.
    pub(super) fn empties(&self, len: usize) -> Bitmap<'_> {
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

    /// Slices of a run.
    pub(super) fn len(&self, head: usize) -> usize {
        self.runs[head].len.load(Relaxed) as usize
    }

    /// Makes a claimed run a slab with `capacity` blocks, `reserved` of which
    /// are the caller's. `class` may be [`LARGE`].
    pub(super) fn set_up(&self, head: usize, class: u8, capacity: u32, reserved: u32) {
        // Where the run had more blocks before, their bits are still set.
        let before = self.runs[head].state.load().capacity();
        self.blocks.get(head).fill_again(capacity as usize, before as usize);
        // Before the run is open: afterwards the hint may be somebody else's, and true.
        self.empties(self.len(head)).remove(head);
        let opened = self.runs[head].state.open(class, capacity, capacity - reserved);
        debug_assert!(opened.is_ok(), "run {head} is not ours: {:?}", self.runs[head].state.load());
        if capacity > reserved
            && let Some(class) = SizeClass::from_index(class.into())
        {
            self.room.get(class.index()).insert(head);
        }
    }

    /// Whether the block at an address is marked as handed out by address, and unmarks it.
    pub(crate) fn unmark_raw(&self, place: Place) -> bool {
        self.raw.get(place.head).take_exact(Bits::one(place.index))
    }

    /// Marks a block as handed out by address.
    pub(crate) fn mark_raw(&self, place: Place) {
        let marked = self.raw.get(place.head).give(Bits::one(place.index));
        debug_assert!(marked.is_ok(), "block handed out twice: {place:?}");
    }

    /// Whether a block is taken, and whether it is handed out by address.
    pub(super) fn is_taken(&self, place: Place) -> (bool, bool) {
        let word = |bitmap: Bitmap<'_>| bitmap.word(place.index / WORD) & Bits::one(place.index).mask != 0;
        let state = self.runs[place.head].state.load();
        let free = if state.capacity() == 1 { state.free() == 1 } else { word(self.blocks.get(place.head)) };
        (!free, word(self.raw.get(place.head)))
    }

    /// The run and the number of a block that the caller holds.
    pub(super) fn block_of(&self, class: SizeClass, address: usize) -> (usize, usize) {
        let slice = self.geometry.slice_at(address).unwrap_or(0);
        let head = self.runs[slice].head.load(Relaxed) as usize;
        (head, class.block_at(address - self.geometry.address(head)))
    }

    /// The block that any address lies in, if there is a slab or a large block at it now.
    pub(crate) fn locate(&self, address: usize) -> Option<Place> {
        let slice = self.geometry.slice_at(address)?;
        let head = self.runs[slice].head.load(Relaxed) as usize;
        let state = self.runs[head].state.load();
        let len = self.len(head);
        if !state.is_open() || slice < head || slice >= head + len {
            return None;
        }
        let offset = address - self.geometry.address(head);
        let size = self.block_size(state, len)?;
        let index = offset / size;
        let start = self.geometry.address(head) + index * size;
        (index < state.capacity() as usize).then_some(Place {
            head,
            index,
            start,
            size,
            class: state.class(),
        })
    }

    /// Bytes of blocks that are not free: handed out or in a thread's cache.
    pub(crate) fn taken(&self) -> usize {
        self.open_runs().map(|(_, state, size)| (state.capacity() - state.free()) as usize * size).sum()
    }

    /// Notes how many bytes are taken, for the peak.
    pub(super) fn note_peak(&self) {
        self.budget.note_taken(self.taken());
    }

    /// All slabs and large blocks at this moment: first slice, state, size of a block.
    pub(crate) fn open_runs(&self) -> impl Iterator<Item = (usize, SlabState, usize)> {
        let used = self.used.load(Relaxed) as usize;
        self.runs[..used].iter().enumerate().filter_map(|(head, run)| {
            let state = run.state.load();
            let size = self.block_size(state, self.len(head)).filter(|_| state.is_open())?;
            Some((head, state, size))
        })
    }

    /// The size of the blocks of a run in `state`.
    pub(super) fn block_size(&self, state: SlabState, len: usize) -> Option<usize> {
        match state.class() {
            LARGE => Some(self.geometry.offset(len)),
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
