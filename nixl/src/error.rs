//! What an agent and its transfers answer instead of a result.

use std::fmt;
use std::time::Duration;

use wharf::memory::LeaseError;

/// Why an agent was not made, or a transfer did not take place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// `libnixl_capi.so` could not be opened.
    Library,
    /// NIXL refused a call.
    Nixl {
        /// The call.
        call: &'static str,
        /// What NIXL answered.
        reason: String,
    },
    /// Bytes that no agent of this crate's version has exported.
    Malformed,
    /// A forked child called, which has neither its parent's threads nor its connections.
    Forked,
    /// Another process has the name of a peer that is known.
    NameTaken {
        /// The name.
        peer: String,
    },
    /// The peer's metadata was never loaded, or the peer was forgotten.
    UnknownPeer {
        /// The peer's name.
        peer: String,
    },
    /// A transfer of no blocks.
    NoBlocks,
    /// A local and a remote block of different lengths.
    Length {
        /// Which pair of the transfer.
        index: usize,
        /// The length of the local block, in bytes.
        local: usize,
        /// The length of the remote block, in bytes.
        remote: u64,
    },
    /// The blocks of one side are not all of the device, or not all of the host.
    MixedKinds,
    /// The peer did not admit a block, and nothing was transferred.
    Refused {
        /// The peer's name.
        peer: String,
        /// Which pair of the transfer.
        index: usize,
        /// Why.
        reason: Refusal,
    },
    /// The transfer had not ended within the limit. It goes on, and keeps its blocks.
    TimedOut {
        /// The peer's name.
        peer: String,
        /// The limit.
        limit: Duration,
        /// Whether the peer had admitted the blocks.
        admitted: bool,
    },
    /// NIXL reported that the transfer failed. Its blocks are leaked: the peer may still use them.
    Failed {
        /// The peer's name.
        peer: String,
        /// What NIXL answered.
        reason: String,
    },
}

/// Why a peer did not admit a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The memory cannot be leased; most often it was decommitted since.
    Lease(LeaseError),
    /// The peer has not opened such a region, or has closed it.
    NoRegion {
        /// The number of the region.
        region: u32,
    },
}

impl Error {
    /// What a call of NIXL's answered.
    pub(crate) fn nixl(call: &'static str, reason: impl fmt::Display) -> Self {
        Self::Nixl { call, reason: reason.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library => f.write_str(
                "libnixl_capi.so cannot be opened: install NIXL, such as the wheel nixl-cu12, and \
                 add its libraries to LD_LIBRARY_PATH",
            ),
            Self::Nixl { call, reason } => {
                write!(f, "{call}: {reason}: NIXL_LOG_LEVEL=DEBUG and UCX_LOG_LEVEL=info say more")
            }
            Self::Malformed => f.write_str(
                "the bytes are not metadata of an agent: pass what Agent::metadata returned, whole",
            ),
            Self::Forked => f.write_str(
                "a forked child called an agent of its parent's, which has its threads and \
                 connections: make an agent in the child, after it has executed a program",
            ),
            Self::NameTaken { peer } => write!(
                f,
                "another process is known as {peer:?}: give each agent a name of its own, or \
                 forget the peer if its process has ended"
            ),
            Self::UnknownPeer { peer } => write!(
                f,
                "no metadata of the peer {peer:?} is loaded: pass its metadata to Agent::connect"
            ),
            Self::NoBlocks => f.write_str("a transfer of no blocks: name at least one pair"),
            Self::Length { index, local, remote } => write!(
                f,
                "pair {index} has {local} bytes here and {remote} at the peer: export as many"
            ),
            Self::MixedKinds => f.write_str(
                "one side's blocks are of the host and of the device: make a transfer of each",
            ),
            Self::Refused { peer, index, reason } => {
                write!(f, "the peer {peer:?} refused block {index}: {reason}")
            }
            Self::TimedOut { peer, limit, admitted } => {
                let stage = if *admitted { "its bytes are under way" } else { "it has no answer" };
                write!(
                    f,
                    "a transfer with the peer {peer:?} has not ended after {limit:?}, {stage}: \
                     wait again, or forget the peer, which leaks the blocks"
                )
            }
            Self::Failed { peer, reason } => write!(
                f,
                "a transfer with the peer {peer:?} failed: {reason}. Its blocks are leaked; \
                 forget the peer if its process has ended"
            ),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(error) => error.fmt(f),
            Self::NoRegion { region } => {
                write!(f, "region {region} is not open there: the peer calls Agent::open")
            }
        }
    }
}

impl std::error::Error for Error {}
