#![expect(unsafe_code, reason = "a peer writes by bare addresses")]
//! Peers that hold old descriptors, and leases that keep memory for them.
//!
//! nixl#1126, #2027, #2051, dynamo#13059, pegaflow#403: a peer uses memory that its owner has
//! deregistered, and decommitted, or uses again.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf::memory::{
    Descriptor, LeaseError, MemoryResource, PinnedMemoryResource, PinnedOptions, Registrations,
    UnbackedResource,
};
use wharf::slab::{Block, PoolOptions};
use wharf::{Context, Driver};

use super::rig::{GIB, MIB, Recorder, WiredPool, registrations, wired};
use crate::backend::on_each_driver;
use crate::memory_kinds::{context_of, host_bytes};

on_each_driver!(
    a_leased_piece_is_not_trimmed_and_a_late_write_hits_nothing_else,
    a_descriptor_from_before_a_recommit_is_refused,
    memory_that_is_leased_outlives_its_pool,
);

const PIECE: usize = 4 * MIB;

fn pinned(context: &Context, recorder: &Arc<Recorder>) -> WiredPool<PinnedMemoryResource> {
    let memory = PinnedMemoryResource::new(context, GIB, PinnedOptions::default()).unwrap();
    let options = PoolOptions::default().piece_bytes(PIECE).thread_cache_bytes(0);
    wired(memory, recorder, options.max_bytes(2 * PIECE))
}

/// Writes as a peer does that was given an address once (`process_vm_writev`, as UCX's CMA).
fn peer_writes(address: u64, bytes: &[u8]) -> bool {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let base = std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap());
    let remote = libc::iovec { iov_base: base, iov_len: bytes.len() };
    let own = std::process::id().cast_signed();
    // SAFETY: the kernel checks both ranges; the remote one is memory that the test has leased.
    let written =
        unsafe { libc::process_vm_writev(own, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(written).is_ok_and(|written| written == bytes.len())
}

/// What a receiver does with a message that says "write here": it asks for a lease first.
fn receive(
    registrations: &Registrations,
    descriptor: Descriptor,
    bytes: &[u8],
) -> Result<(), LeaseError> {
    let lease = registrations.admit(descriptor)?;
    assert!(peer_writes(lease.address(), bytes));
    Ok(())
}

/// As large as a piece: the piece is free when the block is.
fn whole<R: MemoryResource + 'static>(pool: &WiredPool<R>) -> Block {
    pool.alloc(PIECE).unwrap()
}

fn a_leased_piece_is_not_trimmed_and_a_late_write_hits_nothing_else(driver: &Driver) {
    let (context, recorder) = (context_of(driver), Recorder::new());
    let pool = pinned(&context, &recorder);
    let registrations = registrations(&pool);
    let block = whole(&pool);
    let lease = registrations.lease(block.address(), 64).unwrap();
    let address = lease.address();
    pool.dealloc(block).unwrap();
    let trimmed = pool.trim(Duration::ZERO, 0);
    assert_eq!(
        (trimmed.released, trimmed.leased, trimmed.lost, trimmed.error),
        (0, PIECE, 0, None)
    );
    // The peer is late; its memory is there, and registered.
    assert!(peer_writes(address, &[7; 64]) && recorder.covers(address, 64));
    assert_eq!(host_bytes(address, 64), [7; 64]);
    drop(lease);
    let trimmed = pool.trim(Duration::ZERO, 0);
    assert_eq!((trimmed.released, trimmed.leased), (PIECE, 0));
    assert!(!peer_writes(address, &[7; 64]), "decommitted");
}

fn a_descriptor_from_before_a_recommit_is_refused(driver: &Driver) {
    let (context, recorder) = (context_of(driver), Recorder::new());
    let pool = pinned(&context, &recorder);
    let registrations = registrations(&pool);
    let block = whole(&pool);
    let address = block.address();
    let old = registrations.lease(address, 64).unwrap().descriptor();
    receive(&registrations, old, &[1; 64]).unwrap();
    assert_eq!(host_bytes(address, 64), [1; 64]);
    pool.dealloc(block).unwrap();
    assert_eq!(pool.trim(Duration::ZERO, 0).released, PIECE);
    let gone = receive(&registrations, old, &[2; 64]).unwrap_err();
    assert!(matches!(gone, LeaseError::Stale { current: 0, .. }), "{gone}");
    // The lowest granule is reused first: the same address.
    let block = whole(&pool);
    assert_eq!(block.address(), address);
    let before = host_bytes(address, 64);
    let stale = receive(&registrations, old, &[3; 64]).unwrap_err();
    assert_eq!(stale, LeaseError::Stale { piece: old.piece, generation: 1, current: 2 });
    assert_eq!(host_bytes(address, 64), before, "nothing is overwritten");
    let new = registrations.lease(address, 64).unwrap().descriptor();
    receive(&registrations, new, &[4; 64]).unwrap();
    // Whatever a message says.
    for (offset, len) in [(0, u64::MAX), (u64::MAX, 2), (PIECE as u64, 1), (1, PIECE as u64)] {
        let error = registrations.admit(Descriptor { offset, len, ..new }).unwrap_err();
        assert!(matches!(error, LeaseError::OutOfPiece { .. }), "{error}");
    }
    for piece in [new.piece + 1, u32::MAX] {
        let error = registrations.admit(Descriptor { piece, ..new }).unwrap_err();
        assert!(matches!(error, LeaseError::Stale { current: 0, .. }), "{error}");
    }
    assert!(registrations.admit(Descriptor { generation: 0, ..new }).is_err());
    pool.dealloc(block).unwrap();
}

fn memory_that_is_leased_outlives_its_pool(driver: &Driver) {
    let (context, recorder) = (context_of(driver), Recorder::new());
    let pool = pinned(&context, &recorder);
    let blocks = [whole(&pool), whole(&pool)];
    let lease = registrations(&pool).lease(blocks[1].address(), 64).unwrap();
    for block in blocks {
        pool.dealloc(block).unwrap();
    }
    drop(pool);
    assert_eq!(recorder.live(), [lease.piece()], "the piece that is leased, and no other");
    assert!(peer_writes(lease.address(), &[9; 64]));
    drop(lease);
    assert!(recorder.live().is_empty());
    assert_eq!(context.drop_errors(), 0);
}

/// At its limit a pool gives free pieces back to commit another; a leased one is not among them.
#[test]
fn a_pool_that_makes_room_passes_over_what_is_leased() {
    let recorder = Recorder::new();
    let options = PoolOptions::default().piece_bytes(PIECE).thread_cache_bytes(0);
    let memory = UnbackedResource::new(GIB).unwrap();
    let pool = wired(memory, &recorder, options.max_bytes(3 * PIECE));
    let registrations = registrations(&pool);
    let blocks = [whole(&pool), whole(&pool), whole(&pool)];
    let highest = blocks.iter().map(Block::address).max().unwrap();
    let lease = registrations.lease(highest, 1).unwrap();
    for block in blocks {
        pool.dealloc(block).unwrap();
    }
    // Two pieces' worth in one: all but the leased one have to go.
    let large = pool.alloc(2 * PIECE).unwrap();
    assert!(recorder.covers(large.address(), 2 * PIECE) && recorder.covers(highest, PIECE));
    assert!(pool.alloc(PIECE + MIB).is_err(), "more than is free in the leased piece");
    // The leased piece is memory of the pool as before.
    let block = whole(&pool);
    assert_eq!(block.address(), highest);
    pool.dealloc(block).unwrap();
    pool.dealloc(large).unwrap();
    drop(lease);
    assert_eq!(pool.trim(Duration::ZERO, 0).released, 3 * PIECE);
}

/// Leases come and go on two threads while two others allocate, free and trim.
#[test]
fn leases_and_trims_at_the_same_time_leave_the_account_balanced() {
    let recorder = Recorder::new();
    let options = PoolOptions::default().piece_bytes(PIECE).thread_cache_bytes(0);
    let memory = UnbackedResource::new(GIB).unwrap();
    let pool = wired(memory, &recorder, options.max_bytes(8 * PIECE));
    let registrations = registrations(&pool);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..300 {
                    for piece in registrations.pieces() {
                        let Ok(lease) = registrations.lease(piece.address, 1) else { continue };
                        assert!(recorder.covers(lease.address(), 1), "{lease:?}");
                    }
                }
            });
            scope.spawn(|| {
                for round in 0..300 {
                    let blocks = [pool.alloc(MIB), pool.alloc(PIECE)];
                    for block in blocks.into_iter().flatten() {
                        pool.dealloc(block).unwrap();
                    }
                    if round % 3 == 0 {
                        assert_eq!(pool.trim(Duration::ZERO, 0).lost, 0);
                    }
                }
            });
        }
    });
    pool.trim(Duration::ZERO, 0);
    let book = recorder.book();
    assert_eq!((book.live.len(), book.attached), (0, book.detached));
}
