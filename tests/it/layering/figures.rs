//! Figures of the README that a program holds: they are within its limits, beside its goals.

use super::read;

/// What the README says of a step whose slots are found by name, and of one whose slots are bound.
const ROWS: [&str; 2] = ["step of 12, ids, padded", "step of 12, bound"];

#[test]
fn the_readme_has_the_limits_of_a_step() {
    let limits = read("examples/cost/limits.rs");
    let wanted = ROWS.map(|name| limits_of(&limits, name).unwrap());
    let (goals, figures) = step_of(&read("README.md")).unwrap();
    for ((name, [limit, goal]), (said, figure)) in
        ROWS.iter().zip(wanted).zip(goals.iter().zip(&figures))
    {
        assert_eq!(*said, goal, "README.md's goal of {name}");
        let is_near = *figure <= limit && limit - figure <= limit / 50;
        assert!(is_near, "README.md says {figure} for {name}, whose limit is {limit}");
    }
}

/// Instructions of a row: its limit and its goal.
fn limits_of(source: &str, name: &str) -> Option<[u64; 2]> {
    let (_, behind) = source.split_once(&format!("row(\"{name}\", "))?;
    let mut pairs = behind.split('[').skip(1).map(|pair| pair.split(',').next()?.parse().ok());
    Some([pairs.next()??, pairs.next()??])
}

/// The goals and the figures of the README's row of a step.
fn step_of(readme: &str) -> Option<(Vec<u64>, Vec<u64>)> {
    let row =
        readme.lines().find(|line| line.starts_with("| instructions of ours in the usual"))?;
    let mut cells = row.split('|').skip(2).map(|cell| {
        let numbers = cell.split(';').map(|number| number.trim_matches([' ', '*']).parse());
        numbers.collect::<Result<Vec<_>, _>>().ok()
    });
    let (goals, figures) = (cells.next()??, cells.next()??);
    (goals.len() == ROWS.len() && figures.len() == ROWS.len()).then_some((goals, figures))
}

#[test]
fn figures_are_read_from_rows() {
    let limits = "row(\"a, b\", \"c\", [700, 2], [485, 1]),\nrow(\"a\", \"c\", [7, 2], [4, 1]),";
    assert_eq!(limits_of(limits, "a, b"), Some([700, 485]));
    assert_eq!(limits_of(limits, "a"), Some([7, 4]));
    assert_eq!(limits_of(limits, "c"), None);
    let readme = "| what |\n| instructions of ours in the usual step | 4; 5 | **6**; 7 | `x` |";
    assert_eq!(step_of(readme), Some((vec![4, 5], vec![6, 7])));
    assert_eq!(step_of("| what |"), None);
}
