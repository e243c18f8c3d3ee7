//! The software driver against the documentation, one module a family.
#![allow(clippy::unwrap_used, reason = "a failed test panics")]
#![allow(unsafe_code, reason = "the driver API is a C interface")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "every call passes live handles and locals")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a driver call a line")]

#[macro_use]
mod support;

mod graph_rig;
mod memory_rig;

mod arrays;
mod attributes;
mod callbacks;
mod capture;
mod contexts;
mod copies_2d;
mod events;
mod graph_nodes;
mod graph_update;
mod graphs;
mod managed;
mod mem_ops;
mod memory;
mod modules;
mod peers;
mod pointers;
mod pools;
mod process;
mod races;
mod recycling;
mod schedules;
mod streams;
mod user_objects;
mod vmm;
