//! Ages a pool: `slab_ageing [MiB live] [million replacements] [threads]`, 512, 20 and 2 by
//! default.
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
    let run::Outcome { peak_asked, peak_live, peak_reserved, peak_reserved_early } = outcome;
    println!(
        "peaks: {peak_asked} bytes asked for, {peak_live} in blocks, {peak_reserved} reserved"
    );
    println!("reserved / blocks: {} %", percent(peak_reserved, peak_live));
    println!("reserved / asked for: {} %", percent(peak_reserved, peak_asked));
    println!(
        "reserved / reserved after the first tenth: {} %",
        percent(peak_reserved, peak_reserved_early)
    );
    Ok(())
}
