//! The surface of the module that the crate began from, row by row.
//!
//! A test is named after the row that it is of; where the original had a fault, the test is one
//! that the original's rule fails, and says which.

mod entries;
mod inputs;
mod manager;
mod pools;

use wharf::element::DType;
use wharf::manager::BufferSpec;
use wharf::memory::{DeviceMemoryResource, MemoryKind};
use wharf::pool::Pool;
use wharf::slab::PoolOptions;
use wharf::{Context, Driver, Stream};

use crate::memory_kinds::context_of;

const SPAN: usize = 64 << 20;

fn context_and_stream(driver: &Driver) -> (Context, Stream) {
    let context = context_of(driver);
    let stream = Stream::new(&context).unwrap();
    (context, stream)
}

/// Threads keep nothing for themselves, so that counts are exact.
fn device_pool(context: &Context) -> Pool {
    let builder = Pool::builder().slabs(PoolOptions::default().thread_cache_bytes(0));
    builder.build(DeviceMemoryResource::new(context, SPAN).unwrap()).unwrap()
}

fn bytes(len: usize) -> BufferSpec {
    BufferSpec::new(&[len], DType::U8, MemoryKind::Device).unwrap()
}

/// A search of the documentation for any of the original's names finds something.
#[test]
fn every_name_of_the_original_is_found() {
    let mut sources = String::new();
    collect(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut sources);
    for name in [
        "BufferState",
        "BufferSpec",
        "BufferEntry",
        "mark_in_use",
        "BufferPool",
        "SimpleBufferPool",
        "InputSlot",
        "set_data",
        "InputBufferManager",
        "register_slot",
        "get_slot",
        "stage_inputs",
        "get_static_tensors",
        "release_all",
        "HierarchicalBufferPool",
        "PredictiveBufferManager",
        "record_usage",
        "predict_next_sizes",
        "prewarm",
        "create_input_buffer_manager",
    ] {
        let ways = [
            format!("#[doc(alias = \"{name}\")]"),
            format!("pub struct {name} "),
            format!("pub enum {name} "),
            format!("pub trait {name}:"),
            format!("fn {name}("),
            format!("fn {name}<"),
        ];
        assert!(ways.iter().any(|way| sources.contains(way)), "{name}");
    }
}

fn collect(folder: &std::path::Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else {
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[path = "../../../examples/original_api/run.rs"]
mod example;

/// The walk through all of it, which `examples/original_api` prints.
#[test]
fn the_example_runs() {
    let mut output = Vec::new();
    example::run(&mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    for row in [
        "BufferState",
        "BufferSpec",
        "BufferEntry",
        "BufferPool",
        "SimpleBufferPool",
        "InputSlot",
        "InputBufferManager",
        "register_slot",
        "stage_inputs",
        "get_static_tensors",
        "release_all",
        "HierarchicalBufferPool",
        "PredictiveBufferManager",
        "create_input_buffer_manager",
    ] {
        assert!(output.contains(row), "{row}:\n{output}");
    }
}
