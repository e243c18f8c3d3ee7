//! `wharf replay`.

mod files;
mod html;
pub(crate) mod source;
mod table;

use std::io::{self, BufWriter, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use softcuda::Schedule;
use wharf::memory::Budget;
use wharf::staging::Layout;
use wharf_cli::output::for_people;
use wharf_cli::replay::{Foresight, Outcome, RunPlan, Settings, Workload, run as replay};
use wharf_cli::schedule::{Step, sizes};
use wharf_cli::summary::{Collector, Run, Setting};
use wharf_cli::target::{Software, Target};

use self::files::{Contents, Files};
use self::source::{Extent, Taken};
use crate::arguments::{LayoutChoice, Replay, Source, Speed};
use crate::failure::Failure;
use crate::signals::Signals;

/// Runs the steps and prints what they cost, or prints the steps.
pub(crate) fn run(options: &Replay) -> Result<(), Failure> {
    if options.dump_steps {
        return dump(options);
    }
    files::check(options)?;
    let extent = Extent::of(options)?;
    let software = Software { schedule: options.schedule, verify: options.verify };
    let target = Target::new(options.driver, software)?;
    target.tell_instead_of();
    // Before signals are caught, since it may wait.
    let _readers = files::pipes(options).map_err(Failure::File)?;
    let signals = Signals::install()?;
    run_on(&target, options, extent.as_ref(), &signals)
        .map_err(|failure| failure.unless_stopped(&signals))
}

fn run_on(
    target: &Target,
    options: &Replay,
    extent: Option<&Extent>,
    signals: &Signals,
) -> Result<(), Failure> {
    let device = target
        .driver
        .device(0)
        .and_then(|device| device.name())
        .map_err(|error| Failure::Replay(error.into()))?;
    let plan = options.plan.as_deref().map(RunPlan::read).transpose().map_err(Failure::File)?;
    let plan = plan.flatten();
    // Created before the run: a path that cannot be written must not cost the run.
    let counted = target.software().is_some();
    let mut files = Files::create(options, plan.is_some(), counted).map_err(Failure::File)?;
    let settings = settings(options, extent, plan.as_ref())?;
    let mut collector = Collector::new(settings.foresight.name(), settings.foresight.forecast());
    let bar = progress(options, extent);
    let taken = Taken::default();
    let steps = source::steps(options, &taken, Some(signals))?;
    taken.note();
    let mut number = 0;
    let outcome = replay(target, &settings, steps, &signals.stop, |record| {
        files.record(number, record);
        collector.record(record);
        number += 1;
        bar.inc(1);
        Ok(())
    });
    bar.finish_and_clear();
    let outcome = outcome?;
    let setting = Setting {
        driver: target.name(),
        device,
        run: run_of(options, &settings, target, &taken),
        requests: taken.count(),
        driver_calls: target.driver_calls(),
        budget: settings.budget.clone(),
        verified: options.verify,
        planned: plan.map(|plan| plan.peak_reserved),
    };
    let summary = collector.summary(&setting, &outcome);
    let calls = target.software().map(|machine| machine.all_calls()).unwrap_or_default();
    // The figures first, whatever becomes of the files, and the files, whatever becomes of these.
    let outputs = [&options.json, &options.html, &options.chrome_trace, &options.plan];
    let printed = table::print(&mut for_people(&outputs), &summary);
    // The files of a run that failed are absent.
    let outcome = outcome.whole()?;
    let (summary, collector, needed) = (&summary, &collector, &outcome.needed);
    let mut kept = files.keep(&Contents { summary, collector, calls: &calls, needed });
    kept.note(printed);
    kept.result()?;
    verdict(&outcome, signals)
}

/// Whether bytes arrived, and whether the run came to its end.
fn verdict(outcome: &Outcome, signals: &Signals) -> Result<(), Failure> {
    let (mismatches, violations) = (outcome.mismatches, outcome.violations.unwrap_or(0));
    if mismatches > 0 || violations > 0 {
        return Err(Failure::Wrong { mismatches, violations });
    }
    match signals.which.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Failure::Stopped { signal: u8::try_from(signal).unwrap_or(0) }),
    }
}

/// What tells this run from another.
fn run_of(options: &Replay, settings: &Settings, target: &Target, taken: &Taken) -> Run {
    let trace = taken.origin();
    let schedule = target.schedule().map(|schedule| match schedule {
        Schedule::Random(seed) => format!("random:{seed}"),
        schedule => format!("{schedule:?}").to_lowercase(),
    });
    Run {
        version: env!("CARGO_PKG_VERSION"),
        seed: trace.is_none().then_some(options.requests.seed),
        trace,
        max_steps: options.steps.map(|steps| steps as u64),
        preset: settings.preset.name(),
        layout: match settings.layout {
            Layout::PerSlot => "per-slot",
            Layout::Packed => "packed",
        },
        memory: match settings.memory {
            Workload::Activations => "activations",
            Workload::Serving => "serving",
        },
        ring_depth: settings.ring_depth,
        buckets: settings.buckets.clone(),
        schedule,
        realtime: settings.realtime,
        warm: settings.warm,
    }
}

fn dump(options: &Replay) -> Result<(), Failure> {
    let mut output = BufWriter::new(io::stdout().lock());
    let taken = Taken::default();
    let steps = source::steps(options, &taken, None)?;
    taken.note();
    for step in steps {
        let Step { tokens, requests, prefill, .. } = step?;
        writeln!(output, "{tokens},{requests},{prefill}")?;
    }
    output.flush()?;
    Ok(())
}

fn settings(
    options: &Replay,
    extent: Option<&Extent>,
    plan: Option<&RunPlan>,
) -> Result<Settings, Failure> {
    let defaults = Settings::default();
    let by_forecast = options.forecast.map_or(0, |_| WARM);
    let warm = options.warm.unwrap_or(by_forecast).into();
    // Forecasts are of the sizes for which engines keep graphs; larger steps go without, then.
    let sizes =
        if warm > 0 { sizes().map(|size| size as usize).collect() } else { defaults.buckets };
    Ok(Settings {
        preset: options.preset,
        layout: match options.layout {
            LayoutChoice::PerSlot => Layout::PerSlot,
            LayoutChoice::Packed => Layout::Packed,
        },
        ring_depth: options.ring_depth,
        buckets: options.buckets.clone().map_or(sizes, |buckets| buckets.0),
        verify: options.verify,
        realtime: options.speed == Speed::Realtime,
        foresight: match (options.forecast.unwrap_or(Source::Context), plan) {
            (Source::Context, _) => Foresight::Context,
            (Source::Frequency, _) => Foresight::Frequency,
            (Source::Plan, Some(plan)) => Foresight::Plan(plan.sizes()),
            // The steps are gone through once before they run.
            (Source::Plan, None) => Foresight::Plan(source::plan(options, extent)?),
        },
        warm,
        reserve: plan.map(RunPlan::memory),
        // A run that is planned by keeps what it has, so that the next one needs no more.
        keep_idle: if options.plan.is_some() { Duration::MAX } else { defaults.keep_idle },
        memory: options.memory,
        budget: Budget::new(options.budget.unwrap_or(usize::MAX)),
        tiered: options.tiered,
    })
}

fn progress(options: &Replay, extent: Option<&Extent>) -> ProgressBar {
    let bar = match extent {
        Some(extent) => ProgressBar::new(extent.steps),
        None => options
            .steps
            .map_or_else(ProgressBar::no_length, |steps| ProgressBar::new(steps as u64)),
    };
    // The template is a constant that the crate accepts; otherwise its own style has to do.
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {pos}/{len} steps, {rate}, {eta} left")
    {
        let rate = |state: &ProgressState, output: &mut dyn std::fmt::Write| {
            // What cannot be drawn is not told.
            _ = write!(output, "{:.0} a second", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
    }
    bar
}

/// For how many sizes graphs are kept ready where a forecast is asked for.
const WARM: u16 = 8;
