//! Why a command ends early, and with which exit status.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use softcuda::ConfigError;
use wharf::LoadError;
use wharf_cli::output::Collision;
use wharf_cli::qualify::QualifyError;
use wharf_cli::replay::ReplayError;
use wharf_cli::target::TargetError;
use wharf_cli::trace::TraceError;

use crate::signals::Signals;

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The trace cannot be used: exit status 2, as for wrong arguments.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// There is no such driver.
    #[error("{0}; `wharf doctor` says what there is, --driver softcuda needs nothing")]
    Load(LoadError),
    /// An invalid variable `SOFTCUDA_*`: exit status 2, as for invalid arguments.
    #[error(transparent)]
    Environment(ConfigError),
    /// Two arguments name one file: exit status 2.
    #[error(transparent)]
    Collision(#[from] Collision),
    /// A file cannot be opened, so nothing has run: exit status 2.
    #[error("{0}; nothing has run")]
    File(io::Error),
    /// The replay ended early.
    #[error(transparent)]
    Replay(ReplayError),
    /// The inputs did not arrive as they were written.
    #[error(
        "{mismatches} bytes on the device differ from what was written; the software driver's \
         checks found {violations} violations"
    )]
    Wrong {
        /// Bytes that differ.
        mismatches: u64,
        /// The number of violations that the software driver's checks found.
        violations: u64,
    },
    /// Promises were broken.
    #[error("{0} of the promises fail")]
    Broken(usize),
    /// A figure could not be taken.
    #[error("the figures ended early: {0}")]
    Figures(String),
    /// The result could not be written.
    #[error("writing the result: {0}")]
    Output(#[from] io::Error),
    /// A signal stopped the command, which exits as a shell does.
    #[error("stopped")]
    Stopped {
        /// By this signal.
        signal: u8,
    },
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Load(error) => Self::Load(error),
            TargetError::Environment(error) => Self::Environment(error),
        }
    }
}

impl From<QualifyError> for Failure {
    fn from(error: QualifyError) -> Self {
        match error {
            QualifyError::Target(error) => error.into(),
            QualifyError::Replay(error) => error.into(),
            error => Self::Output(io::Error::other(error)),
        }
    }
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
    /// The failure of a run that a signal ended, if it did: a trace that ends early is not to
    /// blame.
    pub(crate) fn unless_stopped(self, signals: &Signals) -> Self {
        match (signals.which.load(Ordering::Relaxed), &self) {
            (signal @ 1.., Self::Trace(_)) => {
                Self::Stopped { signal: u8::try_from(signal).unwrap_or(0) }
            }
            _ => self,
        }
    }

    /// Prints the failure and returns the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        // A reader that closes the pipe early has the output that it wanted.
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // Where standard error is closed too, the exit status has to do.
        let _ = writeln!(io::stderr(), "wharf: {self}");
        match self {
            Self::Trace(_) | Self::Environment(_) | Self::Collision(_) | Self::File(_) => {
                ExitCode::from(2)
            }
            Self::Stopped { signal } => ExitCode::from(128 + signal),
            _ => ExitCode::FAILURE,
        }
    }
}
