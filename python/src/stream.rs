//! Streams: the package's own, and those of other libraries.

#![expect(unsafe_code, reason = "handles of others become streams")]

use std::ptr;
use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use wharf::driver::EventKind;
use wharf::sys::bindings::CUstream;
use wharf::{Event, Stream as Inner};

use crate::device::{Device, Shared};
use crate::error::{OrRaise, class, invalid};
use crate::held::Held;

/// A stream of a device.
///
/// `Stream(device)` creates one. `Stream(device, other)` refers to that of another library, once
/// for many calls: an object with `__cuda_stream__` (`cuda.core`, numba, CuPy) or `cuda_stream`
/// (PyTorch), or a driver's handle as a number. An object is kept alive as long as anything may use
/// the handle; of a number, or before `close` of such an object, call `Device.forget_stream` before
/// the stream is destroyed.
///
/// Every argument named `stream` in this package takes the same.
#[pyclass(frozen, module = "wharf")]
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    inner: Arc<Held<Inner>>,
    device: Device,
}

#[pymethods]
impl Stream {
    #[new]
    #[pyo3(signature = (device, other = None))]
    fn new(py: Python<'_>, device: &Device, other: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        if let Some(other) = other {
            return Ok(Self { inner: of(other, device.shared())?, device: device.clone() });
        }
        let (context, machine) = (device.shared(), device.shared().machine());
        let made = machine.run(py, || Inner::new(context)).or_raise()?;
        Ok(Self { inner: Arc::new(Held::new(made, machine)), device: device.clone() })
    }

    /// The driver's handle, as a number.
    #[getter]
    fn handle(&self) -> usize {
        self.inner.as_raw().addr()
    }

    /// The device.
    #[getter]
    fn device(&self) -> Device {
        self.device.clone()
    }

    /// Waits until all work submitted so far is done.
    fn synchronize(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.machine().run(py, || self.inner.synchronize()).or_raise()
    }

    /// Returns whether all work submitted so far is done.
    fn query(&self, py: Python<'_>) -> PyResult<bool> {
        self.inner.machine().run(py, || self.inner.query()).or_raise()
    }

    /// Puts a marker behind all work submitted so far, which memory is freed by as soon as the
    /// device is past it. Returns whether there is one: not while the stream is being captured.
    fn mark(&self, py: Python<'_>) -> PyResult<bool> {
        self.inner.machine().run(py, || self.inner.mark()).or_raise()
    }

    /// Makes work submitted to this stream from here on wait, on the device, for what `other` has
    /// been given.
    fn wait(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<()> {
        let other = of(other, self.device.shared())?;
        self.inner.machine().run(py, || follow(&self.inner, &other)).or_raise()
    }

    /// The stream protocol of CUDA's Python libraries: a version and the handle.
    fn __cuda_stream__(&self) -> (u32, usize) {
        (0, self.handle())
    }

    fn __repr__(&self) -> String {
        format!("Stream({:#x}, {:?})", self.handle(), self.device)
    }
}

/// A handle that another library passed, and the object that keeps it alive, if there is one.
pub(crate) struct Raw {
    handle: usize,
    owner: Option<Py<PyAny>>,
}

impl Raw {
    pub(crate) fn as_stream(&self) -> CUstream {
        ptr::without_provenance_mut(self.handle)
    }
}

/// The handle of any object that stands for a stream.
pub(crate) fn raw_of(stream: &Bound<'_, PyAny>) -> PyResult<Raw> {
    let py = stream.py();
    let owner = || Some(stream.clone().unbind());
    if stream.is_instance_of::<PyInt>() {
        return Ok(Raw { handle: stream.extract()?, owner: None });
    }
    if let Some(protocol) = stream.getattr_opt(intern!(py, "__cuda_stream__"))? {
        // A method, or a pair in the first versions of the protocol.
        let pair = if protocol.is_callable() { protocol.call0()? } else { protocol };
        let (version, handle): (u32, usize) = pair.extract()?;
        if version != 0 {
            return Err(invalid(format!("__cuda_stream__ of version {version} is not known")));
        }
        return Ok(Raw { handle, owner: owner() });
    }
    if let Some(handle) = stream.getattr_opt(intern!(py, "cuda_stream"))? {
        return Ok(Raw { handle: handle.extract()?, owner: owner() });
    }
    // Numbers of other types, such as NumPy's.
    if let Ok(handle) = stream.extract::<usize>() {
        return Ok(Raw { handle, owner: None });
    }
    let text = "a stream is a wharf.Stream, an object with __cuda_stream__ or cuda_stream, or the \
                driver's handle as a number";
    Err(PyTypeError::new_err(format!("{text}, not {}", stream.get_type().name()?)))
}

/// The stream that an argument stands for.
pub(crate) fn of(stream: &Bound<'_, PyAny>, device: &Arc<Shared>) -> PyResult<Arc<Held<Inner>>> {
    if let Ok(own) = stream.cast::<Stream>() {
        let own = own.get();
        if !Arc::ptr_eq(own.device.shared(), device) {
            let text = format!("{own:?} is of another device than Device({})", ordinal(device));
            return Err(class::StreamError::new_err(text));
        }
        return Ok(Arc::clone(&own.inner));
    }
    let raw = raw_of(stream)?;
    let handle = raw.as_stream();
    let borrowed = match raw.owner {
        // SAFETY: the object vouches for the handle and keeps the stream, which is of the current
        // device by the caller's account; code that closes it before calls `forget_stream`.
        Some(owner) => unsafe { Inner::borrow_with_owner(handle, Arc::new(owner), device) },
        // SAFETY: the caller's account: a number that is no stream of the device is the same error
        // as in every other library. It is forgotten before it is destroyed.
        None => unsafe { Inner::borrow_raw(handle, device) },
    };
    Ok(Arc::new(Held::new(borrowed, device.machine())))
}

/// Orders what `stream` is given from here on behind all work of `before`.
pub(crate) fn follow(stream: &Inner, before: &Inner) -> Result<(), wharf::Error> {
    if stream.id() == before.id() {
        return Ok(());
    }
    let event = Event::new(before.context(), EventKind::Ordering)?;
    before.record(&event)?;
    stream.wait_event(&event)
}

fn ordinal(device: &Shared) -> i32 {
    device.device().ordinal()
}
