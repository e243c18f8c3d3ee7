//! Sets of output buffers: results of steps on their way to the host.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use wharf::pool::Buffer as Inner;
use wharf::staging::{Fetch, Instantiation, OutputBuffers as Set, Pending, SlotInfo, StageError};

use crate::array::DeviceArray;
use crate::buffer::Buffer;
use crate::copy::unknown;
use crate::device::{Device, seconds};
use crate::dtype::{self, with_type};
use crate::error::{OrRaise, class, invalid};
use crate::held::Held;
use crate::inputs::{layout_of, pair};
use crate::results::Results;
use crate::slot::{Slot, shape};
use crate::stream;

/// The results of an engine's steps: device memory at addresses that never change, for kernels and
/// graphs to write, and pinned memory in which the host reads them.
///
/// `buckets` are the numbers of tokens whose results a fetch copies with a graph of its own: those
/// of the step's inputs. `ring_depth` is how many fetches may be in use, in flight or held by a
/// `Results`, and `timeout` how many seconds `fetch` waits for one of them. The slots have no
/// `pad`, `forgotten` or `kind`. `layout`, `eager` and `check_captures` are as for `InputBuffers`.
#[pyclass(frozen, module = "wharf")]
pub(crate) struct OutputBuffers(Arc<Outputs>);

/// What a set and its results share.
pub(crate) struct Outputs {
    set: Held<Set>,
    slots: Vec<SlotInfo>,
    pub(crate) device: Device,
}

impl Outputs {
    /// The slot of a name.
    pub(crate) fn slot(&self, name: &str) -> PyResult<&SlotInfo> {
        self.slots.iter().find(|slot| *slot.name == *name).ok_or_else(|| {
            let names: Vec<_> = self.slots.iter().map(|slot| &*slot.name).collect();
            let text = format!("no slot has the name {name:?}: there are {}", names.join(", "));
            class::SlotError::new_err((text, name.to_owned()))
        })
    }

    /// How long a wait for a ring slot or for results takes at most.
    pub(crate) fn limit(&self) -> Duration {
        self.set.deadline()
    }

    /// Submits a fetch, whose `sources` are buffers of device memory.
    fn submit(
        &self,
        mut fetch: Fetch,
        sources: Vec<(&SlotInfo, Inner<u8>)>,
        on: &wharf::Stream,
    ) -> PyResult<Pending> {
        let set = &self.set;
        for (slot, from) in sources {
            with_type!(slot.dtype, T => {
                let from = from.cast::<T>().map_err(|_| {
                    invalid("the buffer is not a whole number of the slot's elements")
                })?;
                fetch.source_buffer(set.slot_id::<T>(&slot.name).or_raise()?, &from).or_raise()?;
            }, _ => return Err(unknown()));
        }
        fetch.submit(on).or_raise()
    }
}

#[pymethods]
impl OutputBuffers {
    #[new]
    #[pyo3(signature = (
        device, slots, buckets, *, name = "outputs", max_tokens = None, max_requests = None,
        ring_depth = 3, layout = "per_slot", timeout = 10.0, eager = false, check_captures = false
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
        timeout: f64,
        eager: bool,
        check_captures: bool,
    ) -> PyResult<Self> {
        let mut builder = Set::builder(device.shared())
            .name(name)
            .buckets(buckets)
            .ring_depth(ring_depth)
            .layout(layout_of(layout)?)
            .deadline(seconds(timeout)?)
            .check_captures(check_captures);
        for slot in &slots {
            builder = slot.add_to_outputs(builder)?;
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
        let slots = set.slots().collect();
        let set = Held::new(set, machine);
        Ok(Self(Arc::new(Outputs { set, slots, device: device.clone() })))
    }

    /// Copies the results of a step to the host, behind what `stream` was given so far: one driver
    /// call. Waits for a ring slot if need be.
    ///
    /// `sources` names slots that are in device memory of a pool in this step, which holds as many
    /// elements as the bucket has. Raises `StalledError` after the set's timeout,
    /// `StepTooLargeError` above its limits.
    #[pyo3(signature = (tokens, requests, stream, *, sources = None))]
    fn fetch(
        &self,
        tokens: usize,
        requests: usize,
        stream: &Bound<'_, PyAny>,
        sources: Option<Vec<(String, PyRef<'_, Buffer>)>>,
    ) -> PyResult<Results> {
        let set = &self.0.set;
        let begun = self.begin(|| set.begin(tokens, requests).map(Some), stream, sources)?;
        begun.ok_or_else(|| invalid("no ring slot is free"))
    }

    /// As `fetch` if a ring slot is free, else returns `None`.
    #[pyo3(signature = (tokens, requests, stream, *, sources = None))]
    fn try_fetch(
        &self,
        tokens: usize,
        requests: usize,
        stream: &Bound<'_, PyAny>,
        sources: Option<Vec<(String, PyRef<'_, Buffer>)>>,
    ) -> PyResult<Option<Results>> {
        let set = &self.0.set;
        let begin = || match set.try_begin(tokens, requests) {
            Err(StageError::WouldBlock) => Ok(None),
            begun => begun.map(Some),
        };
        self.begin(begin, stream, sources)
    }

    /// Where kernels write a slot in the bucket that holds `tokens`, for graphs that do.
    ///
    /// Raises `SlotError` above the largest bucket.
    fn array(slf: &Bound<'_, Self>, slot: &str, tokens: usize) -> PyResult<DeviceArray> {
        let outputs = &slf.get().0;
        let (info, buffers) = (outputs.slot(slot)?, outputs.set.static_buffers());
        let bucket = outputs.set.buckets().find(|bucket| bucket.tokens >= tokens);
        match (buffers.address_of(info, tokens), bucket) {
            (Some(address), Some(counts)) => {
                let owner = Box::new(slf.clone().unbind());
                Ok(DeviceArray::new(address, shape(info.len, info.dtype, counts)?, owner))
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
        let stream = stream::of(stream, self.0.device.shared())?;
        let (buffers, machine) = (self.0.set.static_buffers(), self.0.set.machine());
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
        format!("OutputBuffers(slots={:?}, buckets={:?})", self.slots(), self.buckets())
    }
}

impl OutputBuffers {
    fn begin(
        &self,
        begin: impl FnOnce() -> Result<Option<Fetch>, StageError> + Send,
        stream: &Bound<'_, PyAny>,
        sources: Option<Vec<(String, PyRef<'_, Buffer>)>>,
    ) -> PyResult<Option<Results>> {
        let outputs = &self.0;
        let on = stream::of(stream, outputs.device.shared())?;
        let sources = sources.unwrap_or_default();
        let source = |(name, buffer): &(String, PyRef<'_, Buffer>)| {
            let slot = outputs.slot(name)?;
            dtype::agree(buffer.shape().dtype, slot.dtype)?;
            Ok((slot, buffer.for_device()?))
        };
        let sources = sources.iter().map(source).collect::<PyResult<Vec<_>>>()?;
        let machine = outputs.set.machine();
        let fetch = || match begin().or_raise()? {
            Some(fetch) => outputs.submit(fetch, sources, &on).map(Some),
            None => Ok(None),
        };
        let pending = machine.run(stream.py(), fetch)?;
        Ok(pending.map(|it| Results::new(Held::new(it, machine), Arc::clone(outputs))))
    }
}

impl fmt::Debug for OutputBuffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.__repr__())
    }
}
