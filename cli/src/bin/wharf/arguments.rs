//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use softcuda::Schedule;
use wharf_cli::map::Kind;
use wharf_cli::output::Named;
use wharf_cli::replay::{Preset, Workload};
use wharf_cli::target::Choice;
use wharf_cli::trace::{Columns, Options, STANDARD_INPUT, Unit, Unsorted};

/// Lock-free staging memory for CUDA engines: replays serving traces and examines the machine.
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
    Qualify(Qualify),
}

/// Puts every promise of wharf to the test on this machine, and takes its figures.
#[derive(Debug, Args)]
#[command(after_help = PROMISES)]
pub(crate) struct Qualify {
    /// The driver to run on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// When softcuda runs operations: async, eager, late or random:SEED; by default late for the
    /// promises and async for the figures; other drivers ignore it
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule)]
    pub(crate) schedule: Option<Schedule>,
    /// Writes the verdicts and figures as JSON; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes a report as one HTML page, with charts
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Compares ways to stage a step and to allocate its memory, on this machine.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The driver to run on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// The engine whose inputs are staged
    #[arg(long, value_enum, default_value_t)]
    pub(crate) preset: Preset,
    /// The number of tokens of a step, one for each request
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) tokens: u32,
    /// The number of measurements of each way
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
}

/// Where requests come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Requests {
    /// The request trace, - for standard input; by default, requests are generated
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// The columns of a CSV file that is none of the known traces, such as
    /// time=arrival,input=prompt,output=answer
    #[arg(long, value_name = "NAMES", requires = "trace")]
    pub(crate) columns: Option<Columns>,
    /// The unit of times that are numbers, in the column that --columns names
    #[arg(long, value_enum, default_value_t, requires = "columns")]
    pub(crate) time_unit: Unit,
    /// What to do about requests that are not in the order of their arrival; sorting them needs 16
    /// bytes of memory for each
    #[arg(long, value_enum, default_value_t, requires = "trace")]
    pub(crate) unsorted: Unsorted,
    /// Keeps prompts in a cache of prefixes: where the trace has `hash_ids`, blocks of 512
    /// tokens that an earlier prompt began with need no prefill
    #[arg(long, requires = "trace")]
    pub(crate) prefix_cache: bool,
    /// The seed of generated requests
    #[arg(long, default_value_t = 1, conflicts_with = "trace")]
    pub(crate) seed: u64,
}

impl Requests {
    /// How to read the trace.
    pub(crate) fn options(&self) -> Options {
        Options {
            columns: self.columns.clone(),
            unit: self.time_unit,
            unsorted: self.unsorted,
            prefix_cache: self.prefix_cache,
        }
    }

    /// The file of the trace, also where it is standard input.
    pub(crate) fn input(&self) -> Option<Named> {
        let path = self.trace.clone()?;
        let is_standard = path == Path::new(STANDARD_INPUT);
        let path = if is_standard { PathBuf::from("/dev/stdin") } else { path };
        Some(Named { argument: "--trace", path })
    }
}

/// Replays a request trace through the staging of a serving engine and reports its cost.
#[derive(Debug, Args)]
#[command(after_help = TRACES)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) requests: Requests,
    /// Stops after this many steps; by default at the end of the trace, or after 10000 generated
    /// steps
    #[arg(long, value_name = "COUNT")]
    pub(crate) steps: Option<usize>,
    /// Prints the steps as `num_tokens,num_reqs,prefill_tokens`; runs nothing and writes no file
    #[arg(long, conflicts_with_all = ["verify", "plan", "json", "html", "svg", "chrome_trace"])]
    pub(crate) dump_steps: bool,
    /// The driver to run on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// When softcuda runs operations: async, eager, late or random:SEED; other drivers ignore it
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule)]
    pub(crate) schedule: Option<Schedule>,
    /// The engine whose inputs are staged
    #[arg(long, value_enum, default_value_t)]
    pub(crate) preset: Preset,
    /// The layout of the inputs: one copy for each input, or one copy for all
    #[arg(long, value_enum, default_value_t = LayoutChoice::PerSlot)]
    pub(crate) layout: LayoutChoice,
    /// The largest number of steps in flight
    #[arg(long, value_name = "STEPS", default_value_t = 3, value_parser = ring_depth)]
    pub(crate) ring_depth: usize,
    /// The sizes that steps are padded to, in tokens, such as 8,64,512; larger steps run without a
    /// graph
    #[arg(long, value_name = "TOKENS", value_parser = Buckets::parse)]
    pub(crate) buckets: Option<Buckets>,
    /// The pace of the steps: as fast as possible, or at the times of the trace
    #[arg(long, value_enum, default_value_t = Speed::Max)]
    pub(crate) speed: Speed,
    /// Compares every byte on the device, padding included
    #[arg(long)]
    pub(crate) verify: bool,
    /// The forecast of step sizes, by which graphs are prepared; by default, all graphs are made at
    /// the start
    #[arg(long, value_enum)]
    pub(crate) forecast: Option<Source>,
    /// The number of sizes with prepared graphs; with --forecast 8 by default; 0 makes all at the
    /// start
    #[arg(long, value_name = "SIZES", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub(crate) warm: Option<u16>,
    /// Writes the memory and sizes that the run needs to a file; an existing file is read first:
    /// its memory is reserved at the start, and --forecast plan uses its sizes
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// The memory that steps use: activations; or that of a server, with blocks of keys and values
    /// for every request, inputs on a stream of their own, and results that are fetched
    #[arg(long, value_enum, default_value_t)]
    pub(crate) memory: Workload,
    /// The most device memory that pools, tiers and inputs commit together, such as 2GiB; by
    /// default as much as there is
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) budget: Option<usize>,
    /// Uses one of 64 adapters in each step, of which a quarter fits on the device; they move
    /// between device, managed and pinned memory
    #[arg(long)]
    pub(crate) tiered: bool,
    /// Writes the figures as JSON; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes a report as one HTML page: figures, charts, and what was run
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Writes charts: memory over time, times of steps, driver calls
    #[arg(long, value_name = "FOLDER")]
    pub(crate) svg: Option<PathBuf>,
    /// Writes a trace for Perfetto or the tracing page of Chrome
    #[arg(long, value_name = "FILE")]
    pub(crate) chrome_trace: Option<PathBuf>,
}

/// The layout of inputs in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutChoice {
    /// Each input has one address for all sizes, and a copy of its own.
    PerSlot,
    /// All inputs are one copy.
    Packed,
}

/// The pace of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speed {
    /// As fast as possible.
    Max,
    /// At the times of the trace.
    Realtime,
}

/// The forecast of step sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// An earlier run of the same requests.
    Plan,
    /// The most frequent sizes.
    Frequency,
    /// The sizes that followed the last ones before.
    Context,
}

fn schedule(text: &str) -> Result<Schedule, String> {
    let seed = text.strip_prefix("random:").and_then(|seed| seed.parse().ok());
    match text {
        "async" => Ok(Schedule::Async),
        "eager" => Ok(Schedule::Eager),
        "late" => Ok(Schedule::Late),
        _ => seed
            .map(Schedule::Random)
            .ok_or_else(|| "one of async, eager, late, random:SEED".to_owned()),
    }
}

/// The sizes that steps are padded to, without duplicates.
#[derive(Clone, Debug)]
pub(crate) struct Buckets(pub(crate) Vec<usize>);

impl Buckets {
    fn parse(text: &str) -> Result<Self, String> {
        let most = wharf_cli::schedule::TOKENS as usize;
        let mut sizes = Vec::new();
        for size in text.split(',') {
            let tokens = size.parse().ok().filter(|tokens| (1..=most).contains(tokens));
            let tokens =
                tokens.ok_or_else(|| format!("{size}: a number of tokens from 1 to {most}"))?;
            if sizes.contains(&tokens) {
                return Err(format!("{tokens} is given twice"));
            }
            sizes.push(tokens);
        }
        Ok(Self(sizes))
    }
}

fn ring_depth(text: &str) -> Result<usize, String> {
    let depth = text.parse().ok().filter(|depth| (1..=64).contains(depth));
    depth.ok_or_else(|| "a number from 1 to 64".to_owned())
}

/// Runs a workload in pools and shows which blocks they hold at the end.
#[derive(Debug, Args)]
#[command(after_help = MAPS)]
pub(crate) struct Map {
    #[command(flatten)]
    pub(crate) requests: Requests,
    /// The number of steps after which the pools are shown
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    pub(crate) steps: usize,
    /// The driver to run on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// When softcuda runs operations: async, eager, late or random:SEED; other drivers ignore it
    #[arg(long, value_name = "SCHEDULE", value_parser = schedule)]
    pub(crate) schedule: Option<Schedule>,
    /// The kinds of memory, with one pool each
    #[arg(long, value_enum, value_delimiter = ',', default_value = "device,pinned")]
    pub(crate) kind: Vec<Kind>,
    /// The most memory that each pool commits, such as 64MiB or 2GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub(crate) max_bytes: usize,
    /// The most memory that all pools commit together; by default, --max-bytes alone limits them
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) budget: Option<usize>,
    /// Writes the pools as JSON, with every slab and block; - for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draws each pool into a file named after its kind of memory
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
        "t" | "tib" => Some(40),
        _ => None,
    };
    let bytes = digits
        .parse()
        .ok()
        .zip(unit)
        .and_then(|(number, unit): (usize, u32)| number.checked_mul(1 << unit));
    let bytes = bytes.filter(|bytes| (1..=MOST_BYTES).contains(bytes));
    bytes.ok_or_else(|| "a size from 1 byte to 1TiB, such as 64MiB".to_owned())
}

/// Reports whether wharf works on this machine and how fast, with a remedy for each problem.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The driver to examine
    #[arg(long, value_enum, default_value_t)]
    pub(crate) driver: Choice,
    /// Prints the facts as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The largest limit of a pool, in bytes.
const MOST_BYTES: usize = 1 << 40;

const EXIT_STATUS: &str = "\
Exit status:
  0              success; of doctor, whatever it found
  1              the driver, a comparison, a promise or the output failed
  2              invalid arguments, an invalid variable SOFTCUDA_*, an invalid trace, or a file that
                 cannot be opened; there are no figures and no files
  129, 130, 143  stopped by SIGHUP, SIGINT or SIGTERM; replay, map and qualify print the figures so
                 far

Examples:
  wharf doctor                                what this machine offers
  wharf qualify                               whether wharf keeps its promises here
  wharf replay                                10,000 generated steps, on softcuda without a device
  wharf replay --trace t.csv --verify         a trace, with every byte compared
  wharf replay --schedule late --verify       the same, with all work as late as allowed
  wharf replay --tiered --forecast context    objects in tiers, graphs prepared by a forecast
  wharf bench                                 ways to stage a step, compared
  wharf replay --json r.json --svg charts     figures and charts as files
  wharf map --svg maps                        a picture of the blocks in two pools";

const PROMISES: &str = "\
Each promise holds, fails, or is not offered by this machine: its driver or device lacks what the
promise is about. The exit status is 1 when a promise fails. It takes less than two minutes, at most
half a gibibyte of device memory and of host memory, and leaves nothing behind.

  wharf qualify --html report.html            a page that can be sent
  wharf qualify --driver softcuda             the same without a GPU";

const TRACES: &str = "\
A trace is a CSV file or has a JSON object on each line. Its head tells which it is:
  Azure     TIMESTAMP,ContextTokens,GeneratedTokens (github.com/Azure/AzurePublicDataset)
  BurstGPT  Timestamp,Model,Request tokens,Response tokens,...; seconds (github.com/HPMLL/BurstGPT)
  Mooncake  {\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [..]};
            milliseconds (github.com/kvcache-ai/Mooncake)
Other CSV files need --columns. Commas, semicolons, tabs or bars separate fields; times are numbers
or like 2023-11-16 18:17:03.979960, with or without Z or an offset. Lines that begin with # are
comments.

Continuous batching turns the requests into steps of at most 2048 tokens and 256 requests; decoding
comes first, then prompts in chunks.

Each step takes a slot of the ring, writes an engine's inputs, stages them, and allocates its
activations and results. Times on softcuda are the calling thread's and say nothing about a GPU.";

const MAPS: &str = "\
In each step, every pool allocates memory for the step, which is freed by the next step, and for
each request, which is freed after the request's last step. The picture shows blocks in use, blocks
that wait for the device or for their stream, slabs that are partly empty, and unused memory.

The columns of the table are sizes in bytes. live: allocated; waste: the part of live beyond the
sizes asked for; retired: freed, but still in use by a stream; cached: free in a thread's cache;
reserved: all memory that the pool holds. When --max-bytes is too small, allocations fail and are
counted as refused, and the steps continue without them.";
