//! Making sets of input buffers.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::buffers::InputBuffers;
use super::build_error::BuildError;
use super::completion::Completion;
use super::guard::Guard;
use super::len::{Counts, Len};
use super::plan::Layout;
use super::set_spec::{Instantiation, SetSpec};
use super::shared::Shared;
use super::slot_id::Untagged;
use super::spec::{Forgotten, Pad, Padding, SlotKind};
use super::submission::Submission;
use crate::driver::Context;
use crate::element::{DType, Element};
use crate::graph::Direction;
use crate::memory::Budget;
use crate::profile::range;

impl InputBuffers {
    /// Begins a set. Slots of two such sets are told apart when a step is submitted; those of
    /// [tagged](InputBuffers::tagged) sets by the compiler.
    pub fn builder(context: &Context) -> InputBuffersBuilder {
        InputBuffersBuilder::new(context)
    }
}

impl<Tag> InputBuffers<Tag> {
    /// Begins a set whose slots cannot be used in steps of a set with another tag: any type will
    /// do.
    pub fn tagged(context: &Context) -> InputBuffersBuilder<Tag> {
        InputBuffersBuilder::new(context)
    }
}

/// A set of input buffers to be made; [`InputBuffers::builder`] begins one.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct InputBuffersBuilder<Tag = Untagged> {
    pub(super) set: SetSpec,
    forgotten: Forgotten,
    /// Whether a slot's policy was given before there was a slot.
    is_policy_stray: bool,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> InputBuffersBuilder<Tag> {
    pub(super) fn new(context: &Context) -> Self {
        Self::of(SetSpec::new(context, "inputs"))
    }

    pub(super) fn of(set: SetSpec) -> Self {
        Self { set, forgotten: Forgotten::default(), is_policy_stray: false, tag: PhantomData }
    }

    /// Names the set, for a profiler's view: its ranges are `staging::submit(NAME, TOKENS)`. By
    /// default `inputs`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.set.name = name.into();
        self
    }

    /// Adds a slot of `len` elements of type `T`; behind them, up to the bucket's length, are
    /// zeros.
    #[doc(alias = "register_slot")]
    pub fn slot<T: Element>(self, name: &str, len: Len) -> Self {
        self.slot_padded::<T>(name, len, Pad::Zero)
    }

    /// Adds a slot of `len` elements of a type that is known only when the program runs; zeros are
    /// behind them.
    pub fn slot_of(self, name: &str, dtype: DType, len: Len) -> Self {
        self.with(name, dtype, len, Padding::Bits(0), SlotKind::Copied)
    }

    /// Adds a slot; `pad` is behind its elements.
    pub fn slot_padded<T: Element>(self, name: &str, len: Len, pad: Pad<T>) -> Self {
        self.with(name, T::DTYPE, len, Padding::of(pad), SlotKind::Copied)
    }

    /// Adds a slot that the device reads in pinned memory, where the host wrote it: for a few bytes
    /// that are read once, or where the device shares the host's memory.
    ///
    /// Its address is another in each ring slot. A ring slot becomes free when all that reads it is
    /// done: what was declared by [`Staged::reader`](super::Staged::reader) or
    /// [`Staged::consumed_by`](super::Staged::consumed_by) and, if nothing was or a reader's end
    /// failed, what the step's stream and those that [wait](super::Staged::wait_on) for it have
    /// been given when the next step is submitted. So with a ring of one slot every read must be
    /// declared. Where a set has such slots, a step takes two driver calls more.
    pub fn slot_zero_copy<T: Element>(self, name: &str, len: Len, pad: Pad<T>) -> Self {
        self.with(name, T::DTYPE, len, Padding::of(pad), SlotKind::ZeroCopy)
    }

    /// Adds a slot whose address each step [passes through](super::Step::pass): nothing is copied.
    pub fn dynamic<T: Element>(self, name: &str) -> Self {
        self.with(name, T::DTYPE, Len::Fixed(0), Padding::Keep, SlotKind::Dynamic)
    }

    /// Adds a count of a step besides tokens and requests, for the lengths of slots
    /// ([`Len::count`]): each step [sets](super::Step::set_count) it. `most` is the most that a
    /// step of some tokens and requests has; so many are staged, of which those behind the step's
    /// are padding. A step that does not set it has no elements of such slots to write, and is
    /// refused, unless their [policy](Self::when_forgotten) says otherwise or the step is of 0
    /// tokens and 0 requests.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::Stream;
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context)
    ///     .count("logits", Len::Requests.times(4))
    ///     .slot::<i32>("ids", Len::Tokens)
    ///     .slot::<i32>("logits_indices", Len::count("logits"))
    ///     .buckets([4, 8])
    ///     .build()?;
    /// let (ids, indices) = (inputs.slot_id("ids")?, inputs.slot_id("logits_indices")?);
    /// let logits = inputs.count_id("logits")?;
    /// let mut step = inputs.begin(5, 2)?;
    /// step.write(ids).copy_from_slice(&[1, 2, 3, 4, 5]);
    /// step.set_count(logits, 3)?;
    /// step.write(indices).copy_from_slice(&[0, 1, 4]);
    /// # let stream = Stream::new(&context)?;
    /// step.submit(&stream)?;
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn count(mut self, name: &str, most: Len) -> Self {
        self.set.counts.push((name.to_owned(), most));
        self
    }

    /// Sets the policy of the slot added last for steps that do not write it. Before any slot is
    /// added it is an error of [`build`](Self::build) ([`BuildError::NoSlotBefore`]): for all slots
    /// there is [`forgotten`](Self::forgotten).
    pub fn when_forgotten(mut self, forgotten: Forgotten) -> Self {
        match self.set.slots.last_mut() {
            Some(slot) => slot.forgotten = Some(forgotten),
            None => self.is_policy_stray = true,
        }
        self
    }

    /// Sets the policy for slots that a step does not write. By default the step fails.
    pub fn forgotten(self, forgotten: Forgotten) -> Self {
        Self { forgotten, ..self }
    }

    /// Sets the numbers of tokens that steps are padded to, each with a graph of its own for each
    /// ring slot. In a bucket of `n` tokens there are `n` requests, at most
    /// [`max_requests`](Self::max_requests).
    pub fn buckets(mut self, buckets: impl IntoIterator<Item = usize>) -> Self {
        self.set.set_buckets(buckets);
        self
    }

    /// Sets the sizes that steps are padded to, in tokens and in requests, in place of
    /// [`buckets`](Self::buckets): where the two do not go together, as in steps of many tokens of
    /// few requests. A step goes to the bucket that stages the fewest bytes of those that hold it.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::staging::{Counts, InputBuffers, Len};
    ///
    /// // Decoding with three speculative tokens, and prefill.
    /// let decode = [1, 8, 64].map(|requests| Counts { tokens: 4 * requests, requests });
    /// let prefill = [Counts { tokens: 2048, requests: 8 }];
    /// let inputs = InputBuffers::builder(&context)
    ///     .slot::<i32>("input_ids", Len::Tokens)
    ///     .slot::<i32>("block_table", Len::Requests.times(2048))
    ///     .buckets_of(decode.into_iter().chain(prefill))
    ///     .build()?;
    /// assert_eq!(inputs.begin(256, 64)?.padded(), Counts { tokens: 256, requests: 64 });
    /// assert_eq!(inputs.begin(300, 2)?.padded(), Counts { tokens: 2048, requests: 8 });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn buckets_of(mut self, buckets: impl IntoIterator<Item = Counts>) -> Self {
        self.set.set_buckets_of(buckets);
        self
    }

    /// Limits the tokens of a step. By default the largest bucket; steps between that and the limit
    /// are copied at their own size, without a graph.
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.set.max_tokens = Some(tokens);
        self
    }

    /// Limits the requests of a step. By default those of the largest bucket.
    pub fn max_requests(mut self, requests: usize) -> Self {
        self.set.max_requests = Some(requests);
        self
    }

    /// Sets how many steps may be in flight, 1 to 64. By default 3.
    pub fn ring_depth(mut self, depth: usize) -> Self {
        self.set.options.depth = depth;
        self
    }

    /// Sets how slots lie in memory. By default [`Layout::PerSlot`].
    pub fn layout(mut self, layout: Layout) -> Self {
        self.set.layout = layout;
        self
    }

    /// Sets how long [`InputBuffers::begin`] waits for a ring slot. By default 10 seconds.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.set.options.deadline = deadline;
        self
    }

    /// Sets when graphs are made. By default [`Instantiation::Lazy`].
    pub fn instantiation(mut self, instantiation: Instantiation) -> Self {
        self.set.instantiation = instantiation;
        self
    }

    /// Sets how steps are sent. By default [`Submission::Graph`].
    pub fn submission(mut self, submission: Submission) -> Self {
        self.set.submission = submission;
        self
    }

    /// Counts the device memory of the set against a budget, which others share, under the set's
    /// name; on [several devices](Self::build_on) that of the builder's own. None by default.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.set.budget = Some(budget.clone());
        self
    }

    /// Limits the graphs that are kept: one for each ring slot and bucket, in a packed layout one
    /// for each ring slot. By default 1024. A step for which there is no room goes without.
    pub fn max_graphs(mut self, graphs: usize) -> Self {
        self.set.options.max_graphs = graphs;
        self
    }

    /// Limits what the kept graphs are taken to cost, in bytes: 1 KiB a node, since the driver does
    /// not say. By default 64 MiB.
    pub fn max_graph_bytes(mut self, bytes: usize) -> Self {
        self.set.options.max_graph_bytes = bytes;
        self
    }

    /// Asks each stream, each time, whether it is being captured: for engines whose captures are
    /// begun by other code and cannot be announced by
    /// [`Driver::capture_elsewhere`](crate::Driver::capture_elsewhere). One driver call more a
    /// step, and one for each [`reader`](super::Staged::reader),
    /// [`wait_on`](super::Staged::wait_on) and [`consumed_by`](super::Staged::consumed_by). While
    /// such a set lives, the driver's other sets ask too. By default `false`.
    #[doc(alias = "cuStreamIsCapturing")]
    pub fn check_captures(mut self, check: bool) -> Self {
        self.set.options.check_captures = check;
        self
    }

    /// Sets what says that the device has read a ring slot, here and in
    /// [embedded](super::Embedded) graphs. By default [`Completion::WordAndEvent`].
    pub fn completion(mut self, completion: Completion) -> Self {
        self.set.options.completion = completion;
        self
    }

    /// Lets the set have [`ReadEvents`](super::ReadEvents): two nodes more in each staging graph,
    /// and two calls more for steps without a graph. Not for sets with zero-copy slots or on
    /// [several devices](Self::build_on). By default `false`; a [view](InputBuffers::view) has
    /// those of its set.
    pub fn read_events(mut self, wanted: bool) -> Self {
        self.set.options.read_events = wanted;
        self
    }

    /// Makes the set: pins the ring's memory and reserves the device's.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: the configuration is invalid, or the driver refused. Nothing was made.
    pub fn build(self) -> Result<InputBuffers<Tag>, BuildError> {
        let _range = range!("staging::build");
        if self.is_policy_stray {
            return Err(BuildError::NoSlotBefore("when_forgotten"));
        }
        let (context, viewed) = (self.set.context.clone(), self.set.viewed.clone());
        let transfer = self.set.build(Direction::Htod, self.forgotten, c"staging::submit")?;
        let own = || Arc::new(Guard::new(&context, transfer.plan.has_zero_copy));
        let guard = viewed.map_or_else(own, |viewed| viewed.guard);
        Ok(InputBuffers::with(Shared::new(transfer, guard)))
    }

    fn with(mut self, name: &str, dtype: DType, len: Len, pad: Padding, kind: SlotKind) -> Self {
        self.set.add(name, dtype, len, pad, kind);
        self
    }
}
