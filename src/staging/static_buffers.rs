//! The device memory of a set, for graphs that read it.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use wharf_sys::bindings::CUdeviceptr;

use super::buffers::InputBuffers;
use super::len::Counts;
use super::plan::Plan;
use super::region::DeviceRegion;
use super::slot_id::{SlotId, Untagged};
use super::spec::SlotKind;
use super::transfer::Transfer;
use crate::element::Element;
use crate::graph::{GraphDefinition, GraphError, keep_alive_in_capture};
use crate::stream::Stream;

/// Where a set's slots are on the device, to be captured in the engine's own graphs: slots of
/// inputs, which kernels read, or of [outputs](super::OutputBuffers), which they write.
///
/// The addresses stay good as long as the set, this, or a graph that was given a share lives.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::graph::{CaptureMode, CaptureScope};
/// use wharf::staging::{InputBuffers, Len};
///
/// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
/// let inputs = inputs.buckets([8]).build()?;
/// let (ids, buffers) = (inputs.slot_id::<i32>("ids")?, inputs.static_buffers());
///
/// let stream = Stream::new(&context)?;
/// let capture = CaptureScope::begin(&stream, CaptureMode::default())?;
/// let address = buffers.device_ptr(ids, 8).unwrap();
/// // Kernels that read at `address` are launched here.
/// buffers.keep_alive_in_capture(&stream)?;
/// let model = capture.end()?.instantiate()?;
/// # drop(model);
/// # while driver.drop_deferred()? == 0 {}
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "get_static_tensors")]
pub struct StaticBuffers<Tag = Untagged> {
    plan: Arc<Plan>,
    device: Arc<DeviceRegion>,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> InputBuffers<Tag> {
    /// The device memory of the set.
    pub fn static_buffers(&self) -> StaticBuffers<Tag> {
        StaticBuffers::of(&self.shared)
    }
}

impl<Tag> StaticBuffers<Tag> {
    pub(super) fn of(set: &Transfer) -> Self {
        let (plan, device) = (Arc::clone(&set.plan), Arc::clone(&set.device));
        Self { plan, device, tag: PhantomData }
    }

    /// Where a slot is in the bucket that holds `counts`, or so many tokens.
    ///
    /// `None` for a slot that has no place of its own on the device, or of another set, and above
    /// the largest bucket.
    pub fn device_ptr<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
        counts: impl Into<Counts>,
    ) -> Option<CUdeviceptr> {
        self.find(slot.index(), slot.set(), counts.into())
    }

    /// Where the slot with this number is, if it is one of the set's.
    pub(super) fn find(&self, index: usize, set: usize, counts: Counts) -> Option<CUdeviceptr> {
        let spec = self.plan.slots.get(index).filter(|_| set == self.plan.number)?;
        let span = self.plan.bucket_of(counts)?.fields[index].span;
        let has_place = !matches!(spec.kind, SlotKind::ZeroCopy | SlotKind::Dynamic);
        has_place.then(|| self.plan.address(self.device.address(), index, span))
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many elements a slot has, in all its rows, in the bucket that holds `counts`, or so many
    /// tokens.
    pub fn len<T: Element>(
        &self,
        slot: SlotId<T, Tag>,
        counts: impl Into<Counts>,
    ) -> Option<usize> {
        let counts = counts.into();
        self.device_ptr(slot, counts)?;
        let bucket = self.plan.bucket_of(counts)?;
        let spec = &self.plan.slots[slot.index()];
        let staged = bucket.fields[slot.index()].span.size;
        let is_table = spec.kind == SlotKind::Persistent;
        Some(if is_table { spec.table_size() } else { staged } / size_of::<T>())
    }

    /// Gives a graph that reads the buffers a share of them.
    ///
    /// # Errors
    ///
    /// As [`GraphDefinition::keep_alive`].
    pub fn keep_alive_in(&self, graph: &mut GraphDefinition) -> Result<(), GraphError> {
        graph.keep_alive(Arc::clone(&self.device))
    }

    /// Gives the graph that `stream` is capturing a share of the buffers, also if the
    /// capture was begun by other code.
    ///
    /// # Errors
    ///
    /// As [`keep_alive_in_capture`].
    pub fn keep_alive_in_capture(&self, stream: &Stream) -> Result<(), GraphError> {
        keep_alive_in_capture(stream, Arc::clone(&self.device))
    }
}

impl<Tag> Clone for StaticBuffers<Tag> {
    fn clone(&self) -> Self {
        Self { plan: Arc::clone(&self.plan), device: Arc::clone(&self.device), tag: PhantomData }
    }
}

impl<Tag> fmt::Debug for StaticBuffers<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticBuffers")
            .field("address", &self.device.address())
            .finish_non_exhaustive()
    }
}
