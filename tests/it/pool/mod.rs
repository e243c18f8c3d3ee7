//! Pools: memory is reused in the order of streams, and never while the device uses it.

mod basics;
mod by_handle;
mod capture;
mod close;
mod faults;
mod half_complete;
mod limits;
mod markers;
mod peers;
mod reserve;
mod simple;
mod sleep;
mod sleep_edges;
mod sleep_leased;
mod stress;

use std::sync::mpsc::{Sender, channel};

use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Pool, PoolBuilder};
use wharf::slab::PoolOptions;
use wharf::{Context, Driver, Stream};

const SPAN: usize = 256 << 20;

fn context(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

fn streams<const N: usize>(context: &Context) -> [Stream; N] {
    std::array::from_fn(|_| Stream::new(context).unwrap())
}

/// Threads keep nothing for themselves, so that limits are exact.
fn builder() -> PoolBuilder {
    Pool::builder().slabs(PoolOptions::default().thread_cache_bytes(0))
}

fn device_pool(context: &Context) -> Pool {
    builder().build(DeviceMemoryResource::new(context, SPAN).unwrap()).unwrap()
}

/// A pool with room for so many blocks of [`BLOCK`] bytes.
fn small_pool(context: &Context, blocks: usize) -> Pool {
    let resource = DeviceMemoryResource::new(context, SPAN).unwrap();
    builder().max_bytes(blocks * BLOCK).build(resource).unwrap()
}

/// A large block: it has a run of its own.
const BLOCK: usize = 16 << 20;

fn pinned_pool(context: &Context) -> Pool {
    let resource = PinnedMemoryResource::new(context, SPAN, PinnedOptions::default()).unwrap();
    builder().build(resource).unwrap()
}

/// Holds the stream up until the result is dropped.
fn gate(stream: &Stream) -> Sender<()> {
    let (open, closed) = channel::<()>();
    let wait = move || assert!(closed.recv().is_err());
    stream.add_callback(move |_| wait()).unwrap();
    open
}
