//! `wharf qualify`.

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use indicatif::{ProgressBar, ProgressStyle};
use wharf_cli::output::{Kept, Named, Output, distinct, for_people, open_pipes};
use wharf_cli::qualify::{
    COUNT, FIGURES_FAILED, Line, NO_FIGURES, NO_GPU, Report, Verdict, page, run as qualify,
};

use crate::arguments::Qualify;
use crate::failure::Failure;
use crate::signals::Signals;

/// Puts the promises to the test and prints the verdicts.
pub(crate) fn run(options: &Qualify) -> Result<(), Failure> {
    let named = [("--json", &options.json), ("--html", &options.html)];
    let named = named.map(|(argument, path)| path.clone().map(|path| Named { argument, path }));
    let named: Vec<_> = named.into_iter().flatten().collect();
    distinct(&[], &named)?;
    // Before a file is begun, which a signal would leave.
    let _readers = open_pipes(&named).map_err(Failure::File)?;
    let begin = |path: &Option<_>| path.as_deref().map(Output::create).transpose();
    let json = begin(&options.json).map_err(Failure::File)?;
    let html = begin(&options.html).map_err(Failure::File)?;
    let files = [&options.json, &options.html];
    let signals = Signals::install()?;
    let bar = ProgressBar::new(COUNT as u64);
    // The template is a constant that the crate accepts; otherwise its own style has to do.
    if let Ok(style) = ProgressStyle::with_template("{bar:28} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    let mut printed = Ok(());
    let report = qualify(options.driver, options.schedule, &signals.stop, |report| {
        let lines = report.lines.len();
        bar.set_position(lines as u64);
        bar.set_message(if lines == COUNT { "figures" } else { "promises" });
        // At once: a driver that ends the process shows by which promise.
        let line = bar.suspend(|| print_line(&mut for_people(&files), report));
        if printed.is_ok() {
            printed = line;
        }
    });
    bar.finish_and_clear();
    let report = report?;
    printed = printed.and_then(|()| print_rest(&mut for_people(&files), &report));
    // The files, whatever became of the table.
    let mut kept = Kept::default();
    if let Some(json) = json {
        let text = serde_json::to_string_pretty(&report).map_err(io::Error::from);
        kept.note(text.and_then(|text| json.keep_text(&text)));
    }
    if let Some(html) = html {
        kept.note(page(&report).and_then(|text| html.keep_text(&text)));
    }
    kept.note(printed);
    kept.result()?;
    if let Some(reason) = report.figures_failed {
        return Err(Failure::Figures(reason));
    }
    match (signals.which.load(Ordering::Relaxed), report.count(Verdict::Fails)) {
        (_, count @ 1..) => Err(Failure::Broken(count)),
        (0, 0) => Ok(()),
        (signal, 0) => Err(Failure::Stopped { signal: u8::try_from(signal).unwrap_or(0) }),
    }
}

/// Prints the line that was found last.
fn print_line(output: &mut impl Write, report: &Report) -> io::Result<()> {
    if report.lines.len() == 1 {
        writeln!(output, "{}\n", report.head())?;
    }
    let Some(Line { id, promise, verdict, found, .. }) = report.lines.last() else {
        return Ok(());
    };
    writeln!(output, "{:<12} {id:<22} {promise}", verdict.name())?;
    if *verdict != Verdict::Holds {
        writeln!(output, "{:<36}-> {found}", "")?;
    }
    Ok(())
}

/// Prints the figures, and how many promises hold.
fn print_rest(output: &mut impl Write, report: &Report) -> io::Result<()> {
    let mut topic = "";
    for figure in &report.figures.values {
        if figure.topic != topic {
            topic = figure.topic;
            writeln!(output, "\n{topic}")?;
        }
        let calls = figure.driver_calls.map(|calls| format!("  {calls:.2} driver calls"));
        let calls = calls.unwrap_or_default();
        writeln!(output, "  {:<58} {:>12.1} {}{calls}", figure.name, figure.value, figure.unit)?;
    }
    if report.driver == "softcuda" && !topic.is_empty() {
        writeln!(output, "\n{NO_GPU}")?;
    }
    if report.count(Verdict::Fails) > 0 {
        writeln!(output, "\n{NO_FIGURES}")?;
    }
    if let Some(reason) = &report.figures_failed {
        writeln!(output, "\n{FIGURES_FAILED}{reason}")?;
    }
    writeln!(output, "\n{}", report.count_text())
}
