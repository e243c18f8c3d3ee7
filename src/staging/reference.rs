//! References to memory that is not the set's.

use std::fmt;

use crate::error::Error;
use crate::graph::Copy1d;
use crate::stream::Stream;

/// A slot that is copied from, or to, other memory than the set's, and what keeps that memory.
pub(super) struct Reference {
    pub(super) slot: usize,
    pub(super) copy: Copy1d,
    pub(super) source: Box<dyn Source>,
}

/// The owner of memory that a slot is copied from or to.
pub(super) trait Source: Send {
    /// Makes what `stream` is given from here on wait for what has to come before.
    fn order(&self, stream: &Stream) -> Result<(), Error>;

    /// Takes note that `stream` was given the copy. Returns whether the memory is safe from now on
    /// without this value.
    fn note(&self, stream: &Stream) -> bool;
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference")
            .field("slot", &self.slot)
            .field("copy", &self.copy)
            .finish_non_exhaustive()
    }
}
