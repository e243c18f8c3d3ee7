//! The resources that a move holds from its beginning to its end: an object's word, a block in the
//! other tier and a slot.

use super::memory::TierBlock;
use crate::timeline::Ticket;

/// A move whose copy is ready to be submitted. Its owner submits or abandons it.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) index: usize,
    pub(super) slot: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) source: TierBlock,
    pub(super) target: TierBlock,
    pub(super) size: usize,
}

/// A move whose copy is in the stream.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) planned: Planned,
    /// Whether the driver took the copy.
    pub(super) copied: bool,
    pub(super) ticket: Ticket,
}
