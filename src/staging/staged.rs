//! A step on its way to the device.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use wharf_sys::Api;
use wharf_sys::bindings::CUdeviceptr;

use super::error::StageError;
use super::len::Counts;
use super::plan::{Bucket, ByteRange};
use super::reader::Reader;
use super::shared::Shared;
use super::slot_id::{SlotId, Untagged};
use super::spec::SlotKind;
use super::state::{Addresses, SlotClaim};
use crate::element::Element;
use crate::lockfree::slot_state::SlotUse;
use crate::stream::{Stream, StreamId};

/// A step that was submitted: where its inputs are, behind the submission on its stream.
///
/// Nothing happens when it is dropped, unless it has the last share of its
/// [set](super::Step::into_owned). When a later step has been submitted, its inputs are
/// overwritten: [`reader`](Self::reader), [`wait_on`](Self::wait_on) and
/// [`consumed_by`](Self::consumed_by) then are errors, and change nothing.
///
/// # What the next step waits for
///
/// A step on the same stream is behind everything there. On another stream, it waits on the device
/// for each stream that uses the step before:
///
/// | declared of a stream | the next step waits for |
/// |---|---|
/// | nothing: the step went to it | all its work when the next step is submitted |
/// | [`wait_on`](Self::wait_on) | the same |
/// | [`reader`](Self::reader) | the end of the reader; until then no step can be submitted |
/// | [`consumed_by`](Self::consumed_by) | the point of the call |
/// | nothing, and the step went to another stream | nothing |
///
/// Several of them on one stream, which components of an engine may share:
///
/// * Several readers: until the last of them has ended.
/// * `wait_on` and readers, in any order: all work of the stream, as `wait_on` alone.
///   The same for readers on the step's own stream.
/// * `consumed_by` is for the whole stream: it revokes every earlier `wait_on`, also another
///   component's, and holds for the step's own stream too. Later reads have to be declared again,
///   by `wait_on` or `reader`; a reader that is open still holds until it ends.
#[doc(alias = "STAGED")]
pub struct Staged<'a, Tag = Untagged> {
    pub(super) shared: &'a Shared,
    pub(super) index: usize,
    pub(super) this: SlotUse,
    /// Which step of the destination it is, and its stream.
    number: u64,
    stream: StreamId,
    counts: Counts,
    bucket: Option<&'a Bucket>,
    /// The addresses of dynamic slots; few steps have any, and every step moves this.
    dynamic: Option<Box<Addresses>>,
    tag: PhantomData<fn() -> Tag>,
    /// Present where the step owned its share of the set.
    keep: Option<Arc<Shared>>,
}

impl<'a, Tag> Staged<'a, Tag> {
    /// Hands the ring slot to the device.
    #[inline]
    pub(super) fn new(
        shared: &'a Shared,
        claim: SlotClaim<'a>,
        counts: Counts,
        bucket: Option<&'a Bucket>,
        (number, stream): (u64, StreamId),
        keep: Option<Arc<Shared>>,
    ) -> Self {
        let has_dynamic = claim.has_extras && shared.plan.staged != shared.plan.all;
        let dynamic = has_dynamic.then(|| Box::new(claim.extras.dynamic));
        let index = claim.index();
        let this = claim.submit();
        Self {
            shared,
            index,
            this,
            number,
            stream,
            counts,
            bucket,
            dynamic,
            tag: PhantomData,
            keep,
        }
    }

    /// Where the device finds a slot's elements: the same address in every step, in a
    /// [packed](super::Layout::Packed) layout in every step of a bucket. That of a dynamic slot is
    /// the one passed through. 0 for a slot of another set.
    #[inline]
    pub fn device_ptr<T: Element>(&self, slot: SlotId<T, Tag>) -> CUdeviceptr {
        if slot.set() == self.shared.id()
            && let Some(bucket) = self.bucket
            && let Some(field) = bucket.fields.get(slot.index())
            && field.is_copied
        {
            return self.shared.device.address() + field.span.offset as u64;
        }
        self.find(slot.index(), slot.set())
    }

    /// The step's tokens and requests.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The counts that it is padded to: those of its bucket, or its own above the largest.
    pub fn padded(&self) -> Counts {
        self.bucket.map_or(self.counts, |bucket| bucket.counts)
    }

    /// The bucket that it is padded to, by its place in
    /// [`InputBuffers::buckets`](super::InputBuffers::buckets): for the engine's own table of
    /// graphs. `None` above the largest.
    #[inline]
    pub fn bucket(&self) -> Option<usize> {
        self.bucket.map(|bucket| bucket.index)
    }

    /// Whether the device has read the step's ring slot, so that the copy is done.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the device has failed.
    pub fn is_complete(&self) -> Result<bool, StageError> {
        self.shared.check_fork()?;
        // Looked at in this order: once the slot is in another use, this one was complete.
        let done = self.shared.is_done(self.index)?;
        Ok(done || !self.shared.ring.is_in_flight(self.index, self.this))
    }

    /// Begins a read of the inputs on `stream`.
    ///
    /// Work that the stream is given from here on waits, on the device, for the inputs. Work that
    /// it is given until the result is dropped reads them: the next step waits for that, and for no
    /// more of the stream, unless something else reads there, see
    /// [`Staged`](Self#what-the-next-step-waits-for).
    ///
    /// One driver call, none on the stream of the step itself; and two when the read ends. A step
    /// whose inputs are read on its own stream alone, and followed by steps on that stream, needs
    /// no reader.
    ///
    /// A stream that is being captured is refused where the capture is known of, as for
    /// [`Step::submit`](super::Step::submit). Where it is not, the driver refuses the wait and
    /// invalidates the capture: a capture cannot depend on work from before it.
    ///
    /// # Errors
    ///
    /// * [`StageError::Superseded`]: a later step was submitted.
    /// * [`StageError::OtherDevice`]: the stream is of another device than the set.
    /// * [`StageError::Driver`]: the driver refused, or the stream is being captured.
    #[doc(alias = "cuStreamWaitEvent")]
    pub fn reader(&self, stream: &'a Stream) -> Result<Reader<'a>, StageError> {
        self.note(stream, true)?;
        Ok(Reader::new(self.shared, stream).kept_by(self.keep.clone(), None))
    }

    /// Makes what `consumer` is given from here on wait, on the device, for the step's inputs. One
    /// driver call, none on the stream of the step itself.
    ///
    /// The next step waits for all work that `consumer` has been given when that step is submitted,
    /// also for work that does not read the inputs; that takes four driver calls more.
    /// [`consumed_by`](Self::consumed_by), or [`reader`](Self::reader) in place of both calls, ends
    /// the read earlier, and takes three. The end of a reader on the same stream does not narrow
    /// this wait; `consumed_by` does, for the whole stream.
    ///
    /// A stream that is being captured is refused where the capture is known of, as for
    /// [`Step::submit`](super::Step::submit). Where it is not, the driver refuses the wait and
    /// invalidates the capture. If `consumer` is being captured when the next step is submitted to
    /// another stream, that step is refused ([`StageError::ReaderCaptured`]).
    ///
    /// # Errors
    ///
    /// As [`reader`](Self::reader).
    #[doc(alias = "cuStreamWaitEvent")]
    pub fn wait_on(&self, consumer: &Stream) -> Result<(), StageError> {
        self.note(consumer, false)
    }

    /// Declares that the work of `consumer` up to this point reads the step's inputs, and that
    /// later work, of any component, does not. The next step waits, on the device, for this point.
    ///
    /// It revokes each earlier [`wait_on`](Self::wait_on) of the stream. Two driver calls. To be
    /// called before the next step is submitted; not needed if that goes to the same stream.
    ///
    /// Several streams may have consumed a step; they do not wait for each other.
    ///
    /// A stream that is being captured is refused where the capture is known of, as for
    /// [`Step::submit`](super::Step::submit). Where it is not, it is found behind the record of an
    /// event, which adds no node to the graph, and refused all the same. A call that fails leaves
    /// what was said of the stream before it as it was.
    ///
    /// # Errors
    ///
    /// As [`reader`](Self::reader). With zero-copy slots a step that was followed by others can be
    /// declared read as long as it [is not complete](Self::is_complete).
    #[doc(alias = "cuEventRecord")]
    pub fn consumed_by(&self, consumer: &Stream) -> Result<(), StageError> {
        self.check(consumer, |api| api.event_record.name())?;
        let shared = self.shared;
        let in_place = shared.in_place(self.index);
        let in_place = in_place.filter(|_| shared.ring.is_in_flight(self.index, self.this));
        shared.guard.consumed(self.number, consumer, in_place)
    }

    pub(super) fn shared(&self) -> &'a Shared {
        self.shared
    }

    pub(super) fn note(&self, stream: &Stream, is_reader: bool) -> Result<(), StageError> {
        self.check(stream, |api| api.stream_wait_event.name())?;
        let events = &self.shared.host.events;
        let copied = (!self.shared.has_no_events()).then(|| &*events[self.index]);
        self.shared.guard.note(self.number, self.stream, stream, copied, is_reader)
    }

    /// Refuses a stream that cannot read the inputs.
    fn check(&self, stream: &Stream, call: fn(&Api) -> &'static str) -> Result<(), StageError> {
        self.shared.check_fork()?;
        self.shared.refuse_capture(stream, call)
    }

    /// The address of a slot that is of a rarer kind, or in a step of its own size.
    pub(super) fn find(&self, slot: usize, set: usize) -> CUdeviceptr {
        let plan = &self.shared.plan;
        match plan.slots.get(slot).map(|spec| spec.kind) {
            _ if set != self.shared.id() => 0,
            Some(SlotKind::Copied | SlotKind::DeviceOnly | SlotKind::Persistent) => {
                plan.address(self.shared.device.address(), slot, self.span(slot))
            }
            Some(SlotKind::ZeroCopy) => {
                self.shared.host.device_address(self.index, self.span(slot)).unwrap_or(0)
            }
            Some(SlotKind::Dynamic) => {
                self.dynamic.as_ref().map_or(0, |addresses| addresses[plan.dynamic_index(slot)])
            }
            None => 0,
        }
    }

    pub(super) fn span(&self, slot: usize) -> ByteRange {
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
