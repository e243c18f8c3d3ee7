//! The loop of `tests/c/overhead.c`, on the library itself: for `capi/check.sh`, which counts the
//! instructions of both.
//!
//! `overhead alloc COUNT`, with a driver such as softcuda's.

use std::error::Error;

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::{Context, Driver, Stream};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, count] = &arguments[..] else { return Err("overhead alloc COUNT".into()) };
    let count: usize = count.parse()?;
    let context = Context::retain(&Driver::load()?.device(0)?)?;
    let stream = Stream::new(&context)?;
    match what.as_str() {
        "alloc" => alloc(&context, &stream, count),
        other => Err(format!("{other:?} is not alloc").into()),
    }
}

/// A block that is used by the stream and freed, again and again.
fn alloc(context: &Context, stream: &Stream, count: usize) -> Result<(), Box<dyn Error>> {
    let resource = DeviceMemoryResource::new(context, 64 << 20)?;
    let pool = Pool::builder().max_bytes(64 << 20).build(resource)?;
    for _ in 0..count {
        let buffer: Buffer<u8> = pool.alloc(4096, stream)?;
        buffer.record_use(stream)?;
    }
    Ok(())
}
