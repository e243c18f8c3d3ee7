#![expect(unsafe_code, reason = "the caller vouches for what the device does")]
//! Ring slots that the engine says are free: their launch never runs, or has made its copies.

use super::buffers::InputBuffers;
use super::embedded::Embedded;
use super::embedded_outputs::EmbeddedOutputs;
use super::error::StageError;
use super::outputs::OutputBuffers;
use super::staged::Staged;

impl<Tag> InputBuffers<Tag> {
    /// Gives up a ring slot whose launch never runs, so that it is free again: one that went into a
    /// capture which was not known of ([`Stall::ring_slot`](super::Stall::ring_slot) names it). A
    /// ring slot that is not in flight stays as it is.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the driver refused; nothing has changed. [`StageError::InLaunch`].
    ///
    /// # Safety
    ///
    /// The launch of the step in that ring slot is not pending, and the graph that it was captured
    /// into, or anything made of it, is not launched from here on.
    pub unsafe fn release_lost(&self, ring_slot: usize) -> Result<(), StageError> {
        self.shared.release_lost(ring_slot)
    }
}

impl<Tag> OutputBuffers<Tag> {
    /// Gives up a ring slot whose launch never runs, and whose [`Pending`](super::Pending) was
    /// dropped, so that it is free again; as [`InputBuffers::release_lost`].
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: the driver refused; nothing has changed.
    ///
    /// # Safety
    ///
    /// As for `InputBuffers::release_lost`.
    pub unsafe fn release_lost(&self, ring_slot: usize) -> Result<(), StageError> {
        self.shared.release_lost(ring_slot)
    }
}

impl<Tag> Embedded<Tag> {
    /// Gives up the ring slots of steps whose launch was never made, so that they are free again.
    ///
    /// # Errors
    ///
    /// As [`InputBuffers::release_lost`].
    ///
    /// # Safety
    ///
    /// No launch of a graph that contains the staging graph is pending.
    pub unsafe fn release_lost(&self) -> Result<(), StageError> {
        (0..self.shared.ring.len()).try_for_each(|index| self.shared.release_lost(index))
    }
}

impl<Tag> EmbeddedOutputs<Tag> {
    /// Gives up the ring slots of fetches whose launch was never made, and whose
    /// [`Pending`](super::Pending) was dropped, so that they are free again.
    ///
    /// # Errors
    ///
    /// As [`OutputBuffers::release_lost`].
    ///
    /// # Safety
    ///
    /// No launch of a graph that contains the copies is pending.
    pub unsafe fn release_lost(&self) -> Result<(), StageError> {
        (0..self.shared.ring.len()).try_for_each(|index| self.shared.release_lost(index))
    }
}

impl<Tag> Staged<'_, Tag> {
    /// Says that the device has read the step's ring slot, for sets with
    /// [`Completion::Neither`](super::Completion::Neither): it is free from here on. For others,
    /// and for a ring slot that has a later step, it does nothing.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: this is a forked child.
    ///
    /// # Safety
    ///
    /// With `Completion::Neither` the ring slot is the next step's from here on, so:
    ///
    /// * The launch of the step has made its copies, as when an event that the engine recorded
    ///   behind it is complete, or when results of the same step are there. Of the step of an
    ///   [`Embedded`] graph no other launch of a graph that contains the staging graph is pending:
    ///   it copies the same ring slot.
    /// * No other thread is in this call for the same step, or in `release_lost` for its ring slot:
    ///   the later of the two would say it of the next step.
    pub unsafe fn set_complete(&self) -> Result<(), StageError> {
        self.shared.check_fork()?;
        if self.shared.ring.is_in_flight(self.index, self.this) {
            self.shared.host.set_read(self.index);
        }
        Ok(())
    }
}
