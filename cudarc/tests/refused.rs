//! Sources that are dropped behind a fetch, where an event cannot be recorded. The software driver
//! refuses each call in turn, in a process of its own; another driver refuses none. Without one the
//! test says that it was skipped.

use std::process::Command;
use std::time::Duration;

use cudarc::driver::CudaContext;
use wharf::staging::{Len, OutputBuffers};
use wharf::{Driver, LoadError};
use wharf_cudarc::{BorrowedStream, FetchFrom};

const REFUSED: &str = "SOFTCUDA_FAIL";
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn sources_outlive_their_copies_when_one_cannot_be_recorded() {
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
        child.args(["--exact", "sources_outlive_their_copies_when_one_cannot_be_recorded"]);
        child.arg("--nocapture").env(REFUSED, format!("cuEventRecord@{number}=2"));
        child.env("SOFTCUDA_SCHEDULE", "late").env("SOFTCUDA_CHECK", "race,use-after-free");
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let is_clean = !said.contains("softcuda: ");
        assert!(output.status.success() && is_clean, "{number}: {said}");
        if said.contains("refused: false") {
            break;
        }
    }
}

/// Fetches from three slices of another stream's, which are dropped at once.
fn fetch_and_drop() -> Result<(), Box<dyn std::error::Error>> {
    let cuda = CudaContext::new(0)?;
    let (queue, other) = (cuda.new_stream()?, cuda.new_stream()?);
    let context = wharf_cudarc::context(&cuda, &Driver::load()?)?;
    let stream = BorrowedStream::new(&queue, &context)?;
    let names = ["a", "b", "c"];
    let outputs = OutputBuffers::builder(&context);
    let outputs = names.iter().fold(outputs, |set, name| set.slot::<i32>(name, Len::Tokens));
    let outputs = outputs.buckets([8]).build()?;
    let sources = [1, 2, 3].map(|number| other.clone_htod(&[number; 8]));
    // What cudarc could not record of its own copies is not the fetch's.
    other.synchronize()?;
    let [a, b, c] = sources;
    let sources = [a?, b?, c?];
    cuda.check_err()?;
    let mut fetch = FetchFrom::new(outputs.begin(8, 1)?, &stream);
    for (name, source) in names.iter().zip(&sources) {
        fetch.source(outputs.slot_id(name)?, source)?;
    }
    let fetched = fetch.submit();
    drop(sources);
    other.synchronize()?;
    queue.synchronize()?;
    fetched?.wait(LIMIT)?;
    Ok(())
}
