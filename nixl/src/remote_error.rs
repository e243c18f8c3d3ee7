//! What a remote tier answers instead of an object.

use std::fmt;

use wharf::tier::TierError;

use crate::error::Error;

/// Why an object of a [`RemoteTier`](crate::RemoteTier) was not made, moved or found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteError {
    /// The object was in the peer's memory, and the peer is gone.
    Lost {
        /// The object's name.
        name: u64,
        /// The peer's name.
        peer: String,
    },
    /// No object has the name.
    Unknown {
        /// The name.
        name: u64,
    },
    /// An object has the name.
    Exists {
        /// The name.
        name: u64,
    },
    /// There is no room: here, for an object that would leave, at the peer, or at a peer that is
    /// gone.
    Full {
        /// The size that was asked for, in bytes.
        size: usize,
        /// Why no object has left, where one should have.
        cause: Option<Error>,
    },
    /// The pinned tier's memory is not registered with the agent, or a space of the peer's holds no
    /// granule of 2 MiB.
    Setup {
        /// Which of the two.
        reason: &'static str,
    },
    /// The pool of tiers refused.
    Tier(TierError),
}

impl From<TierError> for RemoteError {
    fn from(error: TierError) -> Self {
        Self::Tier(error)
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { name, peer } => write!(
                f,
                "object {name} is lost: it was in the memory of the peer {peer:?}, which is gone: \
                 make it again"
            ),
            Self::Unknown { name } => write!(f, "no object has the name {name}"),
            Self::Exists { name } => {
                write!(f, "an object has the name {name}: remove it, or take another")
            }
            Self::Full { size, cause: Some(cause) } => {
                write!(f, "no room for {size} bytes, and no object could leave: {cause}")
            }
            Self::Full { size, cause: None } => {
                write!(f, "no room for {size} bytes, here or at the peer: remove objects")
            }
            Self::Setup { reason } => f.write_str(reason),
            Self::Tier(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RemoteError {}
