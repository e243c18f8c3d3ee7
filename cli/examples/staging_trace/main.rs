//! Every byte of every step of a trace, staged by the software driver and compared on the device
//! side.
//!
//! ```text
//! cargo run --release -p wharf-cli --example staging_trace -- [TRACE.csv|-] [STEPS] [calls]
//! ```
//!
//! Without a trace, or for `-`, the built-in generator makes one. Both layouts, rings of 1 to 4,
//! three schedules. With `calls`, the calls of the driver are counted instead, beside those of a
//! loop that copies each slot.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that checks"
)]

#[path = "../../../tests/it/staging_rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use softcuda::{Config, Grace, Schedule, Simulator};
use wharf::driver::EventKind;
use wharf::staging::{Instantiation, Layout, StageError};
use wharf::{Driver, Event, Stream};
use wharf_cli::generate::Generator;
use wharf_cli::schedule::Scheduler;
use wharf_cli::trace::{Options, Trace, TraceError};

use rig::{Checker, Ids, builder, context};

const LAYOUTS: [Layout; 2] = [Layout::PerSlot, Layout::Packed];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let trace = arguments.next().filter(|path| path != "-");
    let limit = arguments.next().map_or(usize::MAX, |count| count.parse().unwrap());
    let steps = steps(trace.as_deref(), limit);
    println!("{} steps, {} tokens", steps.len(), steps.iter().map(|step| step.0).sum::<usize>());
    if arguments.next().as_deref() == Some("calls") {
        LAYOUTS.into_iter().for_each(|layout| count(&steps, layout));
        return;
    }
    for schedule in [Schedule::Async, Schedule::Late, Schedule::Random(1)] {
        for (layout, depth) in
            LAYOUTS.into_iter().flat_map(|layout| (1..=4).map(move |depth| (layout, depth)))
        {
            verify(&steps, schedule, layout, depth);
        }
    }
}

/// Tokens and requests of each step.
fn steps(trace: Option<&str>, limit: usize) -> Vec<(usize, usize)> {
    let sizes = |step: wharf_cli::schedule::Step| (step.tokens as usize, step.requests as usize);
    match trace {
        Some(path) => {
            let steps =
                Scheduler::new(Trace::open(path, &Options::default()).unwrap()).map(Result::unwrap);
            steps.map(sizes).take(limit).collect()
        }
        None => {
            let requests = Generator::new(1).map(Ok::<_, TraceError>);
            Scheduler::new(requests)
                .map(Result::unwrap)
                .map(sizes)
                .take(limit.min(20_000))
                .collect()
        }
    }
}

/// Stages every step and compares all its bytes, padding included.
fn verify(steps: &[(usize, usize)], schedule: Schedule, layout: Layout, depth: usize) {
    // What polls memory under these schedules waits for the grace to pass.
    let grace = Grace::After(Duration::from_micros(20));
    let machine = Simulator::new(Config { schedule, grace, ..Config::default() });
    let start = Instant::now();
    {
        let _bound = machine.bind();
        let context = context(&driver());
        let _current = context.enter().unwrap();
        let inputs = builder(&context).layout(layout).ring_depth(depth).build().unwrap();
        let (ids, checker, stream) =
            (Ids::of(&inputs), Checker::default(), Stream::new(&context).unwrap());
        for (number, (tokens, requests)) in steps.iter().enumerate() {
            let mut step = inputs.begin(*tokens, *requests).unwrap();
            ids.fill(&mut step, number as u64);
            let staged = step.submit(&stream).unwrap();
            checker.compare(&stream, ids.expected(&staged, number as u64), number);
        }
        stream.synchronize().unwrap();
        let wrong = checker.wrong();
        assert!(
            wrong.is_empty(),
            "{schedule:?}, {layout:?}, ring of {depth}: {} wrong, {:?}",
            wrong.len(),
            wrong.first()
        );
    }
    assert_eq!(machine.leaks(), Vec::<String>::new());
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{schedule:?}, {layout:?}, ring of {depth}: every byte of {} steps, {seconds:.1} s",
        steps.len()
    );
}

/// Counts the driver's calls in steady state, and those of the usual loop.
fn count(steps: &[(usize, usize)], layout: Layout) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let context = context(&driver());
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
    let set =
        builder(&context).layout(layout).instantiation(Instantiation::Eager).max_graphs(10_000);
    let inputs = set.build().unwrap();
    let ids = Ids::of(&inputs);
    let in_buckets =
        || steps.iter().copied().filter(|step| step.0 <= 512).cycle().take(100_000).enumerate();
    let before = total();
    for (number, (tokens, requests)) in in_buckets() {
        let mut step = loop {
            match inputs.try_begin(tokens, requests) {
                Ok(step) => break step,
                Err(StageError::WouldBlock) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        ids.fill(&mut step, number as u64);
        step.submit(&stream).unwrap();
    }
    let ours = total() - before;
    inputs.wait().unwrap();
    let event = Event::new(&context, EventKind::Ordering).unwrap();
    let staged = {
        let mut step = inputs.begin(8, 4).unwrap();
        ids.fill(&mut step, 0);
        ids.expected(&step.submit(&stream).unwrap(), 0)
    };
    let before = total();
    for (_, _) in in_buckets().take(1000) {
        rig::copy_each(&stream, &staged);
        stream.record(&event).unwrap();
    }
    let theirs = total() - before;
    stream.synchronize().unwrap();
    println!("{layout:?}: {ours} calls in 100000 steps; the loop: {theirs} in 1000");
}

/// The software driver.
#[expect(unsafe_code, reason = "takes the software driver's functions")]
fn driver() -> Driver {
    // SAFETY: softcuda's functions have the signatures of the rows and live for ever.
    unsafe { Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }.unwrap()
}
