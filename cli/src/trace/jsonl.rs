//! Requests as JSON objects, one a line, as in Mooncake's traces.

use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::error::{Fault, Problem};
use super::format::{Names, Row, tokens};
use super::lines::Lines;
use super::time::{self, Unit, microseconds};

/// A line. Other fields are ignored; numbers are kept as they are written, and where.
#[derive(Deserialize)]
struct Line<'a> {
    /// Milliseconds.
    #[serde(borrow)]
    timestamp: &'a RawValue,
    #[serde(borrow)]
    input_length: &'a RawValue,
    #[serde(borrow)]
    output_length: &'a RawValue,
    /// Ids of the prompt's blocks of 512 tokens: equal ids are equal prefixes.
    hash_ids: Option<Vec<u64>>,
}

/// The request on the current line.
pub(super) fn row(lines: &Lines) -> Result<Row, Fault> {
    let bytes = lines.bytes();
    let start = bytes.len() - bytes.trim_ascii_start().len();
    // A list of the right values would be taken for their object.
    if bytes.get(start) != Some(&b'{') {
        return Err(lines.fault(start, Problem::Json("this is no object".to_owned())));
    }
    let line: Line<'_> = serde_json::from_slice(bytes)
        .map_err(|error| lines.fault(error.column().saturating_sub(1), problem(&error)))?;
    // The text of a value is a part of the line.
    let at = |value: &RawValue, problem| {
        lines.fault(value.get().as_ptr().addr() - bytes.as_ptr().addr(), problem)
    };
    let number = |value: &RawValue| {
        let number: Result<Number, _> = serde_json::from_str(value.get());
        number.map(|number| number.to_string()).map_err(|error| at(value, problem(&error)))
    };
    let [name, input, output] = FIELDS;
    let time = microseconds(&number(line.timestamp)?, Unit::Ms)
        .ok_or_else(|| at(line.timestamp, time::problem(name, line.timestamp.get())))?;
    let count = |name: &str, value: &RawValue| {
        tokens(name, &number(value)?).map_err(|_| {
            let (column, found) = (name.to_owned(), value.get().to_owned());
            at(value, Problem::Tokens { column, found })
        })
    };
    Ok(Row {
        time,
        prompt: count(input, line.input_length)?,
        generated: count(output, line.output_length)?,
        blocks: line.hash_ids,
    })
}

/// The problem of a line or a value, without its place there.
fn problem(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let told = text.rsplit_once(" at line ").map_or(text.as_str(), |(told, _)| told);
    Problem::Json(told.to_owned())
}

/// The fields that count.
pub(super) const FIELDS: Names<'static> = ["timestamp", "input_length", "output_length"];
