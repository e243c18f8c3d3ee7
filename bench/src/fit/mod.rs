//! What a pool obtains for what is live: wharf beside PyTorch's two allocators, on the same
//! sequences of allocations.
//!
//! ```text
//!   sequence ──> replay ──┬─> PyTorch's native segments      rules, no memory
//!                         ├─> PyTorch's expandable segments  rules, no memory
//!                         └─> wharf's Pool on softcuda       the code, the device some
//!                                                            allocations behind
//! ```
//!
//! PyTorch's rules do not ask how far the device is, since they reuse within one stream only: their
//! figures are the same in each run. wharf's vary a little, by when softcuda's threads get to the
//! markers behind the work.

mod ours;
mod replay;
mod sequence;
mod sequences;
mod torch;

use std::fs::File;
use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::stream_order::Failure;
use replay::{Outcome, replay};
use sequence::Sequence;
use sequences::Named;
use torch::Rules;
use wharf_cli::torch::Torch;

/// What to replay.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only sequences whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Added to the seeds of the sequences that are drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Replacements in the sequence of small blocks.
    #[arg(long, default_value_t = 2_000_000)]
    replacements: usize,
    /// Allocations that the device is behind.
    #[arg(long, default_value_t = 32)]
    behind: usize,
    /// Steps of a trace, as `wharf replay --dump-steps` prints them, and their name; may be given
    /// several times. The built-in load is always there.
    #[arg(long, value_name = "NAME=FILE")]
    steps: Vec<Named>,
    /// Also limits every allocator to 1.05, 1.1, 1.2 and 1.5 of what is live at most.
    #[arg(long)]
    limits: bool,
    /// Writes the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What one allocator did with one sequence.
#[derive(Debug, Serialize)]
pub struct Figures {
    sequence: String,
    allocator: &'static str,
    peak_live: usize,
    /// Peak reserved over peak live.
    ratio: f64,
    #[serde(flatten)]
    outcome: Outcome,
    /// Refused allocations at each limit, in the order of [`LIMITS`].
    refused_at: Vec<usize>,
}

/// An allocator under test: of no limit, or of one in bytes.
trait Allocator {
    /// Whether there was room.
    fn alloc(&mut self, block: usize, size: usize, stream: usize) -> Result<bool, Failure>;
    fn free(&mut self, block: usize) -> Result<(), Failure>;
    fn reserved(&self) -> usize;
    /// Commits and releases.
    fn calls(&self) -> (usize, usize);
}

/// Makes an allocator for a sequence and a limit.
type Make = fn(&Sequence, usize, usize) -> Result<Box<dyn Allocator>, Failure>;

const ALLOCATORS: [(&str, Make); 3] = [
    ("PyTorch native", |_, limit, _| Ok(Box::new(Rules::new(Torch::native(limit))))),
    ("PyTorch expandable", |_, limit, _| Ok(Box::new(Rules::new(Torch::expandable(limit))))),
    ("wharf", |sequence, limit, behind| {
        Ok(Box::new(ours::Ours::new(sequence.streams, limit, behind)?))
    }),
];

/// Limits, as hundredths of the peak of live bytes.
const LIMITS: [usize; 4] = [105, 110, 120, 150];

/// Far more than any sequence asks for.
const NO_LIMIT: usize = 1 << 38;

/// Replays all sequences; the table of what each allocator reserved.
///
/// # Errors
///
/// What the driver said, or a file that cannot be read or written.
pub fn run(options: &Options) -> Result<Table, Failure> {
    let mut figures = Vec::new();
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|part| name.contains(&**part))
    };
    for sequence in sequences::all(options, wanted)? {
        for (allocator, make) in ALLOCATORS {
            let outcome = replay(&sequence, &mut *make(&sequence, NO_LIMIT, options.behind)?)?;
            let limits: &[usize] = if options.limits { &LIMITS } else { &[] };
            let refused_at = limits.iter().map(|hundredths| {
                // A device's memory comes in granules.
                let limit = (sequence.peak_live / 100 * hundredths).next_multiple_of(2 << 20);
                Ok(replay(&sequence, &mut *make(&sequence, limit, options.behind)?)?.refused)
            });
            let refused_at = refused_at.collect::<Result<_, Failure>>()?;
            figures.push(Figures {
                sequence: sequence.name.clone(),
                allocator,
                peak_live: sequence.peak_live,
                ratio: ratio(outcome.peak_reserved, sequence.peak_live),
                outcome,
                refused_at,
            });
        }
        eprintln!("{} done", sequence.name);
    }
    if let Some(path) = &options.json {
        serde_json::to_writer_pretty(File::create(path)?, &figures)?;
    }
    Ok(table(&figures))
}

fn table(figures: &[Figures]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "sequence",
        "allocator",
        "live MiB",
        "peak",
        "to the better",
        "mean",
        "commits",
        "releases",
        "refused at 1.05, 1.1, 1.2, 1.5",
    ]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let (mut logarithms, mut count) = (0.0, 0.0);
    for one in figures.chunks(ALLOCATORS.len()) {
        let better = one[0].ratio.min(one[1].ratio);
        for figures in one {
            let refused: Vec<_> = figures.refused_at.iter().map(ToString::to_string).collect();
            table.add_row([
                figures.sequence.clone(),
                figures.allocator.to_owned(),
                format!("{:.0}", ratio(figures.peak_live, 1 << 20)),
                format!("{:.3}", figures.ratio),
                format!("{:.3}", figures.ratio / better),
                format!("{:.3}", figures.outcome.mean),
                figures.outcome.commits.to_string(),
                figures.outcome.releases.to_string(),
                refused.join(", "),
            ]);
        }
        logarithms += (one[2].ratio / better).ln();
        count += 1.0;
    }
    let mean = if count > 0.0 { f64::exp(logarithms / count) } else { 1.0 };
    table.add_row(["geometric mean", "wharf", "", "", &format!("{mean:.3}")]);
    table
}

#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^53")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
