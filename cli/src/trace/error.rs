//! Errors of traces.

use std::path::PathBuf;
use std::{fmt, io};

use super::{LINE_LIMIT, SORT_LIMIT, TOKEN_LIMIT};

/// A trace that cannot be used, and where it stops being one.
#[derive(Debug)]
pub struct TraceError {
    /// The file; `-` for standard input.
    pub path: PathBuf,
    /// The line, counted from 1; 0 before the first was read.
    pub line: u64,
    /// The column of the field, in characters counted from 1.
    pub column: u64,
    /// The problem there.
    pub problem: Problem,
}

/// The place of a problem, in a trace that does not know its name.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) problem: Problem,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, problem) = (self.path.display(), &self.problem);
        match (self.line, self.column) {
            (0, _) => write!(f, "{path}: {problem}"),
            (line, column) => write!(f, "{path}:{line}:{column}: {problem}"),
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
        "the file is empty, or has nothing but comments: a trace is a CSV file with a head, such \
         as TIMESTAMP,ContextTokens,GeneratedTokens, or has a JSON object on each line"
    )]
    Empty,
    /// Nothing follows the head.
    #[error("there are no requests after the head")]
    NoRequests,
    /// The head is of no known form.
    #[error(
        "the head names no columns of a known trace (Azure: TIMESTAMP, ContextTokens, \
         GeneratedTokens; BurstGPT: Timestamp, Request tokens, Response tokens), but {}; name \
         them with --columns time=..,input=..,output=..",
        Excerpt(.0)
    )]
    Head(String),
    /// Columns are named, and the lines are objects.
    #[error(
        "--columns names columns of a CSV file, and this is a JSON object: leave it out, and name \
         the fields timestamp (in milliseconds), input_length and output_length"
    )]
    ColumnsOfObjects,
    /// The head lacks a column.
    #[error(
        "no column {missing}, which a trace of the form {form} has; there are {}",
        Excerpt(head)
    )]
    Column {
        /// The column's name.
        missing: String,
        /// The form.
        form: String,
        /// The names that are there.
        head: String,
    },
    /// The head names a column more than once.
    #[error("there is more than one column {0}: rename all but one")]
    Twice(String),
    /// The line is longer than any request.
    #[error("the line is longer than {LINE_LIMIT} bytes: this is not a trace")]
    TooLong,
    /// Bytes that are not UTF-8, or a zero byte.
    #[error("this is not text: a trace is a CSV file, or has a JSON object on each line")]
    NotText,
    /// A quote that does not end.
    #[error("the field begins with a quote that the file does not close")]
    Quote,
    /// Fewer fields than the head has names.
    #[error("the line has too few fields: it ends before {0}")]
    Fields(String),
    /// More fields than the head has names: a number with a comma in it would be two.
    #[error(
        "the line has more fields than the head: {} is in no column; quote a field that has a \
         delimiter in it",
        Excerpt(.0)
    )]
    Beyond(String),
    /// One JSON document.
    #[error(
        "this is a JSON array: a trace has a JSON object on each line, which `jq -c '.[]'` makes \
         of an array"
    )]
    Array,
    /// An object that is none, or of other fields.
    #[error(
        "{0}; each line is a JSON object with the numbers timestamp, input_length and output_length"
    )]
    Json(String),
    /// A time that is none.
    #[error(
        "{column} is {}, which is neither a number nor like 2023-11-16 18:17:03.979960, with or \
         without Z or an offset such as +02:00",
        Excerpt(found)
    )]
    Timestamp {
        /// The column's name.
        column: String,
        /// The text found there.
        found: String,
    },
    /// A time that cannot be counted.
    #[error("{column} is {}, which is too far away to be counted in microseconds", Excerpt(found))]
    FarTime {
        /// The column's name.
        column: String,
        /// The text found there.
        found: String,
    },
    /// A number of tokens that is none, or too large.
    #[error(
        "{column} is {}, which is not a number of tokens from 0 to {TOKEN_LIMIT}",
        Excerpt(found)
    )]
    Tokens {
        /// The column's name.
        column: String,
        /// The text found there.
        found: String,
    },
    /// A request that arrives before the one above it.
    #[error(
        "the time goes backwards: requests must be in the order of their arrival; \
         --unsorted sort puts them in order"
    )]
    Backwards,
    /// More requests than are sorted in memory.
    #[error(
        "there are more than {SORT_LIMIT} requests, too many to sort here: sort the file first"
    )]
    TooManyToSort,
    /// The trace does not say which prefixes are equal.
    #[error(
        "there are no hash_ids, so equal prefixes are not known: --prefix-cache needs a trace that \
         has them, as Mooncake's have"
    )]
    NoBlocks,
    /// Prefixes are known from the lines above, which are not the requests before.
    #[error(
        "prefixes of requests that are sorted are not known: --prefix-cache needs --unsorted refuse"
    )]
    PrefixesUnsorted,
}

/// The beginning of a field, safe to print.
struct Excerpt<'a>(&'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start: String = self.0.chars().take(64).collect();
        let more = if start.len() < self.0.len() { "..." } else { "" };
        write!(f, "{start:?}{more}")
    }
}
