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
    target.tell_instead_of();
    let (tokens, rounds) = (options.tokens, options.rounds as usize);
    let step = Step { start: 0, tokens, requests: tokens, prefill: 0, kv_blocks: 0 };
    let mut output = io::stdout().lock();
    let ways = staging(&target, options.preset, step, rounds)?;
    print(&mut output, &format!("staging a step of {tokens} tokens, {tokens} requests"), &ways)?;
    let ways = allocation(&target, rounds)?;
    print(&mut output, "device memory: a block freed, a block allocated", &ways)?;
    let soft = target.software().is_some();
    writeln!(output, "{}", if soft { format!("{NOTE}\n{SOFTCUDA}") } else { NOTE.to_owned() })?;
    Ok(())
}

fn print(output: &mut impl Write, title: &str, ways: &[Way]) -> io::Result<()> {
    writeln!(output, "{title:<48} driver calls         ns    ratio")?;
    let first = ways.first().map_or(1.0, |way| way.ns.max(0.01));
    for Way { name, driver_calls, ns } in ways {
        let calls =
            driver_calls.map_or_else(|| "unknown".to_owned(), |calls| format!("{calls:.2}"));
        writeln!(output, "  {name:<46} {calls:>12} {ns:>10.1}  {:>7.3}", ns / first)?;
    }
    writeln!(output)
}

const NOTE: &str = "\
Each row: the median time of the calling thread, and its ratio to the first row. The rows of a table
take turns in one thread. Staging is begin and submit, without writing the inputs. Memory: 64 blocks
of 256 bytes to 896 KiB are allocated; one after the other is freed and replaced by another size.";

const SOFTCUDA: &str = "\
On softcuda, a driver call takes the software driver's time on this processor, not that of a GPU or
of a real driver: compare the numbers of driver calls, and the rows without driver calls.";
