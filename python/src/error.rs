//! Errors of the library as exceptions of `wharf.errors`.

use pyo3::PyErr;
use pyo3::exceptions::PyValueError;
use wharf::driver::DeferredError;
use wharf::graph::GraphError;
use wharf::pool::{AllocError, HostError, LeakReport};
use wharf::slab::PoolError;
use wharf::staging::{BuildError, SlotError, StageError};
use wharf::timeline::WaitError;
use wharf::{CudaError, Error, LoadError};

/// The exceptions, as `wharf/errors.py` defines them.
pub(crate) mod class {
    use pyo3::import_exception;

    import_exception!(wharf.errors, ClosedError);
    import_exception!(wharf.errors, ConfigurationError);
    import_exception!(wharf.errors, DriverError);
    import_exception!(wharf.errors, DriverNotFoundError);
    import_exception!(wharf.errors, LeakError);
    import_exception!(wharf.errors, OutOfMemoryError);
    import_exception!(wharf.errors, ReaderOpenError);
    import_exception!(wharf.errors, SlotError);
    import_exception!(wharf.errors, StalledError);
    import_exception!(wharf.errors, StepTooLargeError);
    import_exception!(wharf.errors, StreamError);
    import_exception!(wharf.errors, SupersededError);
    import_exception!(wharf.errors, WaitTimeoutError);
}

/// An error of the library that has an exception.
pub(crate) trait Raise {
    /// The exception.
    fn raise(self) -> PyErr;
}

/// The exception of something that was used after its end.
pub(crate) fn closed(what: &'static str) -> PyErr {
    class::ClosedError::new_err(format!("the {what} is closed"))
}

/// An argument that no call can take.
pub(crate) fn invalid(what: impl Into<String>) -> PyErr {
    PyValueError::new_err(what.into())
}

impl Raise for Error {
    fn raise(self) -> PyErr {
        let text = self.to_string();
        match self {
            Self::OtherThread
            | Self::StreamForgotten
            | Self::TooManyStreams { .. }
            | Self::OtherDevice { .. } => class::StreamError::new_err(text),
            _ if self.is_out_of_memory() => class::OutOfMemoryError::new_err(text),
            _ => class::DriverError::new_err((text, self.call(), self.code().map(CudaError::code))),
        }
    }
}

impl Raise for LoadError {
    fn raise(self) -> PyErr {
        let hint = match self {
            Self::Library { .. } | Self::NoDevice => {
                "; without a GPU, use a device of wharf.Simulator"
            }
            _ => "",
        };
        class::DriverNotFoundError::new_err(format!("{self}{hint}"))
    }
}

impl Raise for AllocError {
    fn raise(self) -> PyErr {
        match self {
            Self::Upstream(error) => error.raise(),
            Self::Exhausted(state) => class::OutOfMemoryError::new_err((
                self.to_string(),
                state.size,
                state.limit,
                state.live,
                state.retired,
            )),
            Self::TooLarge { size, max } => {
                class::OutOfMemoryError::new_err((self.to_string(), size, max))
            }
            _ => class::OutOfMemoryError::new_err(self.to_string()),
        }
    }
}

impl Raise for PoolError {
    fn raise(self) -> PyErr {
        match self {
            Self::Upstream { size, cause, .. } if cause.is_out_of_memory() => {
                class::OutOfMemoryError::new_err((self.to_string(), size))
            }
            Self::Tables { size } => class::OutOfMemoryError::new_err((self.to_string(), size)),
            _ => class::ConfigurationError::new_err(self.to_string()),
        }
    }
}

impl Raise for BuildError {
    fn raise(self) -> PyErr {
        match self {
            Self::Driver(error) => error.raise(),
            Self::Graph(error) => error.raise(),
            _ => class::ConfigurationError::new_err(self.to_string()),
        }
    }
}

impl Raise for GraphError {
    fn raise(self) -> PyErr {
        match self {
            Self::Driver(error) => error.raise(),
            _ => class::DriverError::new_err(self.to_string()),
        }
    }
}

impl Raise for SlotError {
    fn raise(self) -> PyErr {
        class::SlotError::new_err(self.to_string())
    }
}

impl Raise for StageError {
    fn raise(self) -> PyErr {
        let text = self.to_string();
        match self {
            Self::Driver(error) => error.raise(),
            Self::Graph(error) => error.raise(),
            Self::WouldBlock | Self::Stalled(_) => class::StalledError::new_err(text),
            Self::TooLarge { .. } => class::StepTooLargeError::new_err(text),
            Self::Slot { slot, .. } => class::SlotError::new_err((text, slot.into_string())),
            Self::Superseded => class::SupersededError::new_err(text),
            Self::ReaderOpen { .. } | Self::ReaderCaptured { .. } => {
                class::ReaderOpenError::new_err(text)
            }
            _ => class::StreamError::new_err(text),
        }
    }
}

impl Raise for WaitError {
    fn raise(self) -> PyErr {
        match self {
            Self::Driver(error) => error.raise(),
            _ => class::WaitTimeoutError::new_err(self.to_string()),
        }
    }
}

impl Raise for HostError {
    fn raise(self) -> PyErr {
        match self {
            Self::Busy(error) => error.raise(),
            _ => pyo3::exceptions::PyBufferError::new_err(self.to_string()),
        }
    }
}

impl Raise for DeferredError {
    fn raise(self) -> PyErr {
        match self {
            Self::Driver(error) => error.raise(),
            _ => class::WaitTimeoutError::new_err(self.to_string()),
        }
    }
}

impl Raise for LeakReport {
    fn raise(self) -> PyErr {
        let buffers = self.buffers.len();
        class::LeakError::new_err((self.to_string(), buffers, self.in_use))
    }
}

/// The exception of a result of the library.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self) -> pyo3::PyResult<T>;
}

impl<T, E: Raise> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> pyo3::PyResult<T> {
        self.map_err(Raise::raise)
    }
}
