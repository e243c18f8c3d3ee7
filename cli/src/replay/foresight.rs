//! Forecasts of a replay: the sizes of the next steps, and the memory that they need.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use wharf::forecast::{ContextModel, Forecast, Frequency, Plan, PlanRecorder, Run, WarmSet};
use wharf::pool::{BlocksOfSize, MemoryPlan};

use crate::output::{Output, is_standard};
use crate::schedule::{Step, padded, sizes};

/// The forecast of step sizes.
#[derive(Clone, Debug, Default)]
pub enum Foresight {
    /// The sizes that followed the last ones before.
    #[default]
    Context,
    /// The most frequent sizes.
    Frequency,
    /// An earlier run.
    Plan(Plan),
}

impl Foresight {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Frequency => "frequency",
            Self::Plan(_) => "plan",
        }
    }

    /// A forecast that has seen nothing.
    pub fn forecast(&self) -> Box<dyn Forecast> {
        let largest = sizes().last().unwrap_or(1);
        match self {
            Self::Context => Box::new(ContextModel::new().limit(largest)),
            Self::Frequency => Box::new(Frequency::new(largest)),
            Self::Plan(plan) => Box::new(plan.clone()),
        }
    }
}

/// The needs of a run, as stored in a file. Sizes of memory are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The padded sizes of steps in order, each with how often it came in a row.
    pub sizes: Vec<(u32, u32)>,
    /// Blocks of device memory: the size, and how many there were.
    pub device: Vec<(usize, usize)>,
    /// Blocks of pinned memory.
    pub pinned: Vec<(usize, usize)>,
    /// The most device and pinned memory that was committed at once, each of its own.
    pub reserved: [usize; 2],
    /// The most memory that the pools had obtained.
    pub peak_reserved: u64,
}

impl RunPlan {
    /// The plan in a file; `None` where there is no such file yet.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no plan; the error names it.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // A device or a pipe is written to; read, it may have no end.
        let special = fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
        if special || is_standard(path) {
            return Ok(None);
        }
        match fs::read(path) {
            Ok(text) => Self::parse(&text)
                .map(Some)
                .map_err(|fault| io::Error::other(format!("{}{fault}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(error)),
        }
    }

    /// The plan that a text is; else where it is none, and why.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let plan: Self = serde_json::from_slice(text).map_err(|error| {
            let (line, column, why) = (error.line(), error.column().max(1), error.to_string());
            let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
            format!(":{line}:{column}: {NO_PLAN}: {why}; {OTHER_FILE}")
        })?;
        let blocks = plan.device.iter().chain(&plan.pinned);
        let blocks = blocks.map(|(size, count)| (*size).max(LEAST_BLOCK).saturating_mul(*count));
        let peak = usize::try_from(plan.peak_reserved).unwrap_or(usize::MAX);
        let most = blocks.chain(plan.reserved).chain([peak]).max().unwrap_or(0);
        if most > MOST_PLANNED {
            return Err(format!(": {NO_PLAN}: it asks for {most} bytes; {OTHER_FILE}"));
        }
        Ok(plan)
    }

    /// Writes it to a file that was begun.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, mut output: Output) -> io::Result<()> {
        serde_json::to_writer(&mut output, self).map_err(io::Error::from)?;
        writeln!(output)?;
        output.keep()
    }

    /// The order of sizes.
    pub fn sizes(&self) -> Plan {
        self.sizes.iter().map(|&(size, length)| Run { size, length }).collect()
    }

    /// The plans of device and of pinned memory.
    pub fn memory(&self) -> [MemoryPlan; 2] {
        let plan = |blocks: &[(usize, usize)], reserved| {
            let blocks = blocks.iter().map(|&(size, count)| BlocksOfSize { size, count });
            blocks.collect::<MemoryPlan>().reserving(reserved)
        };
        let [device, pinned] = self.reserved;
        [plan(&self.device, device), plan(&self.pinned, pinned)]
    }
}

/// Records the sizes of a run's steps.
#[derive(Debug)]
pub struct SizeRecorder(PlanRecorder);

impl SizeRecorder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(PlanRecorder::new(CHANGES))
    }

    /// Adds a step.
    pub fn record(&mut self, step: &Step) {
        self.0.record_usage(padded(step.tokens).unwrap_or(WarmSet::OTHER));
    }

    /// The recorded sizes.
    pub fn finish(self) -> Plan {
        self.0.finish()
    }
}

impl Default for SizeRecorder {
    fn default() -> Self {
        Self::new()
    }
}

const NO_PLAN: &str = "this is no plan that --plan has written";
const OTHER_FILE: &str = "name another file, or remove this one";
/// The least bytes that a block takes of its pool.
const LEAST_BLOCK: usize = 256;
/// More bytes than any run has needed.
const MOST_PLANNED: usize = 1 << 40;
/// The number of changes of size that a plan holds, at eight bytes each.
const CHANGES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a plan took minutes, or ended the command where its figures were printed.
    #[test]
    fn a_plan_that_no_run_has_written_is_refused_with_its_place() {
        let plan = |device: &str, reserved: &str, peak: &str| {
            let text = format!(
                "{{\"sizes\":[],\"device\":[{device}],\"pinned\":[],\"reserved\":[0,{reserved}],\
                 \"peak_reserved\":{peak}}}"
            );
            RunPlan::parse(text.as_bytes())
        };
        assert!(plan("[16777216,1]", "2097152", "20971520").is_ok());
        for (device, reserved, peak) in [
            ("[1,1000000000000]", "0", "0"),
            ("[4294967296,4294967296]", "0", "0"),
            ("", "99999999999999", "0"),
            ("", "0", "18446744073709551615"),
        ] {
            let told = plan(device, reserved, peak).unwrap_err();
            assert!(
                told.starts_with(": this is no plan that --plan has written: it asks"),
                "{told}"
            );
        }
        for (text, start) in [
            ("", ":1:1: this is no plan that --plan has written: EOF while"),
            ("{\n}", ":2:1: this is no plan that --plan has written: missing field `sizes`; name"),
            ("hi\n", ":1:1: this is no plan"),
        ] {
            let told = RunPlan::parse(text.as_bytes()).unwrap_err();
            assert!(told.starts_with(start), "{told}");
        }
    }
}
