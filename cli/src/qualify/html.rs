//! The report as one page.

use std::io;

use super::{Report, Series, Verdict};
use crate::charts;
use crate::page::{Mark, Page};

/// The page: verdicts, figures, charts. It needs nothing but itself.
///
/// # Errors
///
/// A chart cannot be drawn.
pub fn page(report: &Report) -> io::Result<String> {
    let mut page = Page::new(format!("wharf qualify: {}", report.device));
    page.text(&report.head());
    page.text(&report.count_text());
    if report.driver == "softcuda" {
        page.text(super::NO_GPU);
    }
    let lines = report.lines.iter().map(|line| {
        let mark = match line.verdict {
            Verdict::Holds => Mark::Good,
            Verdict::Fails => Mark::Bad,
            Verdict::NotOffered => Mark::Pale,
        };
        let cells = [line.verdict.name(), line.id, line.promise, &line.found].map(str::to_owned);
        (mark, cells.into())
    });
    page.table("Promises", &["verdict", "name", "promise", "found"], lines);
    if report.count(Verdict::Fails) > 0 {
        page.text(super::NO_FIGURES);
    }
    if let Some(reason) = &report.figures_failed {
        page.text(&format!("{}{reason}", super::FIGURES_FAILED));
    }
    let mut topics: Vec<&str> = Vec::new();
    for figure in &report.figures.values {
        if !topics.contains(&figure.topic) {
            topics.push(figure.topic);
        }
    }
    for topic in topics {
        let figures = report.figures.values.iter().filter(|figure| figure.topic == topic);
        let rows = figures.map(|figure| {
            let value = format!("{:.1} {}", figure.value, figure.unit);
            let calls = figure.driver_calls.map(|calls| format!("{calls:.2} driver calls"));
            (Mark::None, [figure.name.clone(), value].into_iter().chain(calls).collect())
        });
        page.table(topic, &[], rows);
    }
    let mut series = report.figures.series.as_slice();
    while let Some(Series { chart, x, y, .. }) = series.first() {
        let together = series.iter().take_while(|next| next.chart == *chart).count();
        let (these, rest) = series.split_at(together);
        let lines: Vec<_> = these.iter().map(|line| (line.name, line.points.clone())).collect();
        page.chart(charts::lines(chart, (x, y), &lines)?);
        series = rest;
    }
    Ok(page.finish())
}
