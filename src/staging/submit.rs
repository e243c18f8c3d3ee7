//! Sending a step to the device.

use super::error::{SlotFault, StageError};
use super::launch::Sent;
use super::pad;
use super::spec::{Forgotten, SlotKind};
use super::staged::Staged;
use super::step::Step;
#[cfg(doc)]
use crate::error::CudaError;
use crate::lockfree::step_word::Begun;
use crate::profile::Range;
use crate::stream::Stream;

impl<'a, Tag> Step<'a, Tag> {
    /// Pads the slots and sends them to the device: one driver call, where the context is entered,
    /// the stream is that of the last step and the graph is made.
    ///
    /// On another stream than the last step's it first waits, on the device, for what uses the last
    /// step: all that its stream has been given, and the reads on other streams, see
    /// [`Staged::reader`](super::Staged::reader). Steps that two threads submit at once are ordered
    /// by neither; the next one is behind both.
    ///
    /// # Captures
    ///
    /// A stream that is being captured is refused, with [`STREAM_CAPTURE_UNSUPPORTED`], and its
    /// capture goes on: a step in a graph is what [embedded](super::Embedded) sets are for. A
    /// capture is known if [`CaptureScope`](crate::graph::CaptureScope) began it, while
    /// [`Driver::capture_elsewhere`](crate::Driver::capture_elsewhere) announces captures, or if
    /// the set [asks each time](super::InputBuffersBuilder::check_captures).
    ///
    /// A capture that is not known takes the launch into its graph:
    ///
    /// * On the stream of the last step this returns `Ok`. The ring slot stays in flight until
    ///   [`release_lost`](super::InputBuffers::release_lost), and the graph must not be launched.
    /// * On another stream the step would have to wait for work from before the capture. The driver
    ///   refuses that ([`STREAM_CAPTURE_ISOLATION`]) and invalidates the capture; this is an error.
    /// * A set with zero-copy slots finds the capture where a step follows another on the stream,
    ///   and refuses it.
    ///
    /// [`STREAM_CAPTURE_UNSUPPORTED`]: CudaError::STREAM_CAPTURE_UNSUPPORTED
    /// [`STREAM_CAPTURE_ISOLATION`]: CudaError::STREAM_CAPTURE_ISOLATION
    ///
    /// # Errors
    ///
    /// * [`StageError::Slot`]: a slot was not written, or used wrongly.
    /// * [`StageError::ReaderOpen`], [`StageError::ReaderCaptured`]: the end of a read of the last
    ///   step is not known.
    /// * [`StageError::OtherDevice`]: the stream is of another device.
    /// * [`StageError::Driver`], [`StageError::Graph`]: the driver refused, or the stream is being
    ///   captured.
    ///
    /// The step has then not happened, and its ring slot is free.
    #[inline]
    #[doc(alias = "stage_inputs")]
    #[doc(alias = "cuGraphLaunch")]
    pub fn submit(mut self, stream: &Stream) -> Result<Staged<'a, Tag>, StageError> {
        let _range = Range::enter(self.shared.names.submit(self.bucket), Some(self.size()));
        // A forked child has pages of its own here, and is refused by the launch.
        let shared = self.shared;
        shared.refuse_capture(stream, |api| api.graph_launch.name())?;
        let skipped = self.finish()?;
        if self.referred != 0 {
            return self.submit_referred(skipped, stream);
        }
        let begun = shared.guard.begin(stream)?;
        shared.host.reset(self.claim.index());
        let sent = Sent { bucket: self.bucket, skipped, referred: 0 };
        if let Err(error) = shared.launch(&mut self.claim, sent, stream) {
            shared.guard.undo(begun);
            return Err(error);
        }
        Ok(self.hand_over(stream, begun))
    }

    /// As [`submit`](Self::submit), for a step of an [embedded](super::Embedded) graph: `launch`
    /// launches the engine's graph, on `stream`, and returns an error if it did not.
    ///
    /// What `launch` does cannot be checked:
    ///
    /// * If it launches nothing and returns `Ok`, the ring slot stays in flight, and
    ///   [`Embedded::begin`](super::Embedded::begin) times out until
    ///   [`Embedded::release_lost`](super::Embedded::release_lost).
    /// * If it launches on another stream, the ring slot is guarded, and the device memory is not.
    ///
    /// # Errors
    ///
    /// As `submit`, and what `launch` returns.
    pub fn submit_with<E: From<StageError>>(
        mut self,
        stream: &Stream,
        launch: impl FnOnce() -> Result<(), E>,
    ) -> Result<Staged<'a, Tag>, E> {
        let _range = Range::enter(self.shared.names.submit(self.bucket), Some(self.size()));
        let shared = self.shared;
        shared.check_fork().map_err(StageError::from)?;
        shared.refuse_capture(stream, |api| api.graph_launch.name())?;
        // The engine's graph has the copies of all slots: none can be left out or read elsewhere.
        if self.finish()? != 0 {
            let kept = shared.plan.all & !self.written;
            return Err(self
                .shared
                .misuse(kept.trailing_zeros() as usize, SlotFault::Forgotten)
                .into());
        }
        if self.referred != 0 {
            return self.submit_patched_with(stream, launch);
        }
        let begun = shared.guard.begin(stream)?;
        shared.host.reset(self.claim.index());
        launch().inspect_err(|_| shared.guard.undo(begun))?;
        Ok(self.hand_over(stream, begun))
    }

    /// Notes a step that the device has, and hands its ring slot over.
    #[inline]
    pub(super) fn hand_over(self, stream: &Stream, begun: Begun) -> Staged<'a, Tag> {
        let Self { shared, claim, counts, bucket, .. } = self;
        shared.launched(claim.index(), stream, begun);
        Staged::new(shared, claim, counts, bucket, (begun.number, stream.id()))
    }

    /// Checks that no slot is missing and fills the tails. Returns a bit for each slot whose
    /// contents the device keeps.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<u64, StageError> {
        if self.claim.has_extras
            && let Some((slot, set)) = self.claim.extras.refused
        {
            return Err(self.refuse(slot, set));
        }
        let plan = &self.shared.plan;
        if plan.has_rare {
            self.referred |= self.torn_tables();
            self.check_counts()?;
            self.pad_rows();
        }
        let missing = plan.required & !self.written;
        if missing != 0
            && let missing = self.with_elements(missing)
            && missing != 0
        {
            return Err(self
                .shared
                .misuse(missing.trailing_zeros() as usize, SlotFault::Forgotten));
        }
        let forgotten = plan.all & !self.written;
        // Off the hot path: most steps write every slot.
        if forgotten != 0 {
            return Ok(self.finish_forgotten(forgotten));
        }
        if self.bucket.is_some_and(|bucket| bucket.counts != self.counts) || self.claim.has_extras {
            self.pad(plan.flat & !self.referred);
        }
        Ok(0)
    }

    /// Refuses a step that has written a slot before its count was set.
    #[cold]
    fn check_counts(&self) -> Result<(), StageError> {
        let is_early = |slot: &usize| self.written & 1 << slot != 0 && self.is_count_missing(*slot);
        match (0..self.shared.plan.slots.len()).find(is_early) {
            Some(slot) => Err(self.shared.misuse(slot, SlotFault::CountNotSet)),
            None => Ok(()),
        }
    }

    /// The slots of these that have elements in this step: the others need not be written.
    #[cold]
    fn with_elements(&self, slots: u64) -> u64 {
        let plan = &self.shared.plan;
        let is_empty = |slot: &usize| {
            let spec = &plan.slots[*slot];
            spec.kind != SlotKind::Dynamic
                && !self.is_count_missing(*slot)
                && self.len_of(*slot) == 0
        };
        (0..plan.slots.len()).filter(is_empty).fold(slots, |slots, slot| slots & !(1 << slot))
    }

    /// Applies the policies of slots that were not written, and fills the tails of the others.
    /// Returns a bit for each slot whose contents the device keeps.
    #[cold]
    fn finish_forgotten(&mut self, forgotten: u64) -> u64 {
        let plan = &self.shared.plan;
        let policy = |wanted| {
            let is = |slot: &usize| forgotten & 1 << slot != 0 && plan.forgotten[*slot] == wanted;
            (0..plan.slots.len()).filter(is).fold(0, |bits, slot| bits | 1 << slot)
        };
        let kept = policy(Forgotten::Keep);
        self.pad(plan.flat & !kept & !self.referred);
        kept & plan.staged
    }

    /// Fills the tails of some slots. A slot that was not written is all tail.
    fn pad(&mut self, slots: u64) {
        let shared = self.shared;
        let plan = &shared.plan;
        let mut left = slots;
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            left &= left - 1;
            let (spec, span) = (&plan.slots[slot], self.span(slot));
            let width = spec.dtype.size();
            let written = if self.written & 1 << slot == 0 { 0 } else { self.len_of(slot) };
            if written * width < span.size {
                pad::fill(self.elements(span, span.size), width, written, spec.pad);
            }
        }
    }
}
