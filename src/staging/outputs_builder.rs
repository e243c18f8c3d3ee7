#![expect(unsafe_code, reason = "takes addresses that the caller vouches for")]
//! Making sets of output buffers.

use std::marker::PhantomData;
use std::time::Duration;

use wharf_sys::bindings::CUdeviceptr;

use super::build_error::BuildError;
use super::completion::Completion;
use super::len::{Counts, Len};
use super::outputs::OutputBuffers;
use super::plan::Layout;
use super::set_spec::{Instantiation, SetSpec};
use super::slot_id::Untagged;
use super::spec::{Forgotten, Padding, SlotKind};
use super::submission::Submission;
use crate::driver::Context;
use crate::element::{DType, Element};
use crate::graph::Direction;
use crate::memory::Budget;
use crate::profile::range;

impl OutputBuffers {
    /// Begins a set.
    pub fn builder(context: &Context) -> OutputBuffersBuilder {
        OutputBuffersBuilder::new(context)
    }
}

impl<Tag> OutputBuffers<Tag> {
    /// Begins a set whose slots cannot be used with results of a set with another tag: any type
    /// will do.
    pub fn tagged(context: &Context) -> OutputBuffersBuilder<Tag> {
        OutputBuffersBuilder::new(context)
    }
}

/// A set of output buffers to be made; [`OutputBuffers::builder`] begins one.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct OutputBuffersBuilder<Tag = Untagged> {
    set: SetSpec,
    /// Whether a slot's source was given before there was a slot.
    is_source_stray: bool,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> OutputBuffersBuilder<Tag> {
    fn new(context: &Context) -> Self {
        let set = SetSpec::new(context, "outputs");
        Self { set, is_source_stray: false, tag: PhantomData }
    }

    /// Names the set, for a profiler's view: its ranges are `staging::fetch(NAME, TOKENS)`. By
    /// default `outputs`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.set.name = name.into();
        self
    }

    /// Adds a slot of `len` elements of type `T`. Its device memory is the set's, unless
    /// [`source`](Self::source) says otherwise.
    pub fn slot<T: Element>(self, name: &str, len: Len) -> Self {
        self.slot_of(name, T::DTYPE, len)
    }

    /// Adds a slot of `len` elements of a type that is known only when the program runs.
    pub fn slot_of(mut self, name: &str, dtype: DType, len: Len) -> Self {
        self.set.add(name, dtype, len, Padding::Keep, SlotKind::Copied);
        self
    }

    /// Fetches the slot added last from the engine's own device memory at `address`, in every step
    /// that does not name [another](super::Fetch::source). The set has no device memory for it.
    ///
    /// # Safety
    ///
    /// As long as the set, its [`Pending`](super::Pending)s and the graphs that it is
    /// [embedded](OutputBuffers::embed) in live, `address` is memory of the context's device that
    /// holds the slot's elements in the largest step: those of the bucket are copied, of which the
    /// step's are the first.
    pub unsafe fn source(mut self, address: CUdeviceptr) -> Self {
        match self.set.slots.last_mut() {
            Some(slot) => slot.device = Some(address),
            None => self.is_source_stray = true,
        }
        self
    }

    /// Sets the numbers of tokens whose results are fetched by a graph, each with one for each ring
    /// slot: those of the step's [inputs](super::InputBuffersBuilder::buckets). A fetch copies its
    /// bucket's elements.
    pub fn buckets(mut self, buckets: impl IntoIterator<Item = usize>) -> Self {
        self.set.set_buckets(buckets);
        self
    }

    /// The same in tokens and requests, as
    /// [`InputBuffersBuilder::buckets_of`](super::InputBuffersBuilder::buckets_of).
    pub fn buckets_of(mut self, buckets: impl IntoIterator<Item = Counts>) -> Self {
        self.set.set_buckets_of(buckets);
        self
    }

    /// Limits the tokens of a step. By default the largest bucket; the results of steps between
    /// that and the limit are copied at their own size, without a graph.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.set.max_tokens = Some(tokens);
        self
    }

    /// Limits the requests of a step. By default the largest bucket.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.set.max_requests = Some(requests);
        self
    }

    /// Sets how many fetches may be in use at once, 1 to 64: in flight, or held by a
    /// [`Pending`](super::Pending). By default 3.
    pub fn ring_depth(mut self, depth: usize) -> Self {
        self.set.options.depth = depth;
        self
    }

    /// Sets how slots lie in memory. By default [`Layout::PerSlot`].
    pub fn layout(mut self, layout: Layout) -> Self {
        self.set.layout = layout;
        self
    }

    /// Sets how long [`OutputBuffers::begin`] waits for a ring slot. By default 10 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.set.options.deadline = deadline;
        self
    }

    /// Sets when graphs are made. By default [`Instantiation::Lazy`].
    pub fn instantiation(mut self, instantiation: Instantiation) -> Self {
        self.set.instantiation = instantiation;
        self
    }

    /// Sets how fetches are sent. By default [`Submission::Graph`].
    pub fn submission(mut self, submission: Submission) -> Self {
        self.set.submission = submission;
        self
    }

    /// Adds a count of a step besides tokens and requests, for the lengths of slots, as
    /// [`InputBuffersBuilder::count`](super::InputBuffersBuilder::count). `most` of its elements
    /// are copied; a fetch that [knows](super::Fetch::set_count) how many there are has so many to
    /// read.
    pub fn count(mut self, name: &str, most: Len) -> Self {
        self.set.counts.push((name.to_owned(), most));
        self
    }

    /// Counts the device memory of the set against a budget, which others share, under the set's
    /// name. None by default.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.set.budget = Some(budget.clone());
        self
    }

    /// Limits the graphs that are kept. By default 1024. A fetch for which there is no room goes
    /// without.
    pub fn max_graphs(mut self, graphs: usize) -> Self {
        self.set.options.max_graphs = graphs;
        self
    }

    /// Limits what the kept graphs are taken to cost, as
    /// [`InputBuffersBuilder::max_graph_bytes`](super::InputBuffersBuilder::max_graph_bytes).
    pub fn max_graph_bytes(mut self, bytes: usize) -> Self {
        self.set.options.max_graph_bytes = bytes;
        self
    }

    /// Asks each stream, each time, whether it is being captured, as
    /// [`InputBuffersBuilder::check_captures`](super::InputBuffersBuilder::check_captures).
    #[doc(alias = "cuStreamIsCapturing")]
    pub fn check_captures(mut self, check: bool) -> Self {
        self.set.options.check_captures = check;
        self
    }

    /// Sets what says that the results are there, here and in
    /// [embedded](super::EmbeddedOutputs) graphs. By default [`Completion::WordAndEvent`];
    /// [`Completion::Neither`] is an error of [`build`](Self::build).
    pub fn completion(mut self, completion: Completion) -> Self {
        self.set.options.completion = completion;
        self
    }

    /// Makes the set: pins the ring's memory and reserves the device's.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: the configuration is invalid, or the driver refused. Nothing was made.
    pub fn build(self) -> Result<OutputBuffers<Tag>, BuildError> {
        let _range = range!("staging::build");
        if self.is_source_stray {
            return Err(BuildError::NoSlotBefore("source"));
        }
        if self.set.layout == Layout::Packed
            && let Some(slot) = self.set.slots.iter().find(|slot| slot.device.is_some())
        {
            return Err(BuildError::SourceNeedsPerSlot(slot.name.clone()));
        }
        if self.set.options.completion == Completion::Neither {
            return Err(BuildError::ResultsNeedCompletion);
        }
        let shared = self.set.build(Direction::Dtoh, Forgotten::Pad, c"staging::fetch")?;
        Ok(OutputBuffers::with(shared))
    }
}
