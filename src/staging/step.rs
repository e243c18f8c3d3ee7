#![expect(unsafe_code, reason = "slices of pinned memory")]
//! One step: a ring slot being filled.

use std::marker::PhantomData;

use super::builder::MAX_DYNAMIC;
use super::error::{SlotFault, StageError};
use super::len::Counts;
use super::node::enqueue_copy;
use super::pad;
use super::plan::{Layout, Span};
use super::ring::Claim;
use super::shared::{Reference, Shared, SlotState};
use super::slot_id::{SlotId, Untagged};
use super::spec::{Forgotten, Place};
use super::staged::Staged;
use super::stream_copy;
use crate::error::Error;
use crate::graph::{Copy1d, GraphError};
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
    shared: &'a Shared,
    claim: Claim<'a, SlotState>,
    counts: Counts,
    bucket: Option<usize>,
    /// A bit for each slot that was written, or passed through.
    written: u64,
    /// The first misuse that could not be told at once.
    fault: Option<(usize, SlotFault)>,
    dynamic: [u64; MAX_DYNAMIC],
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
        bucket: Option<usize>,
    ) -> Self {
        claim.references.clear();
        if bucket.is_none() {
            // It fits: the memory was made for steps of at least these counts.
            let _extent = shared.plan.exact(counts, &mut claim.spans);
        }
        Self {
            shared,
            claim,
            counts,
            bucket,
            written: 0,
            fault: None,
            dynamic: [0; MAX_DYNAMIC],
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
        match self.elements(slot) {
            Ok((span, len)) => self.take(slot.index(), span, len),
            Err(fault) => {
                self.fault.get_or_insert((slot.index(), fault));
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
        let (span, wanted) = self.elements(slot).map_err(|fault| self.misuse(slot.index(), fault))?;
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
            _ if slot.set != self.shared.id() => SlotFault::Foreign,
            Some(spec) if spec.place == Place::Dynamic => {
                self.dynamic[plan.dynamic_index(index)] = address;
                self.written |= 1 << index;
                return Ok(());
            }
            _ => SlotFault::NotDynamic,
        };
        Err(self.misuse(slot.index(), fault))
    }

    /// Lets the device read a slot's elements where they are, so that the host copies nothing: as many as
    /// the step is [padded](Self::padded) to. `owner` is kept until the ring slot is used again.
    ///
    /// Costs a driver call, and another when a later step writes the slot again.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot is not copied by itself, of another set, or of another length.
    ///
    /// # Safety
    ///
    /// * `from` is pinned memory of the set's context, as long as `owner` lives.
    /// * Nobody writes the elements before the step [is complete](Staged::is_complete).
    pub unsafe fn refer<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: *const [T],
        owner: impl Send + 'static,
    ) -> Result<(), StageError> {
        let (span, _) = self.elements(slot).map_err(|fault| self.misuse(slot.index(), fault))?;
        let (plan, index) = (&self.shared.plan, slot.index());
        if plan.layout != Layout::PerSlot || plan.slots[index].place != Place::Copied {
            return Err(self.misuse(index, SlotFault::NeedsPerSlot));
        }
        let wanted = span.size / size_of::<T>();
        if from.len() != wanted {
            return Err(self.misuse(index, SlotFault::Length { wanted, given: from.len() }));
        }
        let (destination, _) = self.shared.copy(self.claim.index(), span).htod_addresses();
        let copy = Copy1d::htod(destination, from.cast(), span.size);
        let reference = Reference { slot: index, copy, _owner: Box::new(owner) };
        self.claim.references.retain(|reference| reference.slot != index);
        self.claim.references.push(reference);
        self.written |= 1 << index;
        Ok(())
    }

    /// What the step is made of.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What it is padded to: its bucket, or itself above the largest.
    pub fn padded(&self) -> Counts {
        self.bucket.map_or(self.counts, |bucket| self.shared.plan.buckets[bucket].counts)
    }

    /// Pads the slots and sends them to the device: one driver call, where the context is entered, the
    /// stream is that of the last step and the graph is made.
    ///
    /// The stream must not be capturing: a captured launch would never complete in the ring.
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
        shared.order_behind_last(stream)?;
        shared.host().reset(index);
        self.launch(stream, skipped)?;
        shared.note(index, stream);
        let Self { claim, counts, bucket, dynamic, .. } = self;
        Ok(Staged::new(shared, index, claim.submit(), counts, bucket, dynamic))
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
        let (shared, index) = (self.shared, self.claim.index());
        shared.order_behind_last(stream).map_err(StageError::from)?;
        shared.host().reset(index);
        launch()?;
        shared.note(index, stream);
        let Self { claim, counts, bucket, dynamic, .. } = self;
        Ok(Staged::new(shared, index, claim.submit(), counts, bucket, dynamic))
    }

    /// Checks that nothing is missing and fills the tails; which slots the device keeps.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<u64, StageError> {
        if let Some((slot, fault)) = self.fault {
            return Err(self.misuse(slot, fault));
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
        if self.bucket.is_some_and(|bucket| plan.buckets[bucket].counts != self.counts) {
            self.pad(plan.staged);
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
        self.pad(plan.staged & !kept);
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
            // Lengths were checked when the plan was made.
            let len = spec.len.of(self.counts).unwrap_or(0);
            let written = if self.written & 1 << slot == 0 { 0 } else { len };
            if written * width < span.size {
                // SAFETY: as in `write`; nobody else has a slice of this step.
                let bytes = unsafe { self.shared.host().elements::<u8>(self.claim.index(), span, span.size) };
                pad::fill(bytes, width, written, spec.pad);
            }
        }
    }

    #[inline]
    fn launch(&mut self, stream: &Stream, skipped: u64) -> Result<(), StageError> {
        let Some(bucket) = self.bucket else { return self.copy(stream, skipped) };
        if !self.shared.prepare(&mut self.claim, bucket)? {
            return self.copy(stream, skipped);
        }
        let index = self.claim.index();
        let SlotState { graphs, references, .. } = &mut *self.claim;
        let Some(graph) = graphs.get(bucket) else { return self.copy(stream, skipped) };
        if graph.skipped != skipped {
            match graph.skip(skipped) {
                // Before CUDA 11.6 a graph leaves nothing out.
                Err(GraphError::Driver(Error::Unsupported { .. })) => return self.copy(stream, skipped),
                outcome => outcome?,
            }
        }
        if graph.referred != 0 || !references.is_empty() {
            let shared = self.shared;
            graph.refer(references, |slot| shared.copy(index, shared.plan.buckets[bucket].spans[slot]))?;
        }
        Ok(graph.exec.launch(stream)?)
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
                    let reference = self.claim.references.iter().find(|reference| reference.slot == slot);
                    let own = || shared.copy(index, self.span(slot));
                    enqueue_copy(stream, reference.map_or_else(own, |reference| reference.copy))
                })
            }
        };
        outcome.and_then(|()| shared.host().mark(index, stream)).map_err(|error| {
            // Some copies may be under way: the ring slot must not be written before they are done. If
            // the stream cannot be waited for either, nothing will ever run in it again.
            let waited = stream.synchronize();
            shared.context.release().note(shared.context.driver(), waited);
            StageError::Driver(error)
        })
    }

    /// What the step copies, padding included, in bytes.
    #[inline]
    fn size(&self) -> usize {
        let bucket = self.bucket.and_then(|bucket| self.shared.plan.buckets.get(bucket));
        bucket.map_or_else(|| self.claim.spans.iter().map(|span| span.size).sum(), |bucket| bucket.size)
    }

    /// Where a slot lies in this step, padding included.
    #[inline]
    fn span(&self, slot: usize) -> Span {
        match self.bucket {
            Some(bucket) => self.shared.plan.buckets[bucket].spans[slot],
            None => self.claim.spans[slot],
        }
    }

    /// The first `len` elements of a slot's span, which is written from here on.
    #[inline]
    fn take<T: Element>(&mut self, slot: usize, span: Span, len: usize) -> &mut [T] {
        self.written |= 1 << slot;
        if !self.claim.references.is_empty() {
            self.claim.references.retain(|reference| reference.slot != slot);
        }
        // SAFETY: the span is of the ring slot that this step has claimed and holds at least so many;
        // offsets are multiples of 256; `self` is borrowed as long as the slice.
        unsafe { self.shared.host().elements(self.claim.index(), span, len) }
    }

    /// A slot's span and how many elements the step has of it.
    #[inline]
    fn elements<T: Element>(&self, slot: SlotId<T, Tag>) -> Result<(Span, usize), SlotFault> {
        let index = slot.index();
        let spec = self.shared.plan.slots.get(index);
        // The type is looked at again: the address that stands for a set may be another's later.
        let spec = spec.filter(|spec| slot.set == self.shared.id() && spec.dtype == T::DTYPE);
        let Some(spec) = spec else { return Err(SlotFault::Foreign) };
        if spec.place == Place::Dynamic {
            return Err(SlotFault::IsDynamic);
        }
        Ok((self.span(index), spec.len.of(self.counts).unwrap_or(0)))
    }

    #[cold]
    fn misuse(&self, slot: usize, fault: SlotFault) -> StageError {
        let name = match self.shared.plan.slots.get(slot) {
            Some(spec) if fault != SlotFault::Foreign => spec.name.clone(),
            _ => slot.to_string().into(),
        };
        StageError::Slot { slot: name, fault }
    }
}
