//! Memory of the host through Python's buffer protocol.

#![expect(unsafe_code, reason = "fills a structure of the interpreter's")]

use std::ffi::c_int;
use std::ptr;

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::{PyClass, ffi};

use crate::dtype;
use crate::shape::Shape;

/// The description of an array, at addresses that stay as long as its exporter.
#[derive(Debug)]
pub(crate) struct Layout {
    shape: Box<[isize]>,
    strides: Box<[isize]>,
    format: &'static std::ffi::CStr,
    item: isize,
    size: isize,
}

impl Layout {
    pub(crate) fn of(shape: &Shape) -> Self {
        // Nothing here exceeds `isize`: `Shape::new` has refused it.
        let signed = |number: usize| isize::try_from(number).unwrap_or(isize::MAX);
        let item = signed(shape.dtype.size());
        let stride = |stride: i64| isize::try_from(stride).unwrap_or(isize::MAX);
        Self {
            shape: shape.dims.iter().map(|dim| signed(*dim)).collect(),
            strides: shape.strides().iter().map(|it| stride(*it).saturating_mul(item)).collect(),
            format: dtype::format(shape.dtype),
            item,
            size: signed(shape.size),
        }
    }

    /// Describes writable memory at `address` to a consumer that asked with `flags`.
    ///
    /// # Safety
    ///
    /// * `view` is what the interpreter passed to `__getbuffer__` of `exporter`.
    /// * `self` is of `exporter` and stays where it is.
    /// * The memory has the layout's size and stays until the exporter's `__releasebuffer__`.
    pub(crate) unsafe fn fill<T: PyClass>(
        &self,
        view: *mut ffi::Py_buffer,
        flags: c_int,
        address: usize,
        exporter: Bound<'_, T>,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view was passed"));
        }
        let wants = |flag: c_int| flags & flag == flag;
        let is_column = self.shape.iter().filter(|dim| **dim > 1).count() < 2;
        if wants(ffi::PyBUF_F_CONTIGUOUS) && !is_column {
            return Err(PyBufferError::new_err("the memory is in C order, and not in Fortran's"));
        }
        let is_shaped = wants(ffi::PyBUF_ND);
        let mut filled = ffi::Py_buffer::new();
        filled.buf = ptr::with_exposed_provenance_mut(address);
        filled.len = self.size;
        filled.itemsize = self.item;
        filled.ndim = if is_shaped { c_int::try_from(self.shape.len()).unwrap_or(0) } else { 1 };
        if wants(ffi::PyBUF_FORMAT) {
            filled.format = self.format.as_ptr().cast_mut();
        }
        if is_shaped {
            filled.shape = self.shape.as_ptr().cast_mut();
        }
        if wants(ffi::PyBUF_STRIDES) {
            filled.strides = self.strides.as_ptr().cast_mut();
        }
        filled.obj = exporter.into_ptr();
        // SAFETY: not null, and the interpreter's to be filled, by the caller's promise.
        unsafe { view.write(filled) };
        Ok(())
    }
}
