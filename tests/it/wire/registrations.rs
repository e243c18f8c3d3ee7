#![expect(unsafe_code, reason = "makes a call that captures forbid")]
//! How many registrations there are, where they end, and how a piece is found.

use std::sync::Arc;
use std::time::Duration;

use wharf::graph::{CaptureMode, CaptureScope};
use wharf::memory::{
    DeviceMemoryResource, LeaseError, MemoryKind, MemoryResource, Piece, PinnedMemoryResource,
    PinnedOptions, UnbackedResource, Wire, WiredResource,
};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{AllocError, Block, PoolOptions, SlabPool};
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Driver, Error, Stream};

use super::rig::{GIB, MIB, Random, Recorder, registrations, wired};
use crate::backend::on_each_driver;
use crate::memory_kinds::context_of;

on_each_driver!(
    a_transport_is_called_with_the_context_current_beside_a_capture,
    every_block_of_a_stream_pool_lies_in_one_registration,
    a_tier_whose_resource_is_wired_is_registered,
);

/// Allocates blocks of random sizes until the pool is full, checks where they lie, and frees them.
fn fill(random: &mut Random, recorder: &Recorder, pool: &super::rig::WiredPool<UnbackedResource>) {
    let mut blocks = Vec::new();
    loop {
        let size = MIB + random.size(28);
        match pool.alloc(size) {
            Ok(block) => {
                assert!(recorder.covers(block.address(), size), "{block:?} of {size}");
                blocks.push(block);
            }
            Err(AllocError::Exhausted(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    // Every other one, and then the rest: what is free is in pieces that are not all free.
    let (odd, even): (Vec<_>, Vec<_>) =
        blocks.into_iter().enumerate().partition(|(i, _)| i % 2 > 0);
    for (_, block) in odd {
        pool.dealloc(block).unwrap();
    }
    pool.trim(Duration::ZERO, 0);
    for (_, block) in even {
        assert!(recorder.covers(block.address(), MIB));
        pool.dealloc(block).unwrap();
    }
}

/// qmcpack#5557 (65,530 segments), nixl#1392, nixl#77: a registration for each small commit.
#[test]
fn qmcpack_5557_64_gib_are_at_most_256_registrations() {
    let recorder = Recorder::new();
    let options = PoolOptions::default().thread_cache_bytes(0);
    let pool = wired(UnbackedResource::new(64 * GIB).unwrap(), &recorder, options);
    let mut random = Random(11);
    let mut most = 0;
    for _ in 0..2 {
        fill(&mut random, &recorder, &pool);
        most = most.max(recorder.book().live.len());
    }
    let whole: Vec<Block> = std::iter::from_fn(|| pool.alloc(16 * MIB).ok()).collect();
    assert_eq!(pool.upstream().upstream().committed(), 64 * GIB);
    let count = recorder.book().live.len();
    println!("64 GiB: {count} registrations, {most} with blocks of 1 to 257 MiB");
    assert!(count <= 256 && most <= 256, "{count}, {most}");
    for block in whole {
        pool.dealloc(block).unwrap();
    }
    assert_eq!(pool.trim(Duration::ZERO, 0).released, 64 * GIB);
    let book = recorder.book();
    assert!(book.live.is_empty() && book.attached == book.detached, "{}", book.attached);
    drop(book);
    drop(pool);
}

#[test]
fn what_a_pool_still_has_is_detached_at_its_end() {
    let recorder = Recorder::new();
    let pool = wired(UnbackedResource::new(GIB).unwrap(), &recorder, PoolOptions::default());
    let block = pool.alloc(3 * MIB).unwrap();
    pool.dealloc(block).unwrap();
    assert_eq!(recorder.live().len(), 1);
    drop(pool);
    let book = recorder.book();
    assert_eq!((book.live.len(), book.attached, book.detached), (0, 1, 1));
}

#[test]
fn a_piece_is_found_by_each_address_in_it() {
    let recorder = Recorder::new();
    let options = PoolOptions::default().piece_bytes(4 * MIB);
    let pool = wired(UnbackedResource::new(GIB).unwrap(), &recorder, options);
    let blocks = [1, 3, 9].map(|mib| pool.alloc(mib * MIB).unwrap());
    let registrations = registrations(&pool);
    assert_eq!(registrations.pieces(), recorder.live());
    for piece in registrations.pieces() {
        let last = piece.len - 1;
        for offset in [0, 1, 2 * MIB, last] {
            let found = registrations.piece_at(piece.address + offset as u64);
            assert_eq!(found, Some((piece, offset)));
        }
        assert_eq!((piece.kind, piece.generation), (MemoryKind::Unbacked, 1));
        let end = piece.address + piece.len as u64;
        let outside = registrations.lease(end - 2, 3).unwrap_err();
        assert!(matches!(outside, LeaseError::OutOfPiece { len: 3, .. }), "{outside}");
        assert_eq!(registrations.leases(&piece), 0, "a lease that was refused is none");
    }
    let (base, size) = (pool.upstream().base(), pool.upstream().size() as u64);
    for address in [0, base - 1, base + size - 1, base + size, u64::MAX] {
        assert_eq!(registrations.piece_at(address), None, "{address:#x}");
        let error = registrations.lease(address, 1).unwrap_err();
        assert_eq!(error, LeaseError::NotRegistered { address });
    }
    for block in blocks {
        pool.dealloc(block).unwrap();
    }
}

#[test]
fn a_plain_resource_has_no_registrations() {
    let pool = SlabPool::new(UnbackedResource::new(GIB).unwrap(), PoolOptions::default()).unwrap();
    assert!(pool.upstream().registrations().is_none());
}

/// A transport that asks for the current context and makes a call that a capture forbids.
struct Strict(Context);

impl Strict {
    fn check(&self) -> Result<(), Error> {
        let driver = self.0.driver();
        assert_eq!(Context::current(driver)?.as_ref(), Some(&self.0));
        let mut address = 0;
        // SAFETY: `address` is valid for the call.
        unsafe { driver.api().mem_alloc.call(&raw mut address, 64) }?;
        // SAFETY: allocated above, and freed once.
        unsafe { driver.api().mem_free.call(address) }
    }
}

impl Wire for Strict {
    type Key = ();

    fn attach(&self, _: &Piece) -> Result<(), Error> {
        self.check()
    }

    fn detach(&self, _: &Piece, (): ()) -> Result<(), Error> {
        self.check()
    }
}

/// nixl#222: a registration assumes that the memory's context is current.
fn a_transport_is_called_with_the_context_current_beside_a_capture(driver: &Driver) {
    let context = context_of(driver);
    let stream = Stream::new(&context).unwrap();
    let device = DeviceMemoryResource::new(&context, GIB).unwrap();
    let pinned = PinnedMemoryResource::new(&context, GIB, PinnedOptions::default()).unwrap();
    let options = PoolOptions::default().piece_bytes(4 * MIB);
    let device =
        SlabPool::new(WiredResource::new(device, Strict(context.clone())), options).unwrap();
    let pinned =
        SlabPool::new(WiredResource::new(pinned, Strict(context.clone())), options).unwrap();
    // Begun by the calling thread, in the mode that is the strictest.
    let scope = CaptureScope::begin(&stream, CaptureMode::Global).unwrap();
    let blocks = (device.alloc(MIB).unwrap(), pinned.alloc(MIB).unwrap());
    device.dealloc(blocks.0).unwrap();
    pinned.dealloc(blocks.1).unwrap();
    assert_eq!(device.trim(Duration::ZERO, 0).released, 4 * MIB);
    assert_eq!(pinned.trim(Duration::ZERO, 0).released, 4 * MIB);
    drop(scope.end().unwrap());
}

/// Mooncake#3538, torchcomms#3078, ucx#11461, nccl#1820: a transport asks for the allocation around
/// an address and registers the first of several.
fn every_block_of_a_stream_pool_lies_in_one_registration(driver: &Driver) {
    let (context, recorder) = (context_of(driver), Recorder::new());
    let stream = Stream::new(&context).unwrap();
    let memory = DeviceMemoryResource::new(&context, GIB).unwrap();
    let memory = WiredResource::new(memory, Arc::clone(&recorder));
    let slabs = PoolOptions::default().piece_bytes(8 * MIB);
    let pool = Pool::builder().slabs(slabs).max_bytes(256 * MIB).build(memory).unwrap();
    let mut random = Random(5);
    let mut kept = Vec::new();
    for _ in 0..300 {
        let buffer: Buffer<u8> = pool.alloc(random.size(23), &stream).unwrap();
        let exported = buffer.export().unwrap();
        assert!(recorder.covers(exported.address(), buffer.len()));
        assert_eq!(exported.piece().ordinal, Some(context.device().ordinal()));
        exported.complete();
        if random.below(2) > 0 && kept.len() < 16 {
            kept.push(buffer);
        }
    }
    drop(kept);
    stream.synchronize().unwrap();
    drop(pool);
    let book = recorder.book();
    assert_eq!((book.live.len(), book.attached), (0, book.detached));
}

fn a_tier_whose_resource_is_wired_is_registered(driver: &Driver) {
    let (context, recorder) = (context_of(driver), Recorder::new());
    let stream = Stream::new(&context).unwrap();
    let pinned = PinnedMemoryResource::new(&context, GIB, PinnedOptions::default()).unwrap();
    let pinned = WiredResource::new(pinned, Arc::clone(&recorder));
    let tiers =
        TieredPool::builder(&context).device(16 * MIB).resource(pinned, 64 * MIB).build().unwrap();
    assert!(tiers.registrations(Tier::Device).is_none());
    let registrations = tiers.registrations(Tier::Pinned).unwrap();
    let object = tiers.alloc(3 * MIB, Tier::Pinned).unwrap();
    let held = object.pin(Tier::Pinned, &stream).unwrap();
    let lease = registrations.lease(held.address(), 3 * MIB).unwrap();
    assert!(recorder.covers(lease.address(), lease.len()));
    drop((lease, held));
    drop(object);
    drop((registrations, tiers));
    assert!(recorder.live().is_empty());

    let unbacked = WiredResource::new(UnbackedResource::new(GIB).unwrap(), recorder);
    let refused = TieredPool::builder(&context).resource(unbacked, MIB).build().unwrap_err();
    assert!(refused.to_string().contains("tier of a resource"), "{refused}");
}
