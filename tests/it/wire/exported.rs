#![expect(unsafe_code, reason = "a transport gives advice about pages")]
//! Buffers that a transport uses.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use wharf::memory::{
    DeviceMemoryResource, LeaseError, Piece, PinnedMemoryResource, PinnedOptions, Wire,
    WiredResource,
};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{PoolOptions, SlabPool};
use wharf::{CudaError, Driver, Error, Stream};

use super::rig::{GIB, MIB, Recorder};
use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::memory_kinds::{context_of, host_bytes};

on_each_driver!(
    an_exported_block_is_kept_until_the_transfer_is_complete,
    a_buffer_without_a_transport_is_not_exported,
);

const PIECE: usize = 4 * MIB;

/// A pool of two pieces.
fn pool(driver: &Driver, recorder: &Arc<Recorder>) -> (Pool, Stream) {
    let context = context_of(driver);
    let stream = Stream::new(&context).unwrap();
    let memory = PinnedMemoryResource::new(&context, GIB, PinnedOptions::default()).unwrap();
    let memory = WiredResource::new(memory, Arc::clone(recorder));
    let builder =
        Pool::builder().slabs(PoolOptions::default().piece_bytes(PIECE)).max_bytes(2 * PIECE);
    (builder.build(memory).unwrap(), stream)
}

fn an_exported_block_is_kept_until_the_transfer_is_complete(driver: &Driver) {
    let recorder = Recorder::new();
    let (pool, stream) = pool(driver, &recorder);
    let mut block: Buffer<u32> = pool.alloc(PIECE / 4, &stream).unwrap();
    block.host_mut(Duration::from_secs(600)).unwrap().fill(0x0a0b_0c0d);
    let exported = block.slice(4..8).unwrap().export().unwrap();
    let descriptor = exported.descriptor();
    assert_eq!((descriptor.len, descriptor.generation), (16, 1));
    assert_eq!(exported.address(), exported.piece().address + descriptor.offset);
    drop(block);
    // The stream is done, the block's handles are gone, and it is still not free.
    stream.synchronize().unwrap();
    let others: Vec<Buffer<u8>> =
        std::iter::from_fn(|| pool.alloc(PIECE / 2, &stream).ok()).collect();
    assert_eq!(others.len(), 2, "the other piece alone");
    drop(others);
    stream.synchronize().unwrap();
    pool.trim(Duration::ZERO, 0);
    assert!(recorder.covers(exported.address(), 16));
    assert_eq!(host_bytes(exported.address(), 4), [0xd, 0xc, 0xb, 0xa]);
    exported.complete();
    pool.trim(Duration::ZERO, 0);
    assert_eq!(pool.trim(Duration::ZERO, 0).leased, 0);
    assert!(recorder.live().is_empty());
    let again: Buffer<u8> = pool.alloc(PIECE, &stream).unwrap();
    let exported = again.export().unwrap();
    assert_eq!(exported.descriptor().generation, descriptor.generation + 1);
    exported.complete();
    assert_eq!(pool.stats().leaked, 0);
}

/// pegaflow#403: a timeout frees a pinned block, and late writes go into it.
#[test]
fn pegaflow_403_a_timeout_does_not_free() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, a_transfer_that_is_not_completed_leaks_its_block);
}

fn a_transfer_that_is_not_completed_leaks_its_block(driver: &Driver) {
    let recorder = Recorder::new();
    let (pool, stream) = pool(driver, &recorder);
    let context = stream.context().clone();
    let block: Buffer<u8> = pool.alloc(PIECE, &stream).unwrap();
    let exported = block.export().unwrap();
    let address = exported.address();
    drop(exported);
    // The owner has it as before.
    block.fill(3, &stream).unwrap();
    drop(block);
    stream.synchronize().unwrap();
    assert_eq!(pool.stats().leaked, PIECE as u64);
    let others: Vec<Buffer<u8>> =
        std::iter::from_fn(|| pool.alloc(PIECE / 2, &stream).ok()).collect();
    assert_eq!(others.len(), 2, "the other piece alone");
    drop(others);
    stream.synchronize().unwrap();
    pool.trim(Duration::ZERO, 0);
    pool.trim(Duration::ZERO, 0);
    assert_eq!(recorder.live().len(), 1);
    let before = context.drop_errors();
    drop(pool);
    assert!(recorder.covers(address, PIECE), "registered and committed for ever");
    assert_eq!(host_bytes(address, 4), [3; 4]);
    assert_eq!(context.drop_errors() - before, 1, "and told");
    // The leak is on purpose: `tests/lsan.supp` lists it.
}

fn a_buffer_without_a_transport_is_not_exported(driver: &Driver) {
    let context = context_of(driver);
    let stream = Stream::new(&context).unwrap();
    let memory = DeviceMemoryResource::new(&context, GIB).unwrap();
    let pool: Pool = Pool::builder().build(memory).unwrap();
    let block: Buffer<u8> = pool.alloc(MIB, &stream).unwrap();
    let refused = block.export().unwrap_err();
    assert!(matches!(refused, LeaseError::NotRegistered { .. }), "{refused}");
    assert!(pool.registrations().is_none());
}

/// A transport that lets children have what it no longer registers, as rdma-core does.
struct Forker;

impl Wire for Forker {
    type Key = ();

    fn attach(&self, _: &Piece) -> Result<(), Error> {
        Ok(())
    }

    fn detach(&self, piece: &Piece, (): ()) -> Result<(), Error> {
        let start = std::ptr::with_exposed_provenance_mut(usize::try_from(piece.address).unwrap());
        // SAFETY: memory of the pool's; the advice changes no contents.
        let advised = unsafe { libc::madvise(start, piece.len, libc::MADV_DOFORK) };
        assert_eq!(advised, 0);
        Ok(())
    }
}

/// Whether the system keeps the page at an address from children: `dc` in its flags.
fn is_kept_from_children(address: u64) -> bool {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        if let Some((Some(from), Some(to))) = range.map(|(from, to)| (hex(from), hex(to))) {
            inside = (from..to).contains(&address);
        } else if inside && line.starts_with("VmFlags:") {
            return line.split(' ').any(|flag| flag == "dc");
        }
    }
    panic!("no mapping at {address:#x}")
}

/// Mooncake#3660: `MADV_DOFORK` at deregistration undoes `MADV_DONTFORK`.
#[test]
fn mooncake_3660_memory_is_kept_from_children_after_a_detach() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context_of(driver);
        let memory = PinnedMemoryResource::new(&context, GIB, PinnedOptions::default()).unwrap();
        let options = PoolOptions::default().piece_bytes(PIECE).thread_cache_bytes(0);
        let pool = SlabPool::new(WiredResource::new(memory, Forker), options).unwrap();
        let block = pool.alloc(MIB).unwrap();
        let address = block.address();
        assert!(is_kept_from_children(address));
        pool.dealloc(block).unwrap();
        // The memory stays: the driver does not let go of it.
        machine.fail("cuMemHostUnregister", 1, CudaError::UNKNOWN);
        assert_eq!(pool.trim(Duration::ZERO, 0).lost, PIECE);
        assert!(is_kept_from_children(address));
    });
}
