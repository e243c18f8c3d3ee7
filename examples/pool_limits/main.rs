//! Presses a pool against its limit: `pool_limits [threads] [seconds]`, 16 threads for 10 seconds
//! by default, on a device that has no byte more than the limit.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod run;

use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let threads = numbers.next().transpose()?.unwrap_or(16).max(1);
    let seconds = numbers.next().transpose()?.unwrap_or(10).max(1);
    let limit = 64 << 20;
    let (start, time) = (Instant::now(), Duration::from_secs(seconds));
    let outcome = run::limits(threads, limit, |_, _| start.elapsed() >= time)?;
    let run::Outcome { blocks, refused, cross_stream, retried, peak } = outcome;
    println!("{threads} threads, {seconds} s: at most {peak} of {limit} bytes committed");
    println!("{blocks} blocks, {} a second; {refused} refused at the limit", blocks / seconds);
    println!(
        "{retried} after everything complete was given back, {cross_stream} behind another stream"
    );
    Ok(())
}
