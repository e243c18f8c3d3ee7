//! One program under a hundred random schedules: the same bytes every time, until a wait is
//! taken out.
//!
//! ```text
//! cargo run -p softcuda --example random_schedules
//! ```

#![allow(unsafe_code, reason = "the driver API is a C interface")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "every call passes live handles and locals")]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "a driver call a line")]

mod program;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Write, stdout};

use softcuda::Schedule;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = stdout().lock();
    for waits in [true, false] {
        let mut results: BTreeMap<Vec<u32>, Vec<u64>> = BTreeMap::new();
        for seed in 0..100 {
            results.entry(program::run(Schedule::Random(seed), waits)?).or_default().push(seed);
        }
        let which = if waits { "as written" } else { "with one wait taken out" };
        writeln!(out, "{which}: {} different result(s) in 100 seeds", results.len())?;
        for (bytes, seeds) in &results {
            writeln!(out, "  {:>3} seeds, such as {:>2}: {}", seeds.len(), seeds[0], runs(bytes))?;
        }
    }
    Ok(())
}

/// `16x11 32x22`: how often which value stands there, from the first on.
fn runs(values: &[u32]) -> String {
    let runs: Vec<_> =
        values.chunk_by(|a, b| a == b).map(|run| format!("{}x{:02x}", run.len(), run[0])).collect();
    runs.join(" ")
}
