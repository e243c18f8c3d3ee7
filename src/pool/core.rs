//! The pool itself: records between holders, slots and slabs.

use std::panic::Location;
use std::time::{Duration, Instant};

use super::address_map::AddressMap;
use super::gate::Gate;
use super::limit::BufferLimit;
use super::plan::Peaks;
use super::pressure::Hook;
use super::record::{BufferRecord, BufferRecords, Use, large_list};
use super::sleeper::Sleeper;
use super::stats::Counters;
use super::stream_slot::{Seat, StreamSlots};
use super::track::Track;
use crate::error::{CudaError, Error};
use crate::lockfree::index_stack::IndexStack;
use crate::lockfree::turn::Turns;
use crate::memory::MemoryKind;
use crate::profile::Name;
use crate::slab::{AllocError, BlockRequest, Blocks, OwnedBlock, Retirement, SizeClass};
use crate::stream::Stream;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::timeline::Timeline;

/// What buffers keep alive.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) name: String,
    /// Of an allocation that the lists of its stream cannot serve, in a profiler's view.
    pub(super) alloc_range: Name,
    pub(super) upstream: Box<dyn Blocks>,
    /// The kind of its memory.
    pub(super) kind: MemoryKind,
    /// The upstream's number, for handles.
    pub(super) id: u64,
    /// The unit of large blocks, in bytes.
    pub(super) slice: usize,
    pub(super) records: BufferRecords,
    /// Of blocks that were handed out as bare addresses.
    pub(super) addresses: AddressMap,
    pub(super) slots: StreamSlots,
    /// Retired records that several streams have used.
    pub(super) mixed: IndexStack,
    /// Records without a block.
    pub(super) spare: IndexStack,
    /// Whose turn it is to take lists apart.
    pub(super) draining: Turns,
    pub(super) passes: AtomicU32,
    /// How often a thread has taken over what another stream had retired.
    pub(super) holds: AtomicU32,
    pub(super) start: Instant,
    /// When there was a pass for blocks that are not reused, in milliseconds from the start.
    pub(super) last_pass: AtomicU64,
    pub(super) limit: BufferLimit,
    pub(super) peaks: Peaks,
    pub(super) counters: Counters,
    pub(super) gate: Gate,
    pub(super) sleeper: Sleeper,
    pub(super) wait: Duration,
    /// How long the end waits for the device.
    pub(super) close_timeout: Duration,
    /// How long a block must have been of no use to its stream to be given back before growth, in
    /// milliseconds.
    pub(super) pass_interval: u64,
    pub(super) hook: Option<Hook>,
    pub(super) track: Option<Track>,
}

/// An allocation on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// What was asked for, in bytes.
    pub(super) asked: usize,
    /// `None` for a large block.
    pub(super) class: Option<SizeClass>,
    /// The size of the block, in bytes.
    pub(super) size: usize,
    /// The slot of the stream.
    pub(super) seat: Seat<'a>,
    pub(super) stream: &'a Stream,
    pub(super) timeline: &'a Timeline,
}

impl Request<'_> {
    /// The list of a stream slot that blocks for the request are kept in.
    #[inline]
    pub(super) fn list(&self) -> usize {
        self.class.map_or_else(|| large_list(self.size), SizeClass::index)
    }

    /// The number of the stream's slot.
    pub(super) fn slot(&self) -> usize {
        self.seat.number as usize
    }

    /// What the slabs are asked for.
    pub(super) fn block(&self) -> BlockRequest {
        BlockRequest { class: self.class, size: self.asked, owner: self.owner() }
    }

    /// The same as a run of its own, where there is no room for a slab.
    pub(super) fn alone(&self) -> BlockRequest {
        BlockRequest { class: None, ..self.block() }
    }

    fn owner(&self) -> Option<u32> {
        Some(self.seat.number)
    }
}

impl Core {
    /// Allocates a record with a block of at least `size` bytes for `stream`; its number.
    #[inline]
    pub(super) fn alloc(
        &self,
        size: usize,
        stream: &Stream,
        site: &'static Location<'static>,
    ) -> Result<(u32, &BufferRecord), AllocError> {
        match self.alloc_kept(size, stream) {
            Some(begun) => Ok(begun),
            None => self.alloc_slow(size, stream, site),
        }
    }

    /// As `alloc`, of a block of a class that the stream has dropped, where nothing is out of the
    /// ordinary; `alloc_slow` finds out what else there is.
    #[inline]
    pub(super) fn alloc_kept(&self, size: usize, stream: &Stream) -> Option<(u32, &BufferRecord)> {
        let timeline = stream.ready_timeline()?;
        if !self.gate.is_open() {
            return None;
        }
        let seat = self.slots.seat(timeline)?;
        let class = SizeClass::shared(size)?;
        let (index, record) = self.pop(&seat.slot.lists[class.index()])?;
        self.begin_behind(record, seat.number, size);
        Some((index, record))
    }

    /// The class of a size, `None` for a large one; and the size of its blocks.
    fn class_of(&self, size: usize) -> (Option<SizeClass>, usize) {
        match SizeClass::shared(size) {
            Some(class) => (Some(class), class.block_size()),
            None => (None, self.large_size(size)),
        }
    }

    /// The size of a large block.
    pub(super) fn large_size(&self, size: usize) -> usize {
        // A size that no multiple is above is larger than any span.
        size.checked_next_multiple_of(self.slice).unwrap_or(size)
    }

    /// The slot of a stream.
    #[inline]
    pub(super) fn slot_of(&self, timeline: &Timeline) -> Result<Seat<'_>, Error> {
        match self.slots.seat(timeline) {
            Some(seat) => Ok(seat),
            None => self.new_slot(timeline),
        }
    }

    /// The slot of a stream that has none here, or has lost its seat.
    #[cold]
    fn new_slot(&self, timeline: &Timeline) -> Result<Seat<'_>, Error> {
        let resource = self.upstream.resource();
        let kind = resource.kind();
        kind.check_reach(resource.ordinal(), || resource.peers(), timeline.context())?;
        self.slots.of(timeline).ok_or(Error::TooManyStreams { max: StreamSlots::MOST })
    }

    /// Begins a life of a record whose last use comes before whatever the stream of `slot` does
    /// next: it was the stream's own, or the stream waits for it.
    #[inline]
    pub(super) fn begin_behind(&self, record: &BufferRecord, home: u32, asked: usize) {
        self.begin(record, home, asked, record.last_use());
    }

    #[inline]
    fn begin(&self, record: &BufferRecord, home: u32, asked: usize, inherited: u64) {
        record.inherited.store(inherited, Relaxed);
        record.home.store(home, Relaxed);
        record.asked.store(asked, Relaxed);
        record.seen.store(0, Relaxed);
        record.used.store(0, Relaxed);
        let begun = record.state.begin();
        debug_assert!(begun.is_ok(), "{begun:?}");
    }

    /// Puts a block from the slabs into a record, and begins its life.
    pub(super) fn adopt(
        &self,
        OwnedBlock { block, ticket }: OwnedBlock,
        request: &Request<'_>,
    ) -> Result<u32, AllocError> {
        let room = self.admit().then(|| self.spare.pop(|index| self.records.link(index)));
        let Some(index) = room.and_then(|spare| spare.or_else(|| self.records.make())) else {
            if room.is_some() {
                self.limit.remove();
            }
            self.reject(OwnedBlock { block, ticket }, request);
            let max = self.limit.max().unwrap_or(BufferRecords::MOST.into());
            return Err(AllocError::TooMany { max });
        };
        let record = self.records.get(index);
        // A block of a larger class may stand in, and goes to the list of its own class; so may a
        // run, where there was no room for a slab.
        let (list, size) = match block.class() {
            Some(class) => (class.index(), class.block_size()),
            None => {
                let size = self.upstream.block_size(&block);
                (large_list(size), size)
            }
        };
        record.list.store(u32::try_from(list).unwrap_or(0), Relaxed);
        record.put_block(block, size);
        self.peaks.take(list, size);
        // What the stream has retired there is its last use, as if it had dropped the block itself.
        record.set_use((ticket > 0).then_some(Use { slot: request.slot(), ticket }));
        self.begin_behind(record, request.seat.number, request.asked);
        Ok(index)
    }

    /// Gives a block back that no record could be had for.
    fn reject(&self, OwnedBlock { block, ticket }: OwnedBlock, request: &Request<'_>) {
        match request.block().owner.filter(|_| ticket > 0) {
            Some(owner) => self.upstream.retire(block, Retirement { owner, ticket }),
            None => self.upstream.dealloc(block),
        }
    }

    /// What an allocation of `size` bytes for `stream` asks for.
    pub(super) fn request<'a>(
        &'a self,
        size: usize,
        stream: &'a Stream,
    ) -> Result<Request<'a>, AllocError> {
        let timeline = stream.timeline()?;
        self.check_fault()?;
        let (seat, (class, block)) = (self.slot_of(timeline)?, self.class_of(size));
        Ok(Request { asked: size, class, size: block, seat, stream, timeline })
    }

    /// Takes note of an error of the driver: one that loses the context ends the pool.
    pub(super) fn note_error(&self, error: Error) {
        if error.code().is_some_and(CudaError::is_sticky) {
            self.gate.note_fault(error);
        }
    }
}
