//! What the crate asks of a transport: NIXL, or what stands in for it in the crate's own tests.

use std::fmt::Debug;

use wharf::memory::{MemoryKind, Piece};

use crate::error::Error;

/// Registers memory and moves bytes. Its calls are not reentrant, and an [`Exchange`] makes all but
/// `register` and the ends of registrations under its lock.
///
/// [`Exchange`]: crate::exchange::Exchange
pub(crate) trait Transport: Debug + Send + Sync {
    /// Returns whether the calling process may call at all: a forked child may not.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Registers a range of committed memory.
    fn register(&self, segment: Segment) -> Result<Box<dyn Registration>, Error>;

    /// What peers need to reach this process and the memory that is registered.
    fn metadata(&self) -> Result<Vec<u8>, Error>;

    /// Takes in a peer's metadata, in addition to what is known of that peer. Returns its name.
    fn load(&self, metadata: &[u8]) -> Result<String, Error>;

    /// Drops what is known of a peer, and the connection to it.
    fn unload(&self, peer: &str) -> Result<(), Error>;

    /// Sends bytes. Does not wait for the peer.
    fn notify(&self, peer: &str, message: &[u8]) -> Result<(), Error>;

    /// What peers have sent since the last call.
    fn notifications(&self) -> Result<Vec<(String, Vec<u8>)>, Error>;

    /// Makes a transfer ready. When it is complete the peer is notified.
    fn prepare(&self, plan: &Plan<'_>) -> Result<Box<dyn Request>, Error>;
}

/// A range that is registered.
pub(crate) trait Registration: Send {
    /// Ends it. The transport does not use the range after.
    fn end(self: Box<Self>) -> Result<(), Error>;
}

/// A transfer.
pub(crate) trait Request: Send {
    /// Begins it. Returns whether it is complete.
    fn post(&mut self) -> Result<bool, Error>;

    /// Returns whether it is complete.
    fn poll(&mut self) -> Result<bool, Error>;
}

/// What a transfer does.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) peer: &'a str,
    pub(crate) operation: Operation,
    pub(crate) local: &'a [Segment],
    pub(crate) remote: &'a [Segment],
    /// Sent to the peer when all bytes are there.
    pub(crate) notification: &'a [u8],
}

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// From here to the peer.
    Write,
    /// From the peer to here.
    Read,
}

/// A range of memory, here or at a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) len: usize,
    pub(crate) place: Place,
}

/// Which memory a range is of, as far as transports tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Host,
    /// The device with an ordinal.
    Device(u32),
}

impl Place {
    /// The place of a piece; `None` for memory that no transport can register.
    pub(crate) fn of(piece: &Piece) -> Option<Self> {
        match piece.kind {
            MemoryKind::Device => piece.ordinal?.try_into().ok().map(Self::Device),
            MemoryKind::Pinned | MemoryKind::WriteCombined | MemoryKind::FileMapped => {
                Some(Self::Host)
            }
            _ => None,
        }
    }

    /// Whether transfers may have both in one list.
    pub(crate) fn is_like(self, other: Self) -> bool {
        matches!((self, other), (Self::Host, Self::Host) | (Self::Device(_), Self::Device(_)))
    }
}
