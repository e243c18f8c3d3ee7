//! What warm work on a pool costs besides time: `slab_hot_path [pairs]`, 10 million by default.
//!
//! Counts heap allocations and driver calls. System calls are seen from outside:
//! `strace` shows none between the two lines `warm pairs`.
#![expect(clippy::print_stdout, reason = "an example prints")]
#![expect(unsafe_code, reason = "counts allocations")]

mod run;

#[global_allocator]
static ALLOCATOR: run::Counting = run::Counting;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let pairs =
        std::env::args().nth(1).map(|number| number.parse()).transpose()?.unwrap_or(10_000_000);
    let run::Outcome { pairs, allocations, driver_calls } =
        run::warm_pairs(pairs, || println!("warm pairs"))?;
    println!("{pairs} warm pairs: {allocations} heap allocations, {driver_calls} driver calls");
    Ok(())
}
