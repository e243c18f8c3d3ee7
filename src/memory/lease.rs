//! A lease: while it lives, the memory of a piece stays where it is.

use std::fmt::{self, Debug};
use std::sync::Arc;

use super::MemoryKind;
use super::budget::Share;
use super::descriptor::Descriptor;
use super::piece_table::{PieceTable, Place};
use super::wire::Piece;

/// A resource with a table of the pieces that a transport has registered.
pub(super) trait Attached: Debug + Send + Sync {
    fn table(&self) -> &PieceTable;
    fn base(&self) -> u64;
    fn kind(&self) -> MemoryKind;
    fn ordinal(&self) -> Option<i32>;

    /// Keeps the account of a budget open until the resource ends.
    fn count_against(&self, share: &Arc<Share>);

    /// A piece as transports see it.
    fn piece(&self, place: Place) -> Piece {
        Piece {
            index: place.index,
            generation: place.generation,
            address: self.base() + place.offset as u64,
            len: place.len,
            kind: self.kind(),
            ordinal: self.ordinal(),
        }
    }
}

/// A range of registered memory that is kept from decommit until this is dropped.
///
/// It also keeps the resource: a pool that ends before has its leased memory decommitted with the
/// last lease. It says nothing of the blocks in the memory: see
/// [`Buffer::export`](crate::pool::Buffer::export), which keeps one.
///
/// Where it is not known whether a transfer has ended, as after a deadline,
/// [leak](Self::leak) the lease: a peer that writes late writes to memory that nothing else uses.
#[must_use = "the memory may be decommitted when this is dropped"]
pub struct Lease {
    resource: Arc<dyn Attached>,
    place: Place,
    /// Where the range begins in the piece, in bytes.
    offset: usize,
    len: usize,
}

impl Lease {
    /// A lease that was taken in the table, on a range of the piece.
    pub(super) fn new(
        resource: &Arc<dyn Attached>,
        place: Place,
        offset: usize,
        len: usize,
    ) -> Self {
        Self { resource: Arc::clone(resource), place, offset, len }
    }

    /// The address of the range.
    pub fn address(&self) -> u64 {
        self.resource.base() + (self.place.offset + self.offset) as u64
    }

    /// The length of the range, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the range has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The piece that the range lies in.
    pub fn piece(&self) -> Piece {
        self.resource.piece(self.place)
    }

    /// What names the range to a peer.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            piece: self.place.index,
            generation: self.place.generation,
            offset: self.offset as u64,
            len: self.len as u64,
        }
    }

    /// Keeps the memory committed and registered for ever.
    pub fn leak(self) {
        #[expect(clippy::mem_forget, reason = "a peer may still use the memory")]
        std::mem::forget(self);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.resource.table().end(self.place);
    }
}

impl Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, Place { index, generation, .. }) = (self.address(), self.place);
        write!(f, "Lease({} bytes at {address:#x}, piece {index}.{generation})", self.len)
    }
}
