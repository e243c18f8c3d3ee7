//! What a person can ask for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use wharf_cli::target::Choice;

/// Lock-free staging memory for CUDA engines: replay a serving trace, know the machine.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, after_help = EXIT_STATUS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Replay(Replay),
    Doctor(Doctor),
}

/// Runs the steps of a request trace.
#[derive(Debug, Args)]
#[command(after_help = TRACES)]
pub(crate) struct Replay {
    /// The request trace, a CSV file; without one, requests are made up
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Makes up other requests
    #[arg(long, default_value_t = 1, conflicts_with = "trace")]
    pub(crate) seed: u64,
    /// Stops after so many steps; by default at the end of the trace, or after 10000 made-up steps
    #[arg(long, value_name = "COUNT")]
    pub(crate) steps: Option<usize>,
    /// Prints the steps as `num_tokens,num_reqs,prefill_tokens` and runs nothing
    #[arg(long, required = true)]
    pub(crate) dump_steps: bool,
}

/// Says what decides here whether wharf works and how fast, and what to do about each lack.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The driver to examine
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// Prints the facts as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const EXIT_STATUS: &str = "\
Exit status: 0 done, 1 the driver, a check or the output failed, 2 wrong arguments or a broken trace.

Examples:
  wharf doctor                           what this machine offers
  wharf replay --trace t.csv --dump-steps   the steps that a trace makes";

const TRACES: &str = "\
A trace has the columns TIMESTAMP,ContextTokens,GeneratedTokens, one request a line in the order of arrival, as in
the Azure Public Dataset (https://github.com/Azure/AzurePublicDataset). Continuous batching makes steps of it: at
most 2048 tokens and 256 requests each, prompts in chunks after decoding.";
