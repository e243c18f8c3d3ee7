//! Integration tests, in one binary.
//!
//! A test of behaviour takes a `&Driver` and runs on the software driver always and on the
//! system's where one loads and has a device, see `backend`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a failed test panics")]

mod backend;
mod compile_fail;
mod context;
mod deadline;
mod device;
mod ends;
mod event;
mod faults;
mod fit;
mod fork;
mod graph;
mod graph_capture;
mod graph_faults;
mod graph_rig;
mod layering;
mod load;
mod memory_conformance;
mod memory_faults;
mod memory_host;
mod memory_kinds;
mod memory_managed;
mod memory_shapes;
mod original;
mod out_of_memory;
mod outputs_rig;
mod pieces;
mod pool;
mod race;
mod report;
mod slab;
mod slab_long;
mod slab_model;
mod slab_resources;
mod slab_threads;
mod staging;
mod staging_captures;
mod staging_counts;
mod staging_embedded;
mod staging_faults;
mod staging_guard;
mod staging_matrix;
mod staging_outputs;
mod staging_outputs_refused;
mod staging_peers;
mod staging_races;
mod staging_reader_ends;
mod staging_readers;
mod staging_reference;
mod staging_rig;
mod staging_submission;
mod staging_untyped;
mod stream;
mod stream_identity;
mod tier;
mod tier_faults;
mod tier_workload;
mod timeline;
