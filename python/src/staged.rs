//! A step on its way to the device.

use std::fmt;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::array::DeviceArray;
use crate::error::OrRaise;
use crate::inputs::{Inputs, pair};
use crate::owned::OwnedStaged;
use crate::reader::Reader;
use crate::stream;

/// A step that was submitted: where its inputs are, behind the submission on its stream.
///
/// A later step overwrites the inputs. On the same stream it is behind what reads them there. What
/// reads them on another stream is declared: by `reader` around it, or by `wait_on` before it and
/// `consumed_by` behind it. The next step then waits for that, on the device.
#[pyclass(frozen, module = "wharf")]
pub(crate) struct Staged {
    staged: OwnedStaged,
    inputs: Arc<Inputs>,
}

impl Staged {
    pub(crate) fn new(staged: OwnedStaged, inputs: Arc<Inputs>) -> Self {
        Self { staged, inputs }
    }
}

#[pymethods]
impl Staged {
    /// The device's array of a slot, padded to the step's bucket.
    fn __getitem__(slf: &Bound<'_, Self>, slot: &str) -> PyResult<DeviceArray> {
        let this = slf.get();
        let (entry, address) = (this.inputs.slot(slot)?, this.address(slot)?);
        let padded = this.staged.with_staged(|staged| staged.padded());
        let owner = Box::new(slf.clone().unbind());
        Ok(DeviceArray::new(address, entry.shape(padded)?, owner))
    }

    /// The device's address of a slot; of a dynamic slot, the one that was passed.
    fn address(&self, slot: &str) -> PyResult<u64> {
        let entry = self.inputs.slot(slot)?;
        Ok(self.staged.with_staged(|staged| entry.typed.device_ptr(staged)))
    }

    /// The step's tokens and requests.
    #[getter]
    fn counts(&self) -> (usize, usize) {
        pair(self.staged.with_staged(|staged| staged.counts()))
    }

    /// The tokens and requests that it is padded to.
    #[getter]
    fn padded(&self) -> (usize, usize) {
        pair(self.staged.with_staged(|staged| staged.padded()))
    }

    /// Returns whether the device has read the step's inputs on the host.
    fn is_complete(&self, py: Python<'_>) -> PyResult<bool> {
        let machine = self.inputs.set.machine();
        machine.run(py, || self.staged.with_staged(|staged| staged.is_complete())).or_raise()
    }

    /// Begins a read on `stream`: a context manager. What the stream is given inside waits for the
    /// inputs, and the next step waits for it.
    fn reader(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<Reader> {
        let stream = stream::of(stream, self.inputs.device())?;
        let machine = self.inputs.set.machine();
        let reader = machine.run(py, || self.staged.reader(&stream)).or_raise()?;
        Ok(Reader::new(reader, machine))
    }

    /// Makes what `stream` is given from here on wait, on the device, for the inputs.
    fn wait_on(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let stream = stream::of(stream, self.inputs.device())?;
        let machine = self.inputs.set.machine();
        machine.run(py, || self.staged.with_staged(|staged| staged.wait_on(&stream))).or_raise()
    }

    /// Declares that the work of `stream` up to here reads the inputs, and later work does not.
    fn consumed_by(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let stream = stream::of(stream, self.inputs.device())?;
        let machine = self.inputs.set.machine();
        machine.run(py, || self.staged.with_staged(|staged| staged.consumed_by(&stream))).or_raise()
    }

    fn __repr__(&self) -> String {
        let (counts, padded) = (self.counts(), self.padded());
        format!("Staged(counts={counts:?}, padded={padded:?})")
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}
