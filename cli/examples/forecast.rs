//! Judges the forecasts of sizes on a request trace: `forecast [TRACE.csv]`, made-up requests
//! without one.
//!
//! For each source: the share of graph-sized steps whose padded size was the first and among the
//! first three forecasts; with room for graphs of eight sizes, of which the first two or all of the
//! forecast are made ahead, the share that had to instantiate, how many were made ahead, and how
//! many of those were given back unused; the time to record a size.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::env;
use std::time::Instant;

use wharf::forecast::{ContextModel, Forecast, Frequency, PlanRecorder, WarmSet};
use wharf_cli::generate::Generator;
use wharf_cli::schedule::{Scheduler, padded, sizes};
use wharf_cli::trace::{Options, Trace, TraceError};
use wharf_cli::{Request, judge};

fn main() -> Result<(), TraceError> {
    let requests: Box<dyn Iterator<Item = Result<Request, TraceError>>> =
        match env::args_os().nth(1) {
            Some(path) => Box::new(Trace::open(path, &Options::default())?),
            None => Box::new(Generator::new(1).take(10_000).map(Ok)),
        };
    let steps = Scheduler::new(requests).map(|step| Ok(padded(step?.tokens)));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let largest = sizes().last().unwrap_or(1);
    let mut plan = PlanRecorder::new(steps.len());
    steps.iter().for_each(|size| plan.record_usage(judge::recorded(*size)));
    println!("{} steps; room for graphs of {} sizes", steps.len(), judge::WARM);
    println!("{:22} {:16} two made ahead         all made ahead", "", "");
    println!(
        "{:22} hit@1   hit@3    missed   made unused   missed   made unused   ns a record",
        ""
    );
    // Nothing ahead: what a cache does that gives up what was used least recently.
    let lru = judge::warm(&steps, WarmSet::new(judge::LastFirst::default(), judge::WARM).ahead(0));
    println!(
        "{:22} {:16} {:.4}",
        "least recently used",
        "",
        lru.missed as f64 / lru.uses.max(1) as f64
    );
    show("last value first", &steps, judge::LastFirst::default());
    show("frequency", &steps, Frequency::new(largest));
    show("context", &steps, ContextModel::new().limit(largest));
    show("context, without limit", &steps, ContextModel::new());
    show("plan", &steps, plan.finish());
    Ok(())
}

fn show(name: &str, steps: &[Option<u32>], mut forecast: impl Forecast + Clone + 'static) {
    let judge::Hits { first, third, .. } = judge::hits(steps, &mut forecast.clone());
    print!("{name:22} {first:.4}  {third:.4}");
    for ahead in [2, judge::WARM] {
        let warm = judge::warm(steps, WarmSet::new(forecast.clone(), judge::WARM).ahead(ahead));
        let share = warm.missed as f64 / warm.uses.max(1) as f64;
        print!("   {share:.4} {:6} {:6}", warm.made, warm.wasted);
    }
    let sizes: Vec<_> = steps.iter().map(|size| judge::recorded(*size)).collect();
    let start = Instant::now();
    sizes.iter().for_each(|size| forecast.record_usage(*size));
    println!("   {}", start.elapsed().as_nanos() / steps.len().max(1) as u128);
}
