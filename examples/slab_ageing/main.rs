//! Ages a pool: `slab_ageing [MiB live] [million replacements] [threads]`, 512, 20 and 2 by default.
//!
//! Prints how much more the pool ever committed than was live, and how much of that came late.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod run;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let live = numbers.next().transpose()?.unwrap_or(512) << 20;
    let replacements = numbers.next().transpose()?.unwrap_or(20) * 1_000_000;
    let threads = numbers.next().transpose()?.unwrap_or(2).max(1);
    let outcome = run::age(live, replacements, threads)?;
    let percent = |part: usize, whole: usize| (part * 1000 / whole) as f64 / 10.0;
    println!("peak live {} bytes, peak reserved {} bytes", outcome.peak_live, outcome.peak_reserved);
    println!("reserved / live: {} %", percent(outcome.peak_reserved, outcome.peak_live));
    println!(
        "after the first tenth it grew to {} % of what it was then",
        percent(outcome.peak_reserved, outcome.peak_reserved_early)
    );
    Ok(())
}
