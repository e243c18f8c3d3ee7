//! Making sets of input buffers.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::buffers::InputBuffers;
use super::error::BuildError;
use super::len::Len;
use super::plan::{Layout, Plan, ladder, limits};
use super::region::DeviceRegion;
use super::shared::{Options, Shared};
use super::slot_id::Untagged;
use super::spec::{Forgotten, Pad, Padding, Place, SlotSpec};
use crate::driver::Context;
use crate::pool::{DType, Element};
use crate::profile::range;

/// When the graphs of ring slots and buckets are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Instantiation {
    /// When a step first needs them.
    #[default]
    Lazy,
    /// When the set is built, as far as the [bound](InputBuffersBuilder::max_graphs) goes.
    Eager,
}

/// A set of input buffers to be made; [`InputBuffers::builder`] begins one.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct InputBuffersBuilder<Tag = Untagged> {
    context: Context,
    slots: Vec<SlotSpec>,
    buckets: Vec<usize>,
    max_tokens: Option<usize>,
    max_requests: Option<usize>,
    layout: Layout,
    forgotten: Forgotten,
    instantiation: Instantiation,
    options: Options,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> InputBuffersBuilder<Tag> {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            slots: Vec::new(),
            buckets: Vec::new(),
            max_tokens: None,
            max_requests: None,
            layout: Layout::default(),
            forgotten: Forgotten::default(),
            instantiation: Instantiation::default(),
            options: Options {
                depth: DEFAULT_DEPTH,
                deadline: DEFAULT_DEADLINE,
                max_graphs: DEFAULT_MAX_GRAPHS,
                max_graph_bytes: DEFAULT_MAX_GRAPH_BYTES,
            },
            tag: PhantomData,
        }
    }

    /// Adds a slot of `len` elements of type `T`; behind them, up to the bucket's length, are zeros.
    #[doc(alias = "register_slot")]
    pub fn slot<T: Element>(self, name: &str, len: Len) -> Self {
        self.slot_padded::<T>(name, len, Pad::Zero)
    }

    /// Adds a slot of `len` elements of a type that is known only when the program runs; zeros are behind
    /// them.
    pub fn slot_of(self, name: &str, dtype: DType, len: Len) -> Self {
        self.with(name, dtype, len, Padding::Bits(0), Place::Copied)
    }

    /// Adds a slot; `pad` is behind its elements.
    pub fn slot_padded<T: Element>(self, name: &str, len: Len, pad: Pad<T>) -> Self {
        self.with(name, T::DTYPE, len, Padding::of(pad), Place::Copied)
    }

    /// Adds a slot that the device reads in pinned memory, where the host wrote it: for a few bytes that
    /// are read once, or where the device shares the host's memory.
    ///
    /// Its address is another in each ring slot. A ring slot becomes free only when the reader has been
    /// named by [`Staged::consumed_by`](super::Staged::consumed_by) and is done.
    pub fn slot_zero_copy<T: Element>(self, name: &str, len: Len, pad: Pad<T>) -> Self {
        self.with(name, T::DTYPE, len, Padding::of(pad), Place::ZeroCopy)
    }

    /// Adds a slot whose address each step [passes through](super::Step::pass): nothing is copied.
    pub fn dynamic<T: Element>(self, name: &str) -> Self {
        self.with(name, T::DTYPE, Len::Fixed(0), Padding::Keep, Place::Dynamic)
    }

    /// Says what becomes of the slot added last, if a step does not write it.
    pub fn when_forgotten(mut self, forgotten: Forgotten) -> Self {
        if let Some(slot) = self.slots.last_mut() {
            slot.forgotten = Some(forgotten);
        }
        self
    }

    /// Says what becomes of slots that a step does not write. By default the step fails.
    pub fn forgotten(self, forgotten: Forgotten) -> Self {
        Self { forgotten, ..self }
    }

    /// Sets the numbers of tokens that steps are padded to, each with a graph of its own for each ring
    /// slot. In a bucket of `n` tokens there are `n` requests, at most
    /// [`max_requests`](Self::max_requests).
    pub fn buckets(self, buckets: impl IntoIterator<Item = usize>) -> Self {
        Self { buckets: buckets.into_iter().collect(), ..self }
    }

    /// Limits the tokens of a step. By default the largest bucket; steps between that and the limit are
    /// copied at their own size, without a graph.
    pub fn max_tokens(self, tokens: usize) -> Self {
        Self { max_tokens: Some(tokens), ..self }
    }

    /// Limits the requests of a step. By default the largest bucket.
    pub fn max_requests(self, requests: usize) -> Self {
        Self { max_requests: Some(requests), ..self }
    }

    /// Sets how many steps may be in flight, 1 to 64. By default 3.
    pub fn ring_depth(mut self, depth: usize) -> Self {
        self.options.depth = depth;
        self
    }

    /// Sets how slots lie in memory. By default [`Layout::PerSlot`].
    pub fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Sets how long [`InputBuffers::begin`] waits for a ring slot. By default 10 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = deadline;
        self
    }

    /// Sets when graphs are made. By default [`Instantiation::Lazy`].
    pub fn instantiation(self, instantiation: Instantiation) -> Self {
        Self { instantiation, ..self }
    }

    /// Limits the graphs that are kept. By default 1024. A step for which there is no room goes without.
    pub fn max_graphs(mut self, graphs: usize) -> Self {
        self.options.max_graphs = graphs;
        self
    }

    /// Limits what the kept graphs are taken to cost, in bytes: 1 KiB a node, since the driver does not
    /// say. By default 64 MiB.
    pub fn max_graph_bytes(mut self, bytes: usize) -> Self {
        self.options.max_graph_bytes = bytes;
        self
    }

    /// Makes the set: pins the ring's memory and reserves the device's.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: what was asked for contradicts itself, or the driver refused. Nothing was made.
    pub fn build(self) -> Result<InputBuffers<Tag>, BuildError> {
        let _range = range!("wharf::staging::build");
        self.check()?;
        let context = self.context.clone();
        // Others' captures are not to be disturbed by the waiting that is to be done.
        let _relaxed = context.driver().relax_capture().map_err(BuildError::Driver)?;
        let buckets = ladder(self.buckets)?;
        let largest = buckets.last().copied().unwrap_or(0);
        let max = limits(largest, self.max_tokens, self.max_requests)?;
        let plan = Plan::new(self.slots, self.layout, &buckets, max, self.forgotten)?;
        let device = Arc::new(DeviceRegion::new(&self.context, plan.size.max(1))?);
        let shared = Shared::new(Arc::new(plan), device, &self.options, &self.context)?;
        let set = InputBuffers::with(shared);
        if self.instantiation == Instantiation::Eager {
            for bucket in buckets {
                set.prewarm(bucket)?;
            }
        }
        Ok(set)
    }

    fn with(mut self, name: &str, dtype: DType, len: Len, pad: Padding, place: Place) -> Self {
        self.slots.push(SlotSpec { name: name.into(), dtype, len: len.rule(), pad, forgotten: None, place });
        self
    }

    fn check(&self) -> Result<(), BuildError> {
        let dynamic = self.slots.iter().filter(|slot| slot.place == Place::Dynamic).count();
        if dynamic == self.slots.len() {
            return Err(BuildError::NoSlots);
        }
        if self.slots.len() > MAX_SLOTS || dynamic > MAX_DYNAMIC {
            return Err(BuildError::TooManySlots { given: self.slots.len(), max: (MAX_SLOTS, MAX_DYNAMIC) });
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if self.slots[..index].iter().any(|other| other.name == slot.name) {
                return Err(BuildError::DuplicateSlot(slot.name.clone()));
            }
        }
        if !(1..=MAX_DEPTH).contains(&self.options.depth) {
            return Err(BuildError::RingDepth(self.options.depth));
        }
        Ok(())
    }
}

/// A bit of a word for each slot.
const MAX_SLOTS: usize = 64;
/// A step carries their addresses.
pub(super) const MAX_DYNAMIC: usize = 8;
const MAX_DEPTH: usize = 64;

const DEFAULT_DEPTH: usize = 3;
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
const DEFAULT_MAX_GRAPHS: usize = 1024;
const DEFAULT_MAX_GRAPH_BYTES: usize = 64 << 20;
