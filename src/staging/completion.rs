//! What says that the device is done with a ring slot.

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
    /// [says so](super::Staged::set_complete). Other streams wait as with `Word`. Not for
    /// results, which are read when they are complete.
    Neither,
}

impl Completion {
    /// Whether the device writes a word, if it can.
    pub(super) fn has_word(self) -> bool {
        matches!(self, Self::WordAndEvent | Self::Word)
    }
}
