#![expect(unsafe_code, reason = "takes addresses that the caller vouches for")]
//! One fetch: a ring slot for the results of a step.

use std::marker::PhantomData;
use std::sync::Arc;

use wharf_sys::bindings::CUdeviceptr;

use super::error::{CountFault, SlotFault, StageError};
use super::guard::check_device;
use super::launch::Sent;
use super::len::{BY_NAME, Counts};
use super::pending::Pending;
use super::plan::{Bucket, ByteRange, Layout};
use super::refer::Owner;
use super::reference::{Reference, Source};
use super::slot_id::{CountId, SlotId, Untagged};
use super::state::SlotClaim;
use super::transfer::Transfer;
use crate::element::{DType, Element};
use crate::memory::MemoryKind;
use crate::pool::Buffer;
use crate::profile::Range;
use crate::stream::Stream;

/// A fetch that has not been submitted. Dropped, it has not happened.
///
/// It may be submitted on any thread, and owns its share of the set.
///
/// # Examples
///
/// See [`OutputBuffers`](super::OutputBuffers).
#[must_use = "a fetch that is dropped has not happened"]
#[derive(Debug)]
pub struct Fetch<Tag = Untagged> {
    // Before the owner of the ring: fields are dropped in their order.
    claim: SlotClaim<'static>,
    shared: Arc<Transfer>,
    counts: Counts,
    /// Which bucket's, if it has one.
    bucket: Option<usize>,
    /// A bit for each slot that is copied from elsewhere.
    referred: u64,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> Fetch<Tag> {
    // Always: a fetch is built where it goes, and not moved there.
    #[inline(always)]
    pub(super) fn new(
        shared: &Arc<Transfer>,
        mut claim: SlotClaim<'_>,
        counts: Counts,
        bucket: Option<&Bucket>,
    ) -> Self {
        claim.begin_other(&shared.plan, counts, bucket);
        let bucket = bucket.map(|bucket| bucket.index);
        // SAFETY: the ring is the transfer's, of which this has a share that is dropped after it,
        // as does the `Pending` that it becomes.
        let claim = unsafe { claim.outlive() };
        Self { claim, shared: Arc::clone(shared), counts, bucket, referred: 0, tag: PhantomData }
    }

    /// Fetches a slot of this step from device memory at `address`. Costs a driver call if the last
    /// fetch of this ring slot and bucket had another source, and so does the next one that has. A
    /// graph takes no memory of another origin than its own, such as of `cuMemAlloc`: such a fetch
    /// goes without, by a call for each slot.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot has no copy of its own, or is of another set. Nothing has
    /// changed, and the fetch goes on.
    ///
    /// # Safety
    ///
    /// Until the [`Pending`] is complete, `address` is memory of the set's device that holds the
    /// slot's elements of the [padded](Self::padded) step, and nothing writes it that is not
    /// ordered with the fetch.
    pub unsafe fn source<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        address: CUdeviceptr,
    ) -> Result<(), StageError> {
        self.refer_to(slot.index(), slot.set(), T::DTYPE, address)
    }

    /// How many elements a source of a slot has in this step.
    ///
    /// # Errors
    ///
    /// As [`source`](Self::source).
    pub fn source_len<T: Element>(&self, slot: SlotId<T, Tag>) -> Result<usize, StageError> {
        Ok(self.referable(slot.index(), slot.set(), T::DTYPE)?.size / size_of::<T>())
    }

    /// Checks a source of `len` elements for a slot of this step, before
    /// [`source`](Self::source) takes its address: as many as the slot has, or more.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: as `source`; or the source is too short.
    pub fn check_source<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
        len: usize,
    ) -> Result<(), StageError> {
        let (wanted, given) = (self.source_len(slot)?, len);
        if given < wanted {
            return Err(self.shared.misuse(slot.index(), SlotFault::Length { wanted, given }));
        }
        Ok(())
    }

    /// Fetches a slot of elements of `dtype` from `address`, which the caller vouches for.
    pub(super) fn refer_to(
        &mut self,
        slot: usize,
        set: usize,
        dtype: DType,
        address: CUdeviceptr,
    ) -> Result<(), StageError> {
        let span = self.referable(slot, set, dtype)?;
        self.refer(slot, span, address, Box::new(Owner(())));
        Ok(())
    }

    /// Fetches a slot of this step from a buffer of device memory, which holds as many elements as
    /// the slot has in the [padded](Self::padded) step, or more. It may be dropped at once: its
    /// memory is reused behind the copy. What writes it is the caller's to order, as for any work
    /// on the buffer. Costs as [`source`](Self::source).
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: as `source`; or the buffer is too short, or of other memory. Nothing
    /// has changed, and the fetch goes on.
    pub fn source_buffer<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: &Buffer<T>,
    ) -> Result<(), StageError> {
        let span = self.referable(slot.index(), slot.set(), T::DTYPE)?;
        self.check_source(slot, from.len())?;
        let kind = from.kind();
        if !matches!(kind, MemoryKind::Device) {
            return Err(self.shared.misuse(slot.index(), SlotFault::NotDevice { kind }));
        }
        let (wanted, given) = (self.shared.context.device().ordinal(), from.ordinal());
        if given != Some(wanted) {
            return Err(self.shared.misuse(slot.index(), SlotFault::OtherDevice { wanted, given }));
        }
        let too_many = || self.shared.misuse(slot.index(), SlotFault::TooManyHandles);
        let handle = from.slice(..).ok_or_else(too_many)?;
        self.refer(slot.index(), span, from.info().address, Box::new(handle));
        Ok(())
    }

    /// Says how many the step has of a count [by name](super::OutputBuffersBuilder::count): so many
    /// elements are there to be read. Copied are as many as there may be.
    ///
    /// # Errors
    ///
    /// [`StageError::Count`]: the count is another set's, or a step of this size does not have so
    /// many. Nothing has changed, and the fetch goes on.
    pub fn set_count(&mut self, count: CountId<Tag>, number: usize) -> Result<(), StageError> {
        let Some(max) = self.shared.most_of(count.index, count.set, self.padded())? else {
            return Err(self.shared.count_misuse(count.index, CountFault::Foreign));
        };
        if number > max {
            let fault = CountFault::TooLarge { wanted: number, max };
            return Err(self.shared.count_misuse(count.index, fault));
        }
        self.claim.extras().counts_set |= 1 << count.index;
        self.claim.counts[BY_NAME + usize::from(count.index)] = number;
        Ok(())
    }

    /// Copies the results to the ring slot, behind what `stream` was given so far: one driver call,
    /// where the context is entered and the graph is made.
    ///
    /// A stream that is being captured is refused where the capture is known of, as for
    /// [`Step::submit`](super::Step::submit). A capture that is not known takes the copies into its
    /// graph, which must not be launched; the ring slot stays in use until
    /// [`release_lost`](super::OutputBuffers::release_lost).
    ///
    /// # Errors
    ///
    /// * [`StageError::OtherDevice`]: the stream is of another device.
    /// * [`StageError::Driver`], [`StageError::Graph`]: the driver refused, or the stream is being
    ///   captured.
    ///
    /// The fetch has then not happened, and its ring slot is free.
    #[inline]
    #[doc(alias = "cuGraphLaunch")]
    pub fn submit(mut self, stream: &Stream) -> Result<Pending<Tag>, StageError> {
        let shared = &*self.shared;
        let bucket = self.bucket.map(|bucket| &shared.plan.buckets[bucket]);
        let _range = Range::enter(shared.names.submit(bucket), Some(self.claim.size(bucket)));
        shared.refuse_capture(stream, |api| api.graph_launch.name())?;
        check_device(&shared.context, stream)?;
        if self.referred != 0 {
            self.claim.order_behind(self.referred, stream)?;
        }
        self.claim.open().reset();
        let sent = Sent { bucket, skipped: 0, referred: self.referred };
        shared.launch(&mut self.claim, sent, stream)?;
        if self.referred != 0 {
            self.claim.note_uses(stream);
        }
        Ok(self.hand_over(stream))
    }

    /// As [`submit`](Self::submit), for a fetch of an [embedded](super::EmbeddedOutputs) set:
    /// `launch` launches, on `stream`, the engine's graph that has the copies of this
    /// [ring slot](Self::ring_slot), and returns an error if it did not.
    ///
    /// If it launches nothing and returns `Ok`, or another graph, the results never come, and the
    /// ring slot is free again by [`release_lost`](super::EmbeddedOutputs::release_lost). Where an
    /// event says that they are there, because the device cannot write words, what is read then is
    /// of an earlier step.
    ///
    /// # Errors
    ///
    /// As `submit`, and what `launch` returns.
    pub fn submit_with<E: From<StageError>>(
        self,
        stream: &Stream,
        launch: impl FnOnce() -> Result<(), E>,
    ) -> Result<Pending<Tag>, E> {
        let shared = &*self.shared;
        let bucket = self.bucket.map(|bucket| &shared.plan.buckets[bucket]);
        let _range = Range::enter(shared.names.submit(bucket), Some(self.claim.size(bucket)));
        shared.check_fork().map_err(StageError::from)?;
        shared.refuse_capture(stream, |api| api.graph_launch.name())?;
        check_device(&shared.context, stream)?;
        if self.referred != 0 {
            let slot = self.referred.trailing_zeros() as usize;
            return Err(shared.misuse(slot, SlotFault::Embedded).into());
        }
        self.claim.open().reset();
        launch()?;
        Ok(self.hand_over(stream))
    }

    /// The ring slot that it has, from 0.
    pub fn ring_slot(&self) -> usize {
        self.claim.index()
    }

    /// The step's tokens and requests.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The counts whose elements are copied: those of the bucket, or the step's above the largest.
    pub fn padded(&self) -> Counts {
        self.bucket.map_or(self.counts, |bucket| self.shared.plan.buckets[bucket].counts)
    }

    /// Notes a fetch that the device has.
    #[inline]
    fn hand_over(self, stream: &Stream) -> Pending<Tag> {
        let Self { mut claim, shared, counts, bucket, .. } = self;
        if shared.has_no_events() {
            claim.note_tail(stream);
        }
        claim.open().note(stream, &shared.ticks);
        Pending::new(shared, claim, counts, bucket, stream.id())
    }

    /// Where a slot lies, if it can be copied from elsewhere.
    fn referable(&self, index: usize, set: usize, dtype: DType) -> Result<ByteRange, StageError> {
        let own = &self.claim.fields;
        let fields = self.bucket.map_or(own, |bucket| &self.shared.plan.buckets[bucket].fields);
        let Some(field) =
            fields.get(index).filter(|field| set == self.shared.id() && field.dtype == Some(dtype))
        else {
            return Err(self.shared.misuse(index, SlotFault::Foreign));
        };
        if self.shared.plan.layout != Layout::PerSlot {
            return Err(self.shared.misuse(index, SlotFault::NeedsPerSlot));
        }
        Ok(field.span)
    }

    fn refer(&mut self, slot: usize, span: ByteRange, address: u64, source: Box<dyn Source>) {
        let copy = self.shared.copy_with(self.claim.index(), span, address);
        self.claim.refer(Reference { slot, copy, source });
        self.referred |= 1 << slot;
    }
}
