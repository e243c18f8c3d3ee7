//! Copies and fills of buffers.

#![expect(unsafe_code, reason = "copies from and to memory of other libraries")]

use std::slice;
use std::sync::Arc;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyMemoryView, PyTuple};
use wharf::memory::MemoryKind;
use wharf::pool::Buffer as Inner;
use wharf::{Error, Stream};

use crate::array::DeviceArray;
use crate::buffer::{Buffer, fill_handle};
use crate::dtype::{self, with_type};
use crate::error::{OrRaise, invalid};
use crate::held::Held;
use crate::interface;

/// Copies `source` to the front of a buffer, in the order of `stream`.
pub(crate) fn into_buffer(
    to: &Buffer,
    source: &Bound<'_, PyAny>,
    stream: &Arc<Held<Stream>>,
) -> PyResult<()> {
    let py = source.py();
    let target = to.for_device()?;
    to.used_by(stream);
    if let Ok(buffer) = source.cast::<Buffer>() {
        dtype::agree(buffer.get().shape().dtype, to.shape().dtype)?;
        let from = buffer.get().for_device()?;
        fits(from.size(), &target)?;
        buffer.get().used_by(stream);
        return to.machine().run(py, || target.copy_from(&from, stream)).or_raise();
    }
    if let Ok(array) = source.cast::<DeviceArray>() {
        return from_array(to, &target, array.get(), stream, py);
    }
    if let Some(array) = interface::import(source)? {
        return from_array(to, &target, &array, stream, py);
    }
    if let Some(array) = crate::dlpack::device_array(source, stream)? {
        return from_array(to, &target, &array, stream, py);
    }
    let host = host_bytes(source)?;
    dtype::agree_format(host.format(), host.item_size(), to.shape().dtype)?;
    fits(host.len_bytes(), &target)?;
    if host.len_bytes() == 0 {
        return Ok(()); // its address may be null
    }
    // SAFETY: a contiguous export of that many bytes, which lives until `host` is dropped; that
    // nothing writes it meanwhile is the caller's account, as in every copy without the GIL.
    let bytes = unsafe { slice::from_raw_parts(host.buf_ptr().cast::<u8>(), host.len_bytes()) };
    to.machine().run(py, || target.copy_from_slice(bytes, stream)).or_raise()
}

/// Copies all elements to a new array of the host, and waits for that.
pub(crate) fn to_numpy<'py>(
    from: &Buffer,
    stream: &Arc<Held<Stream>>,
    py: Python<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let source = from.handle()?;
    let shape = from.shape();
    let format = dtype::format(shape.dtype).to_str().unwrap_or("B");
    let array =
        numpy(py)?.call_method1(intern!(py, "empty"), (PyTuple::new(py, &shape.dims)?, format))?;
    let view = PyUntypedBuffer::get(&array)?;
    if view.len_bytes() != shape.size {
        return Err(PyBufferError::new_err("NumPy made an array of another size"));
    }
    if shape.size == 0 {
        return Ok(array);
    }
    // SAFETY: writable, contiguous memory of that size, of an array that nothing else knows yet,
    // and which lives until `view` is dropped.
    let bytes = unsafe { slice::from_raw_parts_mut(view.buf_ptr().cast::<u8>(), shape.size) };
    from.machine().run(py, || source.copy_to_slice(bytes, stream)).or_raise()?;
    drop(view);
    Ok(array)
}

/// Sets every element to `value`.
pub(crate) fn fill(
    buffer: &Buffer,
    value: &Bound<'_, PyAny>,
    stream: &Arc<Held<Stream>>,
) -> PyResult<()> {
    let (py, handle) = (value.py(), buffer.for_device()?);
    buffer.used_by(stream);
    with_type!(buffer.shape().dtype, T => {
        let (elements, value) = fill_handle::<T>(handle, value)?;
        buffer.machine().run(py, || elements.fill(value, stream)).or_raise()
    }, _ => Err(unknown()))
}

/// The bytes of an object of the host that has the buffer protocol.
pub(crate) fn host_bytes(source: &Bound<'_, PyAny>) -> PyResult<PyUntypedBuffer> {
    // Arrays of ctypes describe no strides, which a view of them does.
    let again = || PyUntypedBuffer::get(PyMemoryView::from(source)?.as_any());
    let view = PyUntypedBuffer::get(source).or_else(|_| again()).map_err(|_| {
        let text = "a source is a wharf.Buffer, device memory with __cuda_array_interface__ or \
                    DLPack, or memory of the host with the buffer protocol";
        PyTypeError::new_err(text)
    })?;
    if !view.is_c_contiguous() {
        return Err(invalid("the array is not C-contiguous: make a contiguous copy of it"));
    }
    Ok(view)
}

/// The module `numpy`.
pub(crate) fn numpy(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static NUMPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let import = || py.import("numpy").map(|module| module.into_any().unbind());
    Ok(NUMPY.get_or_try_init(py, import)?.bind(py))
}

/// An element type that this version does not know.
pub(crate) fn unknown() -> PyErr {
    PyTypeError::new_err("an element type that this version of wharf for Python does not know")
}

fn fits(size: usize, target: &Inner<u8>) -> PyResult<()> {
    if size <= target.size() {
        return Ok(());
    }
    let has = target.size();
    Err(invalid(format!("the source has {size} bytes, and the buffer {has}")))
}

/// Copies device memory that another library, or a set of inputs, owns.
fn from_array(
    to: &Buffer,
    target: &Inner<u8>,
    from: &DeviceArray,
    stream: &Arc<Held<Stream>>,
    py: Python<'_>,
) -> PyResult<()> {
    let (size, source) = (from.shape().size, from.address());
    dtype::agree(from.shape().dtype, to.shape().dtype)?;
    fits(size, target)?;
    let is_host = to.memory().pool.kind() != MemoryKind::Device;
    let copy = || -> Result<(), Error> {
        target.acquire(stream)?;
        // SAFETY: the use is recorded below, and the stream waits for earlier owners.
        let address = unsafe { target.as_device_ptr() }?;
        // SAFETY: the buffer has at least that size and is not reused before the device is past the
        // use that is recorded; the source is kept by the caller, who orders its writers.
        unsafe { stream.copy(address, source, size) }?;
        target.record_use(stream)?;
        if is_host {
            // A view of the host waits for this copy, not for what follows it.
            stream.mark()?;
        }
        Ok(())
    };
    to.machine().run(py, copy).or_raise()
}
