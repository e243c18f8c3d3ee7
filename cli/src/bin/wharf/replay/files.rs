//! The files that a replay leaves.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use wharf::pool::MemoryPlan;
use wharf_cli::charts;
use wharf_cli::chrome::ChromeTrace;
use wharf_cli::output::Output;
use wharf_cli::replay::{Record, RunPlan, SizeRecorder};
use wharf_cli::summary::{Collector, Summary};

use crate::arguments::Replay;

/// The files that were asked for, begun before anything runs so that one that cannot be written is
/// told at once.
pub(super) struct Files {
    json: Option<Output>,
    chrome: Option<ChromeTrace>,
    charts: Option<PathBuf>,
    /// Where a first run keeps its plan.
    plan: Option<(Output, SizeRecorder)>,
}

impl Files {
    /// Begins them; `is_planned` if the plan is there.
    pub(super) fn create(options: &Replay, is_planned: bool) -> io::Result<Self> {
        let plan =
            options.plan.as_deref().filter(|_| !is_planned).map(Output::create).transpose()?;
        let plan = plan.map(|output| (output, SizeRecorder::new()));
        let charts = options.svg.clone();
        if let Some(folder) = &charts {
            fs::create_dir_all(folder).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
            })?;
        }
        // After the folder, since they may lie in it.
        let json = options.json.as_deref().map(Output::create).transpose()?;
        let chrome = options.chrome_trace.as_deref().map(Output::create).transpose()?;
        Ok(Self { json, chrome: chrome.map(ChromeTrace::new).transpose()?, charts, plan })
    }

    pub(super) fn record(&mut self, number: u64, record: &Record) -> io::Result<()> {
        if let Some((_, sizes)) = &mut self.plan {
            sizes.record(&record.step);
        }
        self.chrome.as_mut().map_or(Ok(()), |chrome| chrome.record(number, record))
    }

    /// Finishes the files; `calls` are those of the driver, by name.
    pub(super) fn keep(
        self,
        summary: &Summary,
        collector: &Collector,
        calls: &[(&str, u64)],
        needed: &[MemoryPlan; 2],
    ) -> io::Result<()> {
        if let Some((output, sizes)) = self.plan {
            let [device, pinned] = needed
                .each_ref()
                .map(|plan| plan.blocks().map(|blocks| (blocks.size, blocks.count)).collect());
            let sizes = sizes.finish().runs().map(|run| (run.size, run.length)).collect();
            let peak_reserved = summary.peak_reserved;
            RunPlan { sizes, device, pinned, peak_reserved }.write(output)?;
        }
        if let Some(mut json) = self.json {
            serde_json::to_writer_pretty(&mut json, summary).map_err(io::Error::from)?;
            writeln!(json)?;
            json.keep()?;
        }
        self.chrome.map_or(Ok(()), ChromeTrace::keep)?;
        if let Some(folder) = self.charts {
            charts::memory(&folder.join("memory.svg"), collector.samples())?;
            charts::step_times(&folder.join("step-times.svg"), collector.times())?;
            // Calls are counted on softcuda alone.
            if !calls.is_empty() {
                charts::driver_calls(&folder.join("driver-calls.svg"), calls)?;
            }
        }
        Ok(())
    }
}
