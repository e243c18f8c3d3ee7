//! The part of a set of inputs that its handles share.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use super::error::StageError;
use super::guard::Guard;
use super::in_place::InPlace;
use super::launch::Sent;
use super::state::SlotClaim;
use super::transfer::Transfer;
use crate::error::{CudaError, Error};
use crate::lockfree::step_word::Begun;
use crate::stream::Stream;

/// A ring to the device, and the guard of what it overwrites there. Every step reads it, and steps
/// that own a share write its count: that is on another cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shared {
    transfer: Transfer,
    /// Of the device memory, which embedded graphs write too.
    pub(super) guard: Arc<Guard>,
    /// Itself, for steps that keep it.
    pub(super) this: Weak<Self>,
}

impl Deref for Shared {
    type Target = Transfer;

    #[inline]
    fn deref(&self) -> &Transfer {
        &self.transfer
    }
}

impl Shared {
    pub(super) fn new(transfer: Transfer, guard: Arc<Guard>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { transfer, guard, this: this.clone() })
    }

    /// Waits for the streams that were given copies which no event ends, before the set goes.
    fn settle_calls(&self) -> Result<(), Error> {
        if !self.has_no_events() || self.ring.in_flight().next().is_none() {
            return Ok(());
        }
        let unknown = Error::Driver { call: "Step::submit", code: CudaError::NOT_READY };
        let ends = self.guard.ends().map_err(|_| unknown)?;
        ends.iter().try_for_each(|end| end.synchronize())
    }

    /// Gives `stream` the copies of a claimed ring slot, behind what reads the device memory; to be
    /// followed by [`launched`](Self::launched).
    ///
    /// # Errors
    ///
    /// The driver's error. Nothing was launched.
    #[inline(always)] // Each way to submit is one function, as far as a usual step goes.
    pub(super) fn launch_guarded(
        &self,
        claim: &mut SlotClaim<'_>,
        sent: Sent<'_>,
        stream: &Stream,
    ) -> Result<Begun, StageError> {
        let begun = self.guard.begin(stream)?;
        claim.open().reset();
        if let Err(error) = self.launch(claim, sent, stream) {
            self.guard.undo(begun);
            return Err(error);
        }
        Ok(begun)
    }

    /// Notes a launch, before the ring slot is handed to the device.
    #[inline]
    pub(super) fn launched(&self, claim: &SlotClaim<'_>, stream: &Stream, begun: Begun) {
        claim.open().note(stream, &self.ticks);
        if !self.guard.is_in_order(begun, stream) {
            self.launched_out_of_order(claim.index(), stream, begun);
        }
    }

    #[cold]
    fn launched_out_of_order(&self, index: usize, stream: &Stream, begun: Begun) {
        let in_place = self.in_place.get(index);
        self.guard.launched(begun, stream, in_place);
        // After the above, which ends the reads of the step before: that may have had the same ring
        // slot.
        if let Some(read) = in_place {
            read.reset();
        }
    }

    /// Waits for what reads a ring slot in place, before the set goes.
    fn settle(&self, read: &Arc<InPlace>) -> Result<(), Error> {
        if read.synchronize()? {
            return Ok(());
        }
        // Its streams have been given all that reads it: the set goes.
        let unknown = Error::Driver { call: "Staged::consumed_by", code: CudaError::NOT_READY };
        let ends = self.guard.ends_of_last(read).map_err(|_| unknown)?;
        if ends.is_empty() {
            Err(unknown)
        } else {
            ends.iter().try_for_each(|end| end.synchronize())
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.in_place.is_empty() && !self.has_no_events() {
            return;
        }
        // As the drop of the transfer, which waits for the copies.
        let _relaxed = self.transfer.context.driver().relax_capture();
        let settled = self.ring.in_flight().try_for_each(|index| {
            self.in_place.get(index).map_or(Ok(()), |read| self.settle(read))
        });
        let settled = settled.and_then(|()| self.settle_calls());
        if settled.is_err() {
            let context = &self.transfer.context;
            context.release().note(context.driver(), settled);
            self.transfer.host.leak();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::lockfree::step_word::StepWord;
    use crate::staging::launches::Launch;
    use crate::staging::ring::Ring;
    use crate::staging::state::SlotState;

    #[test]
    fn what_different_threads_write_lies_on_different_lines() {
        // Processors fetch lines of 64 bytes in pairs.
        let [align, word, open] = Ring::<SlotState, Launch>::layout();
        assert_eq!((align, word), (128, 0));
        assert!(open <= 64, "one line says whether a ring slot is free: {open}");
        assert_eq!((align_of::<StepWord>(), size_of::<StepWord>()), (128, 128));
        // The counts of an `Arc` are before what it holds, as far as that is aligned.
        assert_eq!(align_of::<Shared>(), 128);
    }
}
