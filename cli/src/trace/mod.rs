//! Request traces in the forms that are published, and any other table in CSV.
//!
//! ```text
//! TIMESTAMP,ContextTokens,GeneratedTokens                     Azure
//! 2023-11-16 18:17:03.9799600,4808,10
//! Timestamp,Model,Request tokens,Response tokens,...          BurstGPT, seconds
//! 5,ChatGPT,472,18,...
//! {"timestamp": 27482, "input_length": 6955, ...}             Mooncake, milliseconds
//! ```
//!
//! The head tells the form. Of CSV, fields are separated by commas, semicolons, tabs or bars, and
//! may be quoted; columns come in any order, others may stand between them, and upper and lower
//! case are the same. Empty lines and lines that begin with `#` are skipped. A time with `Z` or an
//! offset is the moment that it says; without one it is UTC.
//!
//! A trace is read line by line, so its length does not matter; only what is to be sorted is held,
//! 16 bytes a request.

mod error;
mod format;
mod jsonl;
mod lines;
mod prefix;
mod table;
mod time;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use self::error::Fault;
pub use self::error::{Problem, TraceError};
pub use self::format::{Columns, Format};
use self::format::{KNOWN, Row, tokens};
use self::lines::Lines;
use self::prefix::PrefixCache;
use self::table::Table;
pub use self::time::Unit;
use self::time::{microseconds, problem};
use crate::request::Request;

/// The longest line that is read, and the longest record, in bytes.
pub const LINE_LIMIT: usize = 1 << 20;

/// The most tokens that one request may have in its prompt, and the most that it may generate.
pub const TOKEN_LIMIT: u32 = 1 << 24;

/// The most requests that are sorted; they take 1 GiB.
pub const SORT_LIMIT: usize = 1 << 26;

/// How to read a trace.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The columns that count; by default, those of the form that the head tells.
    pub columns: Option<Columns>,
    /// The unit of times that are numbers, in columns that are named here.
    pub unit: Unit,
    /// What to do about requests that are not in the order of their arrival.
    pub unsorted: Unsorted,
    /// Whether the beginning of a prompt that an earlier request had costs no tokens: it is in the
    /// engine's cache. Needs a trace with `hash_ids`.
    pub prefix_cache: bool,
}

/// What to do about requests that are not in the order of their arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Unsorted {
    /// Refuse the trace.
    #[default]
    Refuse,
    /// Sort them, in memory.
    Sort,
}

/// The requests of a trace, read line by line.
///
/// The first error ends it.
///
/// # Examples
///
/// ```
/// use wharf_cli::trace::{Format, Options, Trace};
///
/// let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n";
/// let trace = Trace::read("example.csv", text.as_bytes(), &Options::default())?;
/// assert_eq!(*trace.format(), Format::Azure);
/// let requests = trace.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(requests[0].prompt, 4808);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Trace {
    path: PathBuf,
    records: Records,
    /// The requests in order, where they had to be sorted.
    sorted: Option<std::vec::IntoIter<Request>>,
    reordered: u64,
    first: Option<i64>,
    latest: u64,
    ended: bool,
}

impl Trace {
    /// Opens the trace at `path`, `-` for standard input, and reads its head.
    ///
    /// # Errors
    ///
    /// [`TraceError`]: the file cannot be read, or its head tells no form. Where requests are to be
    /// sorted, also what is wrong with any of them.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, TraceError> {
        let path = path.as_ref();
        if path == Path::new(STANDARD_INPUT) {
            return Self::read(path, BufReader::new(io::stdin()), options);
        }
        let file = File::open(path).map_err(|error| TraceError {
            path: path.to_owned(),
            line: 0,
            column: 0,
            problem: Problem::Open(error),
        })?;
        Self::read(path, BufReader::new(file), options)
    }

    /// Takes the trace from `source`; errors call it `name`.
    ///
    /// # Errors
    ///
    /// As [`Trace::open`].
    pub fn read(
        name: impl Into<PathBuf>,
        source: impl BufRead + 'static,
        options: &Options,
    ) -> Result<Self, TraceError> {
        let path = name.into();
        let records = match Records::new(Lines::new(Box::new(source)), options) {
            Ok(records) => records,
            Err(fault) => return Err(fault.of(&path)),
        };
        let mut trace = Self {
            path,
            records,
            sorted: None,
            reordered: 0,
            first: None,
            latest: 0,
            ended: false,
        };
        if options.unsorted == Unsorted::Sort {
            trace.sort().map_err(|fault| fault.of(&trace.path))?;
        }
        Ok(trace)
    }

    /// The form that it has.
    pub fn format(&self) -> &Format {
        &self.records.format
    }

    /// Requests that arrived before one above them and were sorted.
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    fn request(&mut self) -> Result<Option<Request>, Fault> {
        if let Some(sorted) = &mut self.sorted {
            return Ok(sorted.next());
        }
        let Some(row) = self.records.next()? else {
            return if self.first.is_some() { Ok(None) } else { Err(self.records.none()) };
        };
        // Times count from the first request, so a trace may begin at any date.
        let first = *self.first.get_or_insert(row.time);
        let arrival = row.time.checked_sub(first).and_then(|time| u64::try_from(time).ok());
        let arrival = arrival.filter(|arrival| *arrival >= self.latest);
        self.latest = arrival.ok_or_else(|| self.records.fault(Problem::Backwards))?;
        Ok(Some(Request { arrival: self.latest, prompt: row.prompt, generated: row.generated }))
    }

    /// Reads all requests and puts them in the order of their arrival.
    fn sort(&mut self) -> Result<(), Fault> {
        let mut rows = Vec::new();
        let mut latest = i64::MIN;
        while let Some(Row { time, prompt, generated, .. }) = self.records.next()? {
            if rows.len() == SORT_LIMIT {
                return Err(self.records.fault(Problem::TooManyToSort));
            }
            self.reordered += u64::from(time < latest);
            latest = latest.max(time);
            // The number of a time that may be negative, in the order of the times.
            rows.push(Request { arrival: ordered(time), prompt, generated });
        }
        let first = rows.iter().map(|request| request.arrival).min();
        let first = first.ok_or_else(|| self.records.none())?;
        rows.iter_mut().for_each(|request| request.arrival -= first);
        rows.sort_by_key(|request| request.arrival);
        self.sorted = Some(rows.into_iter());
        Ok(())
    }
}

impl Iterator for Trace {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let request = self.request().transpose();
        self.ended = !matches!(request, Some(Ok(_)));
        Some(request?.map_err(|fault| fault.of(&self.path)))
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("path", &self.path)
            .field("format", self.format())
            .finish_non_exhaustive()
    }
}

impl Fault {
    fn of(self, path: &Path) -> TraceError {
        let Self { line, column, problem } = self;
        TraceError { path: path.to_owned(), line, column, problem }
    }
}

/// What the lines say, one record after the other.
struct Records {
    lines: Lines,
    format: Format,
    /// The parser of CSV, and where the columns that count are.
    table: Option<(Table, [usize; 3])>,
    unit: Unit,
    prefixes: Option<PrefixCache>,
    /// Whether the current line is a record that was read to tell the form.
    is_ahead: bool,
}

impl Records {
    /// Reads the head, which tells the form.
    fn new(mut lines: Lines, options: &Options) -> Result<Self, Fault> {
        if !lines.advance()? {
            return Err(lines.fault(0, Problem::Empty));
        }
        if options.prefix_cache && options.unsorted == Unsorted::Sort {
            return Err(lines.fault(0, Problem::PrefixesUnsorted));
        }
        let prefixes = options.prefix_cache.then(PrefixCache::default);
        if lines.bytes().trim_ascii_start().starts_with(b"{") {
            if options.columns.is_some() {
                return Err(lines.fault(0, Problem::ColumnsOfObjects));
            }
            let (format, unit) = (Format::Mooncake, Unit::Ms);
            return Ok(Self { lines, format, table: None, unit, prefixes, is_ahead: true });
        }
        let (format, table) = recognise(&mut lines, options.columns.as_ref())?;
        if prefixes.is_some() {
            return Err(lines.fault(0, Problem::NoBlocks));
        }
        let unit = if options.columns.is_some() { options.unit } else { Unit::S };
        Ok(Self { lines, format, table: Some(table), unit, prefixes, is_ahead: false })
    }

    fn next(&mut self) -> Result<Option<Row>, Fault> {
        if !std::mem::take(&mut self.is_ahead) && !self.lines.advance()? {
            return Ok(None);
        }
        let mut row = match &mut self.table {
            None => jsonl::row(&self.lines)?,
            Some((table, columns)) => {
                table.record(&mut self.lines)?;
                of_table(table, *columns, &self.format, self.unit, &self.lines)?
            }
        };
        if let Some(prefixes) = &mut self.prefixes {
            let blocks = row.blocks.as_deref();
            let blocks = blocks.ok_or_else(|| self.lines.fault(0, Problem::NoBlocks))?;
            row.prompt = prefixes.computed(row.prompt, blocks);
        }
        Ok(Some(row))
    }

    /// A problem with the record that was read last.
    fn fault(&self, problem: Problem) -> Fault {
        let first = self.table.as_ref().and_then(|(table, columns)| table.fields().get(columns[0]));
        match first {
            Some(time) => time.fault(problem),
            None => self.lines.fault(0, problem),
        }
    }

    fn none(&self) -> Fault {
        self.lines.fault(0, Problem::NoRequests)
    }
}

/// The form that a head in CSV tells, and where its columns are.
fn recognise(
    lines: &mut Lines,
    columns: Option<&Columns>,
) -> Result<(Format, (Table, [usize; 3])), Fault> {
    let named = columns.map(|columns| Format::Columns(columns.clone()));
    let forms = named.as_ref().map_or(KNOWN.as_slice(), std::slice::from_ref);
    // How much of a form was there, at most, and what was not.
    let mut nearest = (0, None);
    for delimiter in DELIMITERS {
        let mut table = Table::new(delimiter);
        table.record(lines)?;
        let head: Vec<_> = table.fields().iter().map(|field| table.text(*field)).collect();
        for form in forms {
            match form.find(&head) {
                Ok(columns) => {
                    table.head_ends();
                    return Ok((form.clone(), (table, columns)));
                }
                Err((found, problem)) if found > nearest.0 => nearest = (found, Some(problem)),
                Err((_, problem)) if named.is_some() => drop(nearest.1.get_or_insert(problem)),
                Err(_) => (),
            }
        }
    }
    let head = || match lines.bytes().trim_ascii_start() {
        [b'[', ..] if named.is_none() => Problem::Array,
        head => Problem::Head(String::from_utf8_lossy(head).into_owned()),
    };
    let problem = nearest.1.unwrap_or_else(head);
    Err(lines.fault(0, problem))
}

/// The request that a record in CSV says.
fn of_table(
    table: &Table,
    columns: [usize; 3],
    format: &Format,
    unit: Unit,
    lines: &Lines,
) -> Result<Row, Fault> {
    let names = format.names();
    let field = |index: usize| {
        let field = table.fields().get(columns[index]).copied();
        let end = lines.bytes().len();
        field.ok_or_else(|| lines.fault(end, Problem::Fields(names[index].to_owned())))
    };
    let [time, prompt, generated] = [field(0)?, field(1)?, field(2)?];
    if let Some(field) = table.beyond() {
        return Err(field.fault(Problem::Beyond(table.text(field).to_owned())));
    }
    let count = |index: usize, field: table::Field| {
        tokens(names[index], table.text(field)).map_err(|problem| field.fault(problem))
    };
    let (prompt, generated) = (count(1, prompt)?, count(2, generated)?);
    let text = table.text(time);
    let moment = microseconds(text, unit).ok_or_else(|| time.fault(problem(names[0], text)))?;
    Ok(Row { time: moment, prompt, generated, blocks: None })
}

/// A number that is as much larger than another as its time is.
fn ordered(time: i64) -> u64 {
    time.cast_unsigned() ^ (1 << 63)
}

/// The path that stands for standard input.
pub const STANDARD_INPUT: &str = "-";
/// What fields are separated by.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

#[cfg(test)]
mod tests;
