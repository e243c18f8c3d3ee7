//! One step: a ring slot being filled.

#![expect(unsafe_code, reason = "reads memory of other libraries")]

use std::fmt;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard};

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::buffer::Buffer;
use crate::copy::numpy;
use crate::device::lock;
use crate::dtype;
use crate::error::{OrRaise, closed, invalid};
use crate::inputs::{Inputs, pair};
use crate::owned::{OwnedStaged, OwnedStep};
use crate::shape::Shape;
use crate::slot::{Entry, Source};
use crate::staged::Staged;
use crate::stream;
use crate::view::SlotView;

/// A step that is being filled; `InputBuffers.begin` begins one.
///
/// `step["ids"]` is a NumPy array of the slot's elements in pinned memory, to be written in place;
/// `step["ids"] = values` copies. Such an array must be gone when the step is submitted: `submit`
/// raises `BufferError` while one is alive, since it could overwrite what the device reads.
///
/// A step that is not submitted has not happened: used in a `with` statement, it ends there.
#[pyclass(frozen, weakref, module = "wharf")]
pub(crate) struct Step {
    state: Mutex<State>,
    inputs: Arc<Inputs>,
    counts: (usize, usize),
    padded: (usize, usize),
}

struct State {
    /// `None` when it was submitted or cancelled.
    step: Option<OwnedStep>,
    views: usize,
}

impl Step {
    pub(crate) fn new(mut step: OwnedStep, inputs: Arc<Inputs>) -> Self {
        let (counts, padded) = step.with_step(|step| (step.counts(), step.padded()));
        let state = Mutex::new(State { step: Some(step), views: 0 });
        Self { state, inputs, counts: pair(counts), padded: pair(padded) }
    }

    /// Counts a view of the host.
    pub(crate) fn open_view(&self) -> PyResult<()> {
        let mut state = self.lock();
        if state.step.is_none() {
            return Err(PyBufferError::new_err("the step was submitted or cancelled"));
        }
        state.views += 1;
        Ok(())
    }

    pub(crate) fn close_view(&self) {
        let mut state = self.lock();
        state.views = state.views.saturating_sub(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends the step, unless views are alive.
    fn take(&self, what: &str) -> PyResult<OwnedStep> {
        let mut state = self.lock();
        if state.views > 0 {
            let text = format!(
                "cannot {what} the step: {} arrays of its slots are alive, which could overwrite \
                 what the device reads; delete them first",
                state.views
            );
            return Err(PyBufferError::new_err(text));
        }
        state.step.take().ok_or_else(|| closed("step"))
    }

    /// The memory of a slot, which counts as written.
    fn open<'py>(slf: &Bound<'py, Self>, slot: &str) -> PyResult<(Bound<'py, SlotView>, Shape)> {
        let this = slf.get();
        let entry = this.inputs.slot(slot)?;
        if entry.is_dynamic {
            return Err(invalid(format!("slot {slot:?} is dynamic: call `pass_address`")));
        }
        let mut state = this.lock();
        let step = state.step.as_mut().ok_or_else(|| closed("step"))?;
        let (counts, address) = step.with_step(|step| (step.counts(), entry.typed.write(step)));
        drop(state);
        let shape = entry.shape(counts)?;
        Ok((Bound::new(slf.py(), SlotView::new(address, &shape, slf))?, shape))
    }

    /// Copies an array that has the slot's type and length. Returns whether it has.
    fn copy(&self, slot: &Entry, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(view) = PyUntypedBuffer::get(value) else { return Ok(false) };
        let wanted = dtype::format(slot.dtype);
        let is_same =
            dtype::is_same(view.format(), wanted) && view.item_size() == slot.dtype.size();
        let is_aligned = view.buf_ptr().addr().is_multiple_of(slot.dtype.size());
        if !is_same || !view.is_c_contiguous() || !is_aligned || view.len_bytes() == 0 {
            return Ok(false);
        }
        // SAFETY: a contiguous export of that many bytes, which lives until `view` is dropped, and
        // which nothing writes while this thread holds the GIL.
        let bytes = unsafe { slice::from_raw_parts(view.buf_ptr().cast::<u8>(), view.len_bytes()) };
        let mut state = self.lock();
        let step = state.step.as_mut().ok_or_else(|| closed("step"))?;
        // Another length may still be broadcast.
        Ok(step.with_step(|step| slot.typed.write_from(step, Source(bytes))).is_ok())
    }
}

#[pymethods]
impl Step {
    /// The array of a slot's elements, in pinned memory. Its contents are those of earlier steps.
    fn __getitem__<'py>(slf: &Bound<'py, Self>, slot: &str) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let (view, shape) = Self::open(slf, slot)?;
        if shape.size == 0 {
            return numpy(py)?.call_method1(intern!(py, "asarray"), (view,));
        }
        // Other than `asarray`, this reads no format, which takes microseconds. It keeps the view.
        let format = dtype::format(shape.dtype).to_str().unwrap_or("B");
        let array = numpy(py)?.call_method1(intern!(py, "frombuffer"), (view, format))?;
        match &*shape.dims {
            [_] => Ok(array),
            dims => array.call_method1(intern!(py, "reshape"), (PyTuple::new(py, dims)?,)),
        }
    }

    /// Copies values to a slot: an array, a sequence, or a number for all elements.
    fn __setitem__(slf: &Bound<'_, Self>, slot: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let this = slf.get();
        if this.copy(this.inputs.slot(slot)?, value)? {
            return Ok(());
        }
        // NumPy converts and broadcasts, or raises an error.
        let array = Self::__getitem__(slf, slot)?;
        let numpy = numpy(slf.py())?;
        numpy.call_method1(intern!(slf.py(), "copyto"), (array, value)).map(drop)
    }

    /// Copies values to several slots: `step.write(ids=ids, lens=lens)`.
    #[pyo3(signature = (**slots))]
    fn write(slf: &Bound<'_, Self>, slots: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        for (name, value) in slots.into_iter().flatten() {
            Self::__setitem__(slf, name.extract()?, &value)?;
        }
        Ok(())
    }

    /// The slot's memory by the buffer protocol, for consumers other than NumPy.
    fn view<'py>(slf: &Bound<'py, Self>, slot: &str) -> PyResult<Bound<'py, SlotView>> {
        Self::open(slf, slot).map(|(view, _)| view)
    }

    /// Passes the address of a dynamic slot's elements through.
    fn pass_address(&self, slot: &str, address: u64) -> PyResult<()> {
        let entry = self.inputs.slot(slot)?;
        let mut state = self.lock();
        let step = state.step.as_mut().ok_or_else(|| closed("step"))?;
        step.with_step(|step| entry.typed.pass(step, address)).or_raise()
    }

    /// Lets the device read a slot's elements in a pinned buffer: as many as the step is padded to.
    /// The host cannot view the buffer until the copy is done.
    fn refer(&self, slot: &str, buffer: &Buffer) -> PyResult<()> {
        let entry = self.inputs.slot(slot)?;
        dtype::agree(buffer.shape().dtype, entry.dtype)?;
        let handle = buffer.for_device()?;
        let mut state = self.lock();
        let step = state.step.as_mut().ok_or_else(|| closed("step"))?;
        match step.with_step(|step| entry.typed.refer(step, handle)) {
            Some(referred) => referred.or_raise(),
            None => Err(invalid("the buffer is not a whole number of the slot's elements")),
        }
    }

    /// Pads the slots and sends them to the device on `stream`: one driver call.
    ///
    /// Raises `BufferError` while arrays of its slots are alive; the step goes on then. After any
    /// other error the step has not happened, and is over.
    fn submit(&self, stream: &Bound<'_, PyAny>) -> PyResult<Staged> {
        let on = stream::of(stream, self.inputs.device())?;
        let step = self.take("submit")?;
        let machine = self.inputs.set.machine();
        let staged: OwnedStaged = machine.run(stream.py(), || step.submit(&on)).or_raise()?;
        Ok(Staged::new(staged, Arc::clone(&self.inputs)))
    }

    /// Ends the step: it has not happened. Raises `BufferError` while arrays of it are alive.
    fn cancel(&self) -> PyResult<()> {
        self.take("cancel").map(drop)
    }

    /// The step's tokens.
    #[getter]
    fn tokens(&self) -> usize {
        self.counts.0
    }

    /// The step's requests.
    #[getter]
    fn requests(&self) -> usize {
        self.counts.1
    }

    /// The tokens and requests that it is padded to.
    #[getter]
    fn padded(&self) -> (usize, usize) {
        self.padded
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (error, *_more))]
    fn __exit__(&self, error: Option<&Bound<'_, PyAny>>, _more: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = self.lock();
        // An error that passes is not hidden by arrays that it keeps alive: these keep the step.
        if state.step.is_none() || error.is_some() && state.views > 0 {
            return Ok(());
        }
        drop(state);
        self.cancel()
    }

    fn __repr__(&self) -> String {
        format!("Step(tokens={}, requests={})", self.counts.0, self.counts.1)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}
