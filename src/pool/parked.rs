//! References to the pool, parked in the records of dropped blocks.
//!
//! A buffer keeps its pool by a reference. The drop of the last handle of a block parks it in the
//! block's record, and the stream's next buffer takes it: neither counts, which would be a locked
//! instruction each on a word that all threads share.
//!
//! ```text
//!   drop ──list open──> record in the list, with the reference ──alloc──> the next buffer
//!    |
//!    +──list closed──> record in the list; the reference ends
//! ```
//!
//! Parked references would keep a pool for ever that nothing else refers to. So the end of the last
//! [`Pool`](super::Pool) closes the lists: it ends what is parked, and no drop parks from then on.
//! Nothing takes blocks any more, since that needs a pool.
//!
//! The push of a record with a reference is the last that its thread does with the pool, which may
//! end at once.
//!
//! * `parked`: written by the record's owner, and by the thread that closes its list; read by the
//!   same. Relaxed: handed over by stacks. Not null only in a record without a handle.

#![expect(unsafe_code, reason = "references are kept as bare pointers")]

use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::core::Core;
use super::record::BufferRecord;
use crate::lockfree::index_stack::{IndexStack, NONE};
use crate::sync::atomic::Ordering::Relaxed;

/// What the clones of a pool share besides its core, and end together.
#[derive(Debug)]
pub(super) struct Open(pub(super) Arc<Core>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close_lists();
    }
}

impl BufferRecord {
    /// Takes the reference that is parked in a record of the caller's.
    #[inline]
    pub(super) fn unpark(&self) -> Option<Arc<Core>> {
        let parked = self.parked.load(Relaxed);
        if parked.is_null() {
            return None;
        }
        self.parked.store(ptr::null_mut(), Relaxed);
        // SAFETY: `end_buffer` has parked it as `Arc::into_raw` returned it. It is taken once, by
        // the record's owner, which has forgotten it above.
        Some(unsafe { Arc::from_raw(parked.cast::<Core>()) })
    }
}

impl Core {
    /// Ends a handle of a record of this core's, with the reference of a buffer.
    #[inline]
    pub(super) fn end_buffer(self: Arc<Self>, record: NonNull<BufferRecord>) {
        let reference = Arc::into_raw(self);
        // SAFETY: the reference keeps the core, until it is parked and its record is pushed.
        let core = unsafe { &*reference };
        // SAFETY: a record of the core's, which lives as long.
        let record = unsafe { record.as_ref() };
        let is_last = record.state.release_last();
        if is_last && core.park(record, reference) {
            return;
        }
        // SAFETY: not parked.
        Self::end_slow(unsafe { Arc::from_raw(reference) }, record.index(), is_last);
    }

    /// Retires the record with a reference in it, where that is the rule. Returns whether it did;
    /// then the core may be gone.
    #[inline]
    fn park(&self, record: &BufferRecord, reference: *const Self) -> bool {
        let Some(list) = self.list_of(record) else { return false };
        self.limit.stamp(record);
        record.parked.store(reference.cast_mut().cast(), Relaxed);
        let is_parked = list.push_open(record.index(), &record.next);
        if !is_parked {
            record.parked.store(ptr::null_mut(), Relaxed);
        }
        is_parked
    }

    #[cold]
    fn end_slow(self: Arc<Self>, index: u32, is_last: bool) {
        if is_last {
            self.retire(index);
        } else {
            self.end_handle_of(index, self.records.get(index));
        }
    }

    /// Ends the references that are parked, and has no more parked.
    fn close_lists(&self) {
        self.slots.close();
        for (_, slot) in self.slots.all() {
            slot.lists.iter().for_each(|list| self.close_list(list));
        }
    }

    /// As `close_lists`, of one list, whose records stay in it.
    fn close_list(&self, list: &IndexStack) {
        let mut next = list.close();
        while let Some(index) = next {
            let record = self.records.get(index);
            next = Some(record.next.load(Relaxed)).filter(|index| *index != NONE);
            // Not the last: the caller has one.
            drop(record.unpark());
            list.push(index, |_| &record.next);
        }
    }
}
