//! Judges the forecasts of sizes on a request trace: `forecast [TRACE.csv]`, made-up requests without one.
//!
//! For each source: the share of graph-sized steps whose padded size was the first and among the first
//! three forecasts; with room for graphs of eight sizes, the share that had to instantiate, how many sizes were made
//! ready ahead, and how many of those were given back unused; the time to record a size.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::env;
use std::time::Instant;

use wharf::forecast::{ContextModel, Forecast, Frequency, PlanRecorder, WarmSet};
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
    println!("{} steps\n{:22} hit@1   hit@3   instantiated  ahead  unused  ns a record", steps.len(), "");
    // Nothing ahead: what a cache does that gives up what was used least recently.
    show("last value first", &steps, judge::LastFirst::default());
    show("frequency", &steps, Frequency::new(largest));
    show("context", &steps, ContextModel::new().limit(largest));
    show("context, without limit", &steps, ContextModel::new());
    show("plan", &steps, plan.finish());
    Ok(())
}

fn show(name: &str, steps: &[Option<u32>], mut forecast: impl Forecast + Clone + 'static) {
    let judge::Hits { first, third, .. } = judge::hits(steps, &mut forecast.clone());
    let warm = judge::warm(steps, WarmSet::new(forecast.clone(), judge::WARM));
    let last = forecast.clone();
    let sizes: Vec<_> = steps.iter().map(|size| judge::recorded(*size)).collect();
    let start = Instant::now();
    sizes.iter().for_each(|size| forecast.record_usage(*size));
    let nanoseconds = start.elapsed().as_nanos() / steps.len().max(1) as u128;
    let missed = warm.missed as f64 / warm.uses.max(1) as f64;
    println!(
        "{name:22} {first:.4}  {third:.4}  {missed:.4}        {:6} {:6}  {nanoseconds}",
        warm.made, warm.wasted
    );
    for ahead in 0..8 {
        let warm = judge::warm(steps, WarmSet::new(last.clone(), judge::WARM).ahead(ahead));
        println!(
            "   {ahead} {:.4} {} {}",
            warm.missed as f64 / warm.uses.max(1) as f64,
            warm.made,
            warm.wasted
        );
    }
}
