//! A step on its way to the device.

use std::fmt;
use std::marker::PhantomData;

use wharf_sys::bindings::CUdeviceptr;

use super::error::StageError;
use super::len::Counts;
use super::plan::{Bucket, Span};
use super::ring::Claim;
use super::shared::Shared;
use super::slot_id::{SlotId, Untagged};
use super::spec::Place;
use super::state::{Addresses, SlotState};
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
    bucket: Option<&'a Bucket>,
    dynamic: Addresses,
    tag: PhantomData<fn() -> Tag>,
}

impl<'a, Tag> Staged<'a, Tag> {
    /// Hands the ring slot to the device.
    #[inline]
    pub(super) fn new(
        shared: &'a Shared,
        claim: Claim<'a, SlotState>,
        counts: Counts,
        bucket: Option<&'a Bucket>,
    ) -> Self {
        let (index, this) = (claim.index(), claim.this());
        let dynamic = Addresses::default();
        let mut staged = Self { shared, index, this, counts, bucket, dynamic, tag: PhantomData };
        if claim.has_extras {
            staged.dynamic = claim.extras.dynamic;
        }
        claim.submit();
        staged
    }

    /// Where the device finds a slot's elements: the same address in every step, in a
    /// [packed](super::Layout::Packed) layout in every step of a bucket. That of a dynamic slot is the one
    /// passed through. 0 for a slot of another set.
    #[inline]
    pub fn device_ptr<T: Element>(&self, slot: SlotId<T, Tag>) -> CUdeviceptr {
        if slot.set == self.shared.id()
            && let Some(bucket) = self.bucket
            && let Some(field) = bucket.fields.get(slot.index())
            && field.is_copied
        {
            return self.shared.device.address() + field.span.offset as u64;
        }
        self.find(slot.index(), slot.set)
    }

    /// What the step is made of.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What it is padded to: its bucket, or itself above the largest.
    pub fn padded(&self) -> Counts {
        self.bucket.map_or(self.counts, |bucket| bucket.counts)
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
        Shared::refuse_capture(consumer, |api| api.stream_wait_event.name())?;
        Ok(consumer.wait_event(&self.shared.host.events[self.index])?)
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

    /// The address of a slot that is of a rarer kind, or in a step of its own size.
    fn find(&self, slot: usize, set: usize) -> CUdeviceptr {
        let plan = &self.shared.plan;
        match plan.slots.get(slot).map(|spec| spec.place) {
            _ if set != self.shared.id() => 0,
            Some(Place::Copied) => self.shared.device.address() + self.span(slot).offset as u64,
            Some(Place::ZeroCopy) => {
                self.shared.host.device_address(self.index, self.span(slot)).unwrap_or(0)
            }
            Some(Place::Dynamic) => self.dynamic[plan.dynamic_index(slot)],
            None => 0,
        }
    }

    fn span(&self, slot: usize) -> Span {
        match self.bucket {
            Some(bucket) => bucket.fields[slot].span,
            None => self.shared.plan.exact_span(self.counts, slot),
        }
    }
}

impl<Tag> fmt::Debug for Staged<'_, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Staged");
        out.field("ring_slot", &self.index).field("counts", &self.counts).finish_non_exhaustive()
    }
}
