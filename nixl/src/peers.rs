//! Metadata of peers: loaded, and replaced.

use crate::error::Error;
use crate::metadata::Metadata;
use crate::state::{Peer, State};
use crate::transport::Transport;

/// Takes in metadata of a peer, if it is newer than what is known.
///
/// NIXL adds it to what it knows, and keeps the first key that it had of an address. So metadata of
/// a later epoch, in which an address may have another key, replaces what is known: when no
/// transfer is posted, since that drops the connection.
pub(crate) fn learn(
    transport: &dyn Transport,
    state: &mut State,
    metadata: Metadata,
) -> Result<(), Error> {
    let name = metadata.name.clone();
    match state.peers.get_mut(&name) {
        Some(peer) => {
            if peer.metadata.instance != metadata.instance {
                return Err(Error::NameTaken { peer: name });
            }
            let newest = peer.pending.as_ref().unwrap_or(&peer.metadata);
            if newest.version >= metadata.version {
                return Ok(());
            }
            if peer.pending.is_some() || peer.metadata.epoch != metadata.epoch {
                peer.pending = Some(metadata);
                return Ok(());
            }
            load(transport, &metadata).inspect_err(|_| {
                state.peers.remove(&name);
            })?;
            if let Some(peer) = state.peers.get_mut(&name) {
                peer.metadata = metadata;
            }
        }
        None => {
            load(transport, &metadata)?;
            state.peers.insert(name, Peer { metadata, pending: None });
        }
    }
    Ok(())
}

/// Replaces what is known of peers that have newer metadata and no transfer under way.
pub(crate) fn renew(transport: &dyn Transport, state: &mut State) {
    let waiting = state.peers.iter().filter(|(_, peer)| peer.pending.is_some());
    let names: Vec<String> = waiting.map(|(name, _)| name.clone()).collect();
    for name in names.into_iter().filter(|name| !state.is_busy(name)).collect::<Vec<_>>() {
        let Some(peer) = state.peers.get_mut(&name) else { continue };
        let Some(metadata) = peer.pending.take() else { continue };
        let renewed = transport.unload(&name).and_then(|()| load(transport, &metadata));
        match renewed {
            Ok(()) => peer.metadata = metadata,
            // Its transfers end with the next step: the peer is unknown.
            Err(_) => {
                state.counts.failed += 1;
                state.peers.remove(&name);
            }
        }
    }
}

fn load(transport: &dyn Transport, metadata: &Metadata) -> Result<(), Error> {
    let name = transport.load(&metadata.blob)?;
    if name == metadata.name {
        return Ok(());
    }
    let _gone = transport.unload(&name);
    Err(Error::Malformed)
}
