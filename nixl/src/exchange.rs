//! Transfers and messages of one agent: asks, answers, posts, ends.
//!
//! Nothing runs in the background: what peers ask is answered, and what the transport has done is
//! noticed, in [`Exchange::progress`], which every wait calls.
//!
//! One lock is held for all of it, so calls of the transport's are not concurrent. The registry's
//! lock is taken inside it and never the other way round: a commit or decommit of a pool takes the
//! registry's only.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf::memory::{Lease, Registrations};

use crate::error::{Error, Refusal};
use crate::local::Local;
use crate::message::Message;
use crate::metadata::Metadata;
use crate::peers;
use crate::region::{Region, RemoteBlock};
use crate::registry::Registry;
use crate::segments::{one_kind, segments};
use crate::state::{Arrival, Outgoing, Stage, State};
use crate::transport::{Operation, Plan, Segment, Transport};

/// The protocol between an agent and its peers.
pub(crate) struct Exchange {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) state: Mutex<State>,
}

impl Exchange {
    pub(crate) fn new(transport: Arc<dyn Transport>, registry: Arc<Registry>) -> Self {
        Self { transport, registry, state: Mutex::default() }
    }

    /// Ahead of the lock, which a thread that a forked child lacks may hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.transport.check()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Its changes are whole under any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, region: Region, registrations: Registrations) {
        if self.check().is_err() {
            return;
        }
        let before = self.state().regions.insert(region, registrations);
        // Without the lock, as below.
        drop(before);
    }

    pub(crate) fn close(&self, region: Region) {
        if self.check().is_err() {
            return;
        }
        let closed = self.state().regions.remove(&region);
        // Without the lock: it may be the end of the pool's memory.
        drop(closed);
    }

    /// Loads a peer's metadata and sends it this agent's.
    pub(crate) fn connect(&self, bytes: &[u8]) -> Result<String, Error> {
        self.check()?;
        let metadata = Metadata::from_bytes(bytes)?;
        let (name, mut state) = (metadata.name.clone(), self.state());
        let is_new = !state.peers.contains_key(&name);
        self.learn(&mut state, metadata)?;
        let (_, own) = self.registry.metadata()?;
        let hello = Message::Hello { metadata: own.to_vec() };
        if let Err(error) = self.send(&name, &hello) {
            if is_new {
                state.peers.remove(&name);
                let _gone = self.transport.unload(&name);
            }
            return Err(error);
        }
        Ok(name)
    }

    pub(crate) fn send(&self, peer: &str, message: &Message) -> Result<(), Error> {
        self.transport.notify(peer, &message.to_bytes(self.registry.instance))
    }

    /// Asks a peer for leases of its side of the pairs. An error ends no block's use: they are
    /// their owners' again.
    pub(crate) fn begin(
        &self,
        operation: Operation,
        peer: &str,
        pairs: Vec<(Local, RemoteBlock)>,
        text: &[u8],
    ) -> Result<u64, Error> {
        let (locals, remotes): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        match self.ask(peer, &locals, &remotes) {
            Ok((mut state, number, segments)) => {
                let (peer, text, stage) = (peer.to_owned(), text.to_vec(), Stage::Asked);
                let is_awaited = true;
                let it = Outgoing {
                    peer,
                    operation,
                    locals,
                    segments,
                    remotes,
                    text,
                    stage,
                    is_awaited,
                };
                state.transfers.insert(number, it);
                Ok(number)
            }
            Err(error) => {
                locals.into_iter().for_each(Local::complete);
                Err(error)
            }
        }
    }

    fn ask(
        &self,
        peer: &str,
        locals: &[Local],
        remotes: &[RemoteBlock],
    ) -> Result<(MutexGuard<'_, State>, u64, Vec<Segment>), Error> {
        self.check()?;
        let segments = segments(locals, remotes)?;
        let mut state = self.state();
        let unknown = || Error::UnknownPeer { peer: peer.to_owned() };
        let Some(of_peer) = state.peers.get(peer) else { return Err(unknown()) };
        let newest = of_peer.pending.as_ref().unwrap_or(&of_peer.metadata);
        let (id, known) = (state.next, newest.version);
        self.send(peer, &Message::Ask { id, known, blocks: remotes.to_vec() })?;
        state.next += 1;
        Ok((state, id, segments))
    }

    /// Hears what peers have sent, and goes on with all transfers. Does not wait.
    pub(crate) fn progress(&self) -> Result<(), Error> {
        self.check()?;
        let mut state = self.state();
        for (peer, bytes) in self.transport.notifications()? {
            match Message::from_bytes(&bytes) {
                Some((instance, message)) => self.hear(&mut state, peer, instance, message),
                None => state.counts.malformed += 1,
            }
        }
        self.renew(&mut state);
        self.advance(&mut state);
        Ok(())
    }

    fn hear(&self, state: &mut State, peer: String, instance: u64, message: Message) {
        let known = state.peers.get(&peer).map(|it| it.metadata.instance);
        if known.is_some_and(|known| known != instance) {
            // What another process of that name asks or grants is not the peer's.
            state.counts.malformed += 1;
            return;
        }
        match message {
            Message::Hello { metadata } => {
                match self.learn_of(state, &peer, instance, &metadata) {
                    Ok(()) => {}
                    Err(Error::Malformed) => return state.counts.malformed += 1,
                    Err(_) => return state.counts.failed += 1,
                }
                let (now, later): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut state.early).into_iter().partition(|it| it.0 == peer);
                state.early = later;
                now.into_iter().for_each(|(peer, of, message)| self.hear(state, peer, of, message));
            }
            Message::Ask { .. } if known.is_none() && state.early.len() < MOST_EARLY => {
                state.early.push((peer, instance, message));
            }
            Message::Ask { id, known, blocks } => self.answer(state, peer, id, known, &blocks),
            Message::Granted { id, version, metadata } => {
                self.granted(state, &peer, instance, (id, version), &metadata);
            }
            Message::Refused { id, index, reason } => {
                let asked = |it: &Outgoing| it.peer == peer && matches!(it.stage, Stage::Asked);
                if !state.transfers.get(&id).is_some_and(asked) {
                    return;
                }
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                state.end_unbegun(id, Error::Refused { peer, index, reason });
            }
            Message::Done { id, text } => match state.granted.remove(&(peer.clone(), id)) {
                Some(leases) => {
                    drop(leases);
                    let message = text.into();
                    state.arrivals.push_back(Arrival { peer, message, is_transfer: true });
                }
                None => state.counts.malformed += 1,
            },
            Message::Cancel { id } => {
                let is_of =
                    |message: &Message| matches!(message, Message::Ask { id: of, .. } if *of == id);
                state.early.retain(|(from, _, message)| *from != peer || !is_of(message));
                drop(state.granted.remove(&(peer, id)));
            }
            Message::Text { text } => {
                let message = text.into();
                state.arrivals.push_back(Arrival { peer, message, is_transfer: false });
            }
        }
    }

    /// Admits all blocks that a peer asks for, or none.
    fn answer(&self, state: &mut State, peer: String, id: u64, known: u64, blocks: &[RemoteBlock]) {
        let key = (peer.clone(), id);
        if state.granted.contains_key(&key) || !state.peers.contains_key(&peer) {
            // Leases of an earlier transfer are not given up for one of the same number.
            state.counts.malformed += 1;
            return;
        }
        let leases = self.admit(state, blocks);
        // After the leases: the metadata names their pieces.
        let answer = match (&leases, self.registry.metadata()) {
            (Err((index, reason)), _) => {
                let index = u32::try_from(*index).unwrap_or(u32::MAX);
                Message::Refused { id, index, reason: *reason }
            }
            (Ok(_), Ok((version, bytes))) => {
                let metadata = if version == known { Vec::new() } else { bytes.to_vec() };
                Message::Granted { id, version, metadata }
            }
            // The asker's limit ends its wait.
            (Ok(_), Err(_)) => {
                state.counts.failed += 1;
                return;
            }
        };
        // A granted lease is kept also where the answer may not have left: that is not known.
        state.counts.failed += u64::from(self.send(&peer, &answer).is_err());
        match leases {
            Ok(leases) => {
                state.counts.granted += 1;
                state.granted.insert(key, leases);
            }
            Err(_) => state.counts.refused += 1,
        }
    }

    /// Leases of all blocks, or which one is refused and why.
    fn admit(&self, state: &State, blocks: &[RemoteBlock]) -> Result<Vec<Lease>, (usize, Refusal)> {
        let lease = |block: &RemoteBlock| {
            let none = Refusal::NoRegion { region: block.region.0 };
            let registrations = state.regions.get(&block.region).ok_or(none)?;
            let lease = registrations.admit(block.descriptor).map_err(Refusal::Lease)?;
            // A region that was opened with another pool's registrations names other memory.
            let is_listed = self.registry.lists(block.region, &lease.piece());
            if is_listed { Ok(lease) } else { Err(none) }
        };
        let leases = blocks.iter().enumerate();
        leases.map(|(index, block)| lease(block).map_err(|reason| (index, reason))).collect()
    }

    fn granted(
        &self,
        state: &mut State,
        peer: &str,
        instance: u64,
        (id, version): (u64, u64),
        metadata: &[u8],
    ) {
        let asked = |it: &Outgoing| it.peer == peer && matches!(it.stage, Stage::Asked);
        if !state.transfers.get(&id).is_some_and(asked) {
            // Cancelled meanwhile: the message about that is on its way.
            return;
        }
        if !metadata.is_empty()
            && let Err(error) = self.learn_of(state, peer, instance, metadata)
        {
            return self.cancel(state, id, error);
        }
        if let Some(it) = state.transfers.get_mut(&id) {
            it.stage = Stage::Granted(version);
        }
    }

    /// Takes in metadata that a peer has sent: its own, and no other's.
    fn learn_of(
        &self,
        state: &mut State,
        peer: &str,
        instance: u64,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let metadata = Metadata::from_bytes(bytes)?;
        if (&*metadata.name, metadata.instance) != (peer, instance) {
            return Err(Error::Malformed);
        }
        self.learn(state, metadata)
    }

    /// Takes in metadata of a peer, if it is newer than what is known.
    fn learn(&self, state: &mut State, metadata: Metadata) -> Result<(), Error> {
        peers::learn(&*self.transport, state, metadata)
    }

    /// Loads what could not be loaded while transfers were under way.
    fn renew(&self, state: &mut State) {
        peers::renew(&*self.transport, state);
    }

    /// Goes on with each transfer that has been granted or posted.
    fn advance(&self, state: &mut State) {
        let ids: Vec<u64> = state.transfers.keys().copied().collect();
        for id in ids {
            let Some(it) = state.transfers.get_mut(&id) else { continue };
            let outcome = match &mut it.stage {
                Stage::Asked => continue,
                Stage::Granted(version) => {
                    let version = *version;
                    self.post(state, id, version)
                }
                Stage::Posted(request) => request.poll().map_err(|error| it.failed(&error)),
            };
            match outcome {
                Ok(false) => {}
                Ok(true) => {
                    let Some(it) = state.transfers.remove(&id) else { continue };
                    state.counts.completed += 1;
                    state.counts.bytes += it.bytes();
                    state.end(id, it.is_awaited, Ok(()));
                    it.complete();
                }
                Err(error) => {
                    let Some(it) = state.transfers.remove(&id) else { continue };
                    state.counts.failed += 1;
                    state.end(id, it.is_awaited, Err(error));
                    it.leak(&mut state.counts);
                }
            }
        }
    }

    /// Posts a transfer that the peer has granted, when its metadata is loaded. Returns whether it
    /// is complete; an error is one of a transfer that may be under way.
    fn post(&self, state: &mut State, id: u64, version: u64) -> Result<bool, Error> {
        let Some(it) = state.transfers.get(&id) else { return Ok(false) };
        let Some(peer) = state.peers.get(&it.peer) else {
            let peer = it.peer.clone();
            self.cancel(state, id, Error::UnknownPeer { peer });
            return Ok(false);
        };
        if peer.pending.is_some() || peer.metadata.version < version {
            return Ok(false);
        }
        let found: Option<Vec<_>> = it.remotes.iter().map(|it| peer.metadata.find(it)).collect();
        let notification = Message::Done { id, text: it.text.clone() };
        let notification = notification.to_bytes(self.registry.instance);
        let prepared = found.ok_or(Error::Malformed).and_then(|remote| {
            one_kind(&remote)?;
            self.transport.prepare(&Plan {
                peer: &it.peer,
                operation: it.operation,
                local: &it.segments,
                remote: &remote,
                notification: &notification,
            })
        });
        let mut request = match prepared {
            Ok(request) => request,
            Err(error) => {
                self.cancel(state, id, error);
                return Ok(false);
            }
        };
        let posted = request.post();
        let Some(it) = state.transfers.get_mut(&id) else { return Ok(false) };
        it.stage = Stage::Posted(request);
        posted.map_err(|error| it.failed(&error))
    }

    /// Ends a transfer that has not begun, and lets the peer end its leases.
    pub(crate) fn cancel(&self, state: &mut State, id: u64, error: Error) {
        if let Some(it) = state.transfers.get(&id) {
            // Where it is lost, the peer keeps its leases.
            let _sent = self.send(&it.peer, &Message::Cancel { id });
        }
        state.end_unbegun(id, error);
    }
}

impl Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// How many messages are kept of peers that have not introduced themselves.
const MOST_EARLY: usize = 1024;
