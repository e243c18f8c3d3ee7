//! The state of a ring slot, which belongs to the holder of its claim.

use super::cache::Cache;
use super::node::redirect;
use super::plan::{Field, MAX_DYNAMIC};
use super::reference::Reference;
use super::region::SlotMemory;
use crate::graph::{Copy1d, GraphError, GraphExec, MemcpyNode};

/// A ring slot's memory, its graphs, and what its step has.
#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) graphs: Cache<StagingGraph>,
    /// Where slots lie in a step that has no bucket.
    pub(super) fields: Box<[Field]>,
    pub(super) memory: SlotMemory,
    /// Whether there is anything in `extras`.
    pub(super) has_extras: bool,
    pub(super) extras: Extras,
}

/// State that few steps need.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Slots that the device reads elsewhere. Sources that nothing else protects are kept until the
    /// ring slot is used again.
    pub(super) references: Vec<Reference>,
    /// The addresses that the step passes through.
    pub(super) dynamic: Addresses,
    /// The first slot that the step could not write and wrote all the same; its set.
    pub(super) refused: Option<(usize, usize)>,
}

/// The addresses of dynamic slots, in their order.
pub(super) type Addresses = [u64; MAX_DYNAMIC];

impl SlotState {
    /// The step's extras, to be added to.
    #[cold]
    pub(super) fn extras(&mut self) -> &mut Extras {
        self.has_extras = true;
        &mut self.extras
    }

    /// Drops what the last step left in the slot.
    #[inline]
    pub(super) fn forget(&mut self) {
        if self.has_extras {
            self.has_extras = false;
            self.extras = Extras::default();
        }
    }
}

/// An executable graph, and which node copies which slot.
#[derive(Debug)]
pub(super) struct StagingGraph {
    pub(super) exec: GraphExec,
    pub(super) copies: Copies,
    /// A bit for each slot whose copy is disabled.
    pub(super) skipped: u64,
    /// A bit for each slot whose copy reads elsewhere.
    pub(super) referred: u64,
}

/// The node that copies each slot, if it has one of its own.
pub(super) type Copies = Box<[Option<MemcpyNode>]>;

impl StagingGraph {
    /// Lets later launches leave out the copies of these slots, and no others.
    pub(super) fn skip(&mut self, slots: u64) -> Result<(), GraphError> {
        let mut changed = self.skipped ^ slots;
        while changed != 0 {
            let slot = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            if let Some(copy) = self.copies[slot] {
                self.exec.set_enabled(copy, slots & 1 << slot == 0)?;
            }
            self.skipped ^= 1 << slot;
        }
        Ok(())
    }

    /// Lets later launches copy the slots of `referred` from their references, and all others from
    /// the ring slot: by the copies that `own` returns.
    pub(super) fn refer(
        &mut self,
        referred: u64,
        references: &[Reference],
        own: impl Fn(usize) -> Copy1d,
    ) -> Result<(), GraphError> {
        let mut back = self.referred;
        for Reference { slot, copy, .. } in references {
            if referred & 1 << slot == 0 {
                continue;
            }
            if let Some(node) = self.copies[*slot] {
                redirect(&mut self.exec, node, *copy)?;
                self.referred |= 1 << slot;
            }
            back &= !(1 << slot);
        }
        while back != 0 {
            let slot = back.trailing_zeros() as usize;
            back &= back - 1;
            if let Some(node) = self.copies[slot] {
                redirect(&mut self.exec, node, own(slot))?;
            }
            self.referred &= !(1 << slot);
        }
        Ok(())
    }
}
