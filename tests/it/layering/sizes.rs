//! Columns of a line, lines of a file, lines of a function.

use std::fs;
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{read, root};

/// Where lines are checked, besides the sources.
const COLUMNS_IN: &[&str] = &[
    "tests",
    "loom_tests",
    "shuttle_tests",
    "examples",
    "softcuda/tests",
    "softcuda/examples",
    "cli/tests",
    "cli/examples",
    "capi/tests",
    "capi/examples",
    "cudarc/tests",
    "cudarc/examples",
    "cuda-core/tests",
    "cuda-core/examples",
    "nixl/tests",
    "nixl/examples",
    "python/examples",
    "bench/tests",
];

/// The sources of all packages, whose files and functions have their lengths checked too.
pub(super) const SOURCES: &[&str] = &[
    "src",
    "sys/src",
    "softcuda/src",
    "cli/src",
    "capi/src",
    "cudarc/src",
    "cuda-core/src",
    "nixl/src",
    "python/src",
    "bench/src",
];

/// What a generator has written.
const GENERATED: &[&str] = &["sys/src/bindings.rs"];

const MOST_COLUMNS: usize = 100;
const MOST_LINES: usize = 400;
const MOST_FUNCTION_LINES: usize = 60;

#[test]
fn lines_fit_a_hundred_columns() {
    check(SOURCES, columns);
    check(COLUMNS_IN, columns);
}

#[test]
fn files_fit_four_hundred_lines() {
    check(SOURCES, lines);
}

#[test]
fn functions_fit_sixty_lines() {
    check(SOURCES, functions);
}

fn columns(path: &str, source: &str) -> Vec<String> {
    let long = source.lines().enumerate().filter(|(_, text)| text.chars().count() > MOST_COLUMNS);
    long.map(|(index, text)| format!("{path}:{}: {} columns", index + 1, text.chars().count()))
        .collect()
}

fn lines(path: &str, source: &str) -> Vec<String> {
    let count = source.lines().count();
    Vec::from_iter((count > MOST_LINES).then(|| format!("{path}: {count} lines")))
}

fn functions(path: &str, source: &str) -> Vec<String> {
    let stream = TokenStream::from_str(source).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut found = Vec::new();
    walk(stream, &mut |name, line, len| {
        if len > MOST_FUNCTION_LINES {
            found.push(format!("{path}:{line}: {name} has {len} lines"));
        }
    });
    found
}

/// Shows `see` every function with a body: its name, its first line, and how many lines it has from
/// there to the closing brace.
fn walk(stream: TokenStream, see: &mut impl FnMut(&str, usize, usize)) {
    let mut function: Option<(String, usize)> = None;
    let mut previous = String::new();
    for tree in stream {
        match &tree {
            TokenTree::Ident(name) if previous == "fn" => {
                function = Some((name.to_string(), name.span().start().line));
            }
            // A declaration without a body; in brackets or parentheses a `;` is no end.
            TokenTree::Punct(punct) if punct.as_char() == ';' => function = None,
            TokenTree::Group(group) => {
                if group.delimiter() == Delimiter::Brace
                    && let Some((name, start)) = function.take()
                {
                    see(&name, start, group.span_close().end().line + 1 - start);
                }
                walk(group.stream(), see);
            }
            _ => {}
        }
        previous = tree.to_string();
    }
}

fn check(folders: &[&str], rule: impl Fn(&str, &str) -> Vec<String>) {
    let mut files = sources(folders);
    files.retain(|path| !GENERATED.contains(&path.as_str()));
    let found: Vec<_> = files.iter().flat_map(|path| rule(path, &read(path))).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn what_is_excepted_needs_it() {
    for path in GENERATED {
        let source = read(path);
        let found = [columns(path, &source), lines(path, &source), functions(path, &source)];
        assert!(!found.concat().is_empty(), "{path} keeps the rules: it needs no exception");
    }
}

/// The paths of the sources below the folders, from the root.
pub(super) fn sources(folders: &[&str]) -> Vec<String> {
    let mut rest: Vec<_> = folders.iter().map(|folder| (*folder).to_owned()).collect();
    let mut sources = Vec::new();
    while let Some(folder) = rest.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                rest.push(path);
            } else if path.ends_with(".rs") {
                sources.push(path);
            }
        }
    }
    assert!(sources.len() >= folders.len(), "no source in {folders:?}");
    sources
}

#[test]
fn what_is_too_long_is_found() {
    let (fits, long) = ("x".repeat(100), "é".repeat(101));
    assert_eq!(columns("a.rs", &format!("{fits}\n{long}\n")), ["a.rs:2: 101 columns"]);
    assert_eq!(lines("a.rs", &"\n".repeat(400)), Vec::<String>::new());
    assert_eq!(lines("a.rs", &"\n".repeat(401)), ["a.rs: 401 lines"]);
    let function =
        |lines: usize| format!("mod m {{\nfn g();\nfn f() {{{}}}\n}}", "\n".repeat(lines - 1));
    assert_eq!(functions("a.rs", &function(60)), Vec::<String>::new());
    assert_eq!(functions("a.rs", &function(61)), ["a.rs:3: f has 61 lines"]);
}
