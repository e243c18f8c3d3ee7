//! The forms of traces, which their heads tell.

use std::fmt;
use std::str::FromStr;

use super::TOKEN_LIMIT;
use super::error::Problem;

/// What a trace is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// CSV of the Azure Public Dataset, 2023 or 2024.
    Azure,
    /// CSV of `BurstGPT`; its times are seconds.
    BurstGpt,
    /// A JSON object a line, as Mooncake's traces are; their times are milliseconds.
    Mooncake,
    /// CSV with columns that the caller has named.
    Columns(Columns),
}

/// The columns of a CSV file that count.
///
/// # Examples
///
/// ```
/// use wharf_cli::trace::Columns;
///
/// let columns: Columns = "time=arrived,input=prompt tokens,output=tokens".parse()?;
/// assert_eq!(columns.to_string(), "time=arrived,input=prompt tokens,output=tokens");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Of the arrival, the tokens of the prompt, and the tokens generated.
    names: [String; 3],
}

/// Names of columns: of the time, the tokens of the prompt, and the tokens generated.
pub(super) type Names<'a> = [&'a str; 3];

/// What a record says of a request.
#[derive(Debug)]
pub(super) struct Row {
    /// Microseconds after some moment.
    pub(super) time: i64,
    pub(super) prompt: u32,
    pub(super) generated: u32,
    /// The ids of the prompt's blocks, where the trace has them.
    pub(super) blocks: Option<Vec<u64>>,
}

impl Format {
    /// Its name, for people.
    pub fn name(&self) -> String {
        match self {
            Self::Azure => "Azure".to_owned(),
            Self::BurstGpt => "BurstGPT".to_owned(),
            Self::Mooncake => "Mooncake".to_owned(),
            Self::Columns(columns) => format!("CSV, {columns}"),
        }
    }

    /// The columns of a form in CSV.
    pub(super) fn names(&self) -> Names<'_> {
        match self {
            Self::Azure => ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
            Self::BurstGpt => ["Timestamp", "Request tokens", "Response tokens"],
            Self::Mooncake => super::jsonl::FIELDS,
            Self::Columns(columns) => columns.names.each_ref().map(String::as_str),
        }
    }

    /// Where the columns of this form are in a head; else how many of them are there, and the first
    /// that is not, or that is there twice.
    pub(super) fn find(&self, head: &[&str]) -> Result<[usize; 3], (usize, Problem)> {
        let (mut columns, mut found, mut problem) = ([0; 3], 0, None);
        for (column, name) in columns.iter_mut().zip(self.names()) {
            let mut places =
                (0..head.len()).filter(|index| head[*index].eq_ignore_ascii_case(name));
            match (places.next(), places.next()) {
                (Some(place), None) => {
                    *column = place;
                    found += 1;
                }
                (Some(_), Some(_)) => {
                    problem.get_or_insert(Problem::Twice(name.to_owned()));
                }
                (None, _) => {
                    let (missing, form) = (name.to_owned(), self.name());
                    problem.get_or_insert(Problem::Column { missing, form, head: head.join(", ") });
                }
            }
        }
        problem.map_or(Ok(columns), |problem| Err((found, problem)))
    }
}

/// The forms in CSV that are recognised.
pub(super) const KNOWN: [Format; 2] = [Format::Azure, Format::BurstGpt];

impl FromStr for Columns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names: [Option<String>; 3] = [const { None }; 3];
        for part in text.split(',') {
            let (key, name) = part.split_once('=').ok_or_else(|| format!("{part:?}: {USAGE}"))?;
            let index = KEYS.iter().position(|known| *known == key.trim());
            let place = index.map(|index| &mut names[index]);
            match (place, name.trim()) {
                (Some(place @ None), name) if !name.is_empty() => *place = Some(name.to_owned()),
                _ => return Err(format!("{part:?}: {USAGE}")),
            }
        }
        let [Some(time), Some(input), Some(output)] = names else {
            return Err(USAGE.to_owned());
        };
        Ok(Self { names: [time, input, output] })
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [time, input, output] = &self.names;
        write!(f, "time={time},input={input},output={output}")
    }
}

/// The number of tokens that a field says, such as `4808` or `4808.0`.
pub(super) fn tokens(column: &str, field: &str) -> Result<u32, Problem> {
    let whole = field.split_once('.').map_or(field, |(whole, fraction)| {
        if fraction.bytes().all(|digit| digit == b'0') { whole } else { field }
    });
    let number = whole.parse().ok().filter(|number| *number <= TOKEN_LIMIT);
    number.ok_or_else(|| Problem::Tokens { column: column.to_owned(), found: field.to_owned() })
}

const KEYS: [&str; 3] = ["time", "input", "output"];
const USAGE: &str = "the names of three columns are needed, once each, such as \
                     time=arrival,input=prompt_tokens,output=generated_tokens";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_columns_are_named_once_each() {
        let columns: Columns = " output = c ,time=a b,input=x=y".parse().unwrap();
        assert_eq!(columns.to_string(), "time=a b,input=x=y,output=c");
        for text in ["", "time=a", "time=a,input=b,output=", "time=a,time=b,input=c,output=d", "a"]
        {
            assert!(text.parse::<Columns>().is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_whole_numbers() {
        let of = |text| tokens("n", text).ok();
        assert_eq!([of("0"), of("4808.0"), of("16777216")], [Some(0), Some(4808), Some(1 << 24)]);
        for text in ["", "-1", "1.5", "16777217", "1e3", ".", "nan"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
