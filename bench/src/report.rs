//! Ratios to the best peer, goals, tables, JSON.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::measure::Column;
use crate::peer::Kind;
use crate::peers::Entry;

/// wharf beside the best of the others in one measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// wharf's nanoseconds.
    pub ours_ns: f64,
    /// The fastest of the others.
    pub best_peer: &'static str,
    /// Its nanoseconds.
    pub best_ns: f64,
    /// The first over the second.
    pub ratio: f64,
}

/// The largest ratio to the best peer that is good enough.
const GOALS: &[(&str, f64)] = &[
    ("W1", 0.40),
    ("W2", 0.32),
    ("W3", 0.20),
    ("W4", 0.42),
    ("W4f", 0.85),
    ("W5", 0.19),
    ("W5 p99.9", 1.1),
    ("W6", 0.42),
    ("W6b", 0.08),
];

/// The largest ratio of wharf's time with two threads to its time with one.
const SCALING_GOAL: f64 = 1.3;

/// All comparisons, by measure. The bundle stands beside the best that peers make of the same
/// step without one, for what it saves is the eleven other blocks.
pub fn comparisons(entries: &[Entry], columns: &[Column]) -> BTreeMap<String, Comparison> {
    let compare = |column: &Column, beside: &Column| {
        let ours_ns = column.value(position(entries, Kind::Ours)?)?;
        let others = entries.iter().enumerate().filter(|(_, entry)| entry.is_other());
        let times = others.filter_map(|(peer, entry)| Some((entry.name, beside.value(peer)?)));
        let (best_peer, best_ns) = times.min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(Comparison { ours_ns, best_peer, best_ns, ratio: ours_ns / best_ns })
    };
    let mut all = BTreeMap::new();
    for column in columns {
        let single = columns.iter().find(|other| column.name == "W6b" && other.name == "W6");
        if single.is_some() {
            let bundled = format!("{} of all", column.name);
            all.extend(compare(column, column).map(|comparison| (bundled, comparison)));
        }
        let comparison = compare(column, single.unwrap_or(column));
        all.extend(comparison.map(|comparison| (column.name.clone(), comparison)));
    }
    all
}

/// The table of ratios and goals.
pub fn summary(entries: &[Entry], columns: &[Column]) -> Table {
    let mut table =
        table(&["", "wharf ns", "LocalCache ns", "best peer", "its ns", "ratio", "goal", "spread"]);
    let ours: Vec<_> =
        (0..entries.len()).filter(|peer| entries[*peer].kind == Kind::Ours).collect();
    let column =
        |name: &str| columns.iter().find(|column| name.split(" of").next() == Some(&column.name));
    for (name, comparison) in comparisons(entries, columns) {
        let value = |which: usize| ours.get(which).and_then(|peer| column(&name)?.value(*peer));
        let spread = ours.first().and_then(|peer| column(&name)?.spread(*peer));
        table.add_row([
            name.clone(),
            number(value(0)),
            number(value(1)),
            comparison.best_peer.to_owned(),
            number(Some(comparison.best_ns)),
            format!("{:.3}", comparison.ratio),
            goal(comparison.ratio, GOALS.iter().find(|goal| goal.0 == name).map(|goal| goal.1)),
            spread.map_or_else(String::new, |spread| format!("{:.0} %", 100.0 * spread)),
        ]);
    }
    let scaling = |peer: usize| Some(column("W3")?.value(peer)? / column("W2")?.value(peer)?);
    if let Some(of_ours) = ours.first().and_then(|peer| scaling(*peer)) {
        // What the machine costs two threads that share nothing, beside what wharf does.
        let harness =
            entries.iter().position(|entry| entry.kind == Kind::Harness).and_then(scaling);
        let mut row = vec!["W3/W2".to_owned()];
        row.resize(3, String::new());
        row.extend(["(harness)".to_owned(), number(harness), format!("{of_ours:.3}")]);
        row.push(goal(of_ours, Some(SCALING_GOAL)));
        table.add_row(row);
    }
    table
}

/// The table of all peers' nanoseconds.
pub fn full(entries: &[Entry], columns: &[Column]) -> Table {
    let names: Vec<_> =
        ["peer"].into_iter().chain(columns.iter().map(|column| &*column.name)).collect();
    let mut table = table(&names);
    for (peer, entry) in entries.iter().enumerate() {
        let values = columns.iter().map(|column| number(column.value(peer)));
        table.add_row([entry.name.to_owned()].into_iter().chain(values));
    }
    table
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(head.iter().copied());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn goal(ratio: f64, goal: Option<f64>) -> String {
    goal.map_or_else(String::new, |goal| {
        format!("{goal:.2} {}", if ratio <= goal { "met" } else { "missed" })
    })
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// The first peer of a kind.
fn position(entries: &[Entry], kind: Kind) -> Option<usize> {
    entries.iter().position(|entry| entry.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers;

    #[test]
    fn the_best_peer_is_neither_wharf_nor_the_harness() {
        let entries = &peers::all()[..5];
        let samples = [1.0, 2.0, 3.0, 5.0, 4.0].map(|time| vec![time]).to_vec();
        let columns = [Column { name: "W1".to_owned(), samples, quantile: 0.5 }];
        let all = comparisons(entries, &columns);
        let expected =
            Comparison { ours_ns: 2.0, best_peer: entries[4].name, best_ns: 4.0, ratio: 0.5 };
        assert_eq!(all.get("W1"), Some(&expected));
        assert!(summary(entries, &columns).to_string().contains("0.40 missed"));
    }

    #[test]
    fn a_bundle_stands_beside_single_blocks() {
        let entries = &peers::all()[..4];
        let column = |name: &str, times: [f64; 4]| Column {
            name: name.to_owned(),
            samples: times.map(|time| vec![time]).to_vec(),
            quantile: 0.25,
        };
        let columns =
            [column("W6", [1.0, 50.0, 50.0, 100.0]), column("W6b", [1.0, 5.0, 5.0, 20.0])];
        let all = comparisons(entries, &columns);
        assert_eq!(all["W6b"].ratio, 0.05);
        assert_eq!(all["W6b of all"].ratio, 0.25);
    }
}
