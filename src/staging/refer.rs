#![expect(unsafe_code, reason = "takes addresses that the caller vouches for")]
//! Slots that the device reads where their elements are already.

use super::error::{SlotFault, StageError};
use super::plan::{ByteRange, Layout};
use super::reference::{Reference, Source};
use super::slot_id::SlotId;
use super::spec::SlotKind;
use super::step::Step;
use crate::element::Element;
use crate::error::Error;
use crate::graph::Copy1d;
use crate::stream::Stream;

impl<Tag> Step<'_, Tag> {
    /// Lets the device read a slot's elements at `from`, in pinned memory that does not belong to a
    /// [`Buffer`](crate::pool::Buffer), as [`refer_buffer`](Self::refer_buffer) does in a buffer.
    /// `owner` is kept until the ring slot is used again, or the step is dropped.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot has no copy of its own, or is of another set or length.
    ///
    /// # Safety
    ///
    /// * `from` is pinned memory of the set's context, in one allocation or
    ///   [registration](crate::memory::MemoryResource::pieces), as long as `owner` lives.
    /// * The elements are not written before the step [is complete](super::Staged::is_complete).
    pub unsafe fn refer<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: *const [T],
        owner: impl Send + 'static,
    ) -> Result<(), StageError> {
        let span = self.referable(slot, from.len())?;
        self.put_reference(slot.index(), span, from.cast(), Box::new(Owner(owner)));
        Ok(())
    }

    /// Where a slot lies, if `given` elements can be read elsewhere in its place.
    pub(super) fn referable<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
        given: usize,
    ) -> Result<ByteRange, StageError> {
        let (span, _) = self.locate(slot)?;
        let (plan, index) = (&self.shared.plan, slot.index());
        if plan.layout != Layout::PerSlot || plan.slots[index].kind != SlotKind::Copied {
            return Err(self.shared.misuse(index, SlotFault::NeedsPerSlot));
        }
        let wanted = span.size / size_of::<T>();
        if given == wanted {
            Ok(span)
        } else {
            Err(self.shared.misuse(index, SlotFault::Length { wanted, given }))
        }
    }

    pub(super) fn put_reference(
        &mut self,
        slot: usize,
        span: ByteRange,
        from: *const u8,
        source: Box<dyn Source>,
    ) {
        let (destination, _) = self.shared.copy_of(self.claim.index(), slot, span).addresses();
        let copy = Copy1d::htod(destination, from.cast(), span.size);
        self.claim.refer(Reference { slot, copy, source });
        self.claim.extras.referred |= 1 << slot;
        self.written &= !(1 << slot);
    }
}

/// An owner of memory that is only kept alive.
pub(super) struct Owner<O>(pub(super) O);

impl<O: Send> Source for Owner<O> {
    fn order(&self, _stream: &Stream) -> Result<(), Error> {
        Ok(())
    }

    fn note(&self, _stream: &Stream) -> bool {
        let Self(_kept) = self;
        false
    }
}
