//! The figures of a replay as one page.

use std::io;

use wharf_cli::page::{Mark, Page};

use super::files::{CALLS, Contents, MEMORY, TIMES};
use super::table;

/// The page: what was run, the figures, and the charts.
pub(super) fn page(contents: &Contents<'_>) -> io::Result<String> {
    let summary = contents.summary;
    let mut page =
        Page::new(format!("wharf replay: {} steps on {}", summary.steps, summary.device));
    page.text(
        "Times are those of the calling thread. On softcuda they say nothing about a GPU; numbers \
         of driver calls and of bytes do.",
    );
    let mut rows: Vec<(Mark, Vec<String>)> = Vec::new();
    table::rows(summary, |name, value| {
        match rows.last_mut().filter(|_| name.is_empty()) {
            // A line that goes on belongs to the figure above it.
            Some((_, cells)) => cells[1].extend(["; ", value.as_str()]),
            None => rows.push((Mark::None, vec![name.to_owned(), value])),
        }
        Ok(())
    })?;
    page.table("Figures", &[], rows);
    page.chart(contents.chart(TIMES)?);
    page.chart(contents.chart(MEMORY)?);
    if !contents.calls.is_empty() {
        page.chart(contents.chart(CALLS)?);
    }
    page.table("Forecast of step sizes", &["", "share of steps"], forecast(contents));
    page.table("What was run", &[], settings(contents));
    Ok(page.finish())
}

fn forecast(contents: &Contents<'_>) -> Vec<(Mark, Vec<String>)> {
    let forecast = &contents.summary.forecast;
    let share = |name: &str, share: f64| {
        (
            Mark::None,
            vec![format!("{}: {name}", forecast.source), format!("{:.1} %", share * 100.0)],
        )
    };
    let mut rows =
        vec![share("the first size", forecast.hit1), share("among three", forecast.hit3)];
    if let Some(warm) = &forecast.warm {
        rows.push(share("had to make its graph", warm.instantiated_share));
    }
    rows
}

fn settings(contents: &Contents<'_>) -> Vec<(Mark, Vec<String>)> {
    let run = &contents.summary.run;
    let mut rows = vec![("wharf", run.version.to_owned())];
    match (&run.trace, run.seed) {
        (Some(trace), _) => rows.push(("trace", format!("{} ({})", trace.path, trace.format))),
        (None, Some(seed)) => rows.push(("generated requests, seed", seed.to_string())),
        (None, None) => (),
    }
    rows.push(("preset", run.preset.clone()));
    rows.push(("layout", run.layout.to_owned()));
    rows.push(("ring depth", run.ring_depth.to_string()));
    let buckets: Vec<_> = run.buckets.iter().map(ToString::to_string).collect();
    rows.push(("buckets", buckets.join(", ")));
    rows.extend(run.schedule.clone().map(|schedule| ("schedule of softcuda", schedule)));
    rows.into_iter().map(|(name, value)| (Mark::None, vec![name.to_owned(), value])).collect()
}
