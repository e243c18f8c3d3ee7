//! A transport within this process, which keeps the rules that NIXL keeps, and fails on demand.
//!
//! What it takes in of a peer it adds to what it knows, and keeps the first key of an address; a
//! transfer with a key that its owner has ended fails.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::Error;
use crate::transport::{Operation, Place, Plan, Registration, Request, Segment, Transport};

/// The wires between the agents of a test.
#[derive(Default)]
pub(super) struct Network {
    inboxes: HashMap<String, Vec<(String, Vec<u8>)>>,
    /// Live registrations of each agent, by key.
    live: HashMap<String, HashMap<u64, Segment>>,
    next: u64,
    pub(super) registered: u64,
    pub(super) ended: u64,
    /// Handles of registrations that are gone: NIXL's end theirs then.
    pub(super) freed: u64,
    pub(super) loads: u64,
    pub(super) unloads: u64,
    /// The calls that are refused from now on.
    pub(super) refuses: HashSet<&'static str>,
    /// Whether transfers that are posted do not end.
    pub(super) is_held: bool,
}

pub(super) type Shared = Arc<Mutex<Network>>;

pub(super) fn locked(network: &Shared) -> MutexGuard<'_, Network> {
    network.lock().unwrap()
}

impl Network {
    fn check(&self, call: &'static str) -> Result<(), Error> {
        let refused = self.refuses.contains(call);
        if refused { Err(Error::nixl(call, "refused by the test")) } else { Ok(()) }
    }

    /// Puts bytes into an inbox, as any program could.
    pub(super) fn inject(&mut self, from: &str, to: &str, bytes: &[u8]) {
        let inbox = self.inboxes.entry(to.to_owned()).or_default();
        inbox.push((from.to_owned(), bytes.to_vec()));
    }

    /// Takes the oldest message of an inbox to its end.
    pub(super) fn reorder(&mut self, of: &str) {
        self.inboxes.entry(of.to_owned()).or_default().rotate_left(1);
    }
}

/// Keys, by address and length.
type Keys = HashMap<(u64, usize), u64>;

/// One agent's end.
pub(super) struct Fake {
    name: String,
    network: Shared,
    /// The keys that are known of each peer.
    known: Mutex<HashMap<String, Keys>>,
}

impl Fake {
    pub(super) fn new(name: &str, network: &Shared) -> Arc<Self> {
        let (name, network) = (name.to_owned(), Arc::clone(network));
        Arc::new(Self { name, network, known: Mutex::default() })
    }
}

impl Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Transport for Fake {
    fn register(&self, segment: Segment) -> Result<Box<dyn Registration>, Error> {
        let mut network = locked(&self.network);
        network.check("register")?;
        network.next += 1;
        network.registered += 1;
        let key = network.next;
        network.live.entry(self.name.clone()).or_default().insert(key, segment);
        let (name, network) = (self.name.clone(), Arc::clone(&self.network));
        Ok(Box::new(Registered { name, network, key }))
    }

    fn metadata(&self) -> Result<Vec<u8>, Error> {
        let mut network = locked(&self.network);
        network.check("metadata")?;
        let mut blob = vec![u8::try_from(self.name.len()).unwrap()];
        blob.extend_from_slice(self.name.as_bytes());
        for (key, segment) in network.live.entry(self.name.clone()).or_default() {
            for word in [*key, segment.address, segment.len as u64] {
                blob.extend_from_slice(&word.to_le_bytes());
            }
        }
        Ok(blob)
    }

    fn load(&self, metadata: &[u8]) -> Result<String, Error> {
        let mut network = locked(&self.network);
        network.check("load")?;
        network.loads += 1;
        let (name, keys) = metadata[1..].split_at(usize::from(metadata[0]));
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut known = self.known.lock().unwrap();
        let of_peer = known.entry(name.clone()).or_default();
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        for it in keys.chunks_exact(24) {
            let place = (word(&it[8..16]), usize::try_from(word(&it[16..])).unwrap());
            of_peer.entry(place).or_insert(word(&it[..8]));
        }
        Ok(name)
    }

    fn unload(&self, peer: &str) -> Result<(), Error> {
        locked(&self.network).unloads += 1;
        self.known.lock().unwrap().remove(peer);
        Ok(())
    }

    fn notify(&self, peer: &str, message: &[u8]) -> Result<(), Error> {
        let mut network = locked(&self.network);
        network.check("notify")?;
        network.inject(&self.name, peer, message);
        Ok(())
    }

    fn notifications(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut network = locked(&self.network);
        network.check("notifications")?;
        Ok(network.inboxes.remove(&self.name).unwrap_or_default())
    }

    fn prepare(&self, plan: &Plan<'_>) -> Result<Box<dyn Request>, Error> {
        locked(&self.network).check("prepare")?;
        let known = self.known.lock().unwrap();
        let mut copies = Vec::new();
        for (local, remote) in plan.local.iter().zip(plan.remote) {
            assert_eq!(local.len, remote.len);
            let end = remote.address + remote.len as u64;
            let around = |(address, len): (u64, usize)| {
                address <= remote.address && end <= address + len as u64
            };
            let of_peer = &known[plan.peer];
            let key = of_peer.iter().find(|(place, _)| around(**place)).map(|(_, key)| *key);
            copies.push((*local, *remote, key.ok_or(Error::nixl("prepare", "no key"))?));
        }
        let (name, peer) = (self.name.clone(), plan.peer.to_owned());
        let (network, operation) = (Arc::clone(&self.network), plan.operation);
        let notification = plan.notification.to_vec();
        Ok(Box::new(Copying { name, peer, network, operation, copies, notification }))
    }
}

struct Registered {
    name: String,
    network: Shared,
    key: u64,
}

impl Registration for Registered {
    fn end(self: Box<Self>) -> Result<(), Error> {
        let mut network = locked(&self.network);
        network.check("end")?;
        network.ended += 1;
        network.live.entry(self.name.clone()).or_default().remove(&self.key);
        Ok(())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        locked(&self.network).freed += 1;
    }
}

struct Copying {
    name: String,
    peer: String,
    network: Shared,
    operation: Operation,
    copies: Vec<(Segment, Segment, u64)>,
    notification: Vec<u8>,
}

impl Request for Copying {
    fn post(&mut self) -> Result<bool, Error> {
        locked(&self.network).check("post")?;
        Ok(false)
    }

    fn poll(&mut self) -> Result<bool, Error> {
        let mut network = locked(&self.network);
        network.check("poll")?;
        if network.is_held {
            return Ok(false);
        }
        for (local, remote, key) in &self.copies {
            assert_eq!((local.place, remote.place), (Place::Host, Place::Host));
            let live = network.live.get(&self.peer).is_some_and(|live| live.contains_key(key));
            if !live {
                return Err(Error::nixl("poll", "the key has ended"));
            }
            let (from, to) = match self.operation {
                Operation::Write => (local.address, remote.address),
                Operation::Read => (remote.address, local.address),
            };
            copy(from, to, local.len);
        }
        network.inject(&self.name, &self.peer, &self.notification);
        Ok(true)
    }
}

#[expect(unsafe_code, reason = "moves bytes by address, as a transport does")]
fn copy(from: u64, to: u64, len: usize) {
    let address = |number: u64| usize::try_from(number).unwrap();
    let from = std::ptr::with_exposed_provenance::<u8>(address(from));
    let to = std::ptr::with_exposed_provenance_mut::<u8>(address(to));
    // SAFETY: both are leased pinned memory of at least `len` bytes, in different blocks.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
}
