//! A software CUDA driver over host memory.
//!
//! Programs load it in place of `libcuda.so.1`, or tests make machines of their own in process
//! ([`Simulator`]). It does what the driver API reference says, error codes included, and where
//! the reference leaves freedom it can take all of it: copies as late as allowed
//! ([`Schedule::Late`]), any legal order ([`Schedule::Random`]). So a source that is reused too
//! early *is* read too late, every time. Kernels are out of scope.
//!
//! # Modules, lowest first
//!
//! | module | holds |
//! |---|---|
//! | `config`, `report`, `thread`, `handle` | what a machine looks like, what checks say, the calling thread, handles |
//! | `memory` | allocations by address, what copies and fills do |
//! | `sched` | operations, their dependencies, which runs when |
//! | `machine`, `context`, `stream`, `event`, `vmm`, `pool`, `managed`, `array`, `module` | one simulated machine and its objects |
//! | `task`, `submit` | from a call's arguments to an operation of a stream |
//! | `graph`, `capture` | work described once and launched often; streams that describe it |
//! | `abi` | the exported entry points, one file a family |
//!
//! Process-wide state is leaked on purpose: programs call the driver from destructors of
//! thread-local variables and while the process ends.

mod abi;
mod address;
mod array;
mod attributes;
mod capture;
mod config;
mod context;
mod errors;
mod event;
mod exit;
mod graph;
mod handle;
mod leaks;
mod location;
mod machine;
mod managed;
mod memory;
mod module;
mod pool;
mod report;
mod sched;
mod simulator;
mod stream;
mod submit;
mod task;
mod thread;
mod vmm;

pub use config::{Checks, Config, Fault, Schedule};
pub use module::KernelArguments;
pub use report::{Check, Violation};
pub use simulator::{Binding, Bytes, Simulator, entry_point};
