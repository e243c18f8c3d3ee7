//! A step on its way to the device.

use std::fmt;
use std::marker::PhantomData;

use wharf_sys::bindings::CUdeviceptr;

use super::builder::MAX_DYNAMIC;
use super::error::StageError;
use super::len::Counts;
use super::plan::Span;
use super::shared::Shared;
use super::slot_id::{SlotId, Untagged};
use super::spec::Place;
use crate::lockfree::slot_state::SlotUse;
use crate::pool::Element;
use crate::stream::Stream;

/// A step that was submitted: where its inputs are, behind the submission on its stream.
///
/// Nothing happens when it is dropped.
#[doc(alias = "STAGED")]
pub struct Staged<'a, Tag = Untagged> {
    shared: &'a Shared,
    index: usize,
    this: SlotUse,
    counts: Counts,
    bucket: Option<usize>,
    dynamic: [u64; MAX_DYNAMIC],
    tag: PhantomData<fn() -> Tag>,
}

impl<'a, Tag> Staged<'a, Tag> {
    #[inline]
    pub(super) fn new(
        shared: &'a Shared,
        index: usize,
        this: SlotUse,
        counts: Counts,
        bucket: Option<usize>,
        dynamic: [u64; MAX_DYNAMIC],
    ) -> Self {
        Self { shared, index, this, counts, bucket, dynamic, tag: PhantomData }
    }

    /// Where the device finds a slot's elements: the same address in every step, in a
    /// [packed](super::Layout::Packed) layout in every step of a bucket. That of a dynamic slot is the one
    /// passed through. 0 for a slot of another set.
    #[inline]
    pub fn device_ptr<T: Element>(&self, slot: SlotId<T, Tag>) -> CUdeviceptr {
        let (plan, index) = (&self.shared.plan, slot.index());
        match plan.slots.get(index).map(|spec| spec.place) {
            _ if slot.set != self.shared.id() => 0,
            Some(Place::Copied) => self.shared.device.address() + self.span(index).offset as u64,
            Some(Place::ZeroCopy) => {
                self.shared.host().device_address(self.index, self.span(index)).unwrap_or(0)
            }
            Some(Place::Dynamic) => self.dynamic[plan.dynamic_index(index)],
            None => 0,
        }
    }

    /// What the step is made of.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What it is padded to: its bucket, or itself above the largest.
    pub fn padded(&self) -> Counts {
        self.bucket.map_or(self.counts, |bucket| self.shared.plan.buckets[bucket].counts)
    }

    /// Whether the device has read the step's ring slot, so that the copy is done.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the device has failed.
    pub fn is_complete(&self) -> Result<bool, StageError> {
        // Looked at in this order: once the slot is in another use, this one was complete.
        let done = self.shared.is_done(self.index)?;
        Ok(done || !self.shared.ring.is_in_flight(self.index, self.this))
    }

    /// Makes what `consumer` is given from here on wait, on the device, for the step's inputs. Needed
    /// when they were submitted to another stream. One driver call.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the driver refused.
    #[doc(alias = "cuStreamWaitEvent")]
    pub fn wait_on(&self, consumer: &Stream) -> Result<(), StageError> {
        Ok(consumer.wait_event(&self.shared.host().events[self.index])?)
    }

    /// Says that what `consumer` was given so far reads the step's inputs: the next step waits for it, on
    /// the device. To be called before the next step is submitted; not needed when that goes to the same
    /// stream. One driver call.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the driver refused.
    #[doc(alias = "cuEventRecord")]
    pub fn consumed_by(&self, consumer: &Stream) -> Result<(), StageError> {
        Ok(self.shared.consumed(self.index, consumer)?)
    }

    fn span(&self, slot: usize) -> Span {
        let plan = &self.shared.plan;
        match self.bucket {
            Some(bucket) => plan.buckets[bucket].spans[slot],
            None => plan.exact_span(self.counts, slot),
        }
    }
}

impl<Tag> fmt::Debug for Staged<'_, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Staged");
        out.field("ring_slot", &self.index).field("counts", &self.counts).finish_non_exhaustive()
    }
}
