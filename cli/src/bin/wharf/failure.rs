//! Why a command ends early, and with which exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use wharf::LoadError;
use wharf_cli::replay::ReplayError;
use wharf_cli::trace::TraceError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The trace cannot be used: exit status 2, as for wrong arguments.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// There is no such driver.
    #[error("{0}; `wharf doctor` says what there is, --driver softcuda needs nothing")]
    Load(#[from] LoadError),
    /// The replay ended early.
    #[error(transparent)]
    Replay(ReplayError),
    /// The inputs did not arrive as they were written.
    #[error(
        "{mismatches} bytes were not on the device as they were written, {violations} sources changed early"
    )]
    Wrong {
        /// Bytes that differ.
        mismatches: u64,
        /// Sources that changed before they were read.
        violations: u64,
    },
    /// The result could not be written.
    #[error("writing the result: {0}")]
    Output(#[from] io::Error),
    /// Somebody stopped it: the exit status of a shell.
    #[error("stopped")]
    Stopped {
        /// By this signal.
        signal: u8,
    },
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Trace(error) => Self::Trace(error),
            ReplayError::Output(error) => Self::Output(error),
            error => Self::Replay(error),
        }
    }
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
            Self::Stopped { signal } => ExitCode::from(128 + signal),
            _ => ExitCode::FAILURE,
        }
    }
}
