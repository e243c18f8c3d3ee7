//! Views of a step's slots on the host.

#![expect(unsafe_code, reason = "hands out views of pinned memory")]

use std::ffi::c_int;
use std::slice;

use pyo3::ffi;
use pyo3::prelude::*;
use wharf::element::Element;

use crate::export::Layout;
use crate::shape::Shape;
use crate::step::Step;

/// The memory of one slot in one step, by the buffer protocol: behind the array that `Step[name]`
/// returns.
#[pyclass(frozen, module = "wharf")]
#[derive(Debug)]
pub(crate) struct SlotView {
    address: usize,
    layout: Layout,
    step: Py<Step>,
}

impl SlotView {
    pub(crate) fn new(address: usize, shape: &Shape, step: &Bound<'_, Step>) -> Self {
        Self { address, layout: Layout::of(shape), step: step.clone().unbind() }
    }
}

#[pymethods]
impl SlotView {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        this.step.get().open_view()?;
        // SAFETY: `view` is the interpreter's; the memory is that of the step's slot, and the step
        // is neither submitted nor dropped while the view is counted.
        unsafe { this.layout.fill(view, flags, this.address, slf.clone()) }
            .inspect_err(|_| this.step.get().close_view())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.step.get().close_view();
    }
}

/// The elements that bytes of the host are; those behind the last whole one are left out.
pub(crate) fn elements<T: Element>(bytes: &[u8]) -> &[T] {
    let at = bytes.as_ptr();
    // The address may be no element's.
    if !at.addr().is_multiple_of(align_of::<T>()) {
        return &[];
    }
    // SAFETY: readable bytes of so many elements, aligned; every pattern of bits is a value.
    unsafe { slice::from_raw_parts(at.cast(), bytes.len() / size_of::<T>()) }
}
