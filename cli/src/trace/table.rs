//! Records of a table in CSV, with the place of each field.

use csv_core::{ReadFieldResult, Reader, ReaderBuilder, Terminator};

use super::LINE_LIMIT;
use super::error::{Fault, Problem};
use super::lines::{Lines, characters};

/// Takes records from lines. The memory is that of one record, which has a limit.
pub(super) struct Table {
    parser: Reader,
    /// The fields of the record, one after the other.
    text: Vec<u8>,
    fields: Vec<Field>,
    /// The number of fields of the head.
    width: usize,
}

/// A field of the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    start: usize,
    end: usize,
    /// Where the field begins in the file, counted from 1.
    line: u64,
    column: u64,
}

impl Field {
    pub(super) fn fault(self, problem: Problem) -> Fault {
        Fault { line: self.line, column: self.column, problem }
    }
}

impl Table {
    pub(super) fn new(delimiter: u8) -> Self {
        let mut parser = ReaderBuilder::new();
        parser.delimiter(delimiter).terminator(Terminator::Any(b'\n'));
        Self { parser: parser.build(), text: vec![0; USUAL], fields: Vec::new(), width: 0 }
    }

    /// Takes the record that begins with the current line, and the lines that its quotes reach to.
    pub(super) fn record(&mut self, lines: &mut Lines) -> Result<(), Fault> {
        self.parser.reset();
        self.fields.clear();
        let mut next = Field { start: 0, end: 0, line: lines.number(), column: 1 };
        loop {
            let mut column = 1;
            // The end of the line was cut off: there the record ends, or goes on within quotes.
            for input in [lines.bytes(), b"\n"] {
                if self.take(input, lines.number(), &mut column, &mut next)? {
                    return Ok(());
                }
            }
            if !lines.follow()? {
                return Err(next.fault(Problem::Quote));
            }
        }
    }

    /// Takes the fields that end in `input`, which begins at `column`; `next` is the one that is
    /// under way. Returns whether the record has ended.
    fn take(
        &mut self,
        mut input: &[u8],
        line: u64,
        column: &mut u64,
        next: &mut Field,
    ) -> Result<bool, Fault> {
        while !input.is_empty() {
            let (result, read, written) = self.parser.read_field(input, &mut self.text[next.end..]);
            *column += characters(&input[..read]);
            input = &input[read..];
            next.end += written;
            match result {
                ReadFieldResult::InputEmpty => (),
                ReadFieldResult::OutputFull if self.text.len() >= LINE_LIMIT => {
                    return Err(next.fault(Problem::TooLong));
                }
                ReadFieldResult::OutputFull => self.text.resize(2 * self.text.len(), 0),
                ReadFieldResult::Field { record_end } => {
                    self.fields.push(*next);
                    *next = Field { start: next.end, end: next.end, line, column: *column };
                    if record_end {
                        return Ok(true);
                    }
                }
                ReadFieldResult::End => return Ok(true),
            }
        }
        Ok(false)
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The record is the head.
    pub(super) fn head_ends(&mut self) {
        self.width = self.fields.len();
    }

    /// The first field beyond those of the head that says something.
    pub(super) fn beyond(&self) -> Option<Field> {
        let mut beyond = self.fields.iter().skip(self.width).copied();
        beyond.find(|field| !self.text(*field).is_empty())
    }

    /// The text of a field of this record, without spaces around it.
    pub(super) fn text(&self, field: Field) -> &str {
        // The lines were checked, and fields are cut at ASCII characters.
        let text = str::from_utf8(&self.text[field.start..field.end]).unwrap_or_default().trim();
        // After a space, a quote is a character like any other to the parser.
        text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
    }
}

/// Bytes of a record for which there is room from the start.
const USUAL: usize = 1024;
const _: () = assert!(LINE_LIMIT.is_multiple_of(USUAL) && LINE_LIMIT.is_power_of_two());
