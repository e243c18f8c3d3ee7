//! The local side of a transfer: memory that is kept until the transfer is over.

use wharf::memory::{Lease, Piece};
use wharf::pool::Exported;

/// A block of this process that a transfer reads or writes: one that was
/// [exported](wharf::pool::Buffer::export), so that no handle reaches its bytes meanwhile.
#[derive(Debug)]
pub struct Local(Kept);

/// What keeps the memory of a block.
#[derive(Debug)]
enum Kept {
    /// A buffer's block.
    Exported(Exported),
    /// Memory whose use the crate orders itself.
    Lease(Lease),
}

impl From<Exported> for Local {
    fn from(exported: Exported) -> Self {
        Self(Kept::Exported(exported))
    }
}

impl Local {
    /// Memory that the caller keeps from all other uses. Not for programs, which could transfer
    /// into what a slice is borrowed of.
    pub(crate) fn of_lease(lease: Lease) -> Self {
        Self(Kept::Lease(lease))
    }

    pub(crate) fn address(&self) -> u64 {
        match &self.0 {
            Kept::Exported(exported) => exported.descriptor().offset + exported.piece().address,
            Kept::Lease(lease) => lease.address(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Kept::Exported(exported) => exported.size(),
            Kept::Lease(lease) => lease.len(),
        }
    }

    pub(crate) fn piece(&self) -> Piece {
        match &self.0 {
            Kept::Exported(exported) => exported.piece(),
            Kept::Lease(lease) => lease.piece(),
        }
    }

    /// The transport has let go of the memory.
    pub(crate) fn complete(self) {
        match self.0 {
            Kept::Exported(exported) => exported.complete(),
            Kept::Lease(lease) => drop(lease),
        }
    }

    /// The transport may use the memory for ever.
    pub(crate) fn leak(self) {
        match self.0 {
            // Its drop counts the leak in its pool.
            Kept::Exported(exported) => drop(exported),
            Kept::Lease(lease) => lease.leak(),
        }
    }
}
