//! Errors of traces.

use std::path::PathBuf;
use std::{fmt, io};

use super::{LINE_LIMIT, TOKEN_LIMIT};

/// A trace that cannot be used, and where it stops being one.
#[derive(Debug)]
pub struct TraceError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; 0 before the first was read.
    pub line: u64,
    /// The problem on that line.
    pub problem: Problem,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.problem),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.problem),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}

/// A problem on a line of a trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be opened.
    #[error("it cannot be opened: {0}; check the path, and that this user may read the file")]
    Open(#[source] io::Error),
    /// The file cannot be read on.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// There is nothing in the file.
    #[error(
        "the file is empty: a trace begins with the line TIMESTAMP,ContextTokens,GeneratedTokens"
    )]
    Empty,
    /// Nothing follows the head.
    #[error("there are no requests after the head")]
    NoRequests,
    /// The head lacks a column.
    #[error("no column {0}: the first line must name TIMESTAMP, ContextTokens and GeneratedTokens")]
    Column(&'static str),
    /// The line is longer than any request.
    #[error("the line is longer than {LINE_LIMIT} bytes: this is not a trace")]
    TooLong,
    /// Bytes that are not UTF-8, or a zero byte.
    #[error("this is not text: a trace is a CSV file")]
    NotText,
    /// Fewer fields than the head has names.
    #[error("the line has too few fields: TIMESTAMP, ContextTokens and GeneratedTokens are needed")]
    Fields,
    /// A timestamp that is none.
    #[error("TIMESTAMP is {}, which is not like 2023-11-16 18:17:03.979960", Excerpt(.0))]
    Timestamp(String),
    /// A number of tokens that is none, or too large.
    #[error(
        "{column} is {}, which is not a number of tokens from 0 to {TOKEN_LIMIT}",
        Excerpt(found)
    )]
    Tokens {
        /// The column's name.
        column: &'static str,
        /// The text found there.
        found: String,
    },
    /// A request that arrives before the one above it.
    #[error("the time goes backwards: requests must be in the order of their arrival")]
    Backwards,
}

/// The beginning of a field, safe to print.
struct Excerpt<'a>(&'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.0.chars().take(32).collect();
        let more = if start.len() < self.0.len() { "..." } else { "" };
        write!(f, "{start:?}{more}")
    }
}
