//! Uses: which streams have used a block, when the device is past that, and where the block goes
//! when its last handle ends.

use super::core::Core;
use super::record::{BufferRecord, Use};
use super::stream_slot::Seat;
use crate::error::Error;
use crate::lockfree::index_stack::IndexStack;
use crate::stream::{CaptureStatus, Stream};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::timeline::Timeline;

impl Core {
    /// Notes a use of a live buffer by a stream, where that only raises the first use. Returns
    /// whether it did.
    #[inline]
    pub(super) fn note_again(&self, record: &BufferRecord, stream: &Stream) -> bool {
        let Some(timeline) = stream.ready_timeline() else { return false };
        let Some(slot) = self.slots.seat(timeline) else { return false };
        let is_noted = raise(&record.uses[0], slot.use_now(timeline));
        if is_noted {
            count(record);
        }
        is_noted
    }

    /// Notes a use of a live buffer by a stream, submitted by now.
    pub(super) fn note_use(
        &self,
        record: &BufferRecord,
        slot: Seat<'_>,
        timeline: &Timeline,
        stream: &Stream,
    ) -> Result<(), Error> {
        let new = slot.use_now(timeline);
        count(record);
        if raise(&record.uses[0], new) {
            return Ok(());
        }
        self.note_other_use(record, new, slot, stream)
    }

    /// As `note_use`, where the first use is not one by the stream.
    #[cold]
    fn note_other_use(
        &self,
        record: &BufferRecord,
        new: Use,
        slot: Seat<'_>,
        stream: &Stream,
    ) -> Result<(), Error> {
        if record.uses.iter().any(|word| raise(word, new)) {
            return Ok(());
        }
        for (place, word) in record.uses.iter().enumerate() {
            let seen = word.load(Relaxed);
            // An empty place, or one of a use that is over.
            if Use::unpack(seen).is_some_and(|of| !self.slots.is_complete(of)) {
                continue;
            }
            if place > 0 {
                record.spread();
            }
            if word.compare_exchange(seen, new.pack(), Relaxed, Relaxed).is_ok() {
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
        slot: Seat<'_>,
        stream: &Stream,
    ) -> Result<(), Error> {
        for word in &record.uses {
            let seen = word.load(Relaxed);
            let Some(of) = Use::unpack(seen) else { continue };
            if !self.order(of, stream)? {
                continue;
            }
            // A ticket behind the wait, and so behind the use that is waited for.
            let new = slot.use_now(stream.timeline()?).pack();
            if word.compare_exchange(seen, new, Relaxed, Relaxed).is_ok() {
                // Earlier owners are behind it as well.
                let _other = record.inherited.compare_exchange(seen, new, Relaxed, Relaxed);
                return Ok(());
            }
        }
        self.lose(record);
        Ok(())
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
        if record.lose() {
            self.counters.lose(record.size());
        }
    }

    /// Ends a handle of the record with this number, which is retired if it is the last.
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

    fn retire_record(&self, index: u32, record: &BufferRecord) {
        let Some(list) = self.list_of(record) else { return self.retire_other(index, record) };
        self.limit.stamp(record);
        list.push(index, |_| &record.next);
    }

    /// Retires a record of the caller's behind a use by a stream, submitted by now. Also after an
    /// error: then the block is lost.
    #[inline]
    pub(super) fn retire_behind(
        &self,
        record: &BufferRecord,
        slot: Seat<'_>,
        timeline: &Timeline,
        stream: &Stream,
    ) -> Result<(), Error> {
        let last = record.uses[0].load(Relaxed);
        let is_own = Use::unpack(last).is_none_or(|of| of.slot == slot.number as usize);
        if !record.is_plain() || !is_own {
            return self.retire_behind_others(record, slot, timeline, stream);
        }
        count(record);
        // A store: only the owner of a record without a handle notes uses.
        record.uses[0].store(slot.use_now(timeline).pack().max(last), Relaxed);
        self.limit.stamp(record);
        slot.slot.lists[record.list()].push(record.index(), |_| &record.next);
        Ok(())
    }

    /// As `retire_behind`, of a record that other streams have used.
    #[cold]
    fn retire_behind_others(
        &self,
        record: &BufferRecord,
        slot: Seat<'_>,
        timeline: &Timeline,
        stream: &Stream,
    ) -> Result<(), Error> {
        let noted =
            self.note_use(record, slot, timeline, stream).inspect_err(|_| self.lose(record));
        self.retire_record(record.index(), record);
        noted
    }

    /// The list that a retired record goes to, if nothing is to be found out for that.
    #[inline]
    pub(super) fn list_of(&self, record: &BufferRecord) -> Option<&IndexStack> {
        if !record.is_plain() {
            return None;
        }
        let only = Use::unpack(record.uses[0].load(Relaxed));
        let slot = only.map_or_else(|| record.home(), |of| of.slot);
        Some(&self.slots.made(slot)?.lists[record.list()])
    }

    /// As `retire_record`, of one that is lost, or that several streams may have used.
    #[cold]
    fn retire_other(&self, index: u32, record: &BufferRecord) {
        if record.is_lost() {
            return;
        }
        let slot = self.settle(record);
        self.limit.stamp(record);
        let list = slot.map_or(&self.mixed, |slot| &self.slots.get(slot).lists[record.list()]);
        list.push(index, |_| &record.next);
    }

    /// Forgets the uses that are over; the slot of the only one left, if so, or the home of a
    /// record that has none.
    fn settle(&self, record: &BufferRecord) -> Option<usize> {
        let (mut left, mut count) = (None, 0);
        for word in &record.uses {
            let Some(of) = Use::unpack(word.load(Relaxed)) else { continue };
            if self.slots.is_complete(of) {
                word.store(0, Relaxed);
            } else {
                (left, count) = (Some(of), count + 1);
            }
        }
        if count > 1 {
            return None;
        }
        record.set_use(left);
        Some(left.map_or_else(|| record.home(), |of| of.slot))
    }

    /// Whether the device is past all uses of a record.
    pub(super) fn is_idle(&self, record: &BufferRecord) -> bool {
        record.uses().all(|of| self.slots.is_complete(of))
    }
}

/// Counts a use. Two threads at once may fall short: it is not worth a locked instruction.
#[inline]
fn count(record: &BufferRecord) {
    record.used.store(record.used.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Raises the word of a use by the same stream. Returns whether it is one.
#[inline]
fn raise(word: &AtomicU64, new: Use) -> bool {
    let (mut seen, packed) = (word.load(Relaxed), new.pack());
    // No marker came in between: nothing is to be done.
    if seen == packed {
        return true;
    }
    while Use::unpack(seen).is_some_and(|of| of.slot == new.slot) {
        if seen >= packed {
            return true;
        }
        match word.compare_exchange_weak(seen, packed, Relaxed, Relaxed) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}
