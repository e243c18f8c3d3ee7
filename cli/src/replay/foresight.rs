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
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(|error| named(error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(error)),
        }
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

/// The number of changes of size that a plan holds, at eight bytes each.
const CHANGES: usize = 1 << 20;
