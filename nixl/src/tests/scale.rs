//! A process with much memory and many peers: registrations, metadata, the cost of our part.
//!
//! Eight devices of 64 GiB and a tebibyte of pinned memory, as addresses without memory, and 64
//! peers. The times are printed, and nothing depends on them:
//!
//! ```console
//! $ cargo test --release --lib scale -- --nocapture
//! ```

use std::time::{Duration, Instant};

use wharf::memory::{MemoryKind, MemoryResource, Piece, UnbackedResource, Wire, WiredResource};
use wharf::slab::{Block, PoolOptions, SlabPool};

use super::fake::{Fake, Shared, locked};
use crate::message::Message;
use crate::{Agent, NixlKey, NixlWire, RemoteBlock};

const GIB: usize = 1 << 30;
const DEVICES: i32 = 8;
const PEERS: usize = 64;
/// The pieces that pools take if their options do not say otherwise.
const PIECE: usize = 256 << 20;

/// Says of addresses without memory that they are memory of a kind.
struct As(NixlWire, MemoryKind, Option<i32>);

impl Wire for As {
    type Key = NixlKey;

    fn attach(&self, piece: &Piece) -> Result<NixlKey, wharf::Error> {
        self.0.attach(&self.seen(piece))
    }

    fn detach(&self, piece: &Piece, key: NixlKey) -> Result<(), wharf::Error> {
        self.0.detach(&self.seen(piece), key)
    }
}

impl As {
    fn seen(&self, piece: &Piece) -> Piece {
        let mut seen = *piece;
        (seen.kind, seen.ordinal) = (self.1, self.2);
        seen
    }
}

type Memory = SlabPool<WiredResource<UnbackedResource, As>>;

/// A pool that has committed all of its memory, and its blocks.
fn full(agent: &Agent, bytes: usize, kind: MemoryKind, ordinal: Option<i32>) -> (Memory, Blocks) {
    let (wire, memory) = (agent.wire(), UnbackedResource::new(bytes).unwrap());
    let region = wire.region();
    let wired = WiredResource::new(memory, As(wire, kind, ordinal));
    let options = PoolOptions::default().thread_cache_bytes(0);
    let pool = SlabPool::new(wired, options).unwrap();
    let registrations = pool.upstream().registrations().unwrap();
    agent.open(region, registrations.clone());
    let blocks: Vec<_> = (0..bytes / PIECE).map(|_| pool.alloc(PIECE).unwrap()).collect();
    let lease = registrations.lease(blocks[0].address(), 4096).unwrap();
    (pool, Blocks { blocks, name: region.name(lease.descriptor()) })
}

struct Blocks {
    blocks: Vec<Block>,
    name: RemoteBlock,
}

#[test]
fn registrations_and_metadata_grow_with_pieces_and_exports_do_not_grow_with_peers() {
    let network = Shared::default();
    let owner = Agent::with("owner", Fake::new("owner", &network));
    let start = Instant::now();
    let mut pools = vec![full(&owner, 1024 * GIB, MemoryKind::Pinned, None)];
    for ordinal in 0..DEVICES {
        pools.push(full(&owner, 64 * GIB, MemoryKind::Device, Some(ordinal)));
    }
    let filled = start.elapsed();
    let pieces = (1024 + 64 * 8) * GIB / PIECE;
    assert_eq!(owner.stats().registrations, pieces);
    let start = Instant::now();
    let metadata = owner.metadata().unwrap();
    let exported = start.elapsed();
    // Ours and, of this transport, 24 bytes a registration.
    assert!(metadata.len() <= pieces * (32 + 24) + 100, "{}", metadata.len());
    let (mut connected, mut granted) = (Duration::ZERO, Duration::ZERO);
    for number in 0..PEERS {
        let peer = Agent::with(&number.to_string(), Fake::new(&number.to_string(), &network));
        let start = Instant::now();
        peer.connect(&metadata).unwrap();
        owner.turn();
        connected += start.elapsed();
        // Asked by the peer's messages, since it has no memory to move.
        let asked = Message::Ask { id: 1, known: 0, blocks: vec![pools[0].1.name] };
        let asked = asked.to_bytes(peer.exchange.registry.instance);
        let start = Instant::now();
        locked(&network).inject(&number.to_string(), "owner", &asked);
        owner.turn();
        granted += start.elapsed();
    }
    assert_eq!((owner.peers().len(), owner.stats().granted), (PEERS, PEERS as u64));
    assert_eq!(owner.stats().exports, 1, "for all peers");
    for number in 0..PEERS {
        owner.forget(&number.to_string()).unwrap();
    }
    let start = Instant::now();
    // One piece of all stays: that of the leases.
    for (pool, Blocks { blocks, .. }) in pools {
        blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
        pool.trim(Duration::ZERO, 0);
    }
    let ended = start.elapsed();
    assert_eq!(owner.stats().registrations, 1);
    let each = |time: Duration, count: usize| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{pieces} registrations: {:.1} us each, {:.1} us their ends; metadata of {} bytes, ours {} \
         a piece, exported in {:.1} ms; a peer: {:.1} ms to connect, {:.0} us to be granted a \
         block with metadata",
        each(filled, pieces),
        each(ended, pieces),
        metadata.len(),
        32,
        exported.as_secs_f64() * 1e3,
        each(connected, PEERS) / 1e3,
        each(granted, PEERS),
    );
}
