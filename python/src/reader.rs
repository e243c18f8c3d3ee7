//! A stream that reads what was staged.

use std::sync::Mutex;

use pyo3::prelude::*;

use crate::device::lock;
use crate::error::OrRaise;
use crate::held::Machine;
use crate::owned::OwnedReader;

/// A read of a step's inputs, from `Staged.reader` to `end`: a context manager.
///
/// While it is open no further step of the set can be submitted.
#[pyclass(frozen, module = "wharf")]
pub(crate) struct Reader {
    reader: Mutex<Option<OwnedReader>>,
    machine: Machine,
}

impl Reader {
    pub(crate) fn new(reader: OwnedReader, machine: &Machine) -> Self {
        Self { reader: Mutex::new(Some(reader)), machine: machine.clone() }
    }
}

#[pymethods]
impl Reader {
    /// Ends the read: what the stream is given from here on does not read the inputs.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let reader = lock(&self.reader).take();
        self.machine.run(py, || reader.map_or(Ok(()), OwnedReader::end)).or_raise()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.end(py)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let reader = lock(&self.reader).take();
        let _bound = self.machine.bind();
        drop(reader);
    }
}
