//! What the README says of reports.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

/// Sees that the README's table of a subcommand names the fields of its report.
pub(crate) fn names_fields_of(report: &Value, subcommand: &str) {
    let path = format!("{}/README.md", env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(path).unwrap();
    let (_, table) =
        readme.split_once(&format!("| `wharf {subcommand}` | |\n|---|---|\n")).unwrap();
    let rows = table.lines().map_while(|line| line.strip_prefix("| "));
    let names = rows.flat_map(|row| row.split(" | ").next().unwrap().split(", "));
    let names: BTreeSet<_> = names.map(|name| name.trim_matches('`')).collect();
    let fields: BTreeSet<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, fields, "README.md of wharf {subcommand}");
}
