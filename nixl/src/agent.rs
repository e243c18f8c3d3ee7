//! One process's part in transfers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf::memory::Registrations;

use crate::error::Error;
use crate::exchange::Exchange;
use crate::home::Home;
use crate::local::Local;
use crate::message::Message;
use crate::nixl::Nixl;
use crate::options::AgentOptions;
use crate::region::{Region, RemoteBlock};
use crate::registry::{NixlWire, Registry};
use crate::state::Arrival;
use crate::transfer::{Transfer, pause};
use crate::transport::{Operation, Transport};

/// A NIXL agent that registers wharf's memory and moves blocks of it between processes.
///
/// It may be shared between threads. Dropped, it leaks what transfers and peers may still use.
///
/// A forked child has no use of it: each call is [`Error::Forked`] there, and drops end nothing.
#[derive(Debug)]
pub struct Agent {
    pub(crate) exchange: Arc<Exchange>,
}

impl Agent {
    /// Makes an agent and its backend.
    ///
    /// `name` names this process to its peers: different from theirs, and from that of any process
    /// which they have known. A process that has taken its predecessor's name is heard when its
    /// peers have [forgotten](Self::forget) that one.
    ///
    /// # Errors
    ///
    /// * [`Error::Library`]: NIXL is not installed, or is not found.
    /// * [`Error::Nixl`]: NIXL refused, such as a backend that it has not.
    pub fn new(name: &str, options: &AgentOptions) -> Result<Self, Error> {
        Ok(Self::with(name, Arc::new(Nixl::new(name, options)?)))
    }

    pub(crate) fn with(name: &str, transport: Arc<dyn Transport>) -> Self {
        let transport: Arc<dyn Transport> = Arc::new(Home::new(transport));
        let registry = Arc::new(Registry::new(name, Arc::clone(&transport)));
        Self { exchange: Arc::new(Exchange::new(transport, registry)) }
    }

    /// What registers a resource's memory with this agent: one for each
    /// [`WiredResource`](wharf::memory::WiredResource).
    pub fn wire(&self) -> NixlWire {
        NixlWire::new(&self.exchange.registry)
    }

    /// Lets peers transfer to and from a region: `registrations` are those of the pool whose
    /// resource has the region's wire.
    ///
    /// The agent keeps the pool's memory until [`close`](Self::close), or its end.
    pub fn open(&self, region: Region, registrations: Registrations) {
        self.exchange.open(region, registrations);
    }

    /// Admits no further transfer to or from a region. Those that were admitted go on.
    pub fn close(&self, region: Region) {
        self.exchange.close(region);
    }

    /// What a peer passes to [`connect`](Self::connect). Exported anew only where pieces have
    /// changed since the last time.
    ///
    /// Peers are sent later metadata with the answers to their transfers, when they need it.
    ///
    /// # Errors
    ///
    /// [`Error::Nixl`]: NIXL refused.
    pub fn metadata(&self) -> Result<Vec<u8>, Error> {
        Ok(self.exchange.registry.metadata()?.1.to_vec())
    }

    /// Takes in a peer's metadata, and sends it this agent's. Returns the peer's name.
    ///
    /// One of two peers does so; the other hears of it when it [polls](Self::poll).
    ///
    /// # Errors
    ///
    /// * [`Error::Malformed`]: the bytes are not metadata.
    /// * [`Error::NameTaken`]: another process is known by that name, alive or not.
    /// * [`Error::Nixl`]: NIXL refused, such as where the peer cannot be reached.
    pub fn connect(&self, metadata: &[u8]) -> Result<String, Error> {
        self.exchange.connect(metadata)
    }

    /// The peers whose metadata is loaded; none in a forked child.
    pub fn peers(&self) -> Vec<String> {
        if self.exchange.check().is_err() {
            return Vec::new();
        }
        self.exchange.state().peers.keys().cloned().collect()
    }

    /// Writes blocks of this process to blocks of a peer's, which is sent `message` when all bytes
    /// are there.
    ///
    /// The device has to be past what wrote the local blocks.
    ///
    /// # Errors
    ///
    /// The local blocks are their owners' again then.
    ///
    /// * [`Error::UnknownPeer`], [`Error::NoBlocks`], [`Error::Length`], [`Error::MixedKinds`]: the
    ///   arguments.
    /// * [`Error::Nixl`]: NIXL refused.
    pub fn write(
        &self,
        peer: &str,
        pairs: Vec<(Local, RemoteBlock)>,
        message: &[u8],
    ) -> Result<Transfer, Error> {
        self.begin(Operation::Write, peer, pairs, message)
    }

    /// Reads blocks of a peer's into blocks of this process. The peer is sent `message` when all
    /// bytes are here.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn read(
        &self,
        peer: &str,
        pairs: Vec<(Local, RemoteBlock)>,
        message: &[u8],
    ) -> Result<Transfer, Error> {
        self.begin(Operation::Read, peer, pairs, message)
    }

    fn begin(
        &self,
        operation: Operation,
        peer: &str,
        pairs: Vec<(Local, RemoteBlock)>,
        message: &[u8],
    ) -> Result<Transfer, Error> {
        let id = self.exchange.begin(operation, peer, pairs, message)?;
        Ok(Transfer::new(Arc::clone(&self.exchange), id, peer))
    }

    /// Sends a message without a transfer.
    ///
    /// # Errors
    ///
    /// * [`Error::UnknownPeer`]: the peer's metadata is not loaded.
    /// * [`Error::Nixl`]: NIXL refused.
    pub fn send(&self, peer: &str, message: &[u8]) -> Result<(), Error> {
        self.exchange.check()?;
        let state = self.exchange.state();
        if !state.peers.contains_key(peer) {
            return Err(Error::UnknownPeer { peer: peer.to_owned() });
        }
        self.exchange.send(peer, &Message::Text { text: message.to_vec() })
    }

    /// Answers what peers ask, goes on with all transfers, and returns the next message that has
    /// come. Does not wait.
    ///
    /// A peer's transfer waits for such a call, or for a wait of a transfer of this agent's.
    ///
    /// # Errors
    ///
    /// [`Error::Nixl`]: NIXL refused to say what has come.
    pub fn poll(&self) -> Result<Option<Arrival>, Error> {
        self.exchange.progress()?;
        Ok(self.exchange.state().arrivals.pop_front())
    }

    /// Polls until a message has come, for at most `limit`; `None` then.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    pub fn next(&self, limit: Duration) -> Result<Option<Arrival>, Error> {
        let (start, mut turns) = (Instant::now(), 0);
        loop {
            if let Some(arrival) = self.poll()? {
                return Ok(Some(arrival));
            }
            if start.elapsed() >= limit {
                return Ok(None);
            }
            turns += 1;
            pause(turns);
        }
    }

    /// Ends all that a peer has part in, for one whose process has ended or that does not answer.
    /// Returns how many blocks that leaks, on this side: those that a transfer of either side may
    /// still use. Also for a peer that is not known any more, since its metadata could not be
    /// loaded.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownPeer`].
    pub fn forget(&self, peer: &str) -> Result<usize, Error> {
        self.exchange.forget(peer)
    }

    /// What the agent holds and has done; nothing in a forked child.
    pub fn stats(&self) -> AgentStats {
        if self.exchange.check().is_err() {
            return AgentStats::default();
        }
        let registry = self.exchange.registry.stats();
        let state = self.exchange.state();
        let counts = state.counts;
        AgentStats {
            registrations: registry.pieces,
            exports: registry.exports,
            metadata_bytes: registry.metadata_bytes,
            transfers: state.transfers.len(),
            completed: counts.completed,
            bytes: counts.bytes,
            failed: counts.failed,
            leases: state.granted.values().map(Vec::len).sum(),
            granted: counts.granted,
            refused: counts.refused,
            leaked: counts.leaked,
            leaked_bytes: counts.leaked_bytes,
            malformed: counts.malformed,
        }
    }
}

/// What an agent holds and has done. Sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentStats {
    /// Pieces that are registered.
    pub registrations: usize,
    /// How often metadata was exported.
    pub exports: u64,
    /// The size of what was exported last.
    pub metadata_bytes: usize,
    /// Transfers of this agent's that have not ended.
    pub transfers: usize,
    /// Transfers of this agent's that are complete.
    pub completed: u64,
    /// What those have moved.
    pub bytes: u64,
    /// Transfers that failed when they had begun, and answers that could not be sent.
    pub failed: u64,
    /// Blocks that are leased to peers.
    pub leases: usize,
    /// Transfers that peers were granted.
    pub granted: u64,
    /// Transfers that peers were refused.
    pub refused: u64,
    /// Blocks that were leaked.
    pub leaked: u64,
    /// Their size.
    pub leaked_bytes: u64,
    /// Messages that were none of this crate's, or of another process with a known peer's name, or
    /// that fit nothing.
    pub malformed: u64,
}
