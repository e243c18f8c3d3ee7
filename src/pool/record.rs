//! The record of a buffer: its block, and its last uses.
//!
//! ```text
//!   BufferRecord   state | next | list | block | size | home | inherited | seen | stamp | uses (8)
//!                  | parked
//!   use      slot (16) | ticket (48)        0: none
//! ```
//!
//! A record lives as long as the pool. With its block it goes from the holders of the buffer to the
//! list of a stream, and from there to the next holder; without one it waits in `spare`.
//!
//! * `state`: see `lockfree::buffer_state`.
//! * `next`: see `lockfree::index_stack`.
//! * `parked`: see `parked`.
//! * `used`: written by holders of the buffer, the record's owner; read by statistics. Relaxed: a
//!   count.
//! * `uses`, `flags`: written by holders of the buffer (CAS, `fetch_or`), the record's owner; read
//!   by the same. Relaxed: the end of the last handle orders them before the owner.
//! * all else: written by the record's owner; read by holders, statistics. Relaxed: handed over by
//!   stacks and by handles.

use std::ptr;

use super::chunks::Chunks;
use crate::address::to_usize;
use crate::lockfree::buffer_state::BufferWord;
use crate::slab::{Block, SizeClass};
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Streams that may use one buffer at a time before one has to wait for another.
pub(super) const USES: usize = 8;

/// The first of the lists of blocks that have no slab; the others are by class.
pub(super) const LARGE_LIST: usize = SizeClass::SHARED;

/// The lists of a stream slot.
pub(super) const LISTS: usize = LARGE_LIST + if cfg!(all(test, loom)) { 1 } else { 16 };

/// The list of large blocks of a size.
#[inline]
pub(super) fn large_list(size: usize) -> usize {
    // Sizes are multiples of a slice, and often of powers of two above it.
    LARGE_LIST + ((size >> 14) ^ (size >> 18)) % (LISTS - LARGE_LIST)
}

/// One buffer's record.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct BufferRecord {
    pub(super) state: BufferWord,
    pub(super) next: AtomicU32,
    /// Its number.
    index: AtomicU32,
    /// The list that the block goes to.
    pub(super) list: AtomicU32,
    /// The block's words: the address for the host, and for the device where it is the same; and
    /// what the slabs need to take the block back.
    pub(super) address: AtomicU64,
    meta: AtomicU64,
    /// The block's size, in bytes; 0 without a block.
    pub(super) size: AtomicUsize,
    /// What was asked for, in bytes.
    pub(super) asked: AtomicUsize,
    /// The slot that the buffer was allocated for.
    pub(super) home: AtomicU32,
    /// Rare conditions: [`LOST`] and [`SPREAD`].
    flags: AtomicU32,
    /// The use of an earlier life that may not be over.
    pub(super) inherited: AtomicU64,
    /// The first pass that saw it idle in this life; 0 if none.
    pub(super) seen: AtomicU32,
    /// When it was retired, where that is of interest.
    pub(super) stamp: AtomicU64,
    pub(super) uses: [AtomicU64; USES],
    /// How often a use was noted in this life.
    pub(super) used: AtomicU32,
    /// A reference to the pool's core that the last buffer left; null if none.
    pub(super) parked: AtomicPtr<()>,
}

/// A use: a slot, and a ticket of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) slot: usize,
    pub(crate) ticket: u64,
}

impl Use {
    /// The word of a use; a slot's tickets do not reach 2^48 in a process's life.
    #[inline]
    pub(super) fn pack(self) -> u64 {
        (self.slot as u64) << TICKET_BITS | self.ticket & TICKET
    }

    /// The use in a word, if there is one.
    #[inline]
    pub(super) fn unpack(word: u64) -> Option<Self> {
        let slot = to_usize(word >> TICKET_BITS);
        (word != 0).then_some(Self { slot, ticket: word & TICKET })
    }
}

impl BufferRecord {
    fn new() -> Self {
        Self {
            state: BufferWord::new(),
            next: AtomicU32::new(0),
            index: AtomicU32::new(0),
            list: AtomicU32::new(0),
            address: AtomicU64::new(0),
            meta: AtomicU64::new(0),
            size: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            home: AtomicU32::new(0),
            flags: AtomicU32::new(0),
            inherited: AtomicU64::new(0),
            seen: AtomicU32::new(0),
            stamp: AtomicU64::new(0),
            uses: std::array::from_fn(|_| AtomicU64::new(0)),
            used: AtomicU32::new(0),
            parked: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Puts a block of `size` bytes into a record of the caller's.
    pub(super) fn put_block(&self, block: Block, size: usize) {
        let (address, meta) = block.into_words();
        self.address.store(address, Relaxed);
        self.meta.store(meta, Relaxed);
        self.size.store(size, Relaxed);
    }

    /// Takes the block out of a record of the caller's.
    pub(super) fn take_block(&self) -> Option<Block> {
        self.size.store(0, Relaxed);
        let meta = self.meta.load(Relaxed);
        self.meta.store(0, Relaxed);
        Block::from_words(self.address.load(Relaxed), meta)
    }

    /// The number of a record that was [made](BufferRecords::make).
    #[inline]
    pub(super) fn index(&self) -> u32 {
        self.index.load(Relaxed)
    }

    /// Whether this is the rule: at most the first of `uses` is one, and the block may be used
    /// again.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.flags.load(Relaxed) == 0
    }

    /// Whether a use could not be tracked, so that the block is not to be used again.
    pub(super) fn is_lost(&self) -> bool {
        self.flags.load(Relaxed) & LOST != 0
    }

    /// Notes that a use could not be tracked. Returns whether that is news.
    pub(super) fn lose(&self) -> bool {
        self.flags.fetch_or(LOST, Relaxed) & LOST == 0
    }

    /// Notes that a use comes to lie beside the first, by a holder of the buffer.
    pub(super) fn spread(&self) {
        self.flags.fetch_or(SPREAD, Relaxed);
    }

    /// The last use by any stream, as a word that is no less than those of the others; 0 if there
    /// is none. For the record's owner.
    #[inline]
    pub(super) fn last_use(&self) -> u64 {
        if self.is_plain() { self.uses[0].load(Relaxed) } else { self.last_of_many() }
    }

    #[cold]
    fn last_of_many(&self) -> u64 {
        self.uses.iter().map(|word| word.load(Relaxed)).max().unwrap_or(0)
    }

    /// Forgets the uses but `only`, if there is one: by the record's owner.
    pub(super) fn set_use(&self, only: Option<Use>) {
        for word in &self.uses[1..] {
            word.store(0, Relaxed);
        }
        self.uses[0].store(only.map_or(0, Use::pack), Relaxed);
        self.flags.store(self.flags.load(Relaxed) & !SPREAD, Relaxed);
    }

    /// The uses at this moment.
    pub(super) fn uses(&self) -> impl Iterator<Item = Use> {
        self.uses.iter().filter_map(|word| Use::unpack(word.load(Relaxed)))
    }

    /// The list that the block goes to.
    #[inline]
    pub(super) fn list(&self) -> usize {
        self.list.load(Relaxed) as usize
    }

    #[inline]
    pub(super) fn home(&self) -> usize {
        self.home.load(Relaxed) as usize
    }

    #[inline]
    pub(super) fn size(&self) -> usize {
        self.size.load(Relaxed)
    }
}

/// The records of a pool, by number.
#[derive(Debug)]
pub(super) struct BufferRecords {
    records: Chunks<BufferRecord, CHUNK, CHUNKS>,
    made: AtomicU32,
}

impl BufferRecords {
    /// Records of a pool, at most.
    pub(super) const MOST: u32 = MOST;

    pub(super) fn new() -> Self {
        Self { records: Chunks::new(), made: AtomicU32::new(0) }
    }

    /// The record with a number that [`make`](Self::make) returned.
    #[inline]
    pub(super) fn get(&self, index: u32) -> &BufferRecord {
        self.records.get(index as usize, BufferRecord::new)
    }

    /// The record with a number that the caller has from a thread that has seen its record.
    #[inline]
    pub(super) fn found(&self, index: u32) -> Option<&BufferRecord> {
        self.records.find(index as usize)
    }

    /// The link of a record, for stacks.
    #[inline]
    pub(super) fn link(&self, index: u32) -> &AtomicU32 {
        &self.get(index).next
    }

    /// A new record's number, if there can be one more.
    pub(super) fn make(&self) -> Option<u32> {
        let made = |made| (made < Self::MOST).then_some(made + 1);
        let index = self.made.fetch_update(Relaxed, Relaxed, made).ok()?;
        self.get(index).index.store(index, Relaxed);
        Some(index)
    }

    /// The record with any number, if one was made with it.
    #[inline]
    pub(super) fn made(&self, index: u32) -> Option<&BufferRecord> {
        (index < self.made.load(Relaxed)).then(|| self.get(index))
    }

    /// As [`made`](Self::made), if this thread sees the record.
    #[inline]
    pub(super) fn seen(&self, index: u32) -> Option<&BufferRecord> {
        if index < self.made.load(Relaxed) { self.found(index) } else { None }
    }

    /// All records that were made.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &BufferRecord)> {
        (0..self.made.load(Relaxed)).map(|index| (index, self.get(index)))
    }
}

const TICKET_BITS: u32 = 48;
const TICKET: u64 = (1 << TICKET_BITS) - 1;

/// A use could not be tracked.
const LOST: u32 = 1;
/// A use may lie beside the first.
const SPREAD: u32 = 2;

const MOST: u32 = if cfg!(all(test, loom)) { 4 } else { 1 << 21 };
const CHUNK: usize = if cfg!(all(test, loom)) { 2 } else { 512 };
const CHUNKS: usize = MOST as usize / CHUNK;
