//! Every byte of the results of every step of a trace, fetched by the software driver and compared
//! while the next step runs.
//!
//! ```text
//! cargo run --release -p wharf-cli --example result_trace -- [TRACE.csv|-] [STEPS]
//! ```
//!
//! Without a trace, or for `-`, the built-in generator makes one. Rings of 1 to 4, three schedules.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that checks"
)]

#[path = "../../../tests/it/deadline.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod deadline;
#[path = "../../../tests/it/outputs_rig.rs"]
mod outputs_rig;
#[path = "../../../tests/it/staging_rig.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod staging_rig;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use softcuda::{Config, Grace, Schedule, Simulator};
use wharf::staging::{Counts, Instantiation, Pending};
use wharf::{Driver, Stream};
use wharf_cli::generate::Generator;
use wharf_cli::schedule::Scheduler;
use wharf_cli::trace::{Options, Trace, TraceError};

use outputs_rig::{OutputIds, outputs};
use staging_rig::context;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let trace = arguments.next().filter(|path| path != "-");
    let limit = arguments.next().map_or(usize::MAX, |count| count.parse().unwrap());
    let steps = steps(trace.as_deref(), limit);
    println!("{} steps, {} tokens", steps.len(), steps.iter().map(|it| it.tokens).sum::<usize>());
    for schedule in [Schedule::Async, Schedule::Late, Schedule::Random(1)] {
        (1..=4).for_each(|depth| verify(&steps, schedule, depth));
    }
}

/// The counts of each step.
fn steps(trace: Option<&str>, limit: usize) -> Vec<Counts> {
    let sizes = |step: wharf_cli::schedule::Step| Counts {
        tokens: step.tokens as usize,
        requests: step.requests as usize,
    };
    match trace {
        Some(path) => {
            let steps =
                Scheduler::new(Trace::open(path, &Options::default()).unwrap()).map(Result::unwrap);
            steps.map(sizes).take(limit).collect()
        }
        None => {
            let requests = Generator::new(1).map(Ok::<_, TraceError>);
            let steps = Scheduler::new(requests).map(Result::unwrap);
            steps.map(sizes).take(limit.min(20_000)).collect()
        }
    }
}

/// Fetches the results of every step and compares all their bytes. With a ring of more than one
/// the device has the next steps by then; counts the driver's calls of the fetches that it has.
fn verify(steps: &[Counts], schedule: Schedule, depth: usize) {
    // What polls memory under these schedules waits for the grace to pass.
    let grace = Grace::After(Duration::from_micros(20));
    let machine = Simulator::new(Config { schedule, grace, ..Config::default() });
    let start = Instant::now();
    let (mut calls, mut graphs) = (0, 0);
    {
        let _bound = machine.bind();
        let context = context(&driver());
        let _current = context.enter().unwrap();
        let set = outputs(&context).ring_depth(depth).instantiation(Instantiation::Eager);
        let outputs = set.build().unwrap();
        let (ids, stream) = (OutputIds::of(&outputs), Stream::new(&context).unwrap());
        let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
        let mut ahead: VecDeque<(Pending, u64)> = VecDeque::new();
        for (seed, counts) in (0..).zip(steps) {
            ids.compute(&stream, *counts, seed);
            if ahead.len() == depth
                && let Some((pending, seed)) = ahead.pop_front()
            {
                ids.check(&pending, seed);
            }
            let before = total();
            let fetch = outputs.begin(counts.tokens, counts.requests).unwrap();
            let in_bucket = fetch.padded() != fetch.counts() || counts.tokens <= 512;
            ahead.push_back((fetch.submit(&stream).unwrap(), seed));
            if in_bucket {
                (calls, graphs) = (calls + total() - before, graphs + 1);
            }
        }
        ahead.iter().for_each(|(pending, seed)| ids.check(pending, *seed));
        stream.synchronize().unwrap();
    }
    assert_eq!(machine.leaks(), Vec::<String>::new());
    let (seconds, each) = (start.elapsed().as_secs_f64(), calls as f64 / f64::from(graphs));
    println!(
        "{schedule:?}, ring of {depth}: every byte of the results of {} steps, {each:.3} driver \
         calls a fetch in a bucket, {seconds:.1} s",
        steps.len()
    );
}

/// The software driver.
#[expect(unsafe_code, reason = "takes the software driver's functions")]
fn driver() -> Driver {
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }.unwrap()
}
