//! `wharf bench`.

use std::io::{self, Write};

use wharf_cli::replay::bench::{Way, allocation, staging};
use wharf_cli::schedule::Step;
use wharf_cli::target::{Software, Target};

use crate::arguments::Bench;
use crate::failure::Failure;

/// Runs the comparisons and prints them.
pub(crate) fn run(options: &Bench) -> Result<(), Failure> {
    let target = Target::new(options.driver, Software::default())?;
    let (tokens, rounds) = (options.tokens, options.rounds as usize);
    let step = Step { start: 0, tokens, requests: tokens, prefill: 0 };
    let mut output = io::stdout().lock();
    let ways = staging(&target, options.preset, step, rounds)?;
    print(&mut output, &format!("a step of {tokens} tokens, {tokens} requests"), &ways)?;
    let ways = allocation(&target, ALLOCATION, rounds)?;
    print(&mut output, "1 MiB of device memory, and back", &ways)?;
    let note = "The calling thread's time, the median; the first way is 1.";
    let soft = if target.software().is_some() { " On softcuda it says nothing about a GPU." } else { "" };
    writeln!(output, "{note}{soft}")?;
    Ok(())
}

fn print(output: &mut impl Write, title: &str, ways: &[Way]) -> io::Result<()> {
    writeln!(output, "{title:<44} driver calls        ns  ratio")?;
    let first = ways.first().map_or(1, |way| way.ns.max(1));
    for Way { name, driver_calls, ns } in ways {
        let calls = driver_calls.map_or_else(|| "unknown".to_owned(), |calls| format!("{calls:.1}"));
        writeln!(output, "  {name:<42} {calls:>12} {ns:>9}  {:>5.2}", *ns as f64 / first as f64)?;
    }
    writeln!(output)
}

const ALLOCATION: usize = 1 << 20;
