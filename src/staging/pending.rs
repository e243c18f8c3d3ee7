#![expect(unsafe_code, reason = "slices of pinned memory that is held")]
//! Results on their way to the host, and results that are there.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::error::{SlotFault, StageError};
use super::guard::check_device;
use super::len::Counts;
use super::slot_id::{SlotId, Untagged};
use super::spec::SlotSpec;
use super::stall::{Stall, StallCause};
use super::state::{SlotClaim, SlotHold};
use super::transfer::Transfer;
use crate::element::{DType, Element};
use crate::error::Error;
use crate::stream::{Stream, StreamId};
use crate::timeline::GaveUp;

/// The results of one step, which the device is copying or has copied to a ring slot.
///
/// It owns its share of the set, so that an engine can keep it until the step after, and holds the
/// ring slot: nothing overwrites the results before it is dropped. If it is dropped before they
/// are there, the ring slot is free when the device has written it. One that is leaked holds its
/// ring slot for ever.
///
/// # Examples
///
/// See [`OutputBuffers`](super::OutputBuffers).
#[must_use = "dropping it gives the results up"]
pub struct Pending<Tag = Untagged> {
    // Before the owner of the ring: fields are dropped in their order.
    hold: SlotHold<'static>,
    pub(super) shared: Arc<Transfer>,
    counts: Counts,
    /// Which bucket's, if it has one.
    bucket: Option<usize>,
    stream: StreamId,
    tag: PhantomData<fn() -> Tag>,
}

/// Results that are there: a view of a [`Pending`]'s ring slot.
pub struct Results<'a, Tag = Untagged> {
    pub(super) pending: &'a Pending<Tag>,
}

impl<Tag> Pending<Tag> {
    /// Holds the ring slot of a fetch that the device has.
    #[inline]
    pub(super) fn new(
        shared: Arc<Transfer>,
        claim: SlotClaim<'static>,
        counts: Counts,
        bucket: Option<usize>,
        stream: StreamId,
    ) -> Self {
        Self { hold: claim.hold(), shared, counts, bucket, stream, tag: PhantomData }
    }

    /// Whether the results are there. No driver call, where the device can write words.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the device has failed, where an event has to be asked; or this is a
    /// forked child. A device that fails never writes the word, which [`wait`](Self::wait) finds.
    #[inline]
    pub fn is_complete(&self) -> Result<bool, StageError> {
        self.shared.check_fork()?;
        Ok(self.is_done()?)
    }

    /// The results, if they are there. No driver call, where the device can write words.
    ///
    /// # Errors
    ///
    /// As [`is_complete`](Self::is_complete).
    #[inline]
    pub fn try_read(&self) -> Result<Option<Results<'_, Tag>>, StageError> {
        Ok(self.is_complete()?.then_some(Results { pending: self }))
    }

    /// Waits for the results, for at most `limit`: for the copies of this fetch and what comes
    /// before them in the stream, and for nothing behind.
    ///
    /// # Errors
    ///
    /// * [`StageError::Stalled`]: they are not there after `limit`. They may still come.
    /// * [`StageError::Driver`]: the device has failed, or this is a forked child.
    pub fn wait(&self, limit: Duration) -> Result<Results<'_, Tag>, StageError> {
        if let Some(results) = self.try_read()? {
            return Ok(results);
        }
        match self.shared.sentinel.wait(limit, || self.is_done()) {
            Ok(()) => Ok(Results { pending: self }),
            Err(GaveUp::Driver(error)) => Err(error.into()),
            Err(GaveUp::Deadline { age, probes }) => {
                let ring_slot = self.hold.index();
                let stream = self.shared.stream_of(ring_slot);
                let cause = StallCause::Copy;
                Err(StageError::Stalled(Stall { ring_slot, stream, age, probes, cause }))
            }
        }
    }

    /// Makes what `writer` is given from here on wait, on the device, until the device memory has
    /// been read: for a step on another stream than the fetch's, which writes it again. One driver
    /// call, none on the stream of the fetch. Where no event ends the copies, by
    /// [`Submission::Calls`](super::Submission::Calls) or [`Completion`](super::Completion), it is
    /// all that the fetch's stream has been given by now, at up to three calls more; none if the
    /// results are there.
    ///
    /// # Errors
    ///
    /// * [`StageError::OtherDevice`]: the stream is of another device than the set.
    /// * [`StageError::ReaderCaptured`]: the fetch's stream is being captured, and no event ends
    ///   the copies.
    /// * [`StageError::Driver`]: the driver refused, or the stream is being captured, as for
    ///   [`Staged::reader`](super::Staged::reader).
    #[doc(alias = "cuStreamWaitEvent")]
    pub fn source_free_on(&self, writer: &Stream) -> Result<(), StageError> {
        let shared = &*self.shared;
        shared.check_fork()?;
        if writer.id() == self.stream {
            return Ok(());
        }
        check_device(&shared.context, writer)?;
        shared.refuse_capture(writer, |api| api.stream_wait_event.name())?;
        if !shared.has_no_events() {
            return Ok(writer.wait_event(&shared.host.events[self.hold.index()])?);
        }
        if self.is_done()? {
            return Ok(());
        }
        let captured = StageError::ReaderCaptured { stream: shared.stream_of(self.hold.index()) };
        let Some((_, tail)) = &self.hold.tail else { return Err(captured) };
        Ok(writer.wait_event(&*tail.event()?.ok_or(captured)?)?)
    }

    /// The step's tokens and requests.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The ring slot that it holds, from 0.
    pub fn ring_slot(&self) -> usize {
        self.hold.index()
    }

    /// A share of the set, for what asks in its place.
    #[cfg(feature = "futures")]
    pub(super) fn share(&self) -> Arc<Transfer> {
        Arc::clone(&self.shared)
    }

    /// Whether the device is done with the ring slot.
    #[inline]
    fn is_done(&self) -> Result<bool, Error> {
        self.shared.host.is_done(self.hold.index())
    }
}

impl<'a, Tag> Results<'a, Tag> {
    /// The elements of a slot, in pinned memory: as many as the step has; where the length is by a
    /// count that the fetch did not [set](super::Fetch::set_count), as many as it may have.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot is another set's.
    #[inline]
    pub fn read<T: Element>(self, slot: SlotId<T, Tag>) -> Result<&'a [T], StageError> {
        self.take(slot.index(), slot.set(), T::DTYPE, 1)
    }

    /// What a slot of elements of `dtype` holds, as values that `per_element` make one of them.
    #[inline]
    pub(super) fn take<T: Element>(
        self,
        index: usize,
        set: usize,
        dtype: DType,
        per_element: usize,
    ) -> Result<&'a [T], StageError> {
        let shared = &self.pending.shared;
        let Some(spec) = shared.plan.slots.get(index).filter(|spec| {
            // The type is looked at again: the fields of a `ResultInfo` are public.
            set == shared.id() && spec.dtype == dtype
        }) else {
            return Err(shared.misuse(index, SlotFault::Foreign));
        };
        Ok(self.elements(index, spec, per_element))
    }

    /// What a slot of the set holds, as values that `per_element` make an element.
    #[inline]
    pub(super) fn elements<T: Element>(
        self,
        index: usize,
        spec: &SlotSpec,
        per_element: usize,
    ) -> &'a [T] {
        let Pending { hold, shared, counts, bucket, .. } = self.pending;
        let plan = &shared.plan;
        let span = match bucket {
            Some(bucket) => plan.buckets[*bucket].fields[index].span,
            None => plan.exact_span(*counts, index),
        };
        let len = match spec.len.name() {
            Some(count) if hold.has_extras && hold.extras.counts_set & 1 << count != 0 => {
                spec.len.of(&hold.counts)
            }
            _ => spec.most.of_counts(*counts),
        };
        let len = len * per_element;
        // SAFETY: the span is of the ring slot that is held as long as the pending is borrowed, and
        // holds at least so many elements; offsets are multiples of 256. A `Results` is made when
        // the device is done with the slot.
        unsafe { shared.host.slot(hold.index()).results(span, len) }
    }

    /// The step's tokens and requests.
    pub fn counts(self) -> Counts {
        self.pending.counts
    }
}

impl<Tag> Clone for Results<'_, Tag> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Tag> Copy for Results<'_, Tag> {}

impl<Tag> fmt::Debug for Results<'_, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Results").field(self.pending).finish()
    }
}

impl<Tag> fmt::Debug for Pending<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Pending");
        out.field("hold", &self.hold).field("counts", &self.counts).finish_non_exhaustive()
    }
}
