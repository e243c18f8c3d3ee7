//! Sets of input buffers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use pyo3::prelude::*;
use wharf::staging::{Counts, InputBuffers as Inner, Instantiation, Layout, StageError};

use crate::array::DeviceArray;
use crate::device::{Device, Shared, seconds};
use crate::error::{OrRaise, class, invalid};
use crate::held::Held;
use crate::owned::{OwnedStep, Set};
use crate::slot::{Entry, Slot, policy};
use crate::step::Step;
use crate::stream;

/// The inputs of an engine's steps: slots to write on the host, at device addresses that never
/// change, sent by one driver call a step.
///
/// `buckets` are the numbers of tokens that steps are padded to, each with a graph of its own.
/// `ring_depth` is how many steps may be in flight, and `timeout` how many seconds `begin` waits
/// for one of them. `layout` is `"per_slot"` or `"packed"`, `forgotten` the policy for slots that a
/// step does not write. With `eager` the graphs are made at once. With `check_captures` each stream
/// is asked, each time, whether it is being captured.
///
/// Deleting it waits for the device to have read the steps in flight.
#[pyclass(frozen, module = "wharf")]
pub(crate) struct InputBuffers(Arc<Inputs>);

/// What a set and its steps share.
pub(crate) struct Inputs {
    pub(crate) set: Set,
    pub(crate) slots: Vec<Entry>,
    names: HashMap<String, usize>,
    pub(crate) device: Device,
}

impl Inputs {
    /// The slot of a name.
    pub(crate) fn slot(&self, name: &str) -> PyResult<&Entry> {
        self.names.get(name).map(|index| &self.slots[*index]).ok_or_else(|| {
            let names: Vec<_> = self.slots.iter().map(|slot| &*slot.name).collect();
            let text = format!("no slot has the name {name:?}: there are {}", names.join(", "));
            class::SlotError::new_err((text, name.to_owned()))
        })
    }

    pub(crate) fn device(&self) -> &Arc<Shared> {
        self.device.shared()
    }
}

#[pymethods]
impl InputBuffers {
    #[new]
    #[pyo3(signature = (
        device, slots, buckets, *, name = "inputs", max_tokens = None, max_requests = None,
        ring_depth = 3, layout = "per_slot", forgotten = "error", timeout = 10.0, eager = false,
        check_captures = false
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        device: &Device,
        slots: Vec<PyRef<'_, Slot>>,
        buckets: Vec<usize>,
        name: &str,
        max_tokens: Option<usize>,
        max_requests: Option<usize>,
        ring_depth: usize,
        layout: &str,
        forgotten: &str,
        timeout: f64,
        eager: bool,
        check_captures: bool,
    ) -> PyResult<Self> {
        let mut builder = Inner::builder(device.shared())
            .name(name)
            .buckets(buckets)
            .ring_depth(ring_depth)
            .layout(layout_of(layout)?)
            .forgotten(policy(forgotten)?)
            .deadline(seconds(timeout)?)
            .check_captures(check_captures);
        for slot in &slots {
            builder = slot.add_to(builder, py)?;
        }
        if let Some(tokens) = max_tokens {
            builder = builder.max_tokens(tokens);
        }
        if let Some(requests) = max_requests {
            builder = builder.max_requests(requests);
        }
        if eager {
            builder = builder.instantiation(Instantiation::Eager);
        }
        let machine = device.shared().machine();
        let set = machine.run(py, || builder.build()).or_raise()?;
        let set = Arc::new(Held::new(set, machine));
        let slots = Entry::all(&set)?;
        let names = slots.iter().enumerate().map(|(index, slot)| (slot.name.clone(), index));
        let names = names.collect();
        Ok(Self(Arc::new(Inputs { set, slots, names, device: device.clone() })))
    }

    /// Begins a step in a ring slot that the device has finished reading, and waits for one if need
    /// be.
    ///
    /// Raises `StalledError` after the set's timeout, `StepTooLargeError` above its limits.
    fn begin(&self, py: Python<'_>, tokens: usize, requests: usize) -> PyResult<Step> {
        let set = &self.0.set;
        // Without a wait in most cases, and so with the GIL.
        let bound = set.machine().bind();
        let begun = OwnedStep::try_begin(set, tokens, requests);
        drop(bound);
        let step = match begun {
            Err(StageError::WouldBlock) => {
                set.machine().run(py, || OwnedStep::begin(set, tokens, requests))
            }
            begun => begun,
        };
        Ok(Step::new(step.or_raise()?, Arc::clone(&self.0)))
    }

    /// Begins a step if a ring slot is free, else returns `None`.
    fn try_begin(&self, tokens: usize, requests: usize) -> PyResult<Option<Step>> {
        let _bound = self.0.set.machine().bind();
        match OwnedStep::try_begin(&self.0.set, tokens, requests) {
            Err(StageError::WouldBlock) => Ok(None),
            begun => Ok(Some(Step::new(begun.or_raise()?, Arc::clone(&self.0)))),
        }
    }

    /// Waits until the device has read every step that was submitted, for at most the set's timeout
    /// a step.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let set = &self.0.set;
        set.machine().run(py, || set.wait()).or_raise()
    }

    /// Where the device finds a slot in the bucket that holds `tokens`, for graphs that read it.
    ///
    /// Raises `SlotError` for a slot without an address of its own, or above the largest bucket.
    fn array(slf: &Bound<'_, Self>, slot: &str, tokens: usize) -> PyResult<DeviceArray> {
        let inputs = &slf.get().0;
        let (entry, buffers) = (inputs.slot(slot)?, inputs.set.static_buffers());
        let bucket = inputs.set.buckets().find(|bucket| bucket.tokens >= tokens);
        match (entry.typed.static_ptr(&buffers, tokens), bucket) {
            (Some(address), Some(counts)) => {
                let owner = Box::new(slf.clone().unbind());
                Ok(DeviceArray::new(address, entry.shape(counts)?, owner))
            }
            _ => {
                let text = format!("slot {slot:?} has no fixed address for {tokens} tokens");
                Err(class::SlotError::new_err((text, slot.to_owned())))
            }
        }
    }

    /// Gives the graph that `stream` is capturing, by any library, a share of the device memory:
    /// the addresses stay good as long as that graph.
    fn keep_alive_in_capture(&self, py: Python<'_>, stream: &Bound<'_, PyAny>) -> PyResult<()> {
        let stream = stream::of(stream, self.0.device())?;
        let buffers = self.0.set.static_buffers();
        let machine = self.0.set.machine();
        machine.run(py, || buffers.keep_alive_in_capture(&stream)).or_raise()
    }

    /// The sizes of buckets, ascending: tokens, and requests at most.
    #[getter]
    fn buckets(&self) -> Vec<(usize, usize)> {
        self.0.set.buckets().map(pair).collect()
    }

    /// The largest step: tokens and requests.
    #[getter]
    fn max(&self) -> (usize, usize) {
        pair(self.0.set.max())
    }

    /// The names of the slots.
    #[getter]
    fn slots(&self) -> Vec<&str> {
        self.0.slots.iter().map(|slot| &*slot.name).collect()
    }

    /// The device.
    #[getter]
    fn device(&self) -> Device {
        self.0.device.clone()
    }

    fn __repr__(&self) -> String {
        format!("InputBuffers(slots={:?}, buckets={:?})", self.slots(), self.buckets())
    }
}

/// Tokens and requests, as Python has them.
pub(crate) fn pair(counts: Counts) -> (usize, usize) {
    (counts.tokens, counts.requests)
}

pub(crate) fn layout_of(word: &str) -> PyResult<Layout> {
    match word {
        "per_slot" => Ok(Layout::PerSlot),
        "packed" => Ok(Layout::Packed),
        _ => Err(invalid(format!("layout={word:?} is not \"per_slot\" or \"packed\""))),
    }
}

impl fmt::Debug for InputBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}
