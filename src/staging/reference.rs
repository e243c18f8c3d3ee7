#![expect(unsafe_code, reason = "takes addresses that the caller vouches for")]
//! Slots that the device reads where their elements are already.

use std::fmt;

use super::error::{SlotFault, StageError};
use super::plan::{Layout, Span};
use super::slot_id::SlotId;
use super::spec::Place;
use super::step::Step;
use crate::error::Error;
use crate::graph::Copy1d;
use crate::pool::Element;
use crate::stream::Stream;

/// A slot whose elements are not in the ring slot, and what keeps them where they are.
pub(super) struct Reference {
    pub(super) slot: usize,
    pub(super) copy: Copy1d,
    source: Box<dyn Source>,
}

/// What the device reads from.
pub(super) trait Source: Send {
    /// Makes what `stream` is given from here on wait for what has to come before.
    fn order(&self, stream: &Stream) -> Result<(), Error>;

    /// Takes note that `stream` was given a read; whether the memory is safe from now on without this.
    fn note(&self, stream: &Stream) -> bool;
}

/// What only has to live.
struct Owner<O>(O);

impl<O: Send> Source for Owner<O> {
    fn order(&self, _stream: &Stream) -> Result<(), Error> {
        Ok(())
    }

    fn note(&self, _stream: &Stream) -> bool {
        let Self(_kept) = self;
        false
    }
}

impl<Tag> Step<'_, Tag> {
    /// As [`refer_buffer`](Self::refer_buffer), for elements in pinned memory from elsewhere. `owner` is kept
    /// until the ring slot is used again, or the step is dropped.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot is not copied by itself, of another set, or of another length.
    ///
    /// # Safety
    ///
    /// * `from` is pinned memory of the set's context, as long as `owner` lives.
    /// * Nobody writes the elements before the step [is complete](super::Staged::is_complete).
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
    ) -> Result<Span, StageError> {
        let (span, _) = self.find(slot).ok_or_else(|| self.refuse(slot.index(), slot.set))?;
        let (plan, index) = (&self.shared.plan, slot.index());
        if plan.layout != Layout::PerSlot || plan.slots[index].place != Place::Copied {
            return Err(self.misuse(index, SlotFault::NeedsPerSlot));
        }
        let wanted = span.size / size_of::<T>();
        if given == wanted { Ok(span) } else { Err(self.misuse(index, SlotFault::Length { wanted, given })) }
    }

    pub(super) fn put_reference(
        &mut self,
        slot: usize,
        span: Span,
        from: *const u8,
        source: Box<dyn Source>,
    ) {
        let (destination, _) = self.shared.copy(self.claim.index(), span).htod_addresses();
        let copy = Copy1d::htod(destination, from.cast(), span.size);
        let references = &mut self.claim.extras().references;
        references.retain(|reference| reference.slot != slot);
        references.push(Reference { slot, copy, source });
        self.written |= 1 << slot;
        self.referred |= 1 << slot;
    }

    /// Orders a stream behind what has to come before its reads.
    #[cold]
    pub(super) fn order_behind_sources(&mut self, stream: &Stream) -> Result<(), StageError> {
        let referred = self.referred;
        let references = &mut self.claim.extras().references;
        // Slots that were written later are read in the ring slot.
        references.retain(|reference| referred & 1 << reference.slot != 0);
        Ok(references.iter().try_for_each(|reference| reference.source.order(stream))?)
    }

    /// Lets sources know that a stream reads them. Those that nothing else protects stay.
    #[cold]
    pub(super) fn note_reads(&mut self, stream: &Stream) {
        self.claim.extras().references.retain(|reference| !reference.source.note(stream));
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference")
            .field("slot", &self.slot)
            .field("copy", &self.copy)
            .finish_non_exhaustive()
    }
}
