//! The pieces that are registered at this moment, and what peers are told of it.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf::memory::{Piece, Wire};

use crate::error::Error;
use crate::metadata::Metadata;
use crate::region::Region;
use crate::transport::{Place, Registration, Segment, Transport};

/// The pieces of all regions of an agent.
#[derive(Debug)]
pub(crate) struct Registry {
    name: String,
    pub(crate) instance: u64,
    transport: Arc<dyn Transport>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    regions: u32,
    version: u64,
    epoch: u64,
    pieces: BTreeMap<(Region, u32), (Piece, Place)>,
    /// The metadata of the version that was exported last.
    exported: Option<(u64, Arc<[u8]>)>,
    exports: u64,
}

/// What a registry has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RegistryStats {
    pub(crate) pieces: usize,
    pub(crate) exports: u64,
    pub(crate) metadata_bytes: usize,
}

impl Registry {
    pub(crate) fn new(name: &str, transport: Arc<dyn Transport>) -> Self {
        // Version 0 is that of a peer which knows nothing.
        let book = Mutex::new(Book { version: 1, ..Book::default() });
        Self { name: name.to_owned(), instance: instance(), transport, book }
    }

    /// The number of a new region.
    pub(crate) fn region(&self) -> Region {
        let mut book = self.book();
        book.regions += 1;
        Region(book.regions - 1)
    }

    /// Whether peers find a piece of a region where it is.
    pub(crate) fn lists(&self, region: Region, piece: &Piece) -> bool {
        let book = self.book();
        let is_it = |it: &Piece| (it.generation, it.address) == (piece.generation, piece.address);
        book.pieces.get(&(region, piece.index)).is_some_and(|(listed, _)| is_it(listed))
    }

    /// The metadata and its version: exported anew only where pieces have changed.
    ///
    /// What holds leases when it calls finds their pieces in it.
    pub(crate) fn metadata(&self) -> Result<(u64, Arc<[u8]>), Error> {
        self.transport.check()?;
        let (version, metadata) = {
            let book = self.book();
            match &book.exported {
                Some((version, bytes)) if *version == book.version => {
                    return Ok((*version, Arc::clone(bytes)));
                }
                _ => (book.version, book.metadata(&self.name, self.instance)),
            }
        };
        // Without the lock, since pieces come and go meanwhile. One that has come since is in the
        // transport's part and in no list; one that has gone is not leased.
        let blob = self.transport.metadata()?;
        let bytes: Arc<[u8]> = Metadata { blob, ..metadata }.to_bytes().into();
        let mut book = self.book();
        book.exports += 1;
        book.exported = Some((version, Arc::clone(&bytes)));
        Ok((version, bytes))
    }

    pub(crate) fn stats(&self) -> RegistryStats {
        let book = self.book();
        RegistryStats {
            pieces: book.pieces.len(),
            exports: book.exports,
            metadata_bytes: book.exported.as_ref().map_or(0, |(_, bytes)| bytes.len()),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Its changes are whole under any panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn metadata(&self, name: &str, instance: u64) -> Metadata {
        let mut metadata = Metadata {
            name: name.to_owned(),
            instance,
            version: self.version,
            epoch: self.epoch,
            pieces: BTreeMap::new(),
            blob: Vec::new(),
        };
        for ((region, _), (piece, place)) in &self.pieces {
            metadata.add(*region, piece, *place);
        }
        metadata
    }
}

/// A number that no other agent has. std draws the keys of its hash maps at random.
fn instance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Registers what a [`WiredResource`](wharf::memory::WiredResource) commits with an agent's NIXL.
///
/// Made by [`Agent::wire`](crate::Agent::wire), one for each resource. It keeps NIXL alive, and not
/// the agent. A wire of your own around it does not call the agent: blocks may end in the agent's
/// calls.
pub struct NixlWire {
    region: Region,
    registry: Arc<Registry>,
}

impl NixlWire {
    pub(crate) fn new(registry: &Arc<Registry>) -> Self {
        Self { region: registry.region(), registry: Arc::clone(registry) }
    }

    /// The region that the resource's memory is.
    pub fn region(&self) -> Region {
        self.region
    }
}

impl Wire for NixlWire {
    type Key = NixlKey;

    fn attach(&self, piece: &Piece) -> Result<NixlKey, wharf::Error> {
        let refused = |code| wharf::Error::Transport { call: "nixlAgent::registerMem", code };
        let place = Place::of(piece).ok_or(refused(KIND))?;
        let segment = Segment { address: piece.address, len: piece.len, place };
        let registered = self.registry.transport.register(segment);
        let key = NixlKey(registered.map_err(|_| refused(BACKEND))?);
        // Behind the registration: a version that lists the piece has its key.
        let mut book = self.registry.book();
        book.version += 1;
        book.pieces.insert((self.region, piece.index), (*piece, place));
        Ok(key)
    }

    fn detach(&self, piece: &Piece, key: NixlKey) -> Result<(), wharf::Error> {
        // Ahead of the end, so that no metadata lists a piece without a key.
        self.registry.book().pieces.remove(&(self.region, piece.index));
        let refused = wharf::Error::Transport { call: "nixlAgent::deregisterMem", code: BACKEND };
        let ended = key.0.end().map_err(|_| refused);
        // Behind the end: what was exported until then has the old key, which peers drop with the
        // epoch. Until then the piece has no lease, so that peers name it in vain.
        let mut book = self.registry.book();
        book.version += 1;
        book.epoch += 1;
        ended
    }
}

impl Debug for NixlWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NixlWire").field("region", &self.region).finish_non_exhaustive()
    }
}

/// A piece's registration with NIXL.
pub struct NixlKey(Box<dyn Registration>);

impl Debug for NixlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NixlKey")
    }
}

/// `NIXL_ERR_BACKEND`: what NIXL's log says more of.
const BACKEND: i32 = -3;

/// `NIXL_ERR_NOT_SUPPORTED`: managed memory, and addresses without memory.
const KIND: i32 = -9;
