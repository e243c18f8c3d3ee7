//! The pool itself: records between holders, lanes and slabs.

use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::lane::Lanes;
use super::options::Hook;
use super::plan::Peaks;
use super::record::{LARGE_LIST, Record, Records, Use};
use super::simple::Census;
use super::stats::Counters;
use super::track::Track;
use super::upstream::{Raw, Upstream};
use crate::error::{CudaError, Error};
use crate::lockfree::index_stack::IndexStack;
use crate::lockfree::turn::Turns;
use crate::slab::{AllocError, SizeClass};
use crate::stream::{CaptureStatus, Stream};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::timeline::Timeline;

/// What buffers keep alive.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) name: String,
    pub(super) upstream: Box<dyn Upstream>,
    pub(super) records: Records,
    pub(super) lanes: Lanes,
    /// Retired records that several streams have used.
    pub(super) mixed: IndexStack,
    /// Records without a block.
    pub(super) spare: IndexStack,
    /// Whose turn it is to take lists apart.
    pub(super) draining: Turns,
    pub(super) passes: AtomicU32,
    pub(super) start: Instant,
    /// When there was a pass for blocks that nobody wants, in milliseconds from the start.
    pub(super) last_pass: AtomicU64,
    pub(super) census: Census,
    pub(super) peaks: Peaks,
    pub(super) counters: Counters,
    /// What the driver said when it lost the context.
    pub(super) fault: OnceLock<Error>,
    pub(super) wait: Duration,
    /// How long a block must have been of no use to its stream to be given back before growth, in milliseconds.
    pub(super) pass_interval: u64,
    pub(super) hook: Option<Hook>,
    pub(super) track: Option<Track>,
}

/// An allocation on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// What was asked for, in bytes.
    pub(super) asked: usize,
    /// What is taken from the slabs: the size of the class, or what was asked for.
    pub(super) size: usize,
    pub(super) list: usize,
    /// The lane of the stream.
    pub(super) lane: usize,
    pub(super) stream: &'a Stream,
    pub(super) timeline: &'a Timeline,
}

impl Core {
    /// Allocates a record with a block of at least `size` bytes for `stream`.
    #[inline]
    pub(super) fn alloc(
        &self,
        size: usize,
        stream: &Stream,
        site: &'static Location<'static>,
    ) -> Result<u32, AllocError> {
        let timeline = stream.timeline()?;
        if timeline.is_forked() {
            return Err(Error::Forked.into());
        }
        if let Some(error) = self.fault.get() {
            return Err((*error).into());
        }
        let lane = self.lane(timeline)?;
        let class = SizeClass::of(size);
        let list = class.map_or(LARGE_LIST, SizeClass::index);
        let kept = if list == LARGE_LIST {
            self.pop_large(lane, size)
        } else {
            self.lanes.get(lane).lists[list].pop(|index| self.records.link(index))
        };
        let index = match kept {
            Some(index) => {
                self.begin_behind(index, lane, size);
                index
            }
            None => {
                let taken = class.map_or(size, SizeClass::block_size);
                self.alloc_slow(Request { asked: size, size: taken, list, lane, stream, timeline })?
            }
        };
        if let Some(track) = &self.track {
            track.note(index, site);
        }
        Ok(index)
    }

    /// The lane of a stream.
    #[inline]
    pub(super) fn lane(&self, timeline: &Timeline) -> Result<usize, Error> {
        let too_many = Error::Driver { call: "streams of one pool", code: CudaError::OUT_OF_MEMORY };
        self.lanes.of(timeline).ok_or(too_many)
    }

    /// Begins a life of a record whose last use comes before whatever the stream of `lane` does next:
    /// it was the stream's own, or the stream waits for it.
    #[inline]
    pub(super) fn begin_behind(&self, index: u32, lane: usize, asked: usize) {
        let record = self.records.get(index);
        let inherited = record.uses.iter().map(|word| word.load(Relaxed)).max().unwrap_or(0);
        self.begin(record, lane, asked, inherited);
    }

    fn begin(&self, record: &Record, lane: usize, asked: usize, inherited: u64) {
        record.inherited.store(inherited, Relaxed);
        record.home.store(u32::try_from(lane).unwrap_or(0), Relaxed);
        record.asked.store(asked, Relaxed);
        record.seen.store(0, Relaxed);
        record.used.store(0, Relaxed);
        let begun = record.state.begin();
        debug_assert!(begun.is_ok(), "{begun:?}");
    }

    /// Puts a block from the slabs into a record, and begins its life.
    pub(super) fn adopt(&self, raw: Raw, request: &Request<'_>) -> Result<u32, AllocError> {
        let room = self.admit().then(|| self.spare.pop(|index| self.records.link(index)));
        let Some(index) = room.and_then(|spare| spare.or_else(|| self.records.make())) else {
            if room.is_some() {
                self.census.dismiss();
            }
            self.upstream.dealloc(raw.address);
            let max = self.census.max().unwrap_or(Records::MOST.into());
            return Err(AllocError::TooMany { max });
        };
        let record = self.records.get(index);
        // A block of a larger class may stand in, and goes to the list of its own class.
        let list = raw.class.map_or(request.list, SizeClass::index);
        record.list.store(u32::try_from(list).unwrap_or(0), Relaxed);
        record.address.store(raw.address, Relaxed);
        record.size.store(raw.size, Relaxed);
        self.peaks.take(list, raw.size);
        self.begin(record, request.lane, request.asked, 0);
        Ok(index)
    }

    /// Notes a use of a live buffer by a stream, submitted by now.
    #[inline]
    pub(super) fn note_use(
        &self,
        index: u32,
        lane: usize,
        ticket: u64,
        stream: &Stream,
    ) -> Result<(), Error> {
        let record = self.records.get(index);
        let new = Use { lane, ticket }.pack();
        record.state.mark_used();
        record.used.fetch_add(1, Relaxed);
        for word in &record.uses {
            let mut seen = word.load(Relaxed);
            while Use::unpack(seen).is_some_and(|of| of.lane == lane) {
                if seen >= new {
                    return Ok(());
                }
                match word.compare_exchange_weak(seen, new, Relaxed, Relaxed) {
                    Ok(_) => return Ok(()),
                    Err(now) => seen = now,
                }
            }
        }
        self.note_first_use(record, new, lane, stream)
    }

    /// Notes the first use of a buffer by a stream.
    #[cold]
    fn note_first_use(&self, record: &Record, new: u64, lane: usize, stream: &Stream) -> Result<(), Error> {
        self.lanes.get(lane).enter();
        for word in &record.uses {
            let seen = word.load(Relaxed);
            let old = Use::unpack(seen);
            // An empty place, or one of a use that is over.
            if old.is_none_or(|of| self.lanes.is_complete(of))
                && word.compare_exchange(seen, new, Relaxed, Relaxed).is_ok()
            {
                if let Some(of) = old {
                    self.lanes.get(of.lane).leave();
                }
                return Ok(());
            }
        }
        self.lanes.get(lane).leave();
        self.crowd(record, lane, stream)
    }

    /// Notes a use of a buffer that too many streams use at once: `stream` waits on the device for one
    /// of them, whose place it takes.
    fn crowd(&self, record: &Record, lane: usize, stream: &Stream) -> Result<(), Error> {
        for word in &record.uses {
            let seen = word.load(Relaxed);
            let Some(of) = Use::unpack(seen) else { continue };
            if !self.order(of, stream)? {
                continue;
            }
            // A ticket behind the wait, and so behind the use that is waited for.
            let new = Use { lane, ticket: stream.timeline()?.issue()? }.pack();
            self.lanes.get(lane).enter();
            if word.compare_exchange(seen, new, Relaxed, Relaxed).is_ok() {
                self.lanes.get(of.lane).leave();
                return Ok(());
            }
            self.lanes.get(lane).leave();
        }
        self.lose(record);
        Ok(())
    }

    /// Lets a stream wait, on the device, for a use; whether that could be done.
    pub(super) fn order(&self, behind: Use, stream: &Stream) -> Result<bool, Error> {
        if self.lanes.is_complete(behind) {
            return Ok(true);
        }
        let Some(timeline) = self.lanes.get(behind.lane).timeline() else { return Ok(false) };
        if stream.capture_status()? != CaptureStatus::Inactive {
            return Ok(false);
        }
        let Some(event) = timeline.event()? else { return Ok(false) };
        stream.wait_event(&event)?;
        self.counters.wait();
        Ok(true)
    }

    /// A use that cannot be tracked: the block is never used again.
    pub(super) fn lose(&self, record: &Record) {
        if !record.lost.swap(true, Relaxed) {
            self.counters.lose(record.size());
        }
    }

    /// Takes a record whose last handle has ended: for the stream that used it at once, for
    /// others when the device is past that.
    #[inline]
    pub(super) fn retire(&self, index: u32) {
        let record = self.records.get(index);
        if record.lost.load(Relaxed) {
            return;
        }
        let mut uses = record.uses();
        let lane = match (uses.next(), uses.next()) {
            (None, _) => Some(record.home()),
            (Some(only), None) => Some(only.lane),
            _ => self.settle(record),
        };
        self.census.stamp(record);
        let list = lane.map_or(&self.mixed, |lane| &self.lanes.get(lane).lists[record.list()]);
        list.push(index, |index| self.records.link(index));
    }

    /// Forgets the uses that are over; the lane of the only one left, if so, or the home of a record
    /// that has none.
    fn settle(&self, record: &Record) -> Option<usize> {
        let (mut left, mut count) = (record.home(), 0);
        for word in &record.uses {
            let Some(of) = Use::unpack(word.load(Relaxed)) else { continue };
            if self.lanes.is_complete(of) {
                word.store(0, Relaxed);
                self.lanes.get(of.lane).leave();
            } else {
                (left, count) = (of.lane, count + 1);
            }
        }
        (count <= 1).then_some(left)
    }

    /// Whether the device is past all uses of a record.
    pub(super) fn is_idle(&self, record: &Record) -> bool {
        record.uses().all(|of| self.lanes.is_complete(of))
    }

    /// Forgets the uses of a record of the caller's.
    pub(super) fn clear_uses(&self, record: &Record) {
        for word in &record.uses {
            if let Some(of) = Use::unpack(word.swap(0, Relaxed)) {
                self.lanes.get(of.lane).leave();
            }
        }
    }

    /// Takes note of an error of the driver: one that loses the context ends the pool.
    pub(super) fn note_error(&self, error: Error) {
        if error.code().is_some_and(CudaError::is_sticky) {
            // The first one is the cause.
            let _first = self.fault.set(error);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // What the device still uses then counts as live, so the slabs leak their memory.
        self.teardown();
    }
}

/// A pool's core, shared with its buffers.
pub(super) type Shared = Arc<Core>;
