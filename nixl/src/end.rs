//! Ends: of a peer's part, and of an exchange. What may still be used is leaked.

use std::collections::HashMap;
use std::sync::PoisonError;

use wharf::memory::Lease;

use crate::error::Error;
use crate::exchange::Exchange;
use crate::message::Message;
use crate::state::Stage;

impl Exchange {
    /// Ends all that a peer has part in. Returns how many blocks that leaks, of both directions.
    pub(crate) fn forget(&self, name: &str) -> Result<usize, Error> {
        self.check()?;
        let mut state = self.state();
        let unknown = || Error::UnknownPeer { peer: name.to_owned() };
        // Metadata that could not be loaded makes a peer unknown, and it has leases all the same.
        if state.peers.remove(name).is_none() && !state.has_part(name) {
            return Err(unknown());
        }
        let mut leaked = 0;
        let of_peer = state.transfers.iter().filter(|(_, it)| it.peer == name);
        for id in of_peer.map(|(id, _)| *id).collect::<Vec<_>>() {
            let is_posted =
                state.transfers.get(&id).is_some_and(|it| matches!(it.stage, Stage::Posted(_)));
            if !is_posted {
                state.end_unbegun(id, unknown());
                continue;
            }
            let Some(it) = state.transfers.remove(&id) else { continue };
            let reason = "the peer was forgotten".to_owned();
            let error = Error::Failed { peer: name.to_owned(), reason };
            state.end(id, it.is_awaited, Err(error));
            leaked += it.locals.len();
            it.leak(&mut state.counts);
        }
        let (gone, kept) =
            std::mem::take(&mut state.granted).into_iter().partition(|(key, _)| key.0 == name);
        state.granted = kept;
        let gone: HashMap<(String, u64), Vec<Lease>> = gone;
        for lease in gone.into_values().flatten() {
            leaked += 1;
            state.counts.leaked += 1;
            state.counts.leaked_bytes += lease.len() as u64;
            lease.leak();
        }
        state.early.retain(|(peer, ..)| peer != name);
        // The connection may be broken, and then has nothing to drop.
        let _gone = self.transport.unload(name);
        Ok(leaked)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut state = std::mem::take(state);
        for (id, it) in std::mem::take(&mut state.transfers) {
            if matches!(it.stage, Stage::Posted(_)) {
                it.leak(&mut state.counts);
            } else {
                let _sent = self.send(&it.peer, &Message::Cancel { id });
                it.complete();
            }
        }
        // Peers may still use what they were granted.
        state.granted.into_values().flatten().for_each(Lease::leak);
    }
}
