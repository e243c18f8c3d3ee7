//! Uses: which streams have used a block, when the device is past that, and where the block goes
//! when its last handle ends.

use super::core::Core;
use super::record::{BufferRecord, Use};
use crate::error::Error;
use crate::stream::{CaptureStatus, Stream};
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::Timeline;

impl Core {
    /// Notes a use of a live buffer by a stream, submitted by now.
    // Always: a call would cost a foreign interface as much as the rest of a use.
    #[inline(always)]
    pub(super) fn note_use(
        &self,
        record: &BufferRecord,
        slot: usize,
        timeline: &Timeline,
        stream: &Stream,
    ) -> Result<(), Error> {
        let new = self.use_now(slot, timeline);
        record.state.mark_used();
        // A count that two threads at once may fall short of: it is not worth a locked instruction.
        record.used.store(record.used.load(Relaxed).wrapping_add(1), Relaxed);
        for word in &record.uses {
            let mut seen = word.load(Relaxed);
            while Use::unpack(seen).is_some_and(|of| of.slot == slot) {
                if seen >= new {
                    return Ok(());
                }
                match word.compare_exchange_weak(seen, new, Relaxed, Relaxed) {
                    Ok(_) => return Ok(()),
                    Err(now) => seen = now,
                }
            }
        }
        self.note_first_use(record, new, slot, stream)
    }

    /// Notes the first use of a buffer by a stream.
    #[cold]
    fn note_first_use(
        &self,
        record: &BufferRecord,
        new: u64,
        slot: usize,
        stream: &Stream,
    ) -> Result<(), Error> {
        for word in &record.uses {
            let seen = word.load(Relaxed);
            // An empty place, or one of a use that is over.
            if Use::unpack(seen).is_none_or(|of| self.slots.is_complete(of))
                && word.compare_exchange(seen, new, Relaxed, Relaxed).is_ok()
            {
                return Ok(());
            }
        }
        self.displace_use(record, slot, stream)
    }

    /// Notes a use of a buffer that too many streams use at once: `stream` waits on the device for
    /// one of them, whose place it takes.
    fn displace_use(
        &self,
        record: &BufferRecord,
        slot: usize,
        stream: &Stream,
    ) -> Result<(), Error> {
        for word in &record.uses {
            let seen = word.load(Relaxed);
            let Some(of) = Use::unpack(seen) else { continue };
            if !self.order(of, stream)? {
                continue;
            }
            // A ticket behind the wait, and so behind the use that is waited for.
            let new = self.use_now(slot, stream.timeline()?);
            if word.compare_exchange(seen, new, Relaxed, Relaxed).is_ok() {
                // Earlier owners are behind it as well.
                let _other = record.inherited.compare_exchange(seen, new, Relaxed, Relaxed);
                return Ok(());
            }
        }
        self.lose(record);
        Ok(())
    }

    /// A use by a stream, behind all that was submitted to it, as a word.
    #[inline]
    pub(super) fn use_now(&self, slot: usize, timeline: &Timeline) -> u64 {
        Use { slot, ticket: self.slots.get(slot).ticket(timeline.issue()) }.pack()
    }

    /// Lets a stream wait, on the device, for a use. Returns whether that could be done.
    pub(super) fn order(&self, behind: Use, stream: &Stream) -> Result<bool, Error> {
        let Some((timeline, _)) = self.slots.pending(behind) else { return Ok(true) };
        if stream.capture_status()? != CaptureStatus::Inactive {
            return Ok(false);
        }
        let Some(event) = timeline.event()? else { return Ok(false) };
        stream.wait_event(&event)?;
        self.counters.wait();
        Ok(true)
    }

    /// A use that cannot be tracked: the block is never used again.
    pub(super) fn lose(&self, record: &BufferRecord) {
        if !record.lost.swap(true, Relaxed) {
            self.counters.lose(record.size());
        }
    }

    /// Ends a handle of a record, which is retired if it is the last.
    #[inline]
    pub(super) fn end_handle(&self, index: u32) {
        self.end_handle_of(index, self.records.get(index));
    }

    /// Ends a handle of the record with this number.
    // Always: as for `note_use`.
    #[inline(always)]
    pub(super) fn end_handle_of(&self, index: u32, record: &BufferRecord) {
        let last = record.state.release();
        debug_assert!(last.is_ok(), "{last:?}");
        if last == Ok(true) {
            self.retire_record(index, record);
        }
    }

    /// Takes a record whose last handle has ended: for the stream that used it at once, for
    /// others when the device is past that.
    pub(super) fn retire(&self, index: u32) {
        self.retire_record(index, self.records.get(index));
    }

    // Always: as for `note_use`.
    #[inline(always)]
    fn retire_record(&self, index: u32, record: &BufferRecord) {
        if record.lost.load(Relaxed) {
            return;
        }
        let mut uses = record.uses();
        let slot = match (uses.next(), uses.next()) {
            (None, _) => Some(record.home()),
            (Some(only), None) => Some(only.slot),
            _ => self.settle(record),
        };
        self.limit.stamp(record);
        let list = slot.map_or(&self.mixed, |slot| &self.slots.get(slot).lists[record.list()]);
        list.push(index, |_| &record.next);
    }

    /// Forgets the uses that are over; the slot of the only one left, if so, or the home of a
    /// record that has none.
    fn settle(&self, record: &BufferRecord) -> Option<usize> {
        let (mut left, mut count) = (record.home(), 0);
        for word in &record.uses {
            let Some(of) = Use::unpack(word.load(Relaxed)) else { continue };
            if self.slots.is_complete(of) {
                word.store(0, Relaxed);
            } else {
                (left, count) = (of.slot, count + 1);
            }
        }
        (count <= 1).then_some(left)
    }

    /// Whether the device is past all uses of a record.
    pub(super) fn is_idle(&self, record: &BufferRecord) -> bool {
        record.uses().all(|of| self.slots.is_complete(of))
    }

    /// Forgets the uses of a record of the caller's.
    pub(super) fn clear_uses(&self, record: &BufferRecord) {
        for word in &record.uses {
            word.store(0, Relaxed);
        }
    }
}
