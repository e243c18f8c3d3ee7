//! Violations that checks report.

use core::fmt;
use std::io::Write;

/// An error of the program that a GPU would not report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which check found it.
    pub check: Check,
    /// The call that enqueued the operation, as the driver API names it.
    pub call: &'static str,
    /// A description of the violation, with addresses.
    pub what: String,
    /// The stream's handle; 1 is the legacy default stream.
    pub stream: u64,
}

/// A check that can report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// The source of a copy changed between the call and its execution.
    SourceStable,
    /// The range of an operation is partly outside its allocation.
    Bounds,
    /// An operation ran on memory that had been freed.
    UseAfterFree,
    /// An operation uses memory that its device has no access to.
    PeerAccess,
    /// The source and the destination of a copy overlap.
    Overlap,
    /// A stream waited for a value that another stream wrote, with no event between the two.
    ValueOrder,
    /// An object was not destroyed before the machine ended.
    Leak,
    /// Two operations without an order accessed the same bytes, and one of them wrote.
    Race,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceStable => "source-stable",
            Self::Bounds => "bounds",
            Self::UseAfterFree => "use-after-free",
            Self::PeerAccess => "peer-access",
            Self::Overlap => "overlap",
            Self::ValueOrder => "value-order",
            Self::Leak => "leaks",
            Self::Race => "race",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.check, self.call, self.what)?;
        // A race names both streams itself.
        if self.stream != 0 && self.check != Check::Race {
            write!(f, " on stream {:#x}", self.stream)?;
        }
        Ok(())
    }
}

/// Prints one line on the standard error stream. A closed stream is ignored.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "softcuda: {text}");
}
