//! Which streams are one, which are two, and what follows: for pools, tickets, tiers.

mod devices;
mod matrix;
mod registry;
mod threads;
mod tickets;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use softcuda::Schedule;
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::slab::PoolOptions;
use wharf::sys::bindings::CUstream;
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator};

fn context(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

/// A machine on which work runs late and handles come back at once.
fn late() -> Arc<Simulator> {
    Arc::new(Simulator::new(Config { schedule: Schedule::Late, ..Config::default() }))
}

fn machine() -> Arc<Simulator> {
    Arc::new(Simulator::new(Config::default()))
}

/// Threads keep nothing for themselves, so that limits are exact.
fn device_pool(context: &Context) -> Pool {
    let options = PoolOptions::default().thread_cache_bytes(0);
    Pool::builder()
        .slabs(options)
        .build(DeviceMemoryResource::new(context, 256 << 20).unwrap())
        .unwrap()
}

/// A block for the stream with a number. Streams with work in flight are 4096 at most, and a thread
/// may be any distance ahead of the device: then it waits, as the error asks for.
fn alloc_of(number: usize, pool: &Pool, stream: &Stream, context: &Context) -> Buffer<u8> {
    pool.alloc(256, stream).unwrap_or_else(|_| {
        context.synchronize().unwrap();
        pool.alloc(256, stream).unwrap_or_else(|error| panic!("stream {number}: {error}"))
    })
}

/// Holds the stream up until the result is dropped.
fn gate(stream: &Stream) -> Sender<()> {
    let (open, closed) = channel::<()>();
    let wait = move || assert!(closed.recv().is_err());
    stream.add_callback(move |_| wait()).unwrap();
    open
}

/// A stream of an engine's own, which wharf only hears of.
fn foreign(context: &Context) -> CUstream {
    Stream::new(context).unwrap().into_raw()
}

/// What the engine does in the end.
#[expect(unsafe_code, reason = "calls the table as an engine does")]
fn destroy(raw: CUstream, context: &Context) {
    let _scope = context.enter().unwrap();
    // SAFETY: made by `foreign`, destroyed once.
    unsafe { context.driver().api().stream_destroy.call(raw) }.unwrap();
}

#[expect(unsafe_code, reason = "borrows streams by handle")]
fn borrow(raw: CUstream, context: &Context) -> Stream {
    // SAFETY: tests forget a stream before they destroy it.
    unsafe { Stream::borrow_raw(raw, context) }
}
