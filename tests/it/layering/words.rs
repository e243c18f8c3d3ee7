//! Plain English in comments, strings and documents: a sentence names its subject.

use std::fs;

use super::sizes::{SOURCES, sources};
use super::{read, root};

/// What the text does without: a pronoun in the place of a noun, and "; whether" for "Returns
/// whether".
const PHRASES: &[&str] = &["nobody", "somebody", "whoever", "; whether"];

/// How no sentence begins.
const OPENINGS: &[&str] = &["Who ", "What is "];

/// The documents that are read beside the sources and those of `docs/`.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "sys/README.md",
    "softcuda/README.md",
    "cli/README.md",
    "capi/README.md",
    "cudarc/README.md",
    "cuda-core/README.md",
    "nixl/README.md",
    "python/README.md",
    "bench/README.md",
];

#[test]
fn sentences_name_their_subjects() {
    let mut files = sources(SOURCES);
    files.extend(DOCUMENTS.iter().map(|file| (*file).to_owned()));
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        files.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    let found: Vec<_> = files.iter().flat_map(|path| vague(path, &read(path))).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The places where a text has one of [`PHRASES`], or a sentence with one of [`OPENINGS`].
fn vague(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (line, paragraph) in paragraphs(text, path.ends_with(".rs")) {
        let lower = paragraph.to_lowercase();
        let phrases = PHRASES.iter().filter(|phrase| lower.contains(**phrase));
        let openings = OPENINGS.iter().filter(|opening| {
            paragraph.match_indices(**opening).any(|(at, _)| begins(&paragraph[..at]))
        });
        found.extend(phrases.chain(openings).map(|word| format!("{path}:{line}: {word:?}")));
    }
    found
}

/// Comments and paragraphs of documents, each as one line, and where it starts: a phrase may be
/// broken at the end of a line. A line of code is on its own.
fn paragraphs(text: &str, code: bool) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let comment = ["//!", "///", "//"].iter().find_map(|slashes| line.strip_prefix(slashes));
        let words = if code { comment.unwrap_or(line).trim() } else { line };
        let prose = (comment.is_some() || !code) && !words.is_empty();
        let is_item = words.starts_with(|c: char| "*-|#".contains(c) || c.is_ascii_digit());
        match paragraphs.last_mut() {
            Some((_, last)) if goes_on && prose && !is_item => last.extend([" ", words]),
            _ => paragraphs.push((index + 1, words.to_owned())),
        }
        goes_on = prose;
    }
    paragraphs
}

/// Whether a sentence begins behind `text`.
fn begins(text: &str) -> bool {
    let marks = |c: char| c.is_whitespace() || "*_`\"(|#>-".contains(c);
    let before = text.trim_end_matches(marks);
    before.is_empty() || before.ends_with(['.', '!', '?', ':']) || text.ends_with('"')
}

#[test]
fn vague_sentences_are_found() {
    for text in [
        "/// Nobody's.",
        "//! A hint that\n//! somebody has left.",
        "// Takes it;\n// whether it did.",
        "/// Takes it. Who comes later waits.",
        "fn f() { g(\"What is left\") }",
        "//! * Who claims it.",
    ] {
        assert_eq!(vague("a.rs", text).len(), 1, "{text}");
    }
    assert_eq!(vague("a.md", "A list:\n\n- Who reads\n- **What is** read").len(), 1);
    let fine = "/// Returns whether the one who waits got what is there.\nfn f() {}\n// Whoa.";
    assert_eq!(vague("a.rs", fine), Vec::<String>::new());
}
