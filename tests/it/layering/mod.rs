//! The architecture, checked on the source text.
//!
//! Every file of the packages' sources is cut into tokens, so that comments and documentation may
//! name anything and code may not. What each rule forbids is at its function; which modules may be
//! unsafe is the list in CONTRIBUTING.md.

mod circles;
mod figures;
mod layers;
mod proofs;
mod sizes;
mod source;
mod words;

use std::fs;
use std::path::PathBuf;

use source::{File, Token};

/// The layers of `src/`, lowest first: a module names only modules of layers before its own, so
/// those that share a layer do not name each other.
const LAYERS: &[&str] = &[
    "address",
    "sync",
    "error element",
    "profile",
    "driver",
    "lockfree",
    "forecast",
    "timeline",
    "futures",
    "stream",
    "memory",
    "slab",
    "pool tier",
    "graph",
    "staging",
    "manager",
    "error_kind",
    "report",
    "guide",
];

/// The folders whose files import each other in one direction only.
const WITHOUT_CIRCLES: &[&str] = &[
    "src/driver",
    "src/element",
    "src/forecast",
    "src/futures",
    "src/graph",
    "src/lockfree",
    "src/manager",
    "src/memory",
    "src/pool",
    "src/profile",
    "src/report",
    "src/slab",
    "src/staging",
    "src/stream",
    "src/sync",
    "src/tier",
    "src/timeline",
];

/// The files that may spell an entry point: the list, the types, and the door to the first.
const SPELLERS: &[&str] = &["sys/src/table.rs", "sys/src/bindings.rs", "sys/src/loader.rs"];

/// The packages whose unsafe modules are not listed.
const UNLISTED: &[&str] = &["softcuda/src", "bench/src"];

/// The lints that carry the unsafe and error policies.
const DENIED: &[(&str, &str)] = &[
    ("workspace.lints.rust", "unsafe_code"),
    ("workspace.lints.rust", "unsafe_op_in_unsafe_fn"),
    ("workspace.lints.rustdoc", "broken_intra_doc_links"),
    ("workspace.lints.clippy", "undocumented_unsafe_blocks"),
    ("workspace.lints.clippy", "multiple_unsafe_ops_per_block"),
    ("workspace.lints.clippy", "missing_safety_doc"),
    ("workspace.lints.clippy", "unwrap_used"),
    ("workspace.lints.clippy", "todo"),
    ("workspace.lints.clippy", "unimplemented"),
    ("workspace.lints.clippy", "dbg_macro"),
    ("workspace.lints.clippy", "print_stdout"),
    ("workspace.lints.clippy", "print_stderr"),
];

#[test]
fn modules_name_only_lower_ones() {
    check("src", upward);
}

#[test]
fn files_import_each_other_in_one_direction() {
    let files = layers::sources(&root(), "src");
    let circles = WITHOUT_CIRCLES.iter().filter_map(|folder| {
        Some(format!("{folder}: {}", circles::circle(folder, &files)?.join(" -> ")))
    });
    let circles: Vec<_> = circles.collect();
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

#[test]
fn primitives_come_through_sync() {
    check("src", primitives);
}

#[test]
fn unsafe_stays_in_its_modules() {
    let allowed = unsafe_modules(&read("CONTRIBUTING.md"));
    let folders = sizes::SOURCES.iter().filter(|folder| !UNLISTED.contains(folder));
    let files: Vec<_> = folders.flat_map(|folder| layers::sources(&root(), folder)).collect();
    let mut wrong: Vec<_> = files.iter().flat_map(|file| unsafety(file, &allowed)).collect();
    wrong.extend(allowed.iter().filter(|entry| is_stale(entry, &files)).map(|entry| {
        format!("CONTRIBUTING.md lists {entry}, which is not there or has nothing unsafe")
    }));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn entry_points_are_spelled_in_the_table() {
    check("src", entry_points);
    check("sys/src", entry_points);
}

#[test]
fn lints_stay_denied() {
    assert_eq!(lints(&read("Cargo.toml")), Vec::<String>::new());
    for package in ["", "sys/", "softcuda/", "cli/", "capi/", "cudarc/"] {
        let manifest = read(&format!("{package}Cargo.toml"));
        assert_eq!(value(&manifest, "lints", "workspace"), Some("true".to_owned()), "{package}");
    }
}

/// The layers of `src/`: see [`layers::upward`].
fn upward(file: &File) -> Vec<String> {
    layers::upward(file, &file.module(), LAYERS)
}

/// A primitive that models replace (atomics, cells, locks, threads, thread-locals), by any path
/// that is not through the one door. Counted references and cells of one thread are `std`'s.
fn primitives(file: &File) -> Vec<String> {
    if file.path.starts_with("src/sync/") {
        return Vec::new();
    }
    let passes_by = |path: &[String]| {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["std" | "core" | "alloc", "sync", "Arc" | "Weak", ..]
            | ["std" | "core", "cell", "Cell" | "RefCell", ..] => false,
            [
                "std" | "core" | "alloc",
                "sync" | "cell" | "thread" | "hint" | "thread_local",
                ..,
            ]
            | ["loom" | "shuttle", _, ..]
            | ["thread_local"] => true,
            _ => false,
        }
    };
    let paths = file.paths().into_iter().filter(|(path, _)| passes_by(path));
    paths
        .map(|(path, line)| file.violation(line, format!("{} outside sync", path.join("::"))))
        .collect()
}

/// The keyword `unsafe` in a file that CONTRIBUTING.md does not list.
fn unsafety(file: &File, allowed: &[String]) -> Vec<String> {
    if allowed.iter().any(|entry| is_in(file, entry)) {
        return Vec::new();
    }
    let found = file.tokens.iter().filter(|token| !token.literal && token.text == "unsafe");
    found.map(|token| file.violation(token.line, "unsafe in a module that is not listed")).collect()
}

/// Whether the file is the entry of the list, or in the folder that is.
fn is_in(file: &File, entry: &str) -> bool {
    file.path == entry || (entry.ends_with('/') && file.path.starts_with(entry))
}

/// Whether no file of the entry needs to be listed.
fn is_stale(entry: &str, files: &[File]) -> bool {
    !files.iter().any(|file| is_in(file, entry) && !unsafety(file, &[]).is_empty())
}

/// An entry point's name as an identifier, or in `src/` as a whole string.
fn entry_points(file: &File) -> Vec<String> {
    if SPELLERS.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let strings = file.path.starts_with("src/");
    let spelled = |token: &&Token| {
        let name = token.text.trim_start_matches('c').trim_matches('"');
        let name = if token.literal { name } else { token.text.as_str() };
        !token.attribute && (strings || !token.literal) && is_entry_point(name)
    };
    let found = file.tokens.iter().filter(spelled);
    found
        .map(|token| file.violation(token.line, format!("{} outside the table", token.text)))
        .collect()
}

fn is_entry_point(name: &str) -> bool {
    let mut rest = name.strip_prefix("cu").unwrap_or_default().chars();
    rest.next().is_some_and(|c| c.is_ascii_uppercase())
        && rest.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The lints of the policy that the manifest does not deny.
fn lints(manifest: &str) -> Vec<String> {
    let missing = DENIED.iter().filter(|(section, lint)| {
        value(manifest, section, lint)
            .is_none_or(|level| level != "\"deny\"" && level != "\"forbid\"")
    });
    missing.map(|(section, lint)| format!("{section}: {lint} is not denied")).collect()
}

/// The value of `key` in `[section]` of a manifest.
fn value(manifest: &str, section: &str, key: &str) -> Option<String> {
    let header = format!("[{section}]");
    let lines = manifest.lines().skip_while(|line| line.trim() != header).skip(1);
    let mut lines = lines.take_while(|line| !line.starts_with('['));
    lines.find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// The paths in the list under "Unsafe modules".
fn unsafe_modules(contributing: &str) -> Vec<String> {
    let lines = contributing.lines().skip_while(|line| *line != "## Unsafe modules").skip(1);
    let items = lines
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("- `"));
    items.filter_map(|item| item.split('`').next()).map(str::to_owned).collect()
}

/// Runs `rule` over every file below `folder` and fails with all violations at once.
fn check(folder: &str, rule: impl Fn(&File) -> Vec<String>) {
    let violations: Vec<_> = layers::sources(&root(), folder).iter().flat_map(rule).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
