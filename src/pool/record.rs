//! What is known of a buffer: its block, and who used it last.
//!
//! ```text
//!   Record   state | next | list | address | size | home | inherited | seen | stamp | use 0 | ... | use 7
//!   use      lane (16) | ticket (48)        0: none
//! ```
//!
//! A record lives as long as the pool. With its block it goes from the holders of the buffer to the
//! list of a stream, and from there to the next holder; without one it waits in `spare`.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `state` | see `lockfree::buffer_state` | | |
//! | `next` | see `lockfree::index_stack` | | |
//! | `used` | holders of the buffer, the record's owner | statistics | Relaxed: a count |
//! | `uses` | holders of the buffer (CAS), the record's owner | the same | Relaxed: the end of the last handle orders them before the owner |
//! | all else | the record's owner | holders, statistics | Relaxed: handed over by stacks and by handles |

use std::sync::OnceLock;

use crate::lockfree::buffer_state::BufferWord;
use crate::slab::SizeClass;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Streams that may use one buffer at a time before one has to wait for another.
pub(super) const USES: usize = 8;

/// The list of blocks that have no size class.
pub(super) const LARGE_LIST: usize = SizeClass::COUNT;

/// One buffer's record.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Record {
    pub(super) state: BufferWord,
    pub(super) next: AtomicU32,
    /// The list that the block goes to.
    pub(super) list: AtomicU32,
    /// The address for the host, and for the device where it is the same.
    pub(super) address: AtomicU64,
    /// The block's size, in bytes; 0 without a block.
    pub(super) size: AtomicUsize,
    /// What was asked for, in bytes.
    pub(super) asked: AtomicUsize,
    /// The lane that the buffer was allocated for.
    pub(super) home: AtomicU32,
    /// Whether a use could not be tracked, so that the block is not to be used again.
    pub(super) lost: AtomicBool,
    /// The use of an earlier life that may not be over.
    pub(super) inherited: AtomicU64,
    /// The first pass that saw it idle in this life; 0 if none.
    pub(super) seen: AtomicU32,
    /// When it was retired, where that is of interest.
    pub(super) stamp: AtomicU64,
    pub(super) uses: [AtomicU64; USES],
    /// How often a use was noted in this life.
    pub(super) used: AtomicU32,
}

/// A use: a lane, and a ticket of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) lane: usize,
    pub(super) ticket: u64,
}

impl Use {
    /// The word of a use; a lane's tickets do not reach 2^48 in a process's life.
    #[inline]
    pub(super) fn pack(self) -> u64 {
        (self.lane as u64) << TICKET_BITS | self.ticket & TICKET
    }

    /// The use in a word, if there is one.
    #[inline]
    pub(super) fn unpack(word: u64) -> Option<Self> {
        let lane = usize::try_from(word >> TICKET_BITS).unwrap_or(usize::MAX);
        (word != 0).then_some(Self { lane, ticket: word & TICKET })
    }
}

impl Record {
    fn new() -> Self {
        Self {
            state: BufferWord::new(),
            next: AtomicU32::new(0),
            list: AtomicU32::new(0),
            address: AtomicU64::new(0),
            size: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            home: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            inherited: AtomicU64::new(0),
            seen: AtomicU32::new(0),
            stamp: AtomicU64::new(0),
            uses: [const { AtomicU64::new(0) }; USES],
            used: AtomicU32::new(0),
        }
    }

    /// The uses at this moment.
    pub(super) fn uses(&self) -> impl Iterator<Item = Use> {
        self.uses.iter().filter_map(|word| Use::unpack(word.load(Relaxed)))
    }

    /// The list that the block goes to.
    pub(super) fn list(&self) -> usize {
        self.list.load(Relaxed) as usize
    }

    pub(super) fn home(&self) -> usize {
        self.home.load(Relaxed) as usize
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(Relaxed)
    }
}

/// The records of a pool, by number.
#[derive(Debug)]
pub(super) struct Records {
    chunks: Box<[OnceLock<Box<[Record]>>]>,
    made: AtomicU32,
}

impl Records {
    /// Records of a pool, at most.
    pub(super) const MOST: u32 = CHUNKS * CHUNK;

    pub(super) fn new() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(), made: AtomicU32::new(0) }
    }

    /// The record with a number that [`make`](Self::make) returned.
    #[inline]
    pub(super) fn get(&self, index: u32) -> &Record {
        let (chunk, place) = ((index / CHUNK) as usize, (index % CHUNK) as usize);
        &self.chunks[chunk].get_or_init(|| (0..CHUNK).map(|_| Record::new()).collect())[place]
    }

    /// The link of a record, for stacks.
    #[inline]
    pub(super) fn link(&self, index: u32) -> &AtomicU32 {
        &self.get(index).next
    }

    /// A new record's number, if there can be one more.
    pub(super) fn make(&self) -> Option<u32> {
        self.made.fetch_update(Relaxed, Relaxed, |made| (made < Self::MOST).then_some(made + 1)).ok()
    }

    /// The record with any number, if one was made with it.
    pub(super) fn made(&self, index: u32) -> Option<&Record> {
        (index < self.made.load(Relaxed)).then(|| self.get(index))
    }

    /// All records that were made.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Record)> {
        (0..self.made.load(Relaxed)).map(|index| (index, self.get(index)))
    }
}

const TICKET_BITS: u32 = 48;
const TICKET: u64 = (1 << TICKET_BITS) - 1;

const CHUNK: u32 = 512;
const CHUNKS: u32 = 4096;
