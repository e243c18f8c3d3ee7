//! The loop of `tests/c/overhead.c`, on the library itself: for `capi/check.sh`, which counts the
//! instructions of both.
//!
//! `overhead alloc|step|results COUNT`, with a driver such as softcuda's.

use std::error::Error;
use std::time::Duration;

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::staging::{InputBuffers, Len, OutputBuffers};
use wharf::{Context, Driver, Stream};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, what, count] = &arguments[..] else {
        return Err("overhead alloc|step|results COUNT".into());
    };
    let count: usize = count.parse()?;
    let context = Context::retain(&Driver::load()?.device(0)?)?;
    let stream = Stream::new(&context)?;
    match what.as_str() {
        "alloc" => alloc(&context, &stream, count),
        "step" => step(&context, &stream, count),
        "results" => results(&context, &stream, count),
        other => Err(format!("{other:?} is none of alloc, step and results").into()),
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

/// A step of one slot that is written and sent, again and again.
fn step(context: &Context, stream: &Stream, count: usize) -> Result<(), Box<dyn Error>> {
    let inputs = InputBuffers::builder(context).slot::<i32>("ids", Len::Tokens).buckets([8]);
    let inputs = inputs.build()?;
    let ids = inputs.slot_id::<i32>("ids")?;
    for _ in 0..count {
        let mut step = inputs.begin(8, 1)?;
        step.write(ids)[0] = 1;
        step.submit(stream)?;
    }
    stream.synchronize()?;
    Ok(())
}

/// The results of one slot that are fetched, waited for and read, again and again.
fn results(context: &Context, stream: &Stream, count: usize) -> Result<(), Box<dyn Error>> {
    let outputs = OutputBuffers::builder(context).slot::<i32>("ids", Len::Tokens).buckets([8]);
    let outputs = outputs.build()?;
    let (ids, mut sum) = (outputs.slot_id::<i32>("ids")?, 0);
    for _ in 0..count {
        let pending = outputs.fetch(8, 1, stream)?;
        sum += pending.wait(Duration::from_secs(1))?.read(ids)?[0];
    }
    if sum == 0 { Ok(()) } else { Err("the device memory is not zeros".into()) }
}
