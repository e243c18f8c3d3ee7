#![doc = include_str!("../README.md")]
//!
//! # Modules, lowest first
//!
//! A module names only modules above it in this table; `tests/layering.rs` enforces it.
//!
//! | module | holds |
//! |---|---|
//! | `errors` | result codes, their names and texts |
//! | `address`, `location` | numbers as pointers; a device or the host as a place of memory |
//! | `fork` | whether this process is a child of `fork` |
//! | `report` | what a check found |
//! | `handle`, `thread` | handles and the objects that they name; the calling thread |
//! | `config`, `attributes`, `environment` | the shape of a machine, in code or by variables |
//! | `memory` | allocations by address; copies and fills |
//! | `order`, `race` | vector clocks; which operations touched which bytes |
//! | `module` | modules, libraries and native kernels |
//! | `sched` | operations, their dependencies, and which runs next |
//! | `event`, `stream`, `context` | the objects that order operations |
//! | `pool`, `vmm`, `managed` | memory pools, mapped memory, advice on managed memory |
//! | `task`, `array` | operations as a program describes them; arrays |
//! | `graph` | graphs, executable graphs, and the captures that make graphs |
//! | `machine` | one simulated machine: the parts above under one lock |
//! | `engine` | the threads that run operations |
//! | `peer`, `prepare` | which device reaches which memory; from a task to an operation |
//! | `call` | one call of an entry point: its thread and its machine |
//! | `capture`, `submit`, `launch` | from a call to a capture, a stream, an executable graph |
//! | `abi` | the exported entry points, one file a family |
//! | `simulator` | machines in process, for tests |
//!
//! The machine of the environment is never freed: programs call the driver from destructors of
//! thread-local variables and while the process ends.

mod abi;
mod address;
mod array;
mod attributes;
mod call;
mod capture;
mod config;
mod context;
mod engine;
mod environment;
mod errors;
mod event;
mod fork;
mod graph;
mod handle;
mod launch;
mod location;
mod machine;
mod managed;
mod memory;
mod module;
mod order;
mod peer;
mod pool;
mod prepare;
mod race;
mod report;
mod sched;
mod simulator;
mod stream;
mod submit;
mod task;
mod thread;
mod vmm;

pub use config::{Checks, Config, Fault, Grace, Schedule};
pub use environment::ConfigError;
pub use machine::Bytes;
pub use module::KernelArguments;
pub use report::{Check, Violation};
pub use simulator::{Binding, Simulator, entry_point, has_call};
