//! Device memory that something else owns.

use std::any::Any;
use std::fmt;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::dtype;
use crate::interface;
use crate::shape::Shape;

/// An array in device memory that a set of inputs or another library owns.
///
/// `Staged["slot"]`, `InputBuffers.array` and `from_dlpack` return them. It keeps its owner alive.
/// Other libraries read it by `__cuda_array_interface__`.
#[pyclass(frozen, weakref, module = "wharf")]
pub(crate) struct DeviceArray {
    address: u64,
    shape: Shape,
    _owner: Owner,
}

/// What keeps the memory, until this is dropped.
pub(crate) type Owner = Box<dyn Any + Send + Sync>;

impl DeviceArray {
    pub(crate) fn new(address: u64, shape: Shape, owner: Owner) -> Self {
        Self { address, shape, _owner: owner }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }
}

#[pymethods]
impl DeviceArray {
    /// The device's address of the first byte.
    #[getter]
    fn ptr(&self) -> u64 {
        self.address
    }

    /// The size in bytes.
    #[getter]
    fn nbytes(&self) -> usize {
        self.shape.size
    }

    /// The dimensions.
    #[getter]
    #[pyo3(name = "shape")]
    fn dims<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.shape.dims)
    }

    /// The element type, by NumPy's name.
    #[getter]
    fn dtype(&self) -> &'static str {
        dtype::name(self.shape.dtype)
    }

    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        interface::describe(&self.shape, self.address, None, py)
    }

    fn __len__(&self) -> usize {
        self.shape.dims.first().copied().unwrap_or(0)
    }

    fn __repr__(&self) -> String {
        let (dims, dtype) = (&self.shape.dims, self.dtype());
        format!("DeviceArray(shape={dims:?}, dtype={dtype:?}, ptr={:#x})", self.address)
    }
}

impl fmt::Debug for DeviceArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}
