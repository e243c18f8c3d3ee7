//! `__cuda_array_interface__`, version 3.
//!
//! <https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html>

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use wharf::Stream;

use crate::array::DeviceArray;
use crate::dtype;
use crate::error::invalid;
use crate::held::Held;
use crate::shape::Shape;

/// The interface of an array. A consumer waits for `stream`, on which the array may be in use.
pub(crate) fn describe<'py>(
    shape: &Shape,
    address: u64,
    stream: Option<&Arc<Held<Stream>>>,
    py: Python<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item(intern!(py, "shape"), PyTuple::new(py, &shape.dims)?)?;
    out.set_item(intern!(py, "typestr"), dtype::typestr(shape.dtype))?;
    // An array without elements has no address.
    let address = if shape.size == 0 { 0 } else { address };
    out.set_item(intern!(py, "data"), (address, false))?;
    out.set_item(intern!(py, "strides"), py.None())?;
    // 0 is forbidden: the legacy default stream is 1.
    let handle = stream.map(|stream| stream.as_raw().addr().max(1));
    out.set_item(intern!(py, "stream"), handle)?;
    out.set_item(intern!(py, "version"), 3)?;
    Ok(out)
}

/// The array of an object that has the interface; `None` if it has none.
pub(crate) fn import(object: &Bound<'_, PyAny>) -> PyResult<Option<DeviceArray>> {
    let py = object.py();
    let Some(found) = object.getattr_opt(intern!(py, "__cuda_array_interface__"))? else {
        return Ok(None);
    };
    let found = found.cast::<PyDict>()?;
    let item = |name| found.get_item(name)?.ok_or_else(|| lacks(name));
    if found.get_item("mask")?.is_some_and(|mask| !mask.is_none()) {
        return Err(invalid("the array has a mask, which a copy would lose: fill it first"));
    }
    let typestr: String = item("typestr")?.extract()?;
    let dims: Vec<usize> = item("shape")?.extract()?;
    let shape = Shape::new(dims, dtype::of_typestr(&typestr)?)?;
    let (address, _is_read_only): (u64, bool) = item("data")?.extract()?;
    let strides = found.get_item("strides")?;
    if let Some(strides) = strides.filter(|strides| !strides.is_none()) {
        // In bytes, other than those of DLPack.
        let width = i64::try_from(shape.dtype.size()).unwrap_or(1);
        let strides: Vec<i64> = strides.extract()?;
        let elements: Vec<_> = strides.iter().map(|stride| stride / width).collect();
        if strides.iter().any(|stride| stride % width != 0) || !shape.is_contiguous(&elements) {
            return Err(invalid("the array is not C-contiguous: make a contiguous copy of it"));
        }
    }
    Ok(Some(DeviceArray::new(address, shape, Box::new(object.clone().unbind()))))
}

fn lacks(name: &str) -> PyErr {
    PyTypeError::new_err(format!("__cuda_array_interface__ lacks {name:?}"))
}
