//! The promises of `wharf` on one machine: each is put to the test on the driver that is there.
//!
//! ```text
//! CHECKS ──> Stand (driver, context) ──> Line: holds, fails, not offered by this machine
//! figures ─────────────────────────────> Figure, Series: what things cost here
//! ```
//!
//! On softcuda the promises are tested with everything as late as allowed, and with the driver's
//! checks; the figures are taken on a machine that works as soon as it can. A check makes its own
//! pools and streams, so one that fails does not change the next.

mod ends;
mod figures;
mod graphs;
mod html;
mod machine;
mod memory;
mod pools;
mod raw;
mod results;
mod staging;
mod tiers;
mod timelines;

use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use softcuda::Schedule;
use wharf::Context;

pub use self::figures::{Figure, Figures, Series};
pub use self::html::page;
use crate::replay::ReplayError;
use crate::target::{Choice, Software, Target, TargetError};

/// The outcome of all checks, as `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of this form, [`SCHEMA`].
    pub schema: u32,
    /// The version of this program.
    pub version: &'static str,
    /// The driver, `system` or `softcuda`.
    pub driver: &'static str,
    /// Why this is not the system's driver, where that was tried.
    pub instead_of: Option<String>,
    /// The CUDA version of the driver, such as `13.3`.
    pub cuda: String,
    /// The device.
    pub device: String,
    /// The device's compute capability, such as `9.0`.
    pub compute_capability: String,
    /// What was promised, and what came of it.
    pub lines: Vec<Line>,
    /// What things cost.
    pub figures: Figures,
    /// What ended the figures early, where a driver call was refused.
    pub figures_failed: Option<String>,
    /// The duration of all of it.
    pub seconds: f64,
    /// Whether a signal ended it early.
    pub stopped: bool,
}

/// A promise and the verdict on it.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name, which does not change between versions.
    pub id: &'static str,
    /// The promise.
    pub promise: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen.
    pub found: String,
    /// How long the check took.
    pub seconds: f64,
}

/// What came of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was kept.
    Holds,
    /// It was broken.
    Fails,
    /// The machine, or its driver, has not what it is about.
    NotOffered,
}

/// The version of the form of [`Report`]; a change that a reader notices raises it.
pub const SCHEMA: u32 = 1;

/// What the figures on softcuda are.
pub const NO_GPU: &str = "On softcuda, times are the software driver's on this processor and say \
                          nothing about a GPU; numbers of driver calls do.";

/// Why there are no figures where a promise fails.
pub const NO_FIGURES: &str = "Figures were not taken: a driver that breaks a promise may do so \
                              there too.";

/// What goes before the reason why figures are missing.
pub const FIGURES_FAILED: &str = "Not all figures were taken: ";

/// The number of checks.
pub const COUNT: usize = CHECKS.len();

impl Report {
    /// The number of lines with a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.verdict == verdict).count()
    }

    /// What it was on.
    pub fn head(&self) -> String {
        let Self { driver, cuda, device, compute_capability, version, .. } = self;
        let reason = self.instead_of.as_ref();
        let reason = reason.map(|reason| format!(" (the system's cannot be used: {reason})"));
        let reason = reason.unwrap_or_default();
        format!(
            "driver: {driver}{reason}, CUDA {cuda}; device 0: {device}, {compute_capability}; \
             wharf {version}"
        )
    }

    /// How many promises there are of each verdict.
    pub fn count_text(&self) -> String {
        let [holds, fails, not_offered] = [Verdict::Holds, Verdict::Fails, Verdict::NotOffered]
            .map(|verdict| self.count(verdict));
        let stopped = if self.stopped { ", stopped early" } else { "" };
        let seconds = self.seconds;
        format!(
            "{holds} hold, {fails} fail, {not_offered} are not offered by this machine, in \
             {seconds:.0} s{stopped}"
        )
    }
}

impl Verdict {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails => "FAILS",
            Self::NotOffered => "not offered",
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QualifyError {
    /// There is no driver to work on.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The driver does not say what it is.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

impl From<wharf::Error> for QualifyError {
    fn from(error: wharf::Error) -> Self {
        Self::Replay(error.into())
    }
}

/// Puts every promise to the test on the first device of the driver that `choice` names, and takes
/// the figures, until `stop` is set. `watch` hears of each line, which is the report's last.
///
/// # Errors
///
/// [`QualifyError`]: there is no driver, or it does not say what it is. A refusal of what is tested
/// is a line that fails; one in the figures is in the report.
pub fn run(
    choice: Choice,
    schedule: Option<Schedule>,
    stop: &AtomicBool,
    mut watch: impl FnMut(&Report),
) -> Result<Report, QualifyError> {
    let start = Instant::now();
    let target = Target::new(choice, Software { schedule: schedule.or(LATE), verify: true })?;
    let device = target.driver.device(0)?;
    let (version, capability) = (target.driver.version()?, device.compute_capability()?);
    let mut report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        driver: target.name(),
        instead_of: target.instead_of.as_ref().map(ToString::to_string),
        cuda: format!("{}.{}", version / 1000, version % 1000 / 10),
        device: device.name()?,
        compute_capability: capability.to_string(),
        lines: Vec::with_capacity(COUNT),
        figures: Figures::default(),
        figures_failed: None,
        seconds: 0.0,
        stopped: false,
    };
    for check in CHECKS {
        let line = check.line(&target, stop);
        // A check that was told to stop has not seen all that it promises.
        if stop.load(Ordering::Relaxed) {
            break;
        }
        report.lines.push(line);
        watch(&report);
    }
    drop(target);
    // A driver that breaks a promise may have lost its context: its costs say nothing then.
    if report.count(Verdict::Fails) == 0 && !stop.load(Ordering::Relaxed) {
        let target = Target::new(choice, Software { schedule, verify: false })?;
        // The verdicts stand, whatever becomes of the figures.
        let taken = figures::take(&target, stop, &mut report.figures);
        report.figures_failed = taken.err().map(|error| error.to_string());
    }
    report.stopped = stop.load(Ordering::Relaxed);
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// A promise, and how it is put to the test.
struct Check {
    id: &'static str,
    promise: &'static str,
    test: fn(&Stand<'_>) -> Outcome,
}

/// What a check works on.
struct Stand<'a> {
    target: &'a Target,
    context: Context,
    stop: &'a AtomicBool,
}

/// What a check has seen, or what was broken.
type Outcome = Result<Seen, Box<dyn StdError>>;

/// What a check has seen where nothing was broken.
enum Seen {
    Kept(String),
    /// Not offered, and for lack of what.
    Lacks(String),
}

impl Check {
    fn line(&self, target: &Target, stop: &AtomicBool) -> Line {
        let start = Instant::now();
        let (verdict, found) = match self.outcome(target, stop) {
            Ok(Seen::Kept(found)) => (Verdict::Holds, found),
            Ok(Seen::Lacks(found)) => (Verdict::NotOffered, found),
            Err(broken) => (Verdict::Fails, broken.to_string()),
        };
        let seconds = start.elapsed().as_secs_f64();
        Line { id: self.id, promise: self.promise, verdict, found, seconds }
    }

    /// A context for each check, released after it.
    fn outcome(&self, target: &Target, stop: &AtomicBool) -> Outcome {
        let context = Context::retain(&target.driver.device(0)?)?;
        let stand = Stand { target, context, stop };
        let seen = {
            let _current = stand.context.enter()?;
            (self.test)(&stand)?
        };
        let failed = stand.context.drop_errors();
        stand.context.close()?;
        ensure(failed == 0, || format!("{failed} objects could not be released"))?;
        Ok(seen)
    }
}

/// What was seen is so, else the check fails with what `broken` says.
fn ensure(is_so: bool, broken: impl FnOnce() -> String) -> Result<(), Box<dyn StdError>> {
    if is_so { Ok(()) } else { Err(broken().into()) }
}

fn kept(found: impl Into<String>) -> Outcome {
    Ok(Seen::Kept(found.into()))
}

fn lacks(what: impl Into<String>) -> Outcome {
    Ok(Seen::Lacks(what.into()))
}

/// Bytes that `seed` stands for, of which no two long runs are the same.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let byte =
        |index: usize| (index.wrapping_mul(31) ^ (index >> 8) ^ seed.wrapping_mul(97)) & 0xff;
    (0..len).map(|index| u8::try_from(byte(index)).unwrap_or(0)).collect()
}

/// The order of operations on softcuda that finds the most.
const LATE: Option<Schedule> = Some(Schedule::Late);
/// The longest wait for what must come: a driver that takes longer has broken its promise.
const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

const fn check(id: &'static str, promise: &'static str, test: fn(&Stand<'_>) -> Outcome) -> Check {
    Check { id, promise, test }
}

/// All of them, in the order of the report.
const CHECKS: [Check; 32] = [
    check("memory/pinned", "pinned memory: commit, address, bytes, decommit", memory::pinned),
    check(
        "memory/write-combined",
        "write-combined memory: commit, address, bytes, decommit",
        memory::write_combined,
    ),
    check("memory/device", "device memory: commit, address, bytes, decommit", memory::device),
    check("memory/managed", "managed memory: commit, address, bytes, decommit", memory::managed),
    check("memory/file", "file-mapped memory: commit, address, bytes, decommit", memory::file),
    check("memory/growth", "device memory is obtained and given back in pieces", memory::growth),
    check("machine/posix", "device memory as file descriptors for other processes", machine::posix),
    check("machine/fabric", "device memory as handles for other nodes", machine::fabric),
    check("machine/rdma", "device memory that network cards read and write", machine::rdma),
    check("machine/peers", "memory of another device is refused by name", machine::peers),
    check("timeline/tickets", "a ticket is complete when its work is", timelines::tickets),
    check("timeline/words", "the device writes how far a stream is", timelines::words),
    check("pool/order", "memory is reused in the order of its stream", pools::order),
    check("pool/streams", "memory moves to another stream when the first is done", pools::streams),
    check("pool/pieces", "copies and fills are cut where registrations meet", pools::pieces),
    check("pool/limit", "a pool keeps to its limit, and works on after it", pools::limit),
    check("pool/memory", "a device without memory is asked again after a trim", pools::memory),
    check("pool/budget", "pools, tiers and sets keep to one budget together", pools::budget),
    check("staging/per-slot", "every byte arrives, an input a copy", staging::per_slot),
    check("staging/packed", "every byte arrives, all inputs one copy", staging::packed),
    check("staging/ring", "a source is not written before it was read", staging::ring),
    check("staging/reader", "inputs are not overwritten before they were used", staging::reader),
    check("results/fetch", "results are what the device wrote", results::fetch),
    check("results/beside", "results are read while the next step runs", results::beside),
    check("results/held", "results stay as long as the host holds them", results::held),
    check("graph/replay", "captured copies replay with their bytes", graphs::replay),
    check("graph/beside", "growth, queries and steps leave a capture as it is", graphs::beside),
    check("tier/moves", "an object keeps its bytes in every tier", tiers::moves),
    check("tier/writer", "a write does not run beside the copy of a move", tiers::writer),
    check("fault/refusals", "a call that the driver refuses has changed nothing", ends::refusals),
    check("end/checks", "the driver's checks found nothing", ends::checks),
    check("end/nothing", "no memory and no object is left", ends::nothing),
];
