//! Stresses pools on the software driver: `pool_stress [seconds] [seeds]`, 5 seconds late and 200
//! random schedules of a tenth of a second by default.
//!
//! It fails if a byte is wrong. A last run leaves uses unrecorded, which is a mistake of the
//! caller, to show that such a mistake is found: its mismatches are expected.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod run;

use std::time::{Duration, Instant};

use run::{Outcome, Plan};
use softcuda::Schedule;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let seconds = numbers.next().transpose()?.unwrap_or(5);
    let seeds = numbers.next().transpose()?.unwrap_or(200);
    let plan = Plan {
        schedule: Schedule::Late,
        grace: Duration::from_millis(2),
        threads: 8,
        streams: 6,
        rounds: usize::MAX,
        time: Some(Duration::from_secs(seconds)),
        record: true,
    };
    let report = |name: &str, outcome: Outcome, start: Instant| {
        let Outcome { rounds, bytes, mismatches, violations, handed_over } = outcome;
        println!(
            "{name}: {rounds} rounds, {bytes} bytes looked at, {handed_over} blocks from another \
             stream, {mismatches} mismatches, {violations} violations, {:.1?}",
            start.elapsed()
        );
    };
    let start = Instant::now();
    let late = run::stress(plan)?;
    let mut wrong = late.mismatches + late.violations;
    report("late", late, start);
    let start = Instant::now();
    let mut sum = Outcome::default();
    for seed in 0..seeds {
        let outcome =
            run::stress(Plan { schedule: Schedule::Random(seed), time: Some(SHORT), ..plan })?;
        sum.rounds += outcome.rounds;
        sum.bytes += outcome.bytes;
        sum.mismatches += outcome.mismatches;
        sum.violations += outcome.violations;
        sum.handed_over += outcome.handed_over;
    }
    wrong += sum.mismatches + sum.violations;
    report(&format!("{seeds} random schedules"), sum, start);
    let start = Instant::now();
    report(
        "late, with a mistake: uses not recorded, so mismatches are expected",
        run::stress(Plan { record: false, time: Some(SHORT), ..plan })?,
        start,
    );
    if wrong > 0 {
        return Err("memory was reused too early".into());
    }
    Ok(())
}

const SHORT: Duration = Duration::from_millis(100);
