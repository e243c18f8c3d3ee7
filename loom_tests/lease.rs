//! Leases on registered pieces: against trims, against growth into the same place, against ends.

use super::Guarded;
use super::machine::{self, Machine};
use super::model;
use super::upstream::{BASE, GRANULE, Upstream, class};
use crate::error::Error;
use crate::memory::{
    Descriptor, MemoryResource, Piece, Registrations, UnbackedResource, Wire, WiredResource,
};
use crate::pool::{Buffer, Pool};
use crate::slab::geometry::Geometry;
use crate::slab::space::PiecePolicy;
use crate::slab::span::PoolSpan;
use crate::slab::store::Store;
use crate::slab::trim::{TrimPolicy, Trimmed};
use crate::slab::{PoolOptions, SlabPool};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;
use softcuda::Schedule;
use std::time::Duration;

/// A transport with room for one registration, which a transfer reads under a lease.
struct Transport {
    registration: Guarded,
    registered: AtomicUsize,
}

impl Transport {
    fn new() -> Arc<Self> {
        Arc::new(Self { registration: Guarded::new(1), registered: AtomicUsize::new(0) })
    }
}

/// The resource's share of it.
struct Tap(Arc<Transport>);

impl Wire for Tap {
    type Key = ();

    fn attach(&self, _: &Piece) -> Result<(), Error> {
        self.0.registration.own(0);
        assert_eq!(self.0.registered.fetch_add(1, Relaxed), 0, "two registrations of one place");
        Ok(())
    }

    fn detach(&self, _: &Piece, (): ()) -> Result<(), Error> {
        self.0.registration.own(0);
        self.0.registered.fetch_sub(1, Relaxed);
        Ok(())
    }
}

type Wired = WiredResource<Upstream, Tap>;

/// A store of one granule, and what it is registered with.
struct Scene {
    store: Store<Wired>,
    transport: Arc<Transport>,
}

impl Scene {
    fn new() -> Arc<Self> {
        let transport = Transport::new();
        let upstream = WiredResource::new(Upstream::new(1, 1), Tap(transport.clone()));
        let geometry = Geometry::new(BASE, GRANULE, GRANULE, 1);
        let policy =
            PiecePolicy { fixed: Some(1), most: 1, inside_pieces: true, grows_down: false };
        let store = Store::new(PoolSpan::new(upstream), geometry, GRANULE, policy).unwrap();
        Arc::new(Self { store, transport })
    }

    fn alloc(&self) -> Option<u64> {
        let reserved = self.store.acquire(class(GRANULE), 1, || false).ok()?;
        Some(self.store.collect_one(reserved))
    }

    fn free(&self, block: u64) {
        self.store.free_batch(class(GRANULE), &mut [block]);
    }

    fn trim(&self) -> Trimmed {
        self.store.trim(TrimPolicy { now: 0, idle: 0, keep: 0 })
    }

    fn registrations(&self) -> Registrations {
        self.store.span.resource().registrations().unwrap()
    }

    /// A transfer to memory that a peer has named, if that is still there.
    fn transfer(&self, descriptor: Descriptor) -> bool {
        let Ok(lease) = self.registrations().admit(descriptor) else { return false };
        self.transport.registration.share(0);
        drop(lease);
        true
    }

    fn descriptor(&self, block: u64) -> Descriptor {
        self.registrations().lease(block, 1).unwrap().descriptor()
    }
}

/// A transfer of a peer's takes place while the memory that it names is trimmed.
#[test]
fn lease_against_trim() {
    model("lease_against_trim", || {
        let scene = Scene::new();
        let block = scene.alloc().unwrap();
        let descriptor = scene.descriptor(block);
        let other = scene.clone();
        let thread = thread::spawn(move || other.transfer(descriptor));
        scene.free(block);
        let early = scene.trim();
        let admitted = thread.join().unwrap();
        assert!(admitted || early.released == GRANULE, "refused while the memory is there");
        assert_eq!(early.released + early.leased, GRANULE);
        assert_eq!(early.released + scene.trim().released, GRANULE);
        assert_eq!(scene.transport.registered.load(Relaxed), 0);
        assert!(!scene.transfer(descriptor), "a transfer to what was decommitted");
    });
}

/// The last block of a piece is freed and the piece trimmed while another thread grows into its
/// place: a peer of the old piece is refused there, one of the new is not.
#[test]
fn lease_attach_against_last_free() {
    model("lease_attach_against_last_free", || {
        let scene = Scene::new();
        let block = scene.alloc().unwrap();
        let old = scene.descriptor(block);
        let other = scene.clone();
        let thread = thread::spawn(move || {
            let block = other.alloc();
            if let Some(block) = block {
                // As the registration of whatever piece it lies in.
                let new = other.descriptor(block);
                assert!(other.transfer(new), "refused while a block keeps the piece");
                other.free(block);
            }
        });
        scene.free(block);
        scene.trim();
        // Whatever piece is there now, by what a look finds.
        if let Some((piece, _)) = scene.registrations().piece_at(BASE) {
            let (piece, generation) = (piece.index, piece.generation);
            scene.transfer(Descriptor { piece, generation, offset: 0, len: 1 });
            // The first piece may be there still, and nothing that is there later is that piece.
            let is_admitted = scene.transfer(old);
            assert!(!is_admitted || generation == old.generation, "an old peer in a new piece");
        }
        thread.join().unwrap();
        assert_eq!(scene.trim().leased, 0);
        assert_eq!(scene.transport.registered.load(Relaxed), 0);
    });
}

/// A pool ends while a transfer takes place: its memory goes with the last of the two.
#[test]
fn lease_against_pool_end() {
    machine::model("lease_against_pool_end", || {
        let transport = Transport::new();
        let memory = UnbackedResource::new(4 * BLOCK).unwrap();
        let memory = WiredResource::new(memory, Tap(transport.clone()));
        let options = PoolOptions::default().thread_cache_bytes(0).piece_bytes(BLOCK);
        let pool = SlabPool::new(memory, options).unwrap();
        let block = pool.alloc(BLOCK).unwrap();
        let lease = pool.upstream().registrations().unwrap().lease(block.address(), 1).unwrap();
        pool.dealloc(block).unwrap();
        let other = transport.clone();
        let thread = machine::spawn(move || {
            other.registration.share(0);
            drop(lease);
        });
        drop(pool);
        thread.join().unwrap();
        assert_eq!(transport.registered.load(Relaxed), 0);
    });
}

/// The size of the only block of a stream pool.
const BLOCK: usize = 2 << 20;

/// A transfer is completed on one thread while another drops the buffer and asks for its block: it
/// gets it after the transfer, and the memory is decommitted after both.
#[test]
fn export_complete_against_drop() {
    machine::model("export_complete_against_drop", || {
        let machine = Machine::new(Schedule::Eager);
        let stream = machine.stream();
        let transport = Transport::new();
        let memory = UnbackedResource::new(4 * BLOCK).unwrap();
        let memory = WiredResource::new(memory, Tap(transport.clone()));
        let slabs = PoolOptions::default().thread_cache_bytes(0).piece_bytes(BLOCK);
        let builder = Pool::builder().slabs(slabs).max_bytes(BLOCK);
        let builder = builder.wait(Duration::ZERO).keep_idle(Duration::MAX);
        let pool = builder.build(memory).unwrap();
        let bytes = Arc::new(Guarded::new(1));
        let buffer: Buffer<u8> = pool.alloc(BLOCK, &stream).unwrap();
        let exported = buffer.export().unwrap();
        let other = bytes.clone();
        let thread = machine::spawn(move || {
            // What a peer writes.
            other.own(0);
            exported.complete();
        });
        drop(buffer);
        let again = pool.alloc::<u8>(BLOCK, &stream);
        if again.is_ok() {
            bytes.own(0);
        }
        drop(again);
        thread.join().unwrap();
        assert!(pool.alloc::<u8>(BLOCK, &stream).is_ok(), "the block has not come back");
        pool.trim(Duration::ZERO, 0);
        pool.trim(Duration::ZERO, 0);
        assert_eq!(transport.registered.load(Relaxed), 0);
    });
}
