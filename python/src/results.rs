//! The results of one step.

#![expect(unsafe_code, reason = "hands out views of pinned memory")]

use std::ffi::c_int;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{ffi, intern};
use wharf::staging::Pending;

use crate::copy::numpy;
use crate::device::{lock, seconds};
use crate::dtype;
use crate::error::{OrRaise, closed};
use crate::export::Layout;
use crate::held::Held;
use crate::inputs::pair;
use crate::outputs::Outputs;
use crate::shape::Shape;
use crate::slot::shape;
use crate::stream;

/// The results of one step, which the device is copying or has copied; `OutputBuffers.fetch` begins
/// that.
///
/// `results["ids"]` is a NumPy array of the slot's elements in pinned memory, which is only read.
/// It holds the results: nothing overwrites them before they are closed or deleted and the last
/// array of them is gone. Used in a `with` statement, they are closed there.
#[pyclass(frozen, weakref, module = "wharf")]
pub(crate) struct Results {
    state: Mutex<State>,
    outputs: Arc<Outputs>,
    counts: (usize, usize),
}

struct State {
    /// `None` when they were closed.
    pending: Option<Arc<Held<Pending>>>,
    views: usize,
}

impl Results {
    pub(crate) fn new(pending: Held<Pending>, outputs: Arc<Outputs>) -> Self {
        let counts = pair(pending.counts());
        let state = State { pending: Some(Arc::new(pending)), views: 0 };
        Self { state: Mutex::new(state), outputs, counts }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn pending(&self) -> PyResult<Arc<Held<Pending>>> {
        self.lock().pending.clone().ok_or_else(|| closed("results"))
    }

    /// The memory of a slot; waits until it is there.
    fn open<'py>(slf: &Bound<'py, Self>, slot: &str) -> PyResult<(Bound<'py, ResultView>, Shape)> {
        let this = slf.get();
        let (info, pending) = (this.outputs.slot(slot)?, this.pending()?);
        let machine = pending.machine();
        // Without a wait in most cases, and so with the GIL.
        let bound = machine.bind();
        let is_there = pending.is_complete().or_raise()?;
        drop(bound);
        if !is_there {
            let limit = this.outputs.limit();
            machine.run(slf.py(), || pending.wait(limit).map(drop)).or_raise()?;
        }
        let _bound = machine.bind();
        let there = pending.wait(Duration::ZERO).or_raise()?;
        let address = there.read_raw(info).or_raise()?.as_ptr().expose_provenance();
        let shape = shape(info.len, info.dtype, there.counts())?;
        let view =
            ResultView { address, layout: Layout::of(&shape), results: slf.clone().unbind() };
        Ok((Bound::new(slf.py(), view)?, shape))
    }
}

#[pymethods]
impl Results {
    /// The array of a slot's elements: as many as the step has. Waits for the results, for at most
    /// the set's timeout; `is_complete` says whether it would.
    fn __getitem__<'py>(slf: &Bound<'py, Self>, slot: &str) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let (view, shape) = Self::open(slf, slot)?;
        if shape.size == 0 {
            return numpy(py)?.call_method1(intern!(py, "asarray"), (view,));
        }
        let format = dtype::format(shape.dtype).to_str().unwrap_or("B");
        let array = numpy(py)?.call_method1(intern!(py, "frombuffer"), (view, format))?;
        match &*shape.dims {
            [_] => Ok(array),
            dims => array.call_method1(intern!(py, "reshape"), (PyTuple::new(py, dims)?,)),
        }
    }

    /// The slot's memory by the buffer protocol, for consumers other than NumPy.
    fn view<'py>(slf: &Bound<'py, Self>, slot: &str) -> PyResult<Bound<'py, ResultView>> {
        Self::open(slf, slot).map(|(view, _)| view)
    }

    /// Returns whether the results are there. No driver call.
    fn is_complete(&self) -> PyResult<bool> {
        let pending = self.pending()?;
        let _bound = pending.machine().bind();
        pending.is_complete().or_raise()
    }

    /// Waits for the results, for at most `timeout` seconds, and for nothing that the stream was
    /// given behind the fetch. Returns them. Raises `StalledError` if they are not there then.
    #[pyo3(signature = (timeout = 10.0))]
    fn wait<'py>(slf: &Bound<'py, Self>, timeout: f64) -> PyResult<Bound<'py, Self>> {
        let (pending, limit) = (slf.get().pending()?, seconds(timeout)?);
        let machine = pending.machine().clone();
        machine.run(slf.py(), || pending.wait(limit).map(drop)).or_raise()?;
        Ok(slf.clone())
    }

    /// Makes what `stream` is given from here on wait, on the device, until the device memory has
    /// been read: for a step on another stream than the fetch's, which writes it again.
    fn source_free_on(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let (pending, on) = (self.pending()?, stream::of(stream, self.outputs.device.shared())?);
        let machine = pending.machine().clone();
        machine.run(py, || pending.source_free_on(&on)).or_raise()
    }

    /// Gives the results up: their memory may be overwritten. Raises `BufferError` while arrays of
    /// them are alive.
    fn close(&self) -> PyResult<()> {
        let mut state = self.lock();
        if state.views > 0 {
            let text = format!(
                "cannot close the results: {} arrays of them are alive, which later results would \
                 overwrite; delete them first",
                state.views
            );
            return Err(PyBufferError::new_err(text));
        }
        let pending = state.pending.take();
        drop(state);
        drop(pending);
        Ok(())
    }

    /// The step's tokens and requests.
    #[getter]
    fn counts(&self) -> (usize, usize) {
        self.counts
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (error, *_more))]
    fn __exit__(&self, error: Option<&Bound<'_, PyAny>>, _more: &Bound<'_, PyAny>) -> PyResult<()> {
        // An error that passes is not hidden by arrays that it keeps alive: these keep the results.
        if error.is_some() && self.lock().views > 0 {
            return Ok(());
        }
        self.close()
    }

    fn __repr__(&self) -> String {
        format!("Results(counts={:?})", self.counts)
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}

/// The memory of one slot of results, by the buffer protocol: behind the array that `Results[name]`
/// returns.
#[pyclass(frozen, module = "wharf")]
#[derive(Debug)]
pub(crate) struct ResultView {
    address: usize,
    layout: Layout,
    results: Py<Results>,
}

#[pymethods]
impl ResultView {
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if flags & ffi::PyBUF_WRITABLE != 0 {
            return Err(PyBufferError::new_err("results are only read"));
        }
        let this = slf.get();
        let mut state = this.results.get().lock();
        if state.pending.is_none() {
            return Err(PyBufferError::new_err("the results were closed"));
        }
        // SAFETY: `view` is the interpreter's; the memory is that of the slot in a ring slot that
        // is held, and is not given up while the view is counted, below, under the same lock.
        unsafe { this.layout.fill(view, flags, this.address, slf.clone()) }?;
        // SAFETY: filled above, so not null, and the interpreter's.
        unsafe { (*view).readonly = 1 };
        state.views += 1;
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        let mut state = self.results.get().lock();
        state.views = state.views.saturating_sub(1);
    }
}
