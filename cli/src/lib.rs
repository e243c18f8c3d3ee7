//! What the command `wharf` is made of: request traces, the scheduler that turns them into steps, and
//! what can be found out about a machine.
//!
//! ```text
//! trace (a file) ─┐
//!                 ├─> Request ──> schedule ──> Step ──> the commands
//! generate ───────┘
//! ```
//!
//! Everything streams: a trace of any length needs the memory of the requests that run at once.

pub mod charts;
pub mod chrome;
pub mod doctor;
pub mod generate;
pub mod judge;
pub mod map;
pub mod output;
pub mod replay;
pub mod schedule;
pub mod summary;
pub mod target;
pub mod trace;

/// One request of a serving engine's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrives, in microseconds after the first one.
    pub arrival: u64,
    /// Tokens of its prompt.
    pub prompt: u32,
    /// Tokens that are generated for it.
    pub generated: u32,
}
