//! `wharf doctor`.

use std::io::{self, Write};

use wharf_cli::doctor::{Fact, Verdict, examine};

use crate::arguments::Doctor;
use crate::failure::Failure;

/// Prints every fact.
pub(crate) fn run(options: &Doctor) -> Result<(), Failure> {
    let facts = examine(options.driver);
    let mut output = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut output, &facts).map_err(io::Error::from)?;
        writeln!(output)?;
        return Ok(());
    }
    for Fact { verdict, topic, found, remedy } in &facts {
        writeln!(output, "{:<6}  {topic:<22}  {found}", word(*verdict))?;
        if let Some(remedy) = remedy {
            writeln!(output, "{:<6}  {:<22}  -> {remedy}", "", "")?;
        }
    }
    let count = |verdict| facts.iter().filter(|fact| fact.verdict == verdict).count();
    let (slow, broken) = (count(Verdict::Slow), count(Verdict::Broken));
    writeln!(output, "\n{} facts: {slow} cost speed, {broken} stand in the way", facts.len())?;
    Ok(())
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Note => "note",
        Verdict::Slow => "slow",
        Verdict::Broken => "broken",
    }
}
