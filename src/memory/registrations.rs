//! The pieces of a resource as transports and engines ask for them.

use std::fmt;
use std::sync::Arc;

use super::budget::Share;
use super::descriptor::Descriptor;
use super::lease::{Attached, Lease};
use super::wire::Piece;
use crate::address::to_usize;
use crate::lockfree::piece_word::PieceFault;

/// The pieces of a resource that a [`Wire`](super::Wire) has registered.
///
/// Cheap to clone, and keeps the resource alive. May be used from any thread. From
/// [`MemoryResource::registrations`](super::MemoryResource::registrations), or a pool's method of
/// that name.
#[derive(Clone, Debug)]
pub struct Registrations(Arc<dyn Attached>);

impl Registrations {
    pub(super) fn new(resource: Arc<dyn Attached>) -> Self {
        Self(resource)
    }

    /// Keeps the account of a budget open until the resource ends, which leases may put off.
    pub(super) fn count_against(&self, share: &Arc<Share>) {
        self.0.count_against(share);
    }

    /// The pieces that are registered at this moment, by address.
    pub fn pieces(&self) -> Vec<Piece> {
        self.0.table().all().map(|place| self.0.piece(place)).collect()
    }

    /// The piece around an address, and where in it the address is. In constant time.
    pub fn piece_at(&self, address: u64) -> Option<(Piece, usize)> {
        let offset = to_usize(address.checked_sub(self.0.base())?);
        let place = self.0.table().find(offset)?;
        Some((self.0.piece(place), offset - place.offset))
    }

    /// Keeps `len` bytes from an address on committed and registered while the result lives.
    ///
    /// # Errors
    ///
    /// * [`LeaseError::NotRegistered`]: no piece is there.
    /// * [`LeaseError::OutOfPiece`]: the range leaves the piece, and no transport could use it as
    ///   one.
    /// * [`LeaseError::TooMany`].
    pub fn lease(&self, address: u64, len: usize) -> Result<Lease, LeaseError> {
        let (piece, offset) =
            self.piece_at(address).ok_or(LeaseError::NotRegistered { address })?;
        self.admit(Descriptor {
            piece: piece.index,
            generation: piece.generation,
            offset: offset as u64,
            len: len as u64,
        })
    }

    /// Keeps the memory that a peer has named committed and registered while the result lives.
    ///
    /// # Errors
    ///
    /// * [`LeaseError::Stale`]: that memory was decommitted, whatever is there now.
    /// * [`LeaseError::OutOfPiece`]: the range leaves the piece.
    /// * [`LeaseError::TooMany`].
    pub fn admit(&self, descriptor: Descriptor) -> Result<Lease, LeaseError> {
        let Descriptor { piece, generation, offset, len } = descriptor;
        let place = self.0.table().lease(piece, generation).map_err(|fault| match fault {
            PieceFault::Stale(current) => LeaseError::Stale { piece, generation, current },
            _ => LeaseError::TooMany { piece },
        })?;
        // The lease's end is the end of this, also on the way out.
        let end = offset.checked_add(len);
        let fits = end.is_some_and(|end| end <= place.len as u64);
        let (at, bytes) = if fits { (to_usize(offset), to_usize(len)) } else { (0, 0) };
        let lease = Lease::new(&self.0, place, at, bytes);
        let size = place.len;
        if fits { Ok(lease) } else { Err(LeaseError::OutOfPiece { offset, len, size }) }
    }

    /// How many leases hold a piece; 0 for one that is gone.
    pub fn leases(&self, piece: &Piece) -> u32 {
        let place = self.0.table().at(piece.index);
        let place = place.filter(|place| place.generation == piece.generation);
        place.map_or(0, |place| self.0.table().leases(place))
    }
}

/// Why memory could not be leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseError {
    /// No registered piece is at the address.
    NotRegistered {
        /// The address.
        address: u64,
    },
    /// The piece of that generation was decommitted.
    Stale {
        /// The index of the piece.
        piece: u32,
        /// The generation that was asked for.
        generation: u32,
        /// The generation of the piece that is there now; 0 if there is none.
        current: u32,
    },
    /// The range leaves its piece.
    OutOfPiece {
        /// Where the range begins in the piece, in bytes.
        offset: u64,
        /// Its length, in bytes.
        len: u64,
        /// The length of the piece, in bytes.
        size: usize,
    },
    /// The piece has as many leases as can be counted: 2^30 - 1.
    TooMany {
        /// The index of the piece.
        piece: u32,
    },
}

impl fmt::Display for LeaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRegistered { address } => write!(
                f,
                "no registered memory is at {address:#x}: lease memory of a pool whose resource \
                 is a WiredResource, while it is allocated"
            ),
            Self::Stale { piece, generation, current } => {
                write!(f, "generation {generation} of piece {piece} was decommitted")?;
                match current {
                    0 => f.write_str(", and nothing is there now")?,
                    _ => write!(f, ", and generation {current} is there now")?,
                }
                f.write_str(": ask the owner for a new descriptor")
            }
            Self::OutOfPiece { offset, len, size } => write!(
                f,
                "{len} bytes from {offset} on leave a piece of {size} bytes: split the transfer, \
                 or set PoolOptions::blocks_in_pieces"
            ),
            Self::TooMany { piece } => {
                write!(f, "piece {piece} has 2^30 - 1 leases: end leases whose transfers are done")
            }
        }
    }
}

impl std::error::Error for LeaseError {}
