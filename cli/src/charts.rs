//! Charts of a replay, as SVG for light and dark pages.

use std::io;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::summary::Sample;

/// Draws memory over time by kind: what steps asked for, and what the pools had obtained.
///
/// # Errors
///
/// It cannot be drawn.
pub fn memory(samples: &[Sample]) -> io::Result<String> {
    let series: [Series; 4] = [
        ("device, obtained", PALE_BLUE, |sample| sample.memory.device.reserved),
        ("device, in use", BLUE, |sample| sample.memory.device.live),
        ("pinned, obtained", PALE_ORANGE, |sample| sample.memory.pinned.reserved),
        ("pinned, in use", ORANGE, |sample| sample.memory.pinned.live),
    ];
    // An axis needs an extent, also for a run of one sample.
    let end = samples.last().map_or(1.0, |sample| sample.time.as_secs_f64()).max(1e-3);
    let of = |get: fn(&Sample) -> u64| {
        samples.iter().map(move |s| (s.time.as_secs_f64(), mebibytes(get(s))))
    };
    let most =
        series.iter().flat_map(|(_, _, get)| of(*get)).map(|point| point.1).fold(1.0, f64::max);
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption("Memory over time", font(22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..end, 0.0..most * 1.4)?;
        axes(&mut chart, "seconds", "MiB")?;
        for (name, color, get) in series {
            let style = color.stroke_width(2);
            let line = chart.draw_series(LineSeries::new(steps(of(get)), style))?;
            line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(PAPER)
            .border_style(GRID)
            .label_font(font(14))
            .draw()?;
        Ok(())
    })
}

/// Draws how long steps took: the share of steps that took at most so long.
///
/// # Errors
///
/// It cannot be drawn.
pub fn step_times(times: &Histogram<u64>) -> io::Result<String> {
    let (least, most) = (times.min().max(1) as f64, times.max().max(2) as f64);
    let curve: Vec<_> = times
        .iter_quantiles(20)
        .map(|point| {
            (point.value_iterated_to().max(1) as f64, point.quantile_iterated_to() * 100.0)
        })
        .collect();
    let marks = [("p50", 0.5, BLUE), ("p99", 0.99, ORANGE), ("p99.9", 0.999, RED)];
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption("Time to begin and submit a step", font(22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d((least..most * 1.05).log_scale(), 0.0..105.0)?;
        axes(&mut chart, "nanoseconds", "% of steps within")?;
        chart.draw_series(LineSeries::new(curve, INK.stroke_width(2)))?;
        for (name, quantile, color) in marks {
            let value = times.value_at_quantile(quantile);
            let line = [(value.max(1) as f64, 0.0), (value.max(1) as f64, 100.0)];
            let style = color.stroke_width(2);
            let mark = chart.draw_series(LineSeries::new(line, style))?;
            let label = mark.label(format!("{name}: {value} ns"));
            label.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(PAPER)
            .border_style(GRID)
            .label_font(font(14))
            .draw()?;
        Ok(())
    })
}

/// Draws how often each entry point of the driver was called.
///
/// # Errors
///
/// It cannot be drawn.
pub fn driver_calls(calls: &[(&str, u64)]) -> io::Result<String> {
    let mut calls: Vec<_> = calls.iter().filter(|call| call.1 > 0).copied().collect();
    calls.sort_by_key(|call| core::cmp::Reverse(call.1));
    calls.truncate(BARS);
    let most = calls.first().map_or(1, |call| call.1) as f64;
    calls.reverse(); // rows count from the bottom
    let rows = calls.len().max(1);
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption("Driver calls", font(22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(240)
            .build_cartesian_2d((1.0..most * 3.0).log_scale(), (0..rows).into_segmented())?;
        let name = |row: &SegmentValue<usize>| match row {
            SegmentValue::CenterOf(row) => {
                calls.get(*row).map_or(String::new(), |call| call.0.to_owned())
            }
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(INK)
            .label_style(font(13))
            .axis_desc_style(font(15))
            .x_desc("calls, those of set-up and consumer included")
            .x_label_formatter(&plain)
            .y_labels(rows)
            .y_label_formatter(&name)
            .draw()?;
        chart.draw_series(calls.iter().enumerate().map(|(row, call)| {
            let corners =
                [(1.0, SegmentValue::Exact(row)), (call.1 as f64, SegmentValue::Exact(row + 1))];
            let mut bar = Rectangle::new(corners, BLUE.filled());
            bar.set_margin(3, 3, 0, 0);
            bar
        }))?;
        let label = font(13).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series(calls.iter().enumerate().map(|(row, call)| {
            Text::new(
                call.1.to_string(),
                (call.1 as f64 * 1.05, SegmentValue::CenterOf(row)),
                label.clone(),
            )
        }))?;
        Ok(())
    })
}

/// Draws lines over a logarithmic axis, each by its name and points.
///
/// # Errors
///
/// It cannot be drawn.
pub fn lines(
    title: &str,
    (x, y): (&str, &str),
    lines: &[(&str, Vec<(f64, f64)>)],
) -> io::Result<String> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let least = points().map(|point| point.0).fold(f64::MAX, f64::min).clamp(1e-3, 1e12);
    let most = points().map(|point| point.0).fold(least * 2.0, f64::max);
    let top = points().map(|point| point.1).fold(1e-6, f64::max);
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, font(22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d((least..most * 1.05).log_scale(), 0.0..top * 1.2)?;
        axes(&mut chart, x, y)?;
        for ((name, points), color) in lines.iter().zip([BLUE, ORANGE, RED].into_iter().cycle()) {
            let style = color.stroke_width(2);
            let line = chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
            line.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            let dots = points.iter().filter(|_| points.len() < DOTS);
            chart.draw_series(dots.map(|point| Circle::new(*point, 3, color.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(PAPER)
            .border_style(GRID)
            .label_font(font(14))
            .draw()?;
        Ok(())
    })
}

/// A name, a colour, and what is drawn of a sample.
type Series = (&'static str, RGBColor, fn(&Sample) -> u64);
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawing = Result<(), Box<dyn std::error::Error>>;

/// Axes with names, and a grid.
fn axes<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    x: &str,
    y: &str,
) -> Drawing
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID).light_line_style(TRANSPARENT).axis_style(INK);
    mesh.label_style(font(13)).axis_desc_style(font(15)).x_desc(x).y_desc(y);
    mesh.x_label_formatter(&plain).y_label_formatter(&plain).draw()?;
    Ok(())
}

/// Draws, and makes the colours follow the page.
fn drawn(draw: impl FnOnce(&Area<'_>) -> Drawing) -> io::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let done = area.fill(&PAPER).map_err(Into::into).and_then(|()| draw(&area));
        done.and_then(|()| Ok(area.present()?))
            .map_err(|error| io::Error::other(error.to_string()))?;
    }
    let head = svg.find('>').map_or(0, |end| end + 1);
    svg.insert_str(head, DARK);
    Ok(svg)
}

/// Points of a value that stays as it is until the next one.
fn steps(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut stepped: Vec<(f64, f64)> = Vec::new();
    for (x, y) in points {
        if let Some((_, before)) = stepped.last().copied() {
            stepped.push((x, before));
        }
        stepped.push((x, y));
    }
    stepped
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// A number without a fraction that says nothing.
fn plain(number: &f64) -> String {
    if number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

const SIZE: (u32, u32) = (960, 480);
/// Lines of fewer points have them marked.
const DOTS: usize = 20;
/// Entry points that are shown.
const BARS: usize = 16;

const PAPER: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(36, 41, 47);
const GRID: RGBColor = RGBColor(208, 215, 222);
const BLUE: RGBColor = RGBColor(9, 105, 218);
const PALE_BLUE: RGBColor = RGBColor(128, 178, 235);
const ORANGE: RGBColor = RGBColor(191, 97, 6);
const PALE_ORANGE: RGBColor = RGBColor(228, 170, 110);
const RED: RGBColor = RGBColor(207, 34, 46);

/// The colours that differ on a dark page, by what they are on a light one.
const DARK: &str = r##"
<style>@media (prefers-color-scheme: dark) {
  [fill="#FFFFFF"] { fill: #0D1117 } [fill="#24292F"] { fill: #E6EDF3 }
  [stroke="#24292F"] { stroke: #E6EDF3 }
  [stroke="#D0D7DE"] { stroke: #30363D }
}</style>
"##;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_name_their_axes_and_series() {
        let mut times = Histogram::new(3).unwrap();
        (1..=1000).for_each(|time| times.record(time * 10).unwrap());
        let svg = step_times(&times).unwrap();
        for text in ["nanoseconds", "% of steps within", "p50: ", "p99.9: ", "prefers-color-scheme"]
        {
            assert!(svg.contains(text), "{text}");
        }
        let calls = [("cuGraphLaunch", 1000), ("cuInit", 1), ("cuMemAlloc", 0)];
        let svg = driver_calls(&calls).unwrap();
        assert!(
            svg.contains("cuGraphLaunch") && svg.contains("1000") && !svg.contains("cuMemAlloc")
        );
    }

    #[test]
    fn a_value_stays_until_the_next() {
        let points = [(0.0, 1.0), (2.0, 5.0)].into_iter();
        assert_eq!(steps(points), [(0.0, 1.0), (2.0, 1.0), (2.0, 5.0)]);
    }

    #[test]
    fn lines_have_their_names_where_there_are_several() {
        let points = vec![(1.0, 2.0), (100.0, 3.0)];
        let two = [("first", points.clone()), ("second", points)];
        let svg = lines("Title", ("KiB", "GB/s"), &two).unwrap();
        for text in ["Title", "KiB", "GB/s", "first", "second"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_replay_of_nothing_can_be_drawn() {
        assert!(memory(&[]).unwrap().contains("device, in use"));
        step_times(&Histogram::new(3).unwrap()).unwrap();
        driver_calls(&[]).unwrap();
        lines("nothing", ("x", "y"), &[]).unwrap();
    }
}
