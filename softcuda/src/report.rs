//! What a check found, and how it is said.

use core::fmt;
use std::io::Write;

/// Something that a GPU would have got silently wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which check found it.
    pub check: Check,
    /// The call that enqueued the operation, as the driver API names it.
    pub call: &'static str,
    /// What is wrong, with addresses.
    pub what: String,
    /// The stream's handle; 1 is the legacy default stream.
    pub stream: u64,
}

/// A check that can report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// A source changed between the call and its execution.
    SourceStable,
    /// An operation left its allocation.
    Bounds,
    /// An operation touched memory that had been freed.
    UseAfterFree,
    /// An object was alive when the machine ended.
    Leak,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceStable => "source-stable",
            Self::Bounds => "bounds",
            Self::UseAfterFree => "use-after-free",
            Self::Leak => "leaks",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.check, self.call, self.what)?;
        if self.stream != 0 {
            write!(f, " on stream {:#x}", self.stream)?;
        }
        Ok(())
    }
}

/// One line on the standard error stream. A closed stream is no reason to fail.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "softcuda: {text}");
}
