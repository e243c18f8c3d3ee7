//! What pools obtain for what is live, and how many calls that takes.

use std::collections::VecDeque;
use std::sync::Arc;

use wharf::memory::{DeviceMemoryResource, UnbackedResource};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{PoolOptions, SlabPool};
use wharf::{Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::LONG;
use crate::memory_kinds::context_of;
use crate::out_of_memory::Sizes;

const MIB: usize = 1 << 20;

on_each_driver!(
    a_stream_reuses_what_it_dropped_for_any_size_at_the_limit,
    another_stream_has_what_is_retired_for_any_size_at_the_limit,
    what_two_streams_used_serves_one_of_them_at_the_limit,
);

/// Runs a test on a device of so many GiB.
fn on_device<T>(gib: u64, test: impl FnOnce(&Driver, &Simulator) -> T) -> T {
    let config = Config { device_memory: gib << 30, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| test(driver, &machine))
}

#[test]
fn growth_is_few_commits_and_little_that_is_not_used() {
    for (block, gib) in [(2 * MIB, 100), (64 * MIB, 100)] {
        on_device(gib + 8, |driver, machine| {
            let context = context_of(driver);
            let stream = Stream::new(&context).unwrap();
            let resource = DeviceMemoryResource::new(&context, 200 << 30).unwrap();
            let pool = Pool::builder().build(resource).unwrap();
            let mut held: Vec<Buffer<u8>> = Vec::new();
            let commits = machine.calls("cuMemMap");
            while held.len() * block < 100 << 30 {
                held.push(pool.alloc(block, &stream).unwrap());
                let (live, reserved) = (held.len() * block, pool.slab_stats().reserved);
                assert!(reserved <= live + live / 50, "{reserved} for {live}");
            }
            let commits = machine.calls("cuMemMap") - commits;
            assert!(commits <= 1000, "{commits} commits by blocks of {block}");
        });
    }
}

#[test]
fn a_serving_loop_at_a_limit_makes_few_calls() {
    on_device(2, |driver, machine| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let resource = DeviceMemoryResource::new(&context, 4 << 30).unwrap();
        let pool = Pool::builder().max_bytes(1 << 30).build(resource).unwrap();
        let mut sizes = Sizes(7);
        let calls = || machine.calls("cuMemMap") + machine.calls("cuMemUnmap");
        let (before, mut largest) = (calls(), 0);
        for _ in 0..3000 {
            let size = sizes.next();
            largest = largest.max(size);
            let buffer: Buffer<u8> = pool.alloc(size, &stream).unwrap();
            buffer.record_use(&stream).unwrap();
            drop(buffer);
            // How far the device is behind is no matter of the machine's speed.
            stream.synchronize().unwrap();
        }
        assert!(calls() - before <= 40, "{} calls", calls() - before);
        let peak = pool.slab_stats().peak_reserved;
        assert!(peak <= largest + largest / 32, "{peak} for {largest}");
    });
}

#[test]
fn a_window_of_two_buffers_takes_little_more_than_they_have() {
    on_device(4, |driver, _| {
        let context = context_of(driver);
        let stream = Stream::new(&context).unwrap();
        let pool =
            Pool::builder().build(DeviceMemoryResource::new(&context, 4 << 30).unwrap()).unwrap();
        let (mut sizes, mut live) = (Sizes(3), VecDeque::new());
        let mut peak = 0;
        for _ in 0..2000 {
            if live.len() == 2 {
                live.pop_front();
            }
            let buffer: Buffer<u8> = pool.alloc(sizes.next(), &stream).unwrap();
            buffer.record_use(&stream).unwrap();
            stream.synchronize().unwrap();
            live.push_back(buffer);
            peak = peak.max(live.iter().map(Buffer::size).sum::<usize>());
        }
        let reserved = pool.slab_stats().peak_reserved;
        assert!(reserved <= peak + peak / 16, "{reserved} for {peak}");
    });
}

/// A pool with a limit in bytes, which waits for no device; and two streams.
fn limited(driver: &Driver, limit: usize) -> (Pool, [Stream; 2]) {
    let context = context_of(driver);
    let resource = DeviceMemoryResource::new(&context, 256 * MIB).unwrap();
    let pool = Pool::builder().max_bytes(limit).wait(std::time::Duration::ZERO).build(resource);
    (pool.unwrap(), std::array::from_fn(|_| Stream::new(&context).unwrap()))
}

/// Holds a stream up until the result is dropped.
fn gate(stream: &Stream) -> std::sync::mpsc::Sender<()> {
    let (open, closed) = std::sync::mpsc::channel::<()>();
    stream.add_callback(move |_| assert!(closed.recv().is_err())).unwrap();
    open
}

fn a_stream_reuses_what_it_dropped_for_any_size_at_the_limit(driver: &Driver) {
    for (first, second) in [(16, 12), (12, 16), (14, 12), (2, 16)] {
        let (pool, [stream, _]) = limited(driver, 16 * MIB);
        let held = gate(&stream);
        let buffer: Buffer<u8> = pool.alloc(first * MIB, &stream).unwrap();
        buffer.fill(1, &stream).unwrap();
        drop(buffer);
        let again: Buffer<u8> = pool.alloc(second * MIB, &stream).unwrap();
        again.fill(2, &stream).unwrap();
        if second < 16 {
            // The rest serves a small block, too, as a run of its own.
            pool.alloc::<u8>(1000, &stream).unwrap().fill(3, &stream).unwrap();
        }
        drop(held);
        let mut back = vec![0; second * MIB];
        again.copy_to_slice(&mut back, &stream).unwrap();
        assert!(back.iter().all(|byte| *byte == 2), "{first} then {second}");
        assert_eq!((pool.stats().waits, pool.stats().waited), (0, 0), "in the stream's own order");
    }
}

fn another_stream_has_what_is_retired_for_any_size_at_the_limit(driver: &Driver) {
    for (first, second) in [(100, 80), (80, 100), (128, 128)] {
        let (pool, [user, other]) = limited(driver, 128 * MIB);
        let held = gate(&user);
        let buffer: Buffer<u8> = pool.alloc(first * MIB, &user).unwrap();
        buffer.fill(1, &user).unwrap();
        drop(buffer);
        let taken: Buffer<u8> = pool.alloc(second * MIB, &other).unwrap();
        taken.fill(2, &other).unwrap();
        let after = other.ticket().unwrap();
        assert!(!after.poll().unwrap(), "behind the first stream, on the device");
        drop(held);
        after.wait(LONG).unwrap();
        let mut back = vec![0; second * MIB];
        taken.copy_to_slice(&mut back, &other).unwrap();
        assert!(back.iter().all(|byte| *byte == 2), "{first} then {second}");
    }
}

fn what_two_streams_used_serves_one_of_them_at_the_limit(driver: &Driver) {
    for size in [16, 12] {
        let (pool, [one, two]) = limited(driver, 16 * MIB);
        let held = gate(&one);
        let buffer: Buffer<u8> = pool.alloc(16 * MIB, &one).unwrap();
        buffer.slice(..MIB).unwrap().fill(1, &one).unwrap();
        buffer.slice(MIB..).unwrap().fill(1, &two).unwrap();
        drop(buffer);
        let taken: Buffer<u8> = pool.alloc(size * MIB, &two).unwrap();
        taken.fill(2, &two).unwrap();
        drop(held);
        let mut back = vec![0; size * MIB];
        taken.copy_to_slice(&mut back, &two).unwrap();
        assert!(back.iter().all(|byte| *byte == 2));
    }
}

#[test]
fn pieces_are_as_large_as_was_asked_for() {
    let piece = 32 * MIB;
    let resource = UnbackedResource::new(1 << 30).unwrap();
    let options = PoolOptions::default().piece_bytes(piece).blocks_in_pieces(true);
    let pool = SlabPool::new(resource, options).unwrap();
    let blocks: Vec<_> = (0..20).map(|_| pool.alloc(5 * MIB).unwrap()).collect();
    let base = wharf::memory::MemoryResource::base(pool.upstream());
    for block in &blocks {
        let start = usize::try_from(block.address() - base).unwrap();
        assert_eq!(start / piece, (start + 5 * MIB - 1) / piece, "a block of two pieces");
    }
    assert_eq!(pool.upstream().commits().calls(), 4, "of six blocks each");
    blocks.into_iter().for_each(|block| pool.dealloc(block).unwrap());
    // A block that is longer than a piece has one of its own.
    let long = pool.alloc(100 * MIB).unwrap();
    pool.dealloc(long).unwrap();
    assert_eq!(pool.trim(std::time::Duration::ZERO, 0).lost, 0);
    assert_eq!(pool.stats().reserved, 0);
}
