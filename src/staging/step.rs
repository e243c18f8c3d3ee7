#![expect(unsafe_code, reason = "slices of pinned memory")]
//! One step: a ring slot being filled.

use std::marker::PhantomData;
use std::sync::Arc;

use super::error::{CountFault, SlotFault, StageError};
use super::len::{BY_NAME, Counts};
use super::pad;
use super::plan::{Bucket, ByteRange, Field};
use super::shared::Shared;
use super::slot_id::{CountId, SlotId, Untagged};
use super::spec::{SlotKind, SlotSpec};
use super::state::SlotClaim;
use super::stream_copy;
use crate::element::Element;

/// A step that is being filled. Dropped without [`submit`](Self::submit), it has not happened.
///
/// It may be filled and submitted on any thread. It borrows its set, unless it
/// [owns a share](Self::into_owned) of it.
///
/// # Examples
///
/// See [`InputBuffers`](super::InputBuffers).
#[must_use = "a step that is dropped has not happened"]
#[derive(Debug)]
pub struct Step<'a, Tag = Untagged> {
    pub(super) shared: &'a Shared,
    /// The ring slot, which has the step's counts: what is moved when a step is returned is small.
    pub(super) claim: SlotClaim<'a>,
    pub(super) bucket: Option<&'a Bucket>,
    /// A bit for each slot that was written, or passed through, and is not read elsewhere since.
    pub(super) written: u64,
    pub(super) tag: PhantomData<fn() -> Tag>,
    /// Present where the step owns its share of the set. Last: fields are dropped in their order.
    pub(super) keep: Option<Arc<Shared>>,
}

impl<'a, Tag> Step<'a, Tag> {
    // Always: a step is built where it goes, and not moved there.
    #[inline(always)]
    pub(super) fn new(
        shared: &'a Shared,
        mut claim: SlotClaim<'a>,
        counts: Counts,
        bucket: Option<&'a Bucket>,
    ) -> Self {
        claim.begin(&shared.plan, counts, bucket);
        Self { shared, bucket, claim, written: 0, tag: PhantomData, keep: None }
    }

    /// Sets how many the step has of a count [by name](super::InputBuffersBuilder::count), before
    /// the slots are written whose length it is.
    ///
    /// # Errors
    ///
    /// [`StageError::Count`]: the count is another set's, a step of this size does not have so
    /// many, or a slot of that length was written before. Nothing has changed, and the step can go
    /// on.
    pub fn set_count(&mut self, count: CountId<Tag>, number: usize) -> Result<(), StageError> {
        let (plan, index) = (&self.shared.plan, usize::from(count.index));
        let given = self.written | self.referred();
        let fault = match self.shared.most_of(count.index, count.set, self.padded())? {
            None => CountFault::Foreign,
            Some(max) => {
                let is_written = |(slot, spec): (usize, &SlotSpec)| {
                    spec.len.name() == Some(index) && given & 1 << slot != 0
                };
                if number > max {
                    CountFault::TooLarge { wanted: number, max }
                } else if plan.slots.iter().enumerate().any(is_written) {
                    CountFault::Written
                } else {
                    self.claim.extras().counts_set |= 1 << index;
                    self.claim.counts[BY_NAME + index] = number;
                    self.claim.lay_out(self.bucket);
                    return Ok(());
                }
            }
        };
        Err(self.shared.count_misuse(count.index, fault))
    }

    /// The elements of a slot, in pinned memory, to be written in place: as many as the step has.
    /// Their contents are left from earlier steps.
    ///
    /// A slot that has no memory here, because it is dynamic or of another set, or whose length is
    /// by a count that was not [set](Self::set_count), has no elements, and
    /// [`submit`](Self::submit) returns the error.
    #[inline]
    pub fn write<T: Element>(&mut self, slot: SlotId<T, Tag>) -> &mut [T] {
        if slot.mark != self.set() {
            self.note_refused(slot.index(), slot.set());
            return &mut [];
        }
        self.written |= 1 << slot.index();
        // SAFETY: no other set has ids of the mark, and those of this one that have it are of runs
        // of elements of their type; `self` is borrowed as long as the slice.
        unsafe { self.elements_of(slot) }
    }

    /// Copies a slot's elements from elsewhere; long ones past the CPU's caches.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: `from` has another length than the slot in this step, or the slot has
    /// no memory here. Nothing was written, and the step can go on.
    #[inline]
    #[doc(alias = "set_data")]
    pub fn write_from<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: &[T],
    ) -> Result<(), StageError> {
        self.shared.check_fork()?;
        let (span, wanted) = self.locate(slot)?;
        if wanted != from.len() {
            let fault = SlotFault::Length { wanted, given: from.len() };
            return Err(self.shared.misuse(slot.index(), fault));
        }
        stream_copy::copy(self.take(slot.index(), span, wanted), from);
        Ok(())
    }

    /// Copies the first elements of a slot from elsewhere. Those behind them, which the step has as
    /// well, are padding.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: `from` is longer than the slot in this step, or the slot has no memory
    /// here. Nothing was written, and the step can go on.
    pub fn write_prefix<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: &[T],
    ) -> Result<(), StageError> {
        self.shared.check_fork()?;
        let index = slot.index();
        let (span, wanted) = self.locate(slot)?;
        let given = from.len();
        if wanted < given {
            return Err(self.shared.misuse(index, SlotFault::Length { wanted, given }));
        }
        stream_copy::copy(self.take(index, span, given), from);
        let pad = self.shared.plan.slots[index].pad;
        pad::fill(self.elements(span, span.size), size_of::<T>(), given, pad);
        Ok(())
    }

    /// Passes the address of a dynamic slot's elements through:
    /// [`Staged::device_ptr`](super::Staged::device_ptr) returns it.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot is not dynamic, or of another set.
    pub fn pass<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        address: u64,
    ) -> Result<(), StageError> {
        let index = slot.index();
        let plan = &self.shared.plan;
        let fault = match plan.slots.get(index) {
            _ if slot.set() != self.set() => SlotFault::Foreign,
            Some(spec) if spec.kind == SlotKind::Dynamic => {
                self.claim.extras().dynamic[plan.dynamic_index(index)] = address;
                self.written |= 1 << index;
                return Ok(());
            }
            _ => SlotFault::NotDynamic,
        };
        Err(self.shared.misuse(slot.index(), fault))
    }

    /// The step's tokens and requests.
    #[inline]
    pub fn counts(&self) -> Counts {
        let [tokens, requests, ..] = self.claim.counts;
        Counts { tokens, requests }
    }

    /// The number of its ring slot, less than the ring's
    /// [depth](super::InputBuffersBuilder::ring_depth).
    /// No other step has it until this one was submitted and the device has read it, or was
    /// dropped.
    pub fn ring_slot(&self) -> usize {
        self.claim.index()
    }

    /// The counts that it is padded to: those of its bucket, or its own above the largest.
    #[inline]
    pub fn padded(&self) -> Counts {
        self.bucket.map_or_else(|| self.counts(), |bucket| bucket.counts)
    }

    /// The bucket that it is padded to, by its place in
    /// [`InputBuffers::buckets`](super::InputBuffers::buckets): for the engine's own table of
    /// graphs. `None` above the largest.
    #[inline]
    pub fn bucket(&self) -> Option<usize> {
        self.bucket.map(|bucket| bucket.index)
    }

    /// The number of the set that ids of its slots carry.
    #[inline]
    pub(super) fn set(&self) -> usize {
        self.shared.id()
    }

    /// The bytes that the step copies, padding included.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.claim.size(self.bucket)
    }

    /// The layout of the step's slots, padding included.
    #[inline]
    pub(super) fn fields(&self) -> &[Field] {
        match self.bucket {
            Some(bucket) => &bucket.fields,
            None => self.own_fields(),
        }
    }

    /// The layout of a step above the largest bucket. Cold: a branch instead of two selections.
    #[cold]
    fn own_fields(&self) -> &[Field] {
        &self.claim.fields
    }

    #[inline]
    pub(super) fn span(&self, slot: usize) -> ByteRange {
        self.fields()[slot].span
    }

    /// The first `len` elements of a slot's span, which is written from here on.
    #[inline]
    pub(super) fn take<T: Element>(
        &mut self,
        slot: usize,
        span: ByteRange,
        len: usize,
    ) -> &mut [T] {
        self.written |= 1 << slot;
        self.elements(span, len)
    }

    /// The first `len` elements of one of the step's spans.
    #[inline]
    pub(super) fn elements<T: Element>(&mut self, span: ByteRange, len: usize) -> &mut [T] {
        // SAFETY: the span is of the ring slot that this step has claimed and holds at least so
        // many; offsets are multiples of 256; `self` is borrowed as long as the slice.
        unsafe { self.claim.memory.elements(span, len) }
    }

    /// A slot's span and how many elements the step has of it. `None` if it is of another set, or
    /// has no memory here.
    #[inline]
    pub(super) fn find<T: Element>(&self, slot: SlotId<T, Tag>) -> Option<(ByteRange, usize)> {
        let field = &self.fields().get(slot.index())?;
        let is_here = slot.mark == self.set();
        is_here.then(|| (field.span, field.len.of(&self.claim.counts)))
    }

    /// As `find`, for calls that can fail.
    ///
    /// # Errors
    ///
    /// The slot has no memory here, or its length is by a count that was not set.
    pub(super) fn locate<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
    ) -> Result<(ByteRange, usize), StageError> {
        let index = slot.index();
        let found = self.find(slot).ok_or_else(|| self.refuse(index, slot.set()))?;
        if self.is_count_missing(index) {
            return Err(self.shared.misuse(index, SlotFault::CountNotSet));
        }
        Ok(found)
    }

    /// Whether the length of a slot is by a count that was not set.
    pub(super) fn is_count_missing(&self, slot: usize) -> bool {
        let (spec, claim) = (&self.shared.plan.slots[slot], &self.claim);
        let is_set = |count: usize| claim.has_extras && claim.extras.counts_set & 1 << count != 0;
        spec.len.name().is_some_and(|count| !is_set(count))
    }

    /// A bit for each slot that is read elsewhere, and for each table that is patched.
    pub(super) fn referred(&self) -> u64 {
        if self.claim.has_extras { self.claim.extras.referred & !self.written } else { 0 }
    }

    /// How many elements the step has of a slot.
    pub(super) fn len_of(&self, slot: usize) -> usize {
        self.shared.plan.slots[slot].len.of(&self.claim.counts)
    }

    /// Lets the step fail for a slot that it could not write.
    #[cold]
    pub(super) fn note_refused(&mut self, slot: usize, set: usize) {
        self.claim.extras().refused.get_or_insert((slot, set));
    }

    /// The error of a slot that was not found.
    #[cold]
    pub(super) fn refuse(&self, slot: usize, set: usize) -> StageError {
        self.shared.misuse(slot, self.shared.refusal(slot, set))
    }
}
