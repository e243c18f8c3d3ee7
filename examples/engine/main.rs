//! A model runner as vLLM's: prefill in chunks, decoding with three speculative tokens, one step
//! ahead of its results, and two data-parallel ranks that agree on the size of each step.
//!
//! ```text
//!   step N     submit: inputs ─> the engine's graph: prepare, forward ─> fetch: results
//!   step N+1      submit ────────> prepare takes tokens and positions ─────> fetch
//!                 (placeholders)   that step N left on the device
//!   host                        wait for the results of N, while N+1 runs
//! ```
//!
//! The host does not know how many speculative tokens step N accepts when it submits step N+1. So
//! it writes placeholders, and the kernel `prepare` puts ids and positions there, behind the copy
//! and before `forward`. Everything of a rank is on one stream, which is all the order there is.
//!
//! ```console
//! $ cargo run --release --example engine
//! ```
//!
//! Runs under softcuda's schedules `eager`, `async` and `late`, and 200 random ones, with the check
//! for races; every token is compared with what one request after the other would have given.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

mod model;
mod ranks;
mod request;
mod runner;

use std::error::Error;
use std::sync::Arc;
use std::thread;

use softcuda::{Checks, Config, Grace, Schedule, Simulator};
use wharf::{Context, Driver, Stream};

use ranks::Agreement;
use request::Request;
use runner::Runner;

/// Ranks that run one model.
const RANKS: usize = 2;
/// Random schedules.
const SEEDS: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let seeds = std::env::args().nth(1).map_or(Ok(SEEDS), |seeds| seeds.parse())?;
    let named = [Schedule::Eager, Schedule::Async, Schedule::Late];
    let mut all = Totals::default();
    for schedule in named.into_iter().chain((1..=seeds).map(Schedule::Random)) {
        let run = run(schedule)?;
        if named.contains(&schedule) {
            println!("{schedule:?}: {run}");
        }
        all.add(&run);
    }
    println!("in all, with {seeds} random schedules: {all}");
    Ok(())
}

/// What a run has shown.
#[derive(Default)]
struct Totals {
    tokens: usize,
    steps: usize,
    calls: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.steps += other.steps;
        self.calls += other.calls;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = self.calls as f64 / self.steps as f64;
        write!(
            f,
            "{} tokens as expected in {} steps, no race, {each:.2} driver calls a step",
            self.tokens, self.steps
        )
    }
}

/// Serves each rank's requests under one schedule.
fn run(schedule: Schedule) -> Result<Totals, Box<dyn Error>> {
    let grace = Grace::After(std::time::Duration::from_micros(20));
    let machine = Arc::new(Simulator::new(Config {
        schedule,
        grace,
        checks: Checks::ALL,
        ..Config::default()
    }));
    let _bound = machine.bind();
    model::register(&machine);
    let driver = Driver::from_api(machine.api()?)?; // on a GPU: Driver::load()?
    let context = Context::retain(&driver.device(0)?)?;
    let agreement = Agreement::new(RANKS);
    let totals = thread::scope(|scope| {
        let ranks: Vec<_> = (0..RANKS)
            .map(|rank| {
                let (machine, context, agreement) = (&machine, &context, &agreement);
                scope.spawn(move || {
                    let _bound = machine.bind();
                    serve(rank, machine, context, agreement).map_err(|error| error.to_string())
                })
            })
            .collect();
        let mut totals = Totals::default();
        for rank in ranks {
            totals.add(&rank.join().map_err(|_| "a rank has panicked")??);
        }
        Ok::<_, Box<dyn Error>>(totals)
    })?;
    driver.wait_deferred(runner::LIMIT)?;
    drop(context);
    assert!(machine.violations().is_empty(), "{:?}", machine.violations());
    assert!(machine.leaks().is_empty(), "{:?}", machine.leaks());
    Ok(totals)
}

/// One rank: steps until no rank has anything left.
fn serve(
    rank: usize,
    machine: &Simulator,
    context: &Context,
    agreement: &Agreement,
) -> Result<Totals, Box<dyn Error>> {
    // Without this each call asks which context is current.
    let _current = context.enter()?;
    let stream = Stream::new(context)?;
    let mut runner = Runner::new(machine, context, &stream)?;
    let mut requests = Request::some(rank);
    let calls = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
    agreement.barrier();
    let before = calls();
    let mut totals = Totals::default();
    while let Some(padded) = agreement.agree(rank, runner.wanted(&requests)) {
        runner.step(&stream, &mut requests, padded)?;
        totals.steps += 1;
    }
    runner.drain(&mut requests)?;
    // The calls of all ranks, each of which counts its share.
    agreement.barrier();
    totals.calls = (calls() - before) / RANKS as u64;
    agreement.barrier();
    for request in &requests {
        assert_eq!(request.tokens, request.expected(), "a token was computed of other inputs");
        totals.tokens += request.tokens.len();
    }
    runner.close(&stream)?;
    Ok(totals)
}
