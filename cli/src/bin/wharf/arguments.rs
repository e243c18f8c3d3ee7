//! What a person can ask for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use softcuda::Schedule;
use wharf_cli::map::Kind;
use wharf_cli::replay::Preset;
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
    Bench(Bench),
    Map(Map),
}

/// Compares ways to stage a step, and to have memory for it, on this machine.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The driver to run on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// Whose inputs are staged
    #[arg(long, value_enum, default_value_t)]
    pub(crate) preset: Preset,
    /// Tokens of a step, one for each of as many requests
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) tokens: u32,
    /// How often each way is tried
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
}

/// Runs a serving engine's staging over a request trace and says what it cost.
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
    #[arg(long)]
    pub(crate) dump_steps: bool,
    /// The driver to run on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// When softcuda runs what it is given: async, eager, late or random:SEED; other drivers decide themselves
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule)]
    pub(crate) schedule: Option<Schedule>,
    /// Whose inputs are staged
    #[arg(long, value_enum, default_value_t)]
    pub(crate) preset: Preset,
    /// How inputs lie in memory: a copy for each, or one for all
    #[arg(long, value_enum, default_value_t = LayoutChoice::PerSlot)]
    pub(crate) layout: LayoutChoice,
    /// How many steps may be in flight
    #[arg(long, value_name = "STEPS", default_value_t = 3, value_parser = ring_depth)]
    pub(crate) ring_depth: usize,
    /// The sizes that steps are padded to, in tokens, as in 8,64,512; larger steps run without a graph
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', value_parser = bucket)]
    pub(crate) buckets: Option<Vec<usize>>,
    /// Whether steps follow each other at once, or at the times of the trace
    #[arg(long, value_enum, default_value_t = Speed::Max)]
    pub(crate) speed: Speed,
    /// Compares every byte, padding included, on the device's side
    #[arg(long)]
    pub(crate) verify: bool,
    /// What foresees the sizes of steps, and keeps graphs ready by it; without, sizes are foreseen from the last ones
    /// and all graphs are made at the start
    #[arg(long, value_enum)]
    pub(crate) forecast: Option<Source>,
    /// For how many sizes graphs are kept ready; with --forecast 8 by default; 0 for all, made at the start
    #[arg(long, value_name = "SIZES", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) warm: Option<u16>,
    /// Keeps what the run needs in a file; where that is there, reserves by it at the start, and --forecast plan goes
    /// by its sizes
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Lets each step use one of 64 adapters, of which a quarter fits on the device: they move between device, managed
    /// and pinned memory
    #[arg(long)]
    pub(crate) tiered: bool,
    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes charts: memory over time, times of steps, driver calls
    #[arg(long, value_name = "FOLDER")]
    pub(crate) svg: Option<PathBuf>,
    /// Writes a trace for Perfetto or the tracing page of Chrome
    #[arg(long, value_name = "FILE")]
    pub(crate) chrome_trace: Option<PathBuf>,
}

/// How inputs lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutChoice {
    /// Each input has one address for all sizes, and a copy of its own.
    PerSlot,
    /// All inputs are one copy.
    Packed,
}

/// How fast steps follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speed {
    /// At once.
    Max,
    /// At the times of the trace.
    Realtime,
}

/// What foresees the sizes of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// An earlier run of the same requests.
    Plan,
    /// How common sizes are.
    Frequency,
    /// What followed the last sizes before.
    Context,
}

fn schedule(text: &str) -> Result<Schedule, String> {
    let seed = text.strip_prefix("random:").and_then(|seed| seed.parse().ok());
    match text {
        "async" => Ok(Schedule::Async),
        "eager" => Ok(Schedule::Eager),
        "late" => Ok(Schedule::Late),
        _ => seed.map(Schedule::Random).ok_or_else(|| "one of async, eager, late, random:SEED".to_owned()),
    }
}

fn bucket(text: &str) -> Result<usize, String> {
    let most = wharf_cli::schedule::TOKENS as usize;
    let tokens = text.parse().ok().filter(|tokens| (1..=most).contains(tokens));
    tokens.ok_or_else(|| format!("a number of tokens from 1 to {most}"))
}

fn ring_depth(text: &str) -> Result<usize, String> {
    let depth = text.parse().ok().filter(|depth| (1..=64).contains(depth));
    depth.ok_or_else(|| "a number from 1 to 64".to_owned())
}

/// Runs a workload in pools and shows what they hold in the end: who has which bytes.
#[derive(Debug, Args)]
#[command(after_help = MAPS)]
pub(crate) struct Map {
    /// The request trace, a CSV file as of `wharf replay`; without one, requests are made up
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Makes up other requests
    #[arg(long, default_value_t = 1, conflicts_with = "trace")]
    pub(crate) seed: u64,
    /// Looks at the pools after so many steps
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    pub(crate) steps: usize,
    /// The driver to run on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// When softcuda runs what it is given: async, eager, late or random:SEED; other drivers decide themselves
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule)]
    pub(crate) schedule: Option<Schedule>,
    /// The kinds of memory, a pool each
    #[arg(long, value_enum, value_delimiter = ',', default_value = "device,pinned")]
    pub(crate) kind: Vec<Kind>,
    /// What each pool may commit, as in 64MiB or 2GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub(crate) max_bytes: usize,
    /// Writes the pools as JSON, with every slab and block
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws each pool as a file of its own, named after the kind of memory
    #[arg(long, value_name = "FOLDER")]
    pub(crate) svg: Option<PathBuf>,
}

/// A size in bytes, with a unit or without.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        _ => None,
    };
    let bytes =
        digits.parse().ok().zip(unit).and_then(|(number, unit): (usize, u32)| number.checked_mul(1 << unit));
    let bytes = bytes.filter(|bytes| (1..=MOST_BYTES).contains(bytes));
    bytes.ok_or_else(|| "a size from 1 byte to 1024GiB, as in 64MiB".to_owned())
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

/// The most that a pool may be told to commit.
const MOST_BYTES: usize = 1 << 40;

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 the driver, a comparison or the output failed; 2 wrong arguments or a broken trace;
130 and 143 stopped by SIGINT and SIGTERM, with the figures so far.

Examples:
  wharf doctor                                what this machine offers
  wharf replay                                10,000 made-up steps, on softcuda where there is no device
  wharf replay --trace t.csv --verify         a trace, every byte compared
  wharf replay --schedule late --verify       the same when all work is done as late as allowed
  wharf replay --tiered --forecast context    objects that move between tiers, graphs made as foreseen
  wharf bench                                 ways to stage a step beside each other
  wharf replay --json r.json --svg charts     figures and charts as files
  wharf map --svg maps                        who holds which bytes of two pools, drawn";

const TRACES: &str = "\
A trace has the columns TIMESTAMP,ContextTokens,GeneratedTokens, one request a line in the order of arrival, as in
the Azure Public Dataset (https://github.com/Azure/AzurePublicDataset). Continuous batching makes steps of it: at
most 2048 tokens and 256 requests each, prompts in chunks after decoding.

Each step takes a slot of the ring, writes the inputs of an engine, stages them and allocates its
activations and results. Times on softcuda are the calling thread's; they say nothing about a GPU.";

const MAPS: &str = "\
In each step every pool gives memory to the step, which the next step takes over, and to each request, which holds it
from its first step to its last. So the picture has what allocators are judged by: blocks that are held, blocks that
wait for the device or for their stream, slabs that are half empty, and what no slab uses.

In the table, all in bytes: live is held by somebody, of which waste is beyond what was asked for; retired is nobody's
but not free for all streams yet; cached is in a thread's cache; reserved is what the pool has obtained for all that.
With --max-bytes below the need, allocations are refused and counted: the steps go on without them.";
