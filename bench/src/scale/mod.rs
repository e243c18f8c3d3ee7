//! What operations of a pool cost as its addresses become more: instructions, counted by callgrind.
//!
//! ```text
//!   scale ──valgrind──> scale-probe: one pool, full; each operation through `counted`
//!     ^                     |
//!     +── totals of each ───+   callgrind counts inside `counted` alone, and dumps at its end
//! ```

mod folder;
mod probe;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use folder::Folder;
pub use probe::Probe;

use crate::stream_order::Failure;

/// What to count.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// GiB of addresses; what is above 1 GiB may cost twice as much, up to 140.
    #[arg(long, value_delimiter = ',', default_value = "1,16,140,1024")]
    gib: Vec<usize>,
    /// Only this pool.
    #[arg(long)]
    only: Option<Subject>,
    /// Fails where a figure is above its limit.
    #[arg(long)]
    check: bool,
    /// Writes the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The pool in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// `SlabPool`.
    Slab,
    /// `Pool`, with one stream of a device that is never behind.
    Pool,
}

/// What operations of one pool cost.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    subject: Subject,
    gib: usize,
    /// Instructions of each of [`OPERATIONS`].
    instructions: Vec<u64>,
    /// Bytes in memory once the pool is made.
    resident: usize,
}

/// The function whose calls are counted, as callgrind names it.
const COUNTED: &str = "wharf_bench::scale::probe::counted";

/// In the order in which a probe counts them; the last is the dearest of many calls.
const OPERATIONS: [&str; 5] =
    ["creation", "refused", "at the limit, another size", "stats", "longest growth"];

/// A refusal takes at most so many instructions.
const REFUSAL: u64 = 20_000;
/// Addresses of 140 GiB make nothing dearer than so many times what it is at 1 GiB.
const GROWTH: u64 = 2;
/// The least that operations are compared with: below it a few instructions would decide.
const LEAST: u64 = 2_000;
/// Addresses of 1 TiB take at most so many bytes.
const RESIDENT: usize = 10 << 20;

/// Counts everything and prints the table. The code of a failure where a limit is exceeded.
///
/// # Errors
///
/// valgrind is not there, or a probe failed.
pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let subjects = [Subject::Slab, Subject::Pool];
    let wanted = subjects.into_iter().filter(|it| options.only.is_none_or(|only| only == *it));
    let mut figures = Vec::new();
    for subject in wanted {
        for &gib in &options.gib {
            figures.push(Figures::of(subject, gib)?);
        }
    }
    println!("{}", table(&figures));
    let exceeded = exceeded(&figures);
    exceeded.iter().for_each(|what| println!("{what}"));
    if let Some(path) = &options.json {
        serde_json::to_writer_pretty(File::create(path)?, &figures)?;
    }
    let is_wrong = options.check && !exceeded.is_empty();
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Figures {
    fn of(subject: Subject, gib: usize) -> Result<Self, Failure> {
        let mut instructions = counts(subject, gib, &[])?;
        if instructions.len() != OPERATIONS.len() - 1 {
            return Err(format!("{} operations were counted", instructions.len()).into());
        }
        // The first is the pool's creation.
        let growths = counts(subject, gib, &["--growth"])?;
        instructions.push(growths.into_iter().skip(1).max().ok_or("nothing has grown")?);
        let mut probe = Command::new(std::env::current_exe()?);
        with_arguments(&mut probe, subject, gib);
        let output = probe.arg("--resident").output()?;
        let resident = String::from_utf8_lossy(&output.stdout).trim().parse()?;
        eprintln!("{subject:?}, {gib} GiB: {instructions:?}");
        Ok(Self { subject, gib, instructions, resident })
    }
}

fn with_arguments(command: &mut Command, subject: Subject, gib: usize) {
    let name = subject.to_possible_value().map_or(String::new(), |it| it.get_name().to_owned());
    command.args(["scale-probe", &name, &gib.to_string()]);
}

/// The instructions of each counted operation of a probe.
fn counts(subject: Subject, gib: usize, arguments: &[&str]) -> Result<Vec<u64>, Failure> {
    let folder = Folder::new()?;
    let out = folder.path().join("out");
    let mut command = Command::new("valgrind");
    command.args([
        "--tool=callgrind",
        &format!("--toggle-collect={COUNTED}"),
        &format!("--dump-after={COUNTED}"),
        &format!("--callgrind-out-file={}", out.display()),
    ]);
    command.arg(std::env::current_exe()?);
    with_arguments(&mut command, subject, gib);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.map_err(|error| format!("valgrind: {error}"))?;
    if !status.success() {
        return Err(format!("a probe of {gib} GiB failed").into());
    }
    let mut totals = Vec::new();
    for part in 1.. {
        let Ok(text) = fs::read_to_string(folder.path().join(format!("out.{part}"))) else { break };
        // What comes behind the last operation is empty.
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let total: u64 = total.ok_or("a dump without totals")?.trim().parse()?;
        totals.extend(Some(total).filter(|total| *total > 0));
    }
    Ok(totals)
}

fn table(figures: &[Figures]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let head = ["pool", "GiB"].into_iter().chain(OPERATIONS).chain(["resident, KiB"]);
    table.set_header(head);
    for of in figures {
        let row = [format!("{:?}", of.subject), of.gib.to_string()];
        let counts = of.instructions.iter().map(ToString::to_string);
        table.add_row(row.into_iter().chain(counts).chain([(of.resident >> 10).to_string()]));
    }
    table.column_iter_mut().skip(1).for_each(|it| it.set_cell_alignment(CellAlignment::Right));
    table
}

/// The figures above their limits, in words.
fn exceeded(figures: &[Figures]) -> Vec<String> {
    let mut exceeded = Vec::new();
    for of in figures {
        let (what, resident) = (format!("{:?} of {} GiB", of.subject, of.gib), of.resident);
        if of.instructions[1] > REFUSAL {
            exceeded.push(format!("{what}: a refusal takes more than {REFUSAL} instructions"));
        }
        if resident > RESIDENT {
            exceeded.push(format!("{what}: {resident} bytes are resident, more than {RESIDENT}"));
        }
        let small = figures.iter().find(|it| it.subject == of.subject && it.gib == 1);
        let Some(small) = small.filter(|_| of.gib <= 140) else { continue };
        for ((name, count), base) in
            OPERATIONS.iter().zip(&of.instructions).zip(&small.instructions)
        {
            if *count > GROWTH * base.max(&LEAST) {
                exceeded
                    .push(format!("{what}: {name} takes {count} instructions, at 1 GiB {base}"));
            }
        }
    }
    exceeded
}
