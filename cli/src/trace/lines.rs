//! Lines of bounded length, with their numbers.

use std::io::{self, BufRead, Read};

use super::LINE_LIMIT;
use super::error::{Fault, Problem};

/// The lines of a source, one at a time.
pub(super) struct Lines {
    source: Box<dyn BufRead>,
    /// The number of the line, counted from 1.
    number: u64,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(source: Box<dyn BufRead>) -> Self {
        Self { source, number: 0, line: Vec::new() }
    }

    /// Goes to the next line that is neither empty nor a comment; false at the end.
    pub(super) fn advance(&mut self) -> Result<bool, Fault> {
        loop {
            if !self.follow()? {
                return Ok(false);
            }
            let text = self.line.trim_ascii_start();
            if !text.is_empty() && !text.starts_with(b"#") {
                return Ok(true);
            }
        }
    }

    /// Goes to the very next line, which may be part of a quoted field; false at the end.
    pub(super) fn follow(&mut self) -> Result<bool, Fault> {
        self.line.clear();
        self.number += 1;
        let read = self.fill().map_err(|error| self.fault(0, Problem::Read(error)))?;
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.len() > LINE_LIMIT {
            return Err(self.fault(0, Problem::TooLong));
        }
        if self.line.last_chunk() == Some(b"\r\n") {
            self.line.truncate(self.line.len() - 2);
        } else if self.line.last() == Some(&b'\n') {
            self.line.truncate(self.line.len() - 1);
        }
        if let Some(zero) = self.line.iter().position(|byte| *byte == 0) {
            return Err(self.fault(zero, Problem::NotText));
        }
        if let Err(error) = str::from_utf8(&self.line) {
            return Err(self.fault(error.valid_up_to(), Problem::NotText));
        }
        Ok(read)
    }

    /// The bytes of the line, without its end. They are UTF-8.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.line
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A fault at a byte of the line.
    pub(super) fn fault(&self, offset: usize, problem: Problem) -> Fault {
        let before = &self.line[..offset.min(self.line.len())];
        Fault { line: self.number, column: 1 + characters(before), problem }
    }

    fn fill(&mut self) -> io::Result<bool> {
        // A file without line ends must not be read into memory whole.
        let limit = LINE_LIMIT as u64 + 2;
        Ok((&mut self.source).take(limit).read_until(b'\n', &mut self.line)? > 0)
    }
}

/// The number of characters in bytes of UTF-8.
pub(super) fn characters(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u64
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
