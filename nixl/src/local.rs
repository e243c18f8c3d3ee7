//! The local side of a transfer: memory that is kept until the transfer is over.

use wharf::memory::{Lease, Piece};
use wharf::pool::Exported;

/// A block of this process that a transfer reads or writes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Local {
    /// A buffer's block.
    Exported(Exported),
    /// Memory whose use the program orders itself, such as a pinned object's of a tier.
    Lease(Lease),
}

impl From<Exported> for Local {
    fn from(exported: Exported) -> Self {
        Self::Exported(exported)
    }
}

impl From<Lease> for Local {
    fn from(lease: Lease) -> Self {
        Self::Lease(lease)
    }
}

impl Local {
    pub(crate) fn address(&self) -> u64 {
        match self {
            Self::Exported(exported) => exported.descriptor().offset + exported.piece().address,
            Self::Lease(lease) => lease.address(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Exported(exported) => exported.size(),
            Self::Lease(lease) => lease.len(),
        }
    }

    pub(crate) fn piece(&self) -> Piece {
        match self {
            Self::Exported(exported) => exported.piece(),
            Self::Lease(lease) => lease.piece(),
        }
    }

    /// The transport has let go of the memory.
    pub(crate) fn complete(self) {
        match self {
            Self::Exported(exported) => exported.complete(),
            Self::Lease(lease) => drop(lease),
        }
    }

    /// The transport may use the memory for ever.
    pub(crate) fn leak(self) {
        match self {
            // Its drop counts the leak in its pool.
            Self::Exported(exported) => drop(exported),
            Self::Lease(lease) => lease.leak(),
        }
    }
}
