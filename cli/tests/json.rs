//! What `--json` writes, and what the README says of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

#[expect(dead_code, reason = "other tests use more of it")]
mod rig;

use std::collections::BTreeSet;
use std::fs;

use rig::{Folder, wharf};

/// The fields that the README's table of a subcommand names.
fn documented(subcommand: &str) -> BTreeSet<String> {
    let path = format!("{}/README.md", env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(path).unwrap();
    let (_, table) =
        readme.split_once(&format!("| `wharf {subcommand}` | |\n|---|---|\n")).unwrap();
    let rows = table.lines().map_while(|line| line.strip_prefix("| "));
    let names = rows.flat_map(|row| row.split(" | ").next().unwrap().split(", "));
    names.map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn the_readme_names_the_fields_of_each_report() {
    let folder = Folder::new("fields");
    for subcommand in ["replay", "map", "qualify"] {
        let mut command = wharf(subcommand);
        match subcommand {
            // A promise that fails keeps the figures from being taken, which are the longest part.
            "qualify" => command.env("SOFTCUDA_FAIL", "cuMemHostRegister@1=2"),
            _ => command.arg("--steps=5"),
        };
        let name = format!("{subcommand}.json");
        command.arg("--json").arg(folder.file(&name)).output().unwrap();
        let report = folder.json(&name);
        let fields: BTreeSet<_> = report.as_object().unwrap().keys().cloned().collect();
        assert_eq!(documented(subcommand), fields, "{subcommand}");
    }
}
