//! Sending a step to the device.

use super::error::{SlotFault, StageError};
use super::launch::Sent;
use super::len::Counts;
use super::pad::Dirty;
use super::plan::Layout;
use super::spec::{Forgotten, SlotKind};
use super::staged::Staged;
use super::state::Tails;
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
        match self.launch(stream)? {
            Launched::Begun(begun) => Ok(self.hand_over(stream, begun)),
            Launched::NotYet { skipped } => self.submit_referred(skipped, stream),
        }
    }

    /// As [`submit`](Self::submit), for callers that keep what was submitted in a place of theirs:
    /// it is written there, and not moved.
    ///
    /// # Errors
    ///
    /// As `submit`; the place is then as it was.
    #[inline]
    pub fn submit_to(
        mut self,
        stream: &Stream,
        place: &mut Option<Staged<'a, Tag>>,
    ) -> Result<(), StageError> {
        let _range = Range::enter(self.shared.names.submit(self.bucket), Some(self.size()));
        match self.launch(stream)? {
            Launched::Begun(begun) => *place = Some(self.hand_over(stream, begun)),
            Launched::NotYet { skipped } => *place = Some(self.submit_referred(skipped, stream)?),
        }
        Ok(())
    }

    /// Launches the copies of a step, unless some are of other memory than its ring slot.
    #[inline(always)] // Each way to submit is one function, as far as a usual step goes.
    fn launch(&mut self, stream: &Stream) -> Result<Launched, StageError> {
        // A forked child has pages of its own here, and is refused by the launch.
        let shared = self.shared;
        shared.refuse_capture(stream, |api| api.graph_launch.name())?;
        let Left { skipped, referred } = self.finish()?;
        if referred != 0 {
            return Ok(Launched::NotYet { skipped });
        }
        let sent = Sent { bucket: self.bucket, skipped, referred: 0 };
        shared.launch_guarded(&mut self.claim, sent, stream).map(Launched::Begun)
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
    /// [Patches](Self::patch) of the step go ahead of the launch, in its stream, by the call that
    /// they cost in any step.
    ///
    /// # Errors
    ///
    /// As `submit`, and what `launch` returns. Another step of the set that is submitted in
    /// `launch` is [`StageError::InLaunch`] where both patch tables.
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
        let Left { skipped, referred } = self.finish()?;
        if skipped != 0 {
            let slot = skipped.trailing_zeros() as usize;
            return Err(shared.misuse(slot, SlotFault::Forgotten).into());
        }
        if referred != 0 {
            return self.submit_patched_with(stream, launch);
        }
        let begun = shared.guard.begin(stream)?;
        self.claim.open().reset();
        launch().inspect_err(|_| shared.guard.undo(begun))?;
        Ok(self.hand_over(stream, begun))
    }

    /// Notes a step that the device has, and hands its ring slot over.
    #[inline]
    pub(super) fn hand_over(self, stream: &Stream, begun: Begun) -> Staged<'a, Tag> {
        let counts = self.counts();
        let Self { shared, claim, bucket, keep, .. } = self;
        shared.launched(&claim, stream, begun);
        Staged::new(shared, claim, counts, bucket, (begun.number, stream.id()), keep)
    }

    /// Checks that no slot is missing and fills the tails. Returns the slots that are not copied
    /// from the ring slot.
    #[inline]
    pub(super) fn finish(&mut self) -> Result<Left, StageError> {
        // The tails are padding still where the last step had the same counts.
        if self.written == self.shared.plan.all && self.claim.is_steady {
            return Ok(Left { skipped: 0, referred: 0 });
        }
        self.finish_other()
    }

    #[cold]
    fn finish_other(&mut self) -> Result<Left, StageError> {
        if self.claim.has_extras
            && let Some((slot, set)) = self.claim.extras.refused
        {
            return Err(self.refuse(slot, set));
        }
        let plan = &self.shared.plan;
        if plan.has_rare {
            let torn = self.torn_tables();
            if torn != 0 {
                self.claim.extras().referred |= torn;
            }
            self.check_counts()?;
            self.pad_rows();
        }
        let referred = self.referred();
        let missing = plan.required & !(self.written | referred);
        if missing != 0
            && let missing = self.with_elements(missing)
            && missing != 0
        {
            return Err(self
                .shared
                .misuse(missing.trailing_zeros() as usize, SlotFault::Forgotten));
        }
        let skipped = self.kept(referred);
        self.pad(skipped | referred);
        Ok(Left { skipped, referred })
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
        // It has nothing of a count that it has not set.
        let is_idle = self.counts() == Counts::default();
        let is_empty = |slot: &usize| {
            let spec = &plan.slots[*slot];
            spec.kind != SlotKind::Dynamic
                && (is_idle || !self.is_count_missing(*slot))
                && self.len_of(*slot) == 0
        };
        (0..plan.slots.len()).filter(is_empty).fold(slots, |slots, slot| slots & !(1 << slot))
    }

    /// A bit for each slot that was not given and whose contents the device keeps.
    fn kept(&self, referred: u64) -> u64 {
        let plan = &self.shared.plan;
        let forgotten = plan.all & plan.staged & !(self.written | referred);
        if forgotten == 0 {
            return 0;
        }
        let is_kept =
            |slot: &usize| forgotten & 1 << slot != 0 && plan.forgotten[*slot] == Forgotten::Keep;
        (0..plan.slots.len()).filter(is_kept).fold(0, |bits, slot| bits | 1 << slot)
    }

    /// Fills the tails of all slots but those that are `left_out`, as far as they are not padding
    /// already. A slot that was not written is all tail.
    fn pad(&mut self, left_out: u64) {
        let plan = &self.shared.plan;
        let tails = Dirty {
            slots: plan.flat & !left_out,
            written: self.written,
            steady: !plan.unsteady,
            counts: self.dirty(),
        };
        self.claim.pad(self.bucket, &tails);
        let counts = self.counts();
        self.claim.note_tails(counts, left_out == 0, plan.unsteady == 0);
    }

    /// The counts behind which all slots are padding already, up to the bucket's.
    fn dirty(&self) -> Counts {
        let plan = &self.shared.plan;
        let padded = self.padded();
        let reaches = |tails: &Tails| match plan.layout {
            // Elsewhere slots lie elsewhere.
            Layout::Packed => tails.bucket == self.claim.bucket,
            Layout::PerSlot => {
                let bucket = plan.buckets.get(tails.bucket);
                bucket.is_some_and(|bucket| padded.is_within(bucket.counts))
            }
        };
        self.claim.tails.filter(reaches).map_or(padded, |tails| tails.counts)
    }
}

/// The slots of a step that are not copied from its ring slot.
pub(super) struct Left {
    /// A bit for each slot whose contents the device keeps.
    pub(super) skipped: u64,
    /// A bit for each slot that is read elsewhere, and for each table that is patched.
    pub(super) referred: u64,
}

/// How far a step has come.
enum Launched {
    /// Its copies are in the stream.
    Begun(Begun),
    /// It is checked and padded. A bit for each slot that is left out.
    NotYet { skipped: u64 },
}
