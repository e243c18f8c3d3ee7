#![expect(clippy::cast_possible_truncation, reason = "counts are far below 2^53")]
//! Rows, run under callgrind.

use std::hint::black_box;
use std::process::Command;

use crate::limits::ROWS;
use crate::{memory, steps};

const ROUNDS: u64 = 2000;

/// Prints the table. Whether all rows are within their limits.
pub(crate) fn table() -> bool {
    println!("{:<38}{:>13}{:>7}{:>7}{:>8}", "", "instructions", "loads", "stores", "locked");
    let mut within = true;
    let mut harness: Vec<(&str, [f64; 4])> = Vec::new();
    for row in ROWS {
        let without = match harness.iter().find(|(name, _)| *name == row.less) {
            Some((_, counts)) => *counts,
            None => {
                let counts = counted_by_callgrind(row.less);
                harness.push((row.less, counts));
                counts
            }
        };
        let with = counted_by_callgrind(row.name);
        let [instructions, loads, stores, locked] =
            std::array::from_fn(|at| (with[at] - without[at]).round() as u64);
        assert!(instructions > 0, "callgrind did not find {}", row.name);
        let exceeded = instructions > row.limit[0] || locked > row.limit[1];
        let said = match (exceeded, row.goal == row.limit) {
            (true, _) => format!("over its limit of {} and {}", row.limit[0], row.limit[1]),
            (false, true) => String::new(),
            (false, false) => format!("goal {} and {}", row.goal[0], row.goal[1]),
        };
        println!("{:<38}{instructions:>13}{loads:>7}{stores:>7}{locked:>8}  {said}", row.name);
        within &= !exceeded;
    }
    within
}

/// Runs a row for callgrind.
pub(crate) fn row(name: &str, rounds: u64) {
    match name {
        "nothing" => counted(rounds, &mut || {
            black_box(());
        }),
        "two words" => {
            let word = black_box(1_u64);
            counted(rounds, &mut || {
                black_box((&word, word));
            });
        }
        _ if name.starts_with("write ") || name.starts_with("step ") => steps::row(name, rounds),
        _ => memory::row(name, rounds),
    }
}

/// Callgrind counts in here.
#[inline(never)]
pub(crate) fn counted(rounds: u64, operation: &mut dyn FnMut()) {
    for _ in 0..rounds {
        operation();
    }
}

/// Instructions, loads, stores and locked instructions of a round.
fn counted_by_callgrind(name: &str) -> [f64; 4] {
    let program = std::env::current_exe().unwrap();
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--cache-sim=yes", "--collect-bus=yes"])
        // On entering the second, what the first has turned on is off until it returns.
        .args(["--toggle-collect=cost::count::counted", "--toggle-collect=cost::table::launch"])
        .arg(program)
        .args(["row", name, &ROUNDS.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {text}");
    let fields = |label: &str| -> Vec<String> {
        let line = text.lines().find_map(|line| line.split_once(label)).unwrap().1;
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (events, collected) = (fields("Events    :"), fields("Collected :"));
    ["Ir", "Dr", "Dw", "Ge"].map(|event| {
        let at = events.iter().position(|found| found == event).unwrap();
        // Zeros at the end are left out.
        collected.get(at).map_or(0.0, |count| count.parse().unwrap()) / ROUNDS as f64
    })
}
