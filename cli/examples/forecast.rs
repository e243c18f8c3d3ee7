//! Judges the forecasts of sizes on a request trace: `forecast [TRACE.csv]`, made-up requests without one.
//!
//! For each source: the share of graph-sized steps whose padded size was the first and among the first
//! three forecasts; the share that had to instantiate, where the eight likeliest sizes have warm graphs; the time
//! to record a size.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::env;
use std::time::Instant;

use wharf::forecast::{ContextModel, Forecast, Frequency, PlanRecorder};
use wharf_cli::generate::Generator;
use wharf_cli::schedule::{Scheduler, padded, sizes};
use wharf_cli::trace::{Trace, TraceError};
use wharf_cli::{Request, judge};

fn main() -> Result<(), TraceError> {
    let requests: Box<dyn Iterator<Item = Result<Request, TraceError>>> = match env::args_os().nth(1) {
        Some(path) => Box::new(Trace::open(path)?),
        None => Box::new(Generator::new(1).take(10_000).map(Ok)),
    };
    let steps = Scheduler::new(requests).map(|step| Ok(padded(step?.tokens)));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let largest = sizes().last().unwrap_or(1);
    let mut plan = PlanRecorder::new(steps.len());
    steps.iter().for_each(|size| plan.record_usage(judge::recorded(*size)));
    println!("{} steps\n{:22} hit@1   hit@3   instantiated  ns a record", steps.len(), "");
    show("last value first", &steps, judge::LastFirst::default());
    show("frequency", &steps, Frequency::new(largest));
    show("context", &steps, ContextModel::new().limit(largest));
    show("context, without limit", &steps, ContextModel::new());
    show("plan", &steps, plan.finish());
    Ok(())
}

fn show(name: &str, steps: &[Option<u32>], mut forecast: impl Forecast + Clone) {
    let judge::Hits { first, third, warm } = judge::hits(steps, &mut forecast.clone());
    let sizes: Vec<_> = steps.iter().map(|size| judge::recorded(*size)).collect();
    let start = Instant::now();
    sizes.iter().for_each(|size| forecast.record_usage(*size));
    let nanoseconds = start.elapsed().as_nanos() / steps.len().max(1) as u128;
    println!("{name:22} {first:.4}  {third:.4}  {:.4}        {nanoseconds}", 1.0 - warm);
}
