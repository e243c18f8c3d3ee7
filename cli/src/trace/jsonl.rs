//! Requests as JSON objects, one a line, as in Mooncake's traces.

use serde::Deserialize;

use super::error::{Fault, Problem};
use super::format::{Names, Row, tokens};
use super::lines::Lines;
use super::time::{Unit, microseconds};

/// A line. Other fields are ignored.
#[derive(Deserialize)]
struct Line {
    /// Milliseconds.
    timestamp: serde_json::Number,
    input_length: serde_json::Number,
    output_length: serde_json::Number,
    /// Ids of the prompt's blocks of 512 tokens: equal ids are equal prefixes.
    hash_ids: Option<Vec<u64>>,
}

/// The request on the current line.
pub(super) fn row(lines: &Lines) -> Result<Row, Fault> {
    let line: Line = serde_json::from_slice(lines.bytes()).map_err(|error| {
        let text = error.to_string();
        let told = text.rsplit_once(" at line ").map_or(text.as_str(), |(told, _)| told);
        lines.fault(error.column().saturating_sub(1), Problem::Json(told.to_owned()))
    })?;
    let [name, input, output] = FIELDS;
    let time = line.timestamp.to_string();
    let time = microseconds(&time, Unit::Ms).ok_or_else(|| {
        lines.fault(0, Problem::Timestamp { column: name.to_owned(), found: time })
    })?;
    let count = |name: &str, number: &serde_json::Number| {
        let number = number.to_string();
        tokens(name, &number).map_err(|problem| lines.fault(0, problem))
    };
    Ok(Row {
        time,
        prompt: count(input, &line.input_length)?,
        generated: count(output, &line.output_length)?,
        blocks: line.hash_ids,
    })
}

/// The fields that count.
pub(super) const FIELDS: Names<'static> = ["timestamp", "input_length", "output_length"];
