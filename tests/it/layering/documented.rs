//! Layers that the documentation of a crate's root lists: a table whose first column names the
//! modules, the lowest first.

use std::fs;
use std::path::Path;

use super::layers::{sources, upward};

/// Fails where a module below `folder` names one that the table in `root` lists after it, where a
/// module is not in the table, or where the table lists one that does not exist. Paths that begin
/// with one of `without` are left out.
pub(super) fn check(package: &Path, folder: &str, root: &str, without: &[&str]) {
    let layers = listed(&fs::read_to_string(package.join(folder).join(root)).unwrap());
    for layer in &layers {
        let path = package.join(folder).join(layer);
        let exists = path.join("mod.rs").exists() || path.with_extension("rs").exists();
        assert!(exists, "{folder}/{root} lists {layer}, which does not exist");
    }
    let mut violations = Vec::new();
    for file in sources(package, folder) {
        if without.iter().any(|prefix| file.path.starts_with(prefix)) {
            continue;
        }
        let inner = file.path.strip_prefix(folder).unwrap().trim_start_matches('/');
        let stem = inner.trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Vec<_> = if inner == root { Vec::new() } else { stem.split('/').collect() };
        violations.extend(upward(&file, &module, &layers));
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// The names in backticks in the first column of the table.
fn listed(source: &str) -> Vec<String> {
    let rows = source.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let cells = rows.filter_map(|row| row.split_once(" |")).map(|(cell, _)| cell);
    let names = cells.flat_map(|cell| cell.split("`, `").map(|name| name.trim_end_matches('`')));
    names.map(str::to_owned).collect()
}
