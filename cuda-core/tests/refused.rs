//! Sources that are dropped behind a fetch, where an event cannot be recorded. The software driver
//! refuses each call in turn, in a process of its own; another driver refuses none. Without one the
//! test says that it was skipped.

use std::process::Command;
use std::time::Duration;

use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::staging::{Len, OutputBuffers};
use wharf::{Driver, LoadError, Stream};
use wharf_cuda_core::{BorrowedStream, FetchFrom, device_buffer};

const REFUSED: &str = "SOFTCUDA_FAIL";
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn sources_outlive_their_copies_when_one_cannot_be_noted() {
    if std::env::var_os(REFUSED).is_some() {
        eprintln!("refused: {}", fetch_and_drop().is_err());
        return;
    }
    match Driver::load() {
        Ok(_) => {}
        Err(LoadError::Library { .. } | LoadError::NoDevice)
            if std::env::var_os("WHARF_REQUIRE_GPU").is_none() =>
        {
            eprintln!("skipped: there is no CUDA driver here");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    // Until one is refused that is not made.
    for number in 1.. {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "sources_outlive_their_copies_when_one_cannot_be_noted"]);
        child.arg("--nocapture").env(REFUSED, format!("cuEventRecord@{number}=2"));
        child.env("SOFTCUDA_SCHEDULE", "late").env("SOFTCUDA_CHECK", "race");
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("race"), "{number}: {said}");
        if said.contains("refused: false") {
            break;
        }
    }
}

/// Fetches from three buffers of a pool, which are dropped at once, and writes what the pool hands
/// out next on another stream.
fn fetch_and_drop() -> Result<(), Box<dyn std::error::Error>> {
    let cuda = cuda_core::Context::new(0)?;
    let queue = cuda.new_stream()?;
    let context = wharf_cuda_core::context(&cuda, &Driver::load()?)?;
    let stream = BorrowedStream::new(&queue, &context)?;
    let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 64 << 20)?)?;
    let names = ["a", "b", "c"];
    let outputs = OutputBuffers::builder(&context);
    let outputs = names.iter().fold(outputs, |set, name| set.slot::<i32>(name, Len::Tokens));
    let outputs = outputs.buckets([8]).build()?;
    let mut fetch = FetchFrom::new(outputs.begin(8, 1)?, &stream);
    for name in names {
        let source = device_buffer(pool.alloc::<i32>(8, &stream)?, &stream, LIMIT)?;
        fetch.source(outputs.slot_id(name)?, &source)?;
    }
    let fetched = fetch.submit();
    let other = Stream::new(&context)?;
    let next: Result<Vec<Buffer<i32>>, _> = names.iter().map(|_| pool.alloc(8, &other)).collect();
    next?.iter().try_for_each(|buffer| buffer.fill(9, &other))?;
    queue.synchronize()?;
    other.synchronize()?;
    fetched?.wait(LIMIT)?;
    Ok(())
}
