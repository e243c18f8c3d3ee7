//! `icount harness|wharf|local W1|W2|... COUNT`: a run of a known number of units, for callgrind.
//!
//! The difference of two counts is what the units cost, without start and end: see `icount.sh`.

use std::process::ExitCode;

use clap::Parser;
use wharf_bench::peer::Peer;
use wharf_bench::peers::{noop, ours};
use wharf_bench::work::{Bench, Bound, Workload};

/// Runs a workload on one allocator a given number of times.
#[derive(Debug, Parser)]
struct Cli {
    /// The allocator.
    peer: Subject,
    /// The workload.
    #[arg(ignore_case = true)]
    workload: Workload,
    /// Units of work.
    count: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Subject {
    /// The loop around an allocator that does nothing.
    Harness,
    /// wharf's pool.
    Wharf,
    /// wharf's pool through a cache that is held.
    Local,
}

fn main() -> ExitCode {
    let Cli { peer, workload, count } = Cli::parse();
    let ran = match peer {
        Subject::Harness => run::<noop::Noop>(workload, count),
        Subject::Wharf => run::<ours::ThreadCache>(workload, count),
        Subject::Local => run::<ours::LocalCache>(workload, count),
    };
    if ran { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run<P: Peer>(workload: Workload, count: u64) -> bool {
    Bound(P::new()).run(workload, count).is_some()
}
