//! What an exchange knows of its peers and transfers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use wharf::memory::{Lease, Registrations};

use crate::error::Error;
use crate::local::Local;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::region::{Region, RemoteBlock};
use crate::transport::{Operation, Request, Segment};

/// Everything behind the exchange's lock.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) peers: HashMap<String, Peer>,
    pub(crate) regions: HashMap<Region, Registrations>,
    /// Transfers that this agent has asked for and that have not ended, by number.
    pub(crate) transfers: BTreeMap<u64, Outgoing>,
    /// How those ended whose handle has not asked yet.
    pub(crate) ended: HashMap<u64, Result<(), Error>>,
    /// What peers were granted and have not ended: the leases of each.
    pub(crate) granted: HashMap<(String, u64), Vec<Lease>>,
    /// Messages of peers whose metadata has not come yet: a large message may be overtaken.
    pub(crate) early: Vec<(String, u64, Message)>,
    pub(crate) arrivals: VecDeque<Arrival>,
    pub(crate) next: u64,
    pub(crate) counts: Counts,
}

/// What an exchange has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) completed: u64,
    pub(crate) bytes: u64,
    pub(crate) failed: u64,
    pub(crate) granted: u64,
    pub(crate) refused: u64,
    pub(crate) leaked: u64,
    pub(crate) leaked_bytes: u64,
    pub(crate) malformed: u64,
}

/// A peer whose metadata was loaded.
pub(crate) struct Peer {
    pub(crate) metadata: Metadata,
    /// Of a later epoch: loaded when no transfer with the peer is posted, since loading it drops
    /// the connection.
    pub(crate) pending: Option<Metadata>,
}

/// A transfer that this agent has asked for.
pub(crate) struct Outgoing {
    pub(crate) peer: String,
    pub(crate) operation: Operation,
    pub(crate) locals: Vec<Local>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) remotes: Vec<RemoteBlock>,
    pub(crate) text: Vec<u8>,
    pub(crate) stage: Stage,
    /// Whether a handle will ask how it ended.
    pub(crate) is_awaited: bool,
}

/// How far a transfer is.
pub(crate) enum Stage {
    /// The peer was asked for leases.
    Asked,
    /// The peer has leased the blocks, and names them in metadata of at least this version.
    Granted(u64),
    /// The transport has it.
    Posted(Box<dyn Request>),
}

impl State {
    /// Whether the transport moves bytes to or from a peer.
    pub(crate) fn is_busy(&self, peer: &str) -> bool {
        self.transfers.values().any(|it| it.peer == peer && matches!(it.stage, Stage::Posted(_)))
    }

    /// Whether something is under way with a peer, known or not.
    pub(crate) fn has_part(&self, peer: &str) -> bool {
        self.transfers.values().any(|it| it.peer == peer)
            || self.granted.keys().any(|(of, _)| of == peer)
            || self.early.iter().any(|(of, ..)| of == peer)
    }

    /// Takes note of how a transfer ended that was taken from the list.
    pub(crate) fn end(&mut self, number: u64, is_awaited: bool, outcome: Result<(), Error>) {
        if is_awaited {
            self.ended.insert(number, outcome);
        }
    }

    /// Ends a transfer that the transport does not know of.
    pub(crate) fn end_unbegun(&mut self, number: u64, error: Error) {
        if let Some(it) = self.transfers.remove(&number) {
            self.end(number, it.is_awaited, Err(error));
            it.complete();
        }
    }
}

impl Outgoing {
    pub(crate) fn bytes(&self) -> u64 {
        self.locals.iter().map(|local| local.len() as u64).sum()
    }

    /// The error of a transfer that had begun.
    pub(crate) fn failed(&self, error: &Error) -> Error {
        let reason = match error {
            Error::Nixl { call, reason } => format!("{call}: {reason}"),
            other => other.to_string(),
        };
        Error::Failed { peer: self.peer.clone(), reason }
    }

    /// The blocks are their owners' again.
    pub(crate) fn complete(self) {
        self.locals.into_iter().for_each(Local::complete);
    }

    /// The transport may go on for ever: nothing that it uses is freed.
    pub(crate) fn leak(self, counts: &mut Counts) {
        counts.leaked += self.locals.len() as u64;
        counts.leaked_bytes += self.bytes();
        self.locals.into_iter().for_each(Local::leak);
        if let Stage::Posted(request) = self.stage {
            #[expect(clippy::mem_forget, reason = "its end would cancel what may be under way")]
            std::mem::forget(request);
        }
    }
}

/// What came from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// The peer's name.
    pub peer: String,
    /// What the peer has sent along.
    pub message: Arc<[u8]>,
    /// Whether it came with a transfer: all its bytes have been read or written, and the blocks are
    /// no longer leased to the peer.
    pub is_transfer: bool,
}
