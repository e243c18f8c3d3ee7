//! What tells one replay from another.

use serde::Serialize;

/// What tells one run from another.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The version of this program.
    pub version: &'static str,
    /// The trace; none where requests were generated.
    pub trace: Option<Origin>,
    /// The seed of generated requests.
    pub seed: Option<u64>,
    /// The most steps that were to run, where that was limited.
    pub max_steps: Option<u64>,
    /// Whose inputs were staged.
    pub preset: String,
    /// The layout of the inputs, `per-slot` or `packed`.
    pub layout: &'static str,
    /// What steps allocated on the device, `activations` or `serving`.
    pub memory: &'static str,
    /// The largest number of steps in flight.
    pub ring_depth: usize,
    /// The sizes that steps were padded to, in tokens.
    pub buckets: Vec<usize>,
    /// When softcuda ran operations; none for other drivers.
    pub schedule: Option<String>,
    /// Whether steps waited for their time in the trace.
    pub realtime: bool,
    /// For how many sizes graphs were kept, made ahead as foreseen; 0: for all.
    pub warm: usize,
}

/// Where requests came from.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    /// The file, `-` for standard input.
    pub path: String,
    /// The form that was recognised.
    pub format: String,
    /// Requests that arrived before one above them and were sorted.
    pub reordered: u64,
    /// Whether prefixes that repeat needed no prefill.
    pub prefix_cache: bool,
}
