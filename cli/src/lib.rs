//! What the command `wharf` is made of: request traces, the scheduler that turns them into steps,
//! and what can be found out about a machine.
//!
//! ```text
//! trace (a file) ─┐
//!                 ├─> Request ──> schedule ──> Step ──> the commands
//! generate ───────┘
//! ```
//!
//! Everything streams: a trace of any length needs the memory of the requests that run at once.
//!
//! # Modules, lowest first
//!
//! A module names only modules above it in this table; `tests/layering.rs` enforces it.
//!
//! | module | holds |
//! |---|---|
//! | `request`, `output` | a request of a client; files that appear whole or not at all |
//! | `page` | reports in HTML |
//! | `target` | the driver to run on: the system's or softcuda |
//! | `trace`, `generate` | requests from a file, and made-up ones |
//! | `schedule` | continuous batching: from requests to steps |
//! | `torch` | PyTorch's allocators by their rules, without memory |
//! | `replay` | the loop of a serving engine, without the model |
//! | `judge`, `summary`, `chrome`, `charts` | what a replay cost: figures, a trace, charts |
//! | `map` | who holds which bytes of a pool |
//! | `doctor` | what a machine offers |
//! | `qualify` | whether the promises of `wharf` are kept on a machine |

pub mod charts;
pub mod chrome;
pub mod doctor;
pub mod generate;
pub mod judge;
pub mod map;
pub mod output;
pub mod page;
pub mod qualify;
pub mod replay;
mod request;
pub mod schedule;
pub mod summary;
pub mod target;
pub mod torch;
pub mod trace;

pub use request::Request;
