//! The files that a replay leaves.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use wharf::pool::MemoryPlan;
use wharf_cli::charts;
use wharf_cli::chrome::ChromeTrace;
use wharf_cli::output::{Collision, Kept, Named, Output, create_folder, distinct, open_pipes};
use wharf_cli::replay::{Record, RunPlan, SizeRecorder};
use wharf_cli::summary::{Collector, Summary};

use super::html;
use crate::arguments::Replay;

/// The files that were asked for, begun before anything runs so that one that cannot be written is
/// told at once.
pub(super) struct Files {
    json: Option<Output>,
    html: Option<Output>,
    chrome: Option<ChromeTrace>,
    /// A chart of each name.
    charts: Vec<(&'static str, Output)>,
    /// Where a first run keeps its plan.
    plan: Option<(Output, SizeRecorder)>,
    /// What went wrong during the run, which goes on to its figures.
    failed: Kept,
}

/// What the files are made of.
pub(super) struct Contents<'a> {
    pub(super) summary: &'a Summary,
    pub(super) collector: &'a Collector,
    /// Calls of the driver, by name.
    pub(super) calls: &'a [(&'a str, u64)],
    pub(super) needed: &'a [MemoryPlan; 2],
}

impl Contents<'_> {
    /// The chart of a name.
    pub(super) fn chart(&self, name: &str) -> io::Result<String> {
        match name {
            MEMORY => charts::memory(self.collector.samples()),
            TIMES => charts::step_times(self.collector.times()),
            _ => charts::driver_calls(self.calls),
        }
    }
}

/// Sees that no file that a run writes is another one, or one that it reads.
pub(super) fn check(options: &Replay) -> Result<(), Collision> {
    let inputs: Vec<_> = options.requests.input().into_iter().collect();
    distinct(&inputs, &outputs(options))
}

/// Waits for the readers of what a run writes, as [`open_pipes`].
pub(super) fn pipes(options: &Replay) -> io::Result<Vec<File>> {
    open_pipes(&outputs(options))
}

fn outputs(options: &Replay) -> Vec<Named> {
    let named =
        |argument, path: &Option<PathBuf>| path.clone().map(|path| Named { argument, path });
    let files = [
        named("--plan", &options.plan),
        named("--json", &options.json),
        named("--html", &options.html),
        named("--chrome-trace", &options.chrome_trace),
    ];
    let mut outputs: Vec<_> = files.into_iter().flatten().collect();
    for chart in CHARTS {
        outputs.extend(named("--svg", &options.svg.as_ref().map(|folder| folder.join(chart))));
    }
    outputs
}

impl Files {
    /// Begins them; `is_planned` if the plan is there, `counted` if calls of the driver are.
    pub(super) fn create(options: &Replay, is_planned: bool, counted: bool) -> io::Result<Self> {
        let mut charts = Vec::new();
        if let Some(folder) = &options.svg {
            create_folder(folder)?;
            for name in CHARTS.into_iter().filter(|name| counted || *name != CALLS) {
                charts.push((name, Output::create(&folder.join(name))?));
            }
        }
        let plan = options.plan.as_deref().filter(|_| !is_planned);
        // After the folder, since they may lie in it.
        let plan = plan.map(Output::create).transpose()?;
        let json = options.json.as_deref().map(Output::create).transpose()?;
        let html = options.html.as_deref().map(Output::create).transpose()?;
        let chrome = options.chrome_trace.as_deref().map(Output::create).transpose()?;
        let chrome = chrome.map(ChromeTrace::new).transpose()?;
        let plan = plan.map(|output| (output, SizeRecorder::new()));
        Ok(Self { json, html, chrome, charts, plan, failed: Kept::default() })
    }

    /// Takes a step; a file that cannot be written on is told at the end.
    pub(super) fn record(&mut self, number: u64, record: &Record) {
        if let Some((_, sizes)) = &mut self.plan {
            sizes.record(&record.step);
        }
        if let Some(chrome) = &mut self.chrome
            && let Err(error) = chrome.record(number, record)
        {
            self.chrome = None;
            self.failed.note(Err(error));
        }
    }

    /// Finishes the files, each whatever became of the others.
    pub(super) fn keep(self, contents: &Contents<'_>) -> Kept {
        let mut kept = self.failed;
        if let Some((output, sizes)) = self.plan {
            let [device, pinned] = contents
                .needed
                .each_ref()
                .map(|plan| plan.blocks().map(|blocks| (blocks.size, blocks.count)).collect());
            let reserved = contents.needed.each_ref().map(MemoryPlan::reserved);
            let peak_reserved = contents.summary.peak_reserved;
            let sizes = sizes.finish().runs().map(|run| (run.size, run.length)).collect();
            kept.note(RunPlan { sizes, device, pinned, reserved, peak_reserved }.write(output));
        }
        if let Some(json) = self.json {
            let text = serde_json::to_string_pretty(contents.summary).map_err(io::Error::from);
            kept.note(text.and_then(|text| json.keep_text(&text)));
        }
        if let Some(html) = self.html {
            kept.note(html::page(contents).and_then(|text| html.keep_text(&text)));
        }
        kept.note(self.chrome.map_or(Ok(()), ChromeTrace::keep));
        for (name, output) in self.charts {
            kept.note(contents.chart(name).and_then(|svg| output.keep_text(&svg)));
        }
        kept
    }
}

pub(super) const MEMORY: &str = "memory.svg";
pub(super) const TIMES: &str = "step-times.svg";
/// Calls are counted on softcuda alone.
pub(super) const CALLS: &str = "driver-calls.svg";
const CHARTS: [&str; 3] = [MEMORY, TIMES, CALLS];
