#![expect(unsafe_code, reason = "takes the caller's word for what the device has done")]
//! What says that the device is done with a ring slot.

use super::buffers::InputBuffers;
use super::builder::InputBuffersBuilder;
use super::embedded::Embedded;
use super::error::StageError;
use super::len::Counts;
use super::outputs_builder::OutputBuffersBuilder;
use super::staged::Staged;

/// What ends the copies of a ring slot: a node each of the graph, or a call each without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Completion {
    /// A word that the device writes, for the host, and an event, for other streams. Where the
    /// device cannot write words, the event alone.
    #[default]
    WordAndEvent,
    /// The word alone. What other streams wait for is then all that the step's stream has been
    /// given by that time, at up to three driver calls more. Where the device cannot write words,
    /// the event.
    Word,
    /// The event alone: for graphs that must not write memory of the host. The host asks the driver
    /// whether a ring slot is free, by three calls when a step begins.
    Event,
    /// Neither: the engine knows of itself when a step's copies are done, and
    /// [says so](Staged::set_complete). Other streams wait as with `Word`. Not for results, which
    /// are read when they are complete.
    Neither,
}

impl Completion {
    /// Whether the device writes a word, if it can.
    pub(super) fn has_word(self) -> bool {
        matches!(self, Self::WordAndEvent | Self::Word)
    }
}

impl<Tag> InputBuffersBuilder<Tag> {
    /// Sets what says that the device has read a ring slot, here and in
    /// [embedded](super::Embedded) graphs. By default [`Completion::WordAndEvent`].
    pub fn completion(mut self, completion: Completion) -> Self {
        self.set.options.completion = completion;
        self
    }
}

impl<Tag> OutputBuffersBuilder<Tag> {
    /// Sets what says that the results are there, here and in
    /// [embedded](super::EmbeddedOutputs) graphs. By default [`Completion::WordAndEvent`];
    /// [`Completion::Neither`] is an error of [`build`](Self::build).
    pub fn completion(mut self, completion: Completion) -> Self {
        self.set.options.completion = completion;
        self
    }
}

impl<Tag> InputBuffers<Tag> {
    /// As [`embed_ring`](Self::embed_ring), with a completion of its own: graphs without nodes that
    /// the engine's graph has no use for.
    ///
    /// # Errors
    ///
    /// As `embed_ring`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::staging::{Completion, InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
    /// let inputs = inputs.buckets([4, 8]).build()?;
    /// let embedded = inputs.embed_with(8, 2, Completion::Neither)?;
    /// assert_eq!(embedded.graph().nodes().count(), 1); // the copy
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn embed_with(
        &self,
        counts: impl Into<Counts>,
        depth: usize,
        completion: Completion,
    ) -> Result<Embedded<Tag>, StageError> {
        self.embed_as(counts.into(), depth, completion)
    }
}

impl<Tag> Staged<'_, Tag> {
    /// Says that the device has read the step's ring slot, for sets with [`Completion::Neither`]:
    /// it is free from here on. For others, and for a ring slot that has a later step, it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`StageError::Driver`]: this is a forked child.
    ///
    /// # Safety
    ///
    /// The launch of the step has made its copies, as when an event that the engine recorded behind
    /// it is complete, or when results of the same step are there.
    pub unsafe fn set_complete(&self) -> Result<(), StageError> {
        self.shared.check_fork()?;
        if self.shared.ring.is_in_flight(self.index, self.this) {
            self.shared.host.set_read(self.index);
        }
        Ok(())
    }
}
