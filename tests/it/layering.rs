//! The architecture, checked on the source text.
//!
//! Every file of `src/` and `sys/src/` is cut into tokens, so that comments and documentation
//! may name anything and code may not. What each rule forbids is at its function; which modules may be
//! unsafe is the list in CONTRIBUTING.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The layers of `src/`, lowest first: a module names only modules before it.
const LAYERS: &[&str] = &[
    "sync", "error", "profile", "driver", "lockfree", "stream", "timeline", "memory", "slab", "pool",
    "graph", "staging", "forecast", "report",
];

/// The files that may spell an entry point: the list, the types, and the door to the first.
const SPELLERS: &[&str] = &["sys/src/table.rs", "sys/src/bindings.rs", "sys/src/loader.rs"];

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
    check("src", layers);
}

#[test]
fn atomics_come_through_sync() {
    check("src", atomics);
}

#[test]
fn unsafe_stays_in_its_modules() {
    let allowed = unsafe_modules(&read("CONTRIBUTING.md"));
    for entry in &allowed {
        assert!(root().join(entry).exists(), "CONTRIBUTING.md lists {entry}, which is not there");
    }
    check("src", |file| unsafety(file, &allowed));
    check("sys/src", |file| unsafety(file, &allowed));
}

#[test]
fn entry_points_are_spelled_in_the_table() {
    check("src", entry_points);
    check("sys/src", entry_points);
}

#[test]
fn lints_stay_denied() {
    assert_eq!(lints(&read("Cargo.toml")), Vec::<String>::new());
    for package in ["Cargo.toml", "sys/Cargo.toml", "softcuda/Cargo.toml"] {
        assert_eq!(value(&read(package), "lints", "workspace"), Some("true".to_owned()), "{package}");
    }
}

/// A file with its tokens flattened: groups keep their brackets as tokens.
struct File {
    path: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    line: usize,
    literal: bool,
    /// Inside `#[...]`, where documentation lives.
    attribute: bool,
}

impl File {
    fn new(path: &str, source: &str) -> Self {
        let stream = TokenStream::from_str(source).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut tokens = Vec::new();
        flatten(stream, false, &mut tokens);
        Self { path: path.to_owned(), tokens }
    }

    fn text(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| &token.text)
    }

    fn violation(&self, line: usize, what: impl AsRef<str>) -> String {
        format!("{}:{line}: {}", self.path, what.as_ref())
    }

    /// The folders and the file name that make the module path, without `src`.
    fn module(&self) -> Vec<&str> {
        let inner = self.path.split_once("src/").map_or(self.path.as_str(), |(_, inner)| inner);
        let stem = inner.trim_end_matches(".rs").trim_end_matches("/mod");
        if stem == "lib" { Vec::new() } else { stem.split('/').collect() }
    }

    /// Every path in the code, use groups spelt out: `a::{b, c::d}` is `a::b` and `a::c::d`.
    fn paths(&self) -> Vec<(Vec<String>, usize)> {
        let mut paths = Vec::new();
        let mut index = 0;
        while index < self.tokens.len() {
            if self.is_name(index) {
                self.path_from(&mut index, &[], &mut paths);
            } else {
                index += 1;
            }
        }
        paths
    }

    fn path_from(&self, index: &mut usize, prefix: &[String], paths: &mut Vec<(Vec<String>, usize)>) {
        let line = self.tokens[*index].line;
        let mut path = prefix.to_vec();
        while self.is_name(*index) {
            path.push(self.text(*index).to_owned());
            *index += 1;
            if self.text(*index) != ":" || self.text(*index + 1) != ":" {
                break;
            }
            *index += 2;
            if self.text(*index) == "{" {
                return self.group_from(index, &path, paths);
            }
        }
        paths.push((path, line));
    }

    fn group_from(&self, index: &mut usize, prefix: &[String], paths: &mut Vec<(Vec<String>, usize)>) {
        *index += 1;
        while *index < self.tokens.len() && self.text(*index) != "}" {
            if self.is_name(*index) {
                self.path_from(index, prefix, paths);
            } else {
                *index += 1;
            }
        }
        *index += 1;
    }

    fn is_name(&self, index: usize) -> bool {
        let Some(token) = self.tokens.get(index) else { return false };
        !token.literal && token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

fn flatten(stream: TokenStream, attribute: bool, tokens: &mut Vec<Token>) {
    let mut previous = String::new();
    for tree in stream {
        let line = tree.span().start().line;
        let mut push = |text: &str, literal| {
            tokens.push(Token { text: text.to_owned(), line, literal, attribute });
        };
        let text = match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                push(open, false);
                let inside = attribute || (open == "[" && matches!(previous.as_str(), "#" | "!"));
                flatten(group.stream(), inside, tokens);
                tokens.push(Token { text: close.to_owned(), line, literal: false, attribute });
                close.to_owned()
            }
            TokenTree::Literal(literal) => {
                push(&literal.to_string(), true);
                String::new()
            }
            other => {
                push(&other.to_string(), false);
                other.to_string()
            }
        };
        previous = text;
    }
}

/// A path that leaves its module for a higher one, for an unlisted one, or for what the root
/// re-exports (the root is above everybody).
fn layers(file: &File) -> Vec<String> {
    let module = file.module();
    let Some(own) = module.first() else { return Vec::new() };
    let Some(height) = LAYERS.iter().position(|layer| layer == own) else {
        return vec![file.violation(1, format!("the module {own} is not in the list of layers"))];
    };
    let named = |(path, line): (Vec<String>, usize)| {
        let target = from_root(&path, module.len())?;
        match LAYERS.iter().position(|layer| *layer == target) {
            Some(other) if other <= height => None,
            Some(_) => Some(file.violation(line, format!("{own} names {target}, which is above it"))),
            None => Some(file.violation(line, format!("{own} names the root's {target}"))),
        }
    };
    file.paths().into_iter().filter_map(named).collect()
}

/// The name below the root that `path` leads to, from a module at `depth`.
fn from_root(path: &[String], depth: usize) -> Option<&str> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let skip = match path.first()?.as_str() {
        "crate" => 1,
        "super" if ups >= depth => ups,
        _ => return None,
    };
    path.get(skip).map(String::as_str)
}

/// The atomics of std, by any path, outside the one door.
fn atomics(file: &File) -> Vec<String> {
    if file.path == "src/sync.rs" {
        return Vec::new();
    }
    let is_door = |path: &[String]| {
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        matches!(path.as_slice(), ["std" | "core" | "loom", "sync", "atomic", ..] | ["std" | "core", "sync"])
    };
    let paths = file.paths().into_iter().filter(|(path, _)| is_door(path));
    paths.map(|(path, line)| file.violation(line, format!("{} outside sync", path.join("::")))).collect()
}

/// The keyword `unsafe` in a file that CONTRIBUTING.md does not list.
fn unsafety(file: &File, allowed: &[String]) -> Vec<String> {
    if allowed
        .iter()
        .any(|entry| file.path == *entry || (entry.ends_with('/') && file.path.starts_with(entry)))
    {
        return Vec::new();
    }
    let found = file.tokens.iter().filter(|token| !token.literal && token.text == "unsafe");
    found.map(|token| file.violation(token.line, "unsafe in a module that is not listed")).collect()
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
    found.map(|token| file.violation(token.line, format!("{} outside the table", token.text))).collect()
}

fn is_entry_point(name: &str) -> bool {
    let mut rest = name.strip_prefix("cu").unwrap_or_default().chars();
    rest.next().is_some_and(|c| c.is_ascii_uppercase()) && rest.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The lints of the policy that the manifest does not deny.
fn lints(manifest: &str) -> Vec<String> {
    let missing = DENIED.iter().filter(|(section, lint)| {
        value(manifest, section, lint).is_none_or(|level| level != "\"deny\"" && level != "\"forbid\"")
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
    let items = lines.take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("- `"));
    items.filter_map(|item| item.split('`').next()).map(str::to_owned).collect()
}

/// Runs `rule` over every file below `folder` and fails with all violations at once.
fn check(folder: &str, rule: impl Fn(&File) -> Vec<String>) {
    let mut files = Vec::new();
    collect(&root().join(folder), &mut files);
    assert!(!files.is_empty(), "no source in {folder}");
    let violations: Vec<_> = files.iter().flat_map(|path| rule(&File::new(path, &read(path)))).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The rules themselves: each finds what it forbids, and only that.
mod rules {
    use super::*;

    fn file(path: &str, source: &str) -> File {
        File::new(path, source)
    }

    #[test]
    fn a_higher_module_is_found_in_every_spelling() {
        for source in [
            "use crate::slab::Pool;",
            "use crate::{error::Error, slab::{Block, Pool}};",
            "fn f() { crate::slab::grow() }",
            "use super::super::slab;",
            "fn f(pool: &crate::slab::Pool) {}",
            "macro_rules! m { () => { $crate::slab::grow() } }",
        ] {
            let found = layers(&file("src/driver/context.rs", source));
            assert!(!found.is_empty(), "{source}");
            assert!(found[0].starts_with("src/driver/context.rs:1: driver names slab"), "{found:?}");
        }
        assert_eq!(layers(&file("src/error.rs", "use super::driver::Driver;")).len(), 1);
    }

    #[test]
    fn the_root_and_unlisted_modules_are_found() {
        assert_eq!(layers(&file("src/driver/event.rs", "use crate::Stream;")).len(), 1);
        assert_eq!(layers(&file("src/util.rs", "")).len(), 1);
        assert_eq!(layers(&file("src/util/mod.rs", "")).len(), 1);
    }

    #[test]
    fn lower_modules_and_documentation_may_be_named() {
        let source = "//! See [`crate::slab::Pool`].\n/// [`Stream`](crate::Stream)\n\
                      use crate::error::Error; use super::{Context, event::Event}; // crate::slab\n\
                      fn f() { let text = \"crate::slab\"; self::g(); }";
        assert_eq!(layers(&file("src/driver/context.rs", source)), Vec::<String>::new());
        assert_eq!(layers(&file("src/lib.rs", "use crate::slab::Pool;")), Vec::<String>::new());
    }

    #[test]
    fn atomics_are_found_in_every_spelling() {
        for source in [
            "use std::sync::atomic::AtomicU64;",
            "use core::sync::atomic;",
            "use std::sync::{Arc, atomic::{AtomicU64, Ordering}};",
            "use std::{fmt, sync::atomic as a};",
            "fn f() { ::core::sync::atomic::fence(o) }",
            "use std::sync;",
            "use loom::sync::atomic::AtomicU64;",
        ] {
            assert_eq!(
                atomics(&file("src/slab/mod.rs", source)).len(),
                1 + source.matches("Ordering}").count()
            );
        }
        let fine = "use std::sync::Arc; use crate::sync::atomic::AtomicU64; // std::sync::atomic";
        assert_eq!(atomics(&file("src/slab/mod.rs", fine)), Vec::<String>::new());
        assert_eq!(atomics(&file("src/sync.rs", "pub use std::sync::atomic;")), Vec::<String>::new());
    }

    #[test]
    fn unsafe_is_found_outside_the_list() {
        let allowed = vec!["src/driver/".to_owned(), "src/slab/block.rs".to_owned()];
        for source in ["fn f() { unsafe { g() } }", "unsafe impl Send for T {}", "pub unsafe fn f() {}"] {
            assert_eq!(unsafety(&file("src/lockfree/stack.rs", source), &allowed).len(), 1, "{source}");
            assert_eq!(unsafety(&file("src/slab/mod.rs", source), &allowed).len(), 1, "{source}");
            assert!(unsafety(&file("src/slab/block.rs", source), &allowed).is_empty());
            assert!(unsafety(&file("src/driver/device.rs", source), &allowed).is_empty());
        }
        let fine = "//! unsafe\n#![expect(unsafe_code, reason = \"unsafe\")]\nfn f() { \"unsafe\"; }";
        assert_eq!(unsafety(&file("src/lockfree/stack.rs", fine), &allowed), Vec::<String>::new());
    }

    #[test]
    fn the_list_of_unsafe_modules_is_read() {
        let text = "# A\n- `src/no.rs`\n## Unsafe modules\n\nWhy.\n\n- `src/a.rs`: reason\n- `src/b/`\n\n## Next\n- `src/c.rs`";
        assert_eq!(unsafe_modules(text), ["src/a.rs", "src/b/"]);
    }

    #[test]
    fn entry_points_are_found_outside_the_table() {
        for source in
            ["fn f() { cuInit(0) }", "extern \"C\" { fn cuMemAlloc_v2(); }", "use sys::cuCtxCreate_v4 as c;"]
        {
            assert_eq!(entry_points(&file("src/driver/mod.rs", source)).len(), 1, "{source}");
            assert_eq!(entry_points(&file("sys/src/entry.rs", source)).len(), 1, "{source}");
            assert!(entry_points(&file("sys/src/table.rs", source)).is_empty());
        }
        for source in ["fn f() { symbol(\"cuInit\") }", "fn f() { symbol(c\"cuInit\") }"] {
            assert_eq!(entry_points(&file("src/driver/mod.rs", source)).len(), 1, "{source}");
        }
        let fine = "/// [`cuInit`]\n#[doc(alias = \"cuInit\")]\nfn f() { api.init.call(0); CUstream; cuda; cursor; \"cuInit fails\"; }";
        assert_eq!(entry_points(&file("src/driver/mod.rs", fine)), Vec::<String>::new());
    }

    #[test]
    fn a_weakened_lint_is_found() {
        let manifest = read("Cargo.toml");
        assert_eq!(lints(&manifest.replace("unsafe_code = \"deny\"", "unsafe_code = \"warn\"")).len(), 1);
        assert_eq!(lints(&manifest.replace("unwrap_used = \"deny\"\n", "")).len(), 1);
        assert_eq!(lints("[package]\n").len(), DENIED.len());
    }
}
