//! Stresses a pool: `slab_stress [threads] [seconds]`, 8 threads for 5 seconds by default.
//!
//! The memory is address space only, so a touch of a managed byte would end the process.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod run;

use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<u32>());
    let threads = numbers.next().transpose()?.unwrap_or(8).max(1);
    let seconds = numbers.next().transpose()?.unwrap_or(5);
    let limit = 512 << 20;
    let (start, time) = (Instant::now(), Duration::from_secs(seconds.into()));
    let outcome = run::stress(threads as usize, limit, |_, _| start.elapsed() >= time)?;
    println!("{threads} threads, {seconds} s: no overlap, no loss, the limit held");
    let run::Outcome { blocks, passed_on, exhausted, failed, commits } = outcome;
    println!("{blocks} blocks allocated and freed, {passed_on} by another thread");
    println!(
        "{exhausted} refused at the limit; {commits} commits and decommits, {failed} commits failed"
    );
    Ok(())
}
