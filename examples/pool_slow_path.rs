//! What `Pool::alloc` costs a stream that has no block of the size: the block comes from the slabs.
//!
//! ```text
//! cargo run --release --example pool_slow_path -- SIZE ROUNDS     for callgrind, see bench/pool.sh
//! ```

#![allow(clippy::unwrap_used, reason = "a program that measures")]

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::{Context, Driver, Stream};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().unwrap());
    let (size, rounds) = (arguments.next().unwrap(), arguments.next().unwrap());
    let machine = softcuda::Simulator::new(softcuda::Config::default());
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api().unwrap()).unwrap();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let stream = Stream::new(&context).unwrap();
    let resource = DeviceMemoryResource::new(&context, 1 << 30).unwrap();
    let pool = Pool::builder().build(resource).unwrap();
    // The pool has grown, and the thread has its cache, before anything is counted.
    round_trips(&pool, &stream, size, 100);
    counted_round_trips(&pool, &stream, size, rounds);
    assert_eq!(pool.stats().committed, (rounds + 99) as u64);
}

#[inline(never)]
fn counted_round_trips(pool: &Pool, stream: &Stream, size: usize, rounds: usize) {
    round_trips(pool, stream, size, rounds);
}

/// Takes a block from the slabs and gives it back to them.
fn round_trips(pool: &Pool, stream: &Stream, size: usize, rounds: usize) {
    for _ in 0..rounds {
        let buffer: Buffer<u8> = pool.alloc(size, stream).unwrap();
        drop(buffer);
        // Without this the stream would keep the block for its next allocation.
        assert_eq!(pool.give_back(size, stream), Ok(1));
    }
}
