//! Request traces in the format of the Azure Public Dataset.
//!
//! ```text
//! TIMESTAMP,ContextTokens,GeneratedTokens
//! 2023-11-16 18:17:03.9799600,4808,10
//! ```
//!
//! A line is a request. Columns may come in any order and others may stand between them; fields may
//! be quoted; empty lines are skipped. Of a timestamp the microseconds count, further digits are
//! dropped.

mod error;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;

pub use self::error::{Problem, TraceError};
use crate::request::Request;

/// The longest line that is read, in bytes.
pub const LINE_LIMIT: usize = 4096;

/// The most tokens that one request may have in its prompt, and the most that it may generate.
pub const TOKEN_LIMIT: u32 = 1 << 24;

/// The requests of a trace, read line by line.
///
/// The first error ends it.
///
/// # Examples
///
/// ```
/// use wharf_cli::trace::Trace;
///
/// let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n";
/// let requests = Trace::read("example.csv", text.as_bytes())?.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(requests[0].prompt, 4808);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Trace<R> {
    lines: Lines<R>,
    /// Where the columns that count are.
    columns: [usize; 3],
    first: Option<DateTime>,
    latest: u64,
    ended: bool,
}

impl Trace<BufReader<File>> {
    /// Opens the trace at `path` and reads its head.
    ///
    /// # Errors
    ///
    /// [`TraceError`]: the file cannot be read, or its first line does not name the columns.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|error| TraceError {
            path: path.to_owned(),
            line: 0,
            problem: Problem::Open(error),
        })?;
        Self::read(path, BufReader::new(file))
    }
}

impl<R: BufRead> Trace<R> {
    /// Takes the trace from `source`; errors call it `name`.
    ///
    /// # Errors
    ///
    /// As [`Trace::open`].
    pub fn read(name: impl Into<PathBuf>, source: R) -> Result<Self, TraceError> {
        let mut lines = Lines { path: name.into(), number: 0, source, line: Vec::new() };
        let columns = match lines.advance() {
            Ok(true) => lines.text().and_then(columns),
            Ok(false) => Err(Problem::Empty),
            Err(problem) => Err(problem),
        };
        match columns {
            Ok(columns) => Ok(Self { lines, columns, first: None, latest: 0, ended: false }),
            Err(problem) => Err(lines.error(problem)),
        }
    }

    fn request(&mut self) -> Result<Option<Request>, Problem> {
        if !self.lines.advance()? {
            return if self.first.is_some() { Ok(None) } else { Err(Problem::NoRequests) };
        }
        let mut fields = [None; 3];
        for (index, field) in self.lines.text()?.split(',').enumerate() {
            if let Some(column) = self.columns.iter().position(|column| *column == index) {
                fields[column] = Some(unquoted(field));
            }
        }
        let [Some(time), Some(prompt), Some(generated)] = fields else {
            return Err(Problem::Fields);
        };
        let (prompt, generated) = (tokens(COLUMNS[1], prompt)?, tokens(COLUMNS[2], generated)?);
        let time = microseconds(time)?;
        // Times count from the first request, so a trace may begin at any date.
        let first = *self.first.get_or_insert(time);
        let arrival = u64::try_from(time.duration_since(first).as_micros())
            .map_err(|_| Problem::Backwards)?;
        if arrival < self.latest {
            return Err(Problem::Backwards);
        }
        self.latest = arrival;
        Ok(Some(Request { arrival, prompt, generated }))
    }
}

impl<R: BufRead> Iterator for Trace<R> {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let request = self.request().transpose();
        self.ended = !matches!(request, Some(Ok(_)));
        Some(request?.map_err(|problem| self.lines.error(problem)))
    }
}

/// Lines of bounded length, counted.
#[derive(Debug)]
struct Lines<R> {
    path: PathBuf,
    number: u64,
    source: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Goes to the next line that is not empty; false at the end.
    fn advance(&mut self) -> Result<bool, Problem> {
        loop {
            self.line.clear();
            self.number += 1;
            let limit = LINE_LIMIT as u64 + 1;
            (&mut self.source)
                // A file without line ends must not be read into memory whole.
                .take(limit)
                .read_until(b'\n', &mut self.line)
                .map_err(Problem::Read)?;
            if self.line.len() > LINE_LIMIT {
                return Err(Problem::TooLong);
            }
            if self.line.is_empty() {
                return Ok(false);
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The line, without its end.
    fn text(&self) -> Result<&str, Problem> {
        let text = str::from_utf8(&self.line).map_err(|_| Problem::NotText)?;
        if text.contains('\0') { Err(Problem::NotText) } else { Ok(text.trim_ascii_end()) }
    }

    fn error(&self, problem: Problem) -> TraceError {
        TraceError { path: self.path.clone(), line: self.number, problem }
    }
}

/// Where the columns that count are in the head of a trace.
fn columns(head: &str) -> Result<[usize; 3], Problem> {
    let names: Vec<_> = head.trim_start_matches('\u{feff}').split(',').map(unquoted).collect();
    let mut columns = [0; 3];
    for (column, name) in columns.iter_mut().zip(COLUMNS) {
        *column = names.iter().position(|found| *found == name).ok_or(Problem::Column(name))?;
    }
    Ok(columns)
}

fn unquoted(field: &str) -> &str {
    let field = field.trim_ascii();
    field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(field)
}

fn tokens(column: &'static str, field: &str) -> Result<u32, Problem> {
    let number = field.parse().ok().filter(|number| *number <= TOKEN_LIMIT);
    number.ok_or_else(|| Problem::Tokens { column, found: field.to_owned() })
}

/// The moment that `field` names, in whole microseconds.
fn microseconds(field: &str) -> Result<DateTime, Problem> {
    let bad = || Problem::Timestamp(field.to_owned());
    let time: DateTime = field.parse().map_err(|_| bad())?;
    time.with().nanosecond(0).build().map_err(|_| bad())
}

const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<Request>, TraceError> {
        Trace::read("t.csv", text)?.collect()
    }

    fn message(text: &[u8]) -> String {
        read(text).unwrap_err().to_string()
    }

    const HEAD: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n";

    #[test]
    fn arrivals_are_microseconds_after_the_first() {
        let text =
            format!("{HEAD}2023-11-16 23:59:59.9999999,1,2\r\n\n2023-11-17 00:00:00.5,16777216,0");
        let requests = read(text.as_bytes()).unwrap();
        assert_eq!(requests[0], Request { arrival: 0, prompt: 1, generated: 2 });
        assert_eq!(requests[1], Request { arrival: 500_001, prompt: 1 << 24, generated: 0 });
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = "\u{feff}\"GeneratedTokens\",id,TIMESTAMP,ContextTokens\n\
                    7,x,\"2024-05-10 00:00:00.009930+00:00\",9,\n";
        let requests = read(text.as_bytes()).unwrap();
        assert_eq!(requests, [Request { arrival: 0, prompt: 9, generated: 7 }]);
    }

    #[test]
    fn a_broken_trace_is_told_with_its_line() {
        let row =
            |row: &str| message(format!("{HEAD}2023-11-16 18:17:03.1,1,1\n{row}\n").as_bytes());
        for (message, start) in [
            (message(b""), "t.csv:1: the file is empty"),
            (message(HEAD.as_bytes()), "t.csv:2: there are no requests"),
            (message(b"TIMESTAMP,ContextTokens\n1,2\n"), "t.csv:1: no column GeneratedTokens"),
            (message(b"\x7fELF\x02\x01\x01\0\0\0"), "t.csv:1: "),
            (message(&[b"TIMESTAMP", [0xff; 9].as_slice()].concat()), "t.csv:1: this is not text"),
            (row("2023-11-16 18:17:03.2,-5,1"), "t.csv:3: ContextTokens is \"-5\""),
            (row("2023-11-16 18:17:03.2,1,16777217"), "t.csv:3: GeneratedTokens is \"16777217\""),
            (row("2023-11-16 18:17:03.2,99999999999999999999,1"), "t.csv:3: ContextTokens is "),
            (row("2023-11-16 18:17:03.2,1.5,1"), "t.csv:3: ContextTokens is \"1.5\""),
            (row("2023-11-16 18:17:03.0,1,1"), "t.csv:3: the time goes backwards"),
            (row("2022-11-16 18:17:03.2,1,1"), "t.csv:3: the time goes backwards"),
            (row("yesterday,1,1"), "t.csv:3: TIMESTAMP is \"yesterday\""),
            (row("2023-02-30 00:00:00.1,1,1"), "t.csv:3: TIMESTAMP is "),
            (row("2023-11-16 18:17:03.2,1"), "t.csv:3: the line has too few fields"),
            (row(&"x".repeat(LINE_LIMIT)), "t.csv:3: the line is longer than 4096 bytes"),
        ] {
            assert!(message.starts_with(start), "{message}");
        }
    }

    #[test]
    fn an_error_ends_the_trace() {
        let text = format!("{HEAD}x,1,1\n2023-11-16 18:17:03.2,1,1\n");
        let mut trace = Trace::read("t.csv", text.as_bytes()).unwrap();
        assert!(trace.next().is_some_and(|request| request.is_err()));
        assert!(trace.next().is_none());
    }

    /// Bytes without end: a reader that buffers a line would not come back.
    #[test]
    fn an_endless_line_is_given_up() {
        let error = Trace::read("zero", BufReader::new(std::io::repeat(b'1'))).unwrap_err();
        assert!(matches!(error.problem, Problem::TooLong));
        assert_eq!(error.line, 1);
    }
}
