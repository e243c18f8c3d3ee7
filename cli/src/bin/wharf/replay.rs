//! `wharf replay`.

use std::io::{self, BufWriter, Write};

use wharf_cli::Request;
use wharf_cli::generate::Generator;
use wharf_cli::schedule::{Scheduler, Step};
use wharf_cli::trace::{Trace, TraceError};

use crate::arguments::Replay;
use crate::failure::Failure;

/// Prints the steps.
pub(crate) fn run(options: &Replay) -> Result<(), Failure> {
    let requests: Box<dyn Iterator<Item = Result<Request, TraceError>>> = match &options.trace {
        Some(path) => Box::new(Trace::open(path)?),
        None => Box::new(Generator::new(options.seed).map(Ok)),
    };
    let limit = match (options.steps, &options.trace) {
        (Some(steps), _) => steps,
        (None, Some(_)) => usize::MAX,
        (None, None) => MADE_UP_STEPS,
    };
    let mut output = BufWriter::new(io::stdout().lock());
    for step in Scheduler::new(requests).take(limit) {
        let Step { tokens, requests, prefill, .. } = step?;
        writeln!(output, "{tokens},{requests},{prefill}")?;
    }
    output.flush()?;
    Ok(())
}

/// How many steps made-up requests run for when nobody says.
const MADE_UP_STEPS: usize = 10_000;
