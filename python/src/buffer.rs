//! Buffers of pools.

#![expect(unsafe_code, reason = "hands out addresses and views of memory")]

use std::ffi::c_int;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use wharf::Stream;
use wharf::memory::MemoryKind;
use wharf::pool::{Buffer as Inner, HostError};

use crate::device::{Device, lock, seconds};
use crate::error::{OrRaise, Raise, closed};
use crate::export::Layout;
use crate::held::{Held, Machine};
use crate::pool::{Memory, kind_name};
use crate::shape::Shape;
use crate::{copy, dlpack, dtype, interface, scalar, stream};

/// An array in a pool's memory; `Pool.alloc` makes one.
///
/// When it is deleted, or `close` is called, its memory is free for the stream that used it last,
/// and for others when the device is past its last use. The copies and fills here note their uses;
/// work that other libraries submit with its address is noted by `record_use`.
///
/// A buffer of a pinned or managed pool is an array of the host too: `numpy.asarray(buffer)`, or
/// any other consumer of the buffer protocol, waits until the device is past all uses. While such a
/// view is alive, copies and fills of the buffer raise `BufferError`.
#[pyclass(frozen, weakref, module = "wharf")]
pub(crate) struct Buffer {
    state: Mutex<State>,
    layout: Layout,
    shape: Shape,
    memory: Arc<Memory>,
}

/// The part of a buffer that changes.
pub(crate) struct State {
    buffer: Option<Inner<u8>>,
    /// Views of the host that are alive.
    views: usize,
    /// The stream of the last use that is known of; at first, the one that it was allocated for.
    last: Arc<Held<Stream>>,
    /// Threads that wait for the device, to open a view. Each has a handle.
    waiting: usize,
}

impl Buffer {
    pub(crate) fn new(
        buffer: Inner<u8>,
        shape: Shape,
        last: Arc<Held<Stream>>,
        memory: Arc<Memory>,
    ) -> Self {
        let state = State { buffer: Some(buffer), views: 0, last, waiting: 0 };
        let layout = Layout::of(&shape);
        Self { state: Mutex::new(state), layout, shape, memory }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The stream of the last use that is known of, which consumers of the memory are behind.
    pub(crate) fn last_stream(&self) -> Arc<Held<Stream>> {
        Arc::clone(&self.lock().last)
    }

    /// Notes a use by `stream`, or one that is about to be.
    pub(crate) fn used_by(&self, stream: &Arc<Held<Stream>>) {
        let earlier = std::mem::replace(&mut self.lock().last, Arc::clone(stream));
        // Not under the lock: the end of a stream calls the driver.
        drop(earlier);
    }

    pub(crate) fn machine(&self) -> &Machine {
        self.memory.pool.machine()
    }

    /// Another handle to the memory, for use by the device.
    ///
    /// Refused while the host has views, since they could write what the device reads; a handle
    /// that is alive refuses views in turn.
    pub(crate) fn for_device(&self) -> PyResult<Inner<u8>> {
        let state = self.lock();
        if state.views > 0 {
            let text = format!(
                "{} views of the buffer are alive on the host: delete them before the device uses \
                 its memory",
                state.views
            );
            return Err(PyBufferError::new_err(text));
        }
        state.handle()
    }

    /// Another handle to the memory, which may have views.
    pub(crate) fn handle(&self) -> PyResult<Inner<u8>> {
        self.lock().handle()
    }

    /// The device's address.
    pub(crate) fn address(&self) -> PyResult<u64> {
        let state = self.lock();
        let buffer = state.buffer.as_ref().ok_or_else(|| closed("buffer"))?;
        // SAFETY: code that submits work with the address keeps the rules that the class states.
        unsafe { buffer.as_device_ptr() }.or_raise()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn close_view(&self) {
        let mut state = self.lock();
        state.views = state.views.saturating_sub(1);
    }

    /// Waits for the device, then opens a view of the host. Returns the host's address.
    fn open_view(&self, py: Python<'_>, limit: Duration) -> PyResult<usize> {
        if !matches!(self.memory.pool.kind(), MemoryKind::Pinned | MemoryKind::Managed) {
            let text = format!("the host does not reach {} memory", self.kind());
            return Err(PyBufferError::new_err(text));
        }
        // Without the lock, which others may want meanwhile.
        let waiting = self.handle()?;
        self.lock().waiting += 1;
        let waited = self.machine().run(py, || {
            let waited = waiting.wait(limit);
            drop(waiting);
            waited
        });
        let mut state = self.lock();
        state.waiting -= 1;
        waited.or_raise()?;
        let buffer = state.buffer.as_ref().ok_or_else(|| closed("buffer"))?;
        let info = buffer.info();
        // Handles of threads that wait here as well give the device nothing.
        if usize::try_from(info.handles).is_ok_and(|handles| handles > 1 + state.waiting) {
            return Err(HostError::Shared.raise());
        }
        if !buffer.is_idle() {
            let text = "another thread has given the buffer to the device again";
            return Err(PyBufferError::new_err(text));
        }
        let address = usize::try_from(info.address).map_err(|_| closed("buffer"))?;
        state.views += 1;
        Ok(address)
    }
}

impl State {
    fn handle(&self) -> PyResult<Inner<u8>> {
        let buffer = self.buffer.as_ref().ok_or_else(|| closed("buffer"))?;
        buffer.slice(..).ok_or_else(|| PyBufferError::new_err("the buffer has too many handles"))
    }
}

#[pymethods]
impl Buffer {
    /// The device's address of the first byte.
    #[getter]
    fn ptr(&self) -> PyResult<u64> {
        self.address()
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

    /// The kind of memory.
    #[getter]
    fn kind(&self) -> &'static str {
        kind_name(self.memory.pool.kind())
    }

    /// The device.
    #[getter]
    fn device(&self) -> Device {
        self.memory.device.clone()
    }

    /// Notes that work on `stream`, submitted by now by other code, uses the buffer.
    fn record_use(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let stream = stream::of(stream, self.memory.device())?;
        let buffer = self.handle()?;
        self.used_by(&stream);
        self.machine().run(py, || buffer.record_use(&stream)).or_raise()
    }

    /// Makes work submitted to `stream` from here on wait, on the device, for earlier owners of
    /// the memory. Not needed for the stream that the buffer was allocated for.
    fn acquire(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let stream = stream::of(stream, self.memory.device())?;
        let buffer = self.handle()?;
        self.machine().run(py, || buffer.acquire(&stream)).or_raise()
    }

    /// Returns whether the device is past all uses.
    fn poll(&self, py: Python<'_>) -> PyResult<bool> {
        let buffer = self.handle()?;
        self.machine().run(py, || buffer.poll()).or_raise()
    }

    /// Waits until the device is past all uses; raises `WaitTimeoutError` after `timeout` seconds.
    #[pyo3(signature = (timeout = 10.0))]
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let (limit, buffer) = (seconds(timeout)?, self.handle()?);
        self.machine().run(py, || buffer.wait(limit)).or_raise()
    }

    /// Copies `source` to the front of the buffer, in the order of `stream`.
    ///
    /// `source` is a buffer of wharf, device memory with `__cuda_array_interface__` or DLPack, or
    /// contiguous memory of the host, which may be reused on return. Its elements are of the
    /// buffer's type, or one of the two is bytes: nothing is converted. What wrote device memory of
    /// other libraries on another stream is the caller's to order.
    #[pyo3(signature = (source, *, stream))]
    fn copy_from(&self, source: &Bound<'_, PyAny>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let stream = stream::of(stream, self.memory.device())?;
        copy::into_buffer(self, source, &stream)
    }

    /// Copies the array to the host and waits for that: a new NumPy array.
    ///
    /// Types that NumPy lacks come as unsigned integers with their bits.
    #[pyo3(signature = (*, stream))]
    fn to_numpy<'py>(&self, stream: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let on = stream::of(stream, self.memory.device())?;
        copy::to_numpy(self, &on, stream.py())
    }

    /// Sets every element to `value`, in the order of `stream`.
    #[pyo3(signature = (value, *, stream))]
    fn fill(&self, value: &Bound<'_, PyAny>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let stream = stream::of(stream, self.memory.device())?;
        copy::fill(self, value, &stream)
    }

    /// Frees the memory, as the end of the object would. Raises `BufferError` while the host has
    /// views.
    fn close(&self) -> PyResult<()> {
        let mut state = self.lock();
        if state.views > 0 {
            let text = format!("{} views of the buffer are alive: delete them", state.views);
            return Err(PyBufferError::new_err(text));
        }
        let buffer = state.buffer.take();
        drop(state);
        let _bound = self.machine().bind();
        drop(buffer);
        Ok(())
    }

    #[getter]
    fn __cuda_array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        interface::describe(&self.shape, self.address()?, Some(&self.last_stream()), py)
    }

    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        slf: &Bound<'py, Self>,
        stream: Option<isize>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(i32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        dlpack::check(dl_device, slf.get().__dlpack_device__(), copy)?;
        dlpack::buffer(slf, stream, max_version)
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        dlpack::device(self.memory.pool.kind(), self.memory.device())
    }

    fn __len__(&self) -> usize {
        self.shape.dims.first().copied().unwrap_or(0)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (error, *_more))]
    fn __exit__(&self, error: Option<&Bound<'_, PyAny>>, _more: &Bound<'_, PyAny>) -> PyResult<()> {
        // An error that passes is not hidden by views that it keeps alive: these keep the memory.
        if error.is_some() && self.lock().views > 0 { Ok(()) } else { self.close() }
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let address = this.open_view(slf.py(), VIEW_TIMEOUT)?;
        // SAFETY: `view` is the interpreter's, the layout and the memory are the buffer's: it is
        // not closed while a view is counted, which `__releasebuffer__` ends.
        unsafe { this.layout.fill(view, flags, address, slf.clone()) }
            .inspect_err(|_| this.close_view())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.close_view();
    }

    fn __repr__(&self) -> String {
        let (dims, kind) = (&self.shape.dims, self.kind());
        format!("Buffer(shape={dims:?}, dtype={:?}, kind={kind:?})", self.dtype())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let buffer = self.lock().buffer.take();
        let _bound = self.machine().bind();
        drop(buffer);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}

/// A view of the host for other libraries, as one of the buffer protocol.
pub(crate) struct HostView {
    buffer: Py<Buffer>,
    address: usize,
}

impl HostView {
    /// Waits for the device.
    pub(crate) fn open(buffer: &Bound<'_, Buffer>) -> PyResult<Self> {
        let address = buffer.get().open_view(buffer.py(), VIEW_TIMEOUT)?;
        Ok(Self { buffer: buffer.clone().unbind(), address })
    }

    /// The host's address.
    pub(crate) fn address(&self) -> usize {
        self.address
    }
}

impl Drop for HostView {
    fn drop(&mut self) {
        self.buffer.get().close_view();
    }
}

/// A value of Python as the element that a fill repeats.
pub(crate) fn fill_handle<T: scalar::Scalar>(
    handle: Inner<u8>,
    value: &Bound<'_, PyAny>,
) -> PyResult<(Inner<T>, T)> {
    let value = T::of(value)?;
    let handle = handle.cast::<T>().map_err(|_| closed("buffer"))?;
    Ok((handle, value))
}

/// How long a view of the host waits for the device.
const VIEW_TIMEOUT: Duration = Duration::from_secs(10);
