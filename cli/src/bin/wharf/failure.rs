//! Why a command ends early, and with which exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use wharf_cli::trace::TraceError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The trace cannot be used: exit status 2, as for wrong arguments.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The result could not be written: exit status 1.
    #[error("writing the result: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// Tells the person, and says how the process ends.
    pub(crate) fn report(&self) -> ExitCode {
        // Who reads only the beginning of the output has what was asked for.
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // Where standard error is closed too, the exit status has to do.
        let _ = writeln!(io::stderr(), "wharf: {self}");
        match self {
            Self::Trace(_) => ExitCode::from(2),
            Self::Output(_) => ExitCode::FAILURE,
        }
    }
}
