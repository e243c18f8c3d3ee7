#![expect(unsafe_code, reason = "slices of pinned memory")]
//! One step: a ring slot being filled.

use std::marker::PhantomData;

use super::error::{SlotFault, StageError};
use super::len::Counts;
use super::node::enqueue_copy;
use super::pad;
use super::plan::{Bucket, Field, Layout, Span};
use super::region::SlotMemory;
use super::ring::Claim;
use super::shared::Shared;
use super::slot_id::{SlotId, Untagged};
use super::spec::{Forgotten, Place};
use super::staged::Staged;
use super::state::{SlotState, StagingGraph};
use super::stream_copy;
use crate::error::Error;
use crate::graph::GraphError;
use crate::pool::Element;
use crate::profile::range;
use crate::stream::Stream;

/// A step that is being filled. Dropped without [`submit`](Self::submit), it has not happened.
///
/// It may be filled and submitted on any thread.
///
/// # Examples
///
/// See [`InputBuffers`](super::InputBuffers).
#[must_use = "a step that is dropped has not happened"]
#[derive(Debug)]
pub struct Step<'a, Tag = Untagged> {
    pub(super) shared: &'a Shared,
    pub(super) claim: Claim<'a, SlotState>,
    counts: Counts,
    bucket: Option<&'a Bucket>,
    memory: SlotMemory,
    /// What ids of its slots carry.
    set: usize,
    /// A bit for each slot that was written, or passed through.
    pub(super) written: u64,
    /// A bit for each slot that is read elsewhere.
    pub(super) referred: u64,
    tag: PhantomData<fn() -> Tag>,
}

impl<'a, Tag> Step<'a, Tag> {
    #[inline]
    pub(super) fn new(shared: &'a Shared, claim: Claim<'a, SlotState>, counts: Counts) -> Self {
        let bucket = shared.plan.bucket_of(counts);
        Self::in_bucket(shared, claim, counts, bucket)
    }

    #[inline]
    pub(super) fn in_bucket(
        shared: &'a Shared,
        mut claim: Claim<'a, SlotState>,
        counts: Counts,
        bucket: Option<&'a Bucket>,
    ) -> Self {
        claim.forget();
        if bucket.is_none() {
            // It fits: the memory was made for steps of at least these counts.
            let _extent = shared.plan.exact(counts, &mut claim.fields);
        }
        Self {
            shared,
            counts,
            bucket,
            memory: claim.memory,
            claim,
            set: shared.id(),
            written: 0,
            referred: 0,
            tag: PhantomData,
        }
    }

    /// The elements of a slot, in pinned memory, to be written in place: as many as the step has. What
    /// they hold before is left from earlier steps.
    ///
    /// For a slot that has no memory here, because it is dynamic or of another set, there are none, and
    /// [`submit`](Self::submit) says so.
    #[inline]
    pub fn write<T: Element>(&mut self, slot: SlotId<T, Tag>) -> &mut [T] {
        match self.find(slot) {
            Some((span, len)) => self.take(slot.index(), span, len),
            None => {
                self.claim.extras().refused.get_or_insert((slot.index(), slot.set));
                &mut []
            }
        }
    }

    /// Copies a slot's elements from elsewhere; long ones past the CPU's caches.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: `from` has another length than the slot in this step, or the slot has no
    /// memory here. Nothing was written; the step goes on.
    #[inline]
    #[doc(alias = "set_data")]
    pub fn write_from<T: Element>(&mut self, slot: SlotId<T, Tag>, from: &[T]) -> Result<(), StageError> {
        let (span, wanted) = self.find(slot).ok_or_else(|| self.refuse(slot.index(), slot.set))?;
        if wanted != from.len() {
            let fault = SlotFault::Length { wanted, given: from.len() };
            return Err(self.misuse(slot.index(), fault));
        }
        stream_copy::copy(self.take(slot.index(), span, wanted), from);
        Ok(())
    }

    /// Passes the address of a dynamic slot's elements through: [`Staged::device_ptr`] returns it.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot is not dynamic, or of another set.
    pub fn pass<T: Element>(&mut self, slot: SlotId<T, Tag>, address: u64) -> Result<(), StageError> {
        let index = slot.index();
        let plan = &self.shared.plan;
        let fault = match plan.slots.get(index) {
            _ if slot.set != self.set => SlotFault::Foreign,
            Some(spec) if spec.place == Place::Dynamic => {
                self.claim.extras().dynamic[plan.dynamic_index(index)] = address;
                self.written |= 1 << index;
                return Ok(());
            }
            _ => SlotFault::NotDynamic,
        };
        Err(self.misuse(slot.index(), fault))
    }

    /// What the step is made of.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What it is padded to: its bucket, or itself above the largest.
    pub fn padded(&self) -> Counts {
        self.bucket.map_or(self.counts, |bucket| bucket.counts)
    }

    /// Pads the slots and sends them to the device: one driver call, where the context is entered, the
    /// stream is that of the last step and the graph is made.
    ///
    /// A stream that is being captured is refused: for a step in a graph there are
    /// [embedded](super::Embedded) sets. A capture that was begun without [`CaptureScope`](crate::graph::CaptureScope)
    /// is not seen, since asking costs a driver call; its launch would never complete in the ring, and the
    /// captured graph must not be launched.
    ///
    /// # Errors
    ///
    /// * [`StageError::Slot`]: a slot was not written, or used wrongly.
    /// * [`StageError::Driver`], [`StageError::Graph`]: the driver refused.
    ///
    /// The step has then not happened, and its ring slot is free.
    #[inline]
    #[doc(alias = "stage_inputs")]
    #[doc(alias = "cuGraphLaunch")]
    pub fn submit(mut self, stream: &Stream) -> Result<Staged<'a, Tag>, StageError> {
        let _range = range!("wharf::staging::submit", self.size());
        let skipped = self.finish()?;
        let (shared, index) = (self.shared, self.claim.index());
        Shared::refuse_capture(stream, |api| api.graph_launch.name())?;
        if self.referred != 0 {
            self.order_behind_sources(stream)?;
        }
        shared.order_behind_last(stream)?;
        shared.host.reset(index);
        self.launch(stream, skipped)?;
        if self.referred != 0 {
            self.note_reads(stream);
        }
        Ok(self.hand_over(stream))
    }

    /// As [`submit`](Self::submit), for a step of an [embedded](super::Embedded) graph: `launch` launches the
    /// engine's graph, on `stream`.
    ///
    /// # Errors
    ///
    /// As `submit`, and what `launch` returns.
    pub fn submit_with<E: From<StageError>>(
        mut self,
        stream: &Stream,
        launch: impl FnOnce() -> Result<(), E>,
    ) -> Result<Staged<'a, Tag>, E> {
        if self.finish()? != 0 {
            let kept = self.shared.plan.all & !self.written;
            return Err(self.misuse(kept.trailing_zeros() as usize, SlotFault::Forgotten).into());
        }
        if self.referred != 0 {
            return Err(self.misuse(self.referred.trailing_zeros() as usize, SlotFault::Embedded).into());
        }
        let (shared, index) = (self.shared, self.claim.index());
        shared.order_behind_last(stream).map_err(StageError::from)?;
        shared.host.reset(index);
        launch()?;
        Ok(self.hand_over(stream))
    }

    /// What is left to do when the device has the step.
    #[inline]
    fn hand_over(self, stream: &Stream) -> Staged<'a, Tag> {
        let Self { shared, claim, counts, bucket, .. } = self;
        shared.note(claim.index(), stream);
        Staged::new(shared, claim, counts, bucket)
    }

    /// Checks that nothing is missing and fills the tails; which slots the device keeps.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<u64, StageError> {
        if self.claim.has_extras
            && let Some((slot, set)) = self.claim.extras.refused
        {
            return Err(self.refuse(slot, set));
        }
        let plan = &self.shared.plan;
        let missing = plan.required & !self.written;
        if missing != 0 {
            return Err(self.misuse(missing.trailing_zeros() as usize, SlotFault::Forgotten));
        }
        let forgotten = plan.all & !self.written;
        if forgotten != 0 {
            return Ok(self.finish_forgotten(forgotten));
        }
        if self.bucket.is_some_and(|bucket| bucket.counts != self.counts) {
            self.pad(plan.staged & !self.referred);
        }
        Ok(0)
    }

    /// Fills the slots that were not written by their policy, and the tails of the others.
    #[cold]
    fn finish_forgotten(&mut self, forgotten: u64) -> u64 {
        let plan = &self.shared.plan;
        let policy = |wanted| {
            let is = |slot: &usize| forgotten & 1 << slot != 0 && plan.forgotten[*slot] == wanted;
            (0..plan.slots.len()).filter(is).fold(0, |bits, slot| bits | 1 << slot)
        };
        let kept = policy(Forgotten::Keep);
        self.pad(plan.staged & !kept & !self.referred);
        kept & plan.staged
    }

    /// Fills the tails of some slots; those that were not written are all tail.
    fn pad(&mut self, slots: u64) {
        let plan = &self.shared.plan;
        let mut left = slots;
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            let (spec, span) = (&plan.slots[slot], self.span(slot));
            let width = spec.dtype.size();
            let written = if self.written & 1 << slot == 0 { 0 } else { spec.len.of(self.counts) };
            if written * width < span.size {
                // SAFETY: as in `write`; nobody else has a slice of this step.
                let bytes = unsafe { self.memory.elements::<u8>(span, span.size) };
                pad::fill(bytes, width, written, spec.pad);
            }
        }
    }

    #[inline]
    fn launch(&mut self, stream: &Stream, skipped: u64) -> Result<(), StageError> {
        let Some(bucket) = self.bucket else { return self.copy(stream, skipped) };
        let graph = match self.claim.graphs.get(bucket.index) {
            Some(graph) if graph.skipped == skipped && graph.referred | self.referred == 0 => graph,
            _ => match self.adapt(bucket, skipped)? {
                Some(graph) => graph,
                None => return self.copy(stream, skipped),
            },
        };
        Ok(graph.exec.launch(stream)?)
    }

    /// A graph for the step: made if there is none, and told which slots it leaves out and which it reads
    /// elsewhere. `None` if there is no room for it.
    #[cold]
    fn adapt(&mut self, bucket: &Bucket, skipped: u64) -> Result<Option<&mut StagingGraph>, GraphError> {
        let (shared, index) = (self.shared, self.claim.index());
        if !shared.prepare(&mut self.claim, bucket)? {
            return Ok(None);
        }
        let SlotState { graphs, extras, .. } = &mut *self.claim;
        let Some(graph) = graphs.get(bucket.index) else { return Ok(None) };
        match graph.skip(skipped) {
            // Before CUDA 11.6 a graph leaves nothing out.
            Err(GraphError::Driver(Error::Unsupported { .. })) => return Ok(None),
            outcome => outcome?,
        }
        graph
            .refer(self.referred, &extras.references, |slot| shared.copy(index, bucket.fields[slot].span))?;
        Ok(Some(graph))
    }

    /// Copies without a graph.
    #[cold]
    fn copy(&mut self, stream: &Stream, skipped: u64) -> Result<(), StageError> {
        let (shared, index) = (self.shared, self.claim.index());
        let _scope = shared.context.enter()?;
        let spans = (0..shared.plan.slots.len()).filter(|slot| skipped & 1 << slot == 0);
        let outcome = match shared.plan.layout {
            Layout::Packed => {
                let ends = spans.filter(|slot| shared.plan.slots[*slot].place == Place::Copied);
                let size = ends.map(|slot| self.span(slot)).map(|span| span.offset + span.size).max();
                enqueue_copy(stream, shared.copy(index, Span { offset: 0, size: size.unwrap_or(0) }))
            }
            Layout::PerSlot => {
                spans.filter(|slot| shared.plan.slots[*slot].place == Place::Copied).try_for_each(|slot| {
                    let mut references = self.claim.extras.references.iter();
                    let referred = self.referred & 1 << slot != 0;
                    let reference = references.find(|reference| referred && reference.slot == slot);
                    let own = || shared.copy(index, self.span(slot));
                    enqueue_copy(stream, reference.map_or_else(own, |reference| reference.copy))
                })
            }
        };
        outcome.and_then(|()| shared.host.mark(index, stream)).map_err(|error| {
            // Some copies may be under way: the ring slot must not be written before they are done. If
            // the stream cannot be waited for either, nothing will ever run in it again.
            let _relaxed = shared.context.driver().relax_capture();
            let waited = stream.synchronize();
            shared.context.release().note(shared.context.driver(), waited);
            StageError::Driver(error)
        })
    }

    /// What the step copies, padding included, in bytes.
    #[inline]
    fn size(&self) -> usize {
        self.bucket
            .map_or_else(|| self.claim.fields.iter().map(|field| field.span.size).sum(), |bucket| bucket.size)
    }

    /// Where slots lie in this step, padding included, and what they are.
    #[inline]
    fn fields(&self) -> &[Field] {
        self.bucket.map_or(&self.claim.fields, |bucket| &bucket.fields)
    }

    #[inline]
    fn span(&self, slot: usize) -> Span {
        self.fields()[slot].span
    }

    /// The first `len` elements of a slot's span, which is written from here on.
    #[inline]
    fn take<T: Element>(&mut self, slot: usize, span: Span, len: usize) -> &mut [T] {
        self.written |= 1 << slot;
        self.referred &= !(1 << slot);
        // SAFETY: the span is of the ring slot that this step has claimed and holds at least so many;
        // offsets are multiples of 256; `self` is borrowed as long as the slice.
        unsafe { self.memory.elements(span, len) }
    }

    /// A slot's span and how many elements the step has of it. `None` if it is of another set, or has
    /// no memory here.
    #[inline]
    pub(super) fn find<T: Element>(&self, slot: SlotId<T, Tag>) -> Option<(Span, usize)> {
        let field = self.fields().get(slot.index())?;
        // The type is looked at again: the address that stands for a set may be another's later.
        let is_here = slot.set == self.set && field.dtype == Some(T::DTYPE);
        is_here.then(|| (field.span, field.len.of(self.counts)))
    }

    /// Why a slot was not found.
    #[cold]
    pub(super) fn refuse(&self, slot: usize, set: usize) -> StageError {
        let is_dynamic = self.shared.plan.slots.get(slot).is_some_and(|spec| spec.place == Place::Dynamic);
        let fault = if set == self.set && is_dynamic { SlotFault::IsDynamic } else { SlotFault::Foreign };
        self.misuse(slot, fault)
    }

    #[cold]
    pub(super) fn misuse(&self, slot: usize, fault: SlotFault) -> StageError {
        let name = match self.shared.plan.slots.get(slot) {
            Some(spec) if fault != SlotFault::Foreign => spec.name.clone(),
            _ => slot.to_string().into(),
        };
        StageError::Slot { slot: name, fault }
    }
}
