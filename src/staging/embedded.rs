//! Staging as a part of the engine's own graph.

use std::marker::PhantomData;
use std::sync::Arc;

use super::buffers::InputBuffers;
use super::completion::Completion;
use super::error::StageError;
use super::len::Counts;
use super::plan::Bucket;
use super::set_spec::MAX_DEPTH;
use super::shared::Shared;
use super::slot_id::Untagged;
use super::step::Step;
use crate::graph::{ChildNode, GraphDefinition, GraphError, NodeId};
use crate::stream::Stream;

/// Staging graphs with a ring of their own, one for each ring slot, to be parts of other graphs:
/// then a step needs no launch besides the engine's.
///
/// They stage to the same device memory as their set. A graph that contains one keeps alive what it
/// needs. A ring slot is free again when the launch has copied it: with
/// [one](InputBuffers::embed) a step is written while the model of the step before runs, but not
/// before its copies are done; with [more](InputBuffers::embed_ring) steps are written further
/// ahead, and the engine has a graph for each ring slot.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::graph::GraphDefinition;
/// use wharf::staging::{InputBuffers, Len, StageError};
///
/// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
/// let inputs = inputs.buckets([4, 8]).build()?;
/// let (ids, embedded) = (inputs.slot_id::<i32>("ids")?, inputs.embed(8)?);
///
/// let mut engine = GraphDefinition::new(&context)?;
/// let staged = embedded.as_child_of(&mut engine, &[])?;
/// engine.host_func(|| println!("the model runs here"), &[staged.into()])?;
/// let mut engine = engine.instantiate()?;
///
/// let stream = Stream::new(&context)?;
/// let mut step = embedded.begin(5, 1)?;
/// step.write(ids).fill(1);
/// step.submit_with::<StageError>(&stream, || Ok(engine.launch(&stream)?))?;
/// # stream.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Embedded<Tag = Untagged> {
    pub(super) shared: Arc<Shared>,
    /// One for each ring slot.
    graphs: Box<[GraphDefinition]>,
    pub(super) bucket: usize,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> InputBuffers<Tag> {
    /// Makes a staging graph of the bucket that holds `counts`, or so many tokens, to be a part of
    /// other graphs.
    ///
    /// # Errors
    ///
    /// * [`StageError::TooLarge`]: no bucket holds them.
    /// * [`StageError::Driver`], [`StageError::Graph`]: the driver refused.
    pub fn embed(&self, counts: impl Into<Counts>) -> Result<Embedded<Tag>, StageError> {
        self.embed_ring(counts, 1)
    }

    /// As [`embed`](Self::embed), with a ring of `depth` slots, 1 to 64: the engine has a graph for
    /// each, with the [staging graph](Embedded::graphs) of that slot, and launches the one of the
    /// step's [ring slot](Step::ring_slot).
    ///
    /// # Errors
    ///
    /// [`StageError::RingDepth`]: another depth. Otherwise as `embed`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::Stream;
    /// use wharf::graph::GraphDefinition;
    /// use wharf::staging::{InputBuffers, Len, StageError};
    ///
    /// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
    /// let inputs = inputs.buckets([4, 8]).build()?;
    /// let (ids, embedded) = (inputs.slot_id::<i32>("ids")?, inputs.embed_ring(8, 2)?);
    /// let mut engines = Vec::new();
    /// for staging in embedded.graphs() {
    ///     let mut engine = GraphDefinition::new(&context)?;
    ///     let staged = engine.child(staging, &[])?;
    ///     engine.host_func(|| println!("the model runs here"), &[staged.into()])?;
    ///     engines.push(engine.instantiate()?);
    /// }
    /// let stream = Stream::new(&context)?;
    /// for value in 0..4 {
    ///     let mut step = embedded.begin(5, 1)?;
    ///     step.write(ids).fill(value);
    ///     let engine = &mut engines[step.ring_slot()];
    ///     step.submit_with::<StageError>(&stream, || Ok(engine.launch(&stream)?))?;
    /// }
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn embed_ring(
        &self,
        counts: impl Into<Counts>,
        depth: usize,
    ) -> Result<Embedded<Tag>, StageError> {
        self.embed_with(counts, depth, self.shared.options.completion)
    }

    /// As [`embed_ring`](Self::embed_ring), with a completion of its own: graphs without nodes that
    /// the engine's graph has no use for.
    ///
    /// # Errors
    ///
    /// As `embed_ring`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::staging::{Completion, InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context).slot::<i32>("ids", Len::Tokens);
    /// let inputs = inputs.buckets([4, 8]).build()?;
    /// let embedded = inputs.embed_with(8, 2, Completion::Neither)?;
    /// assert_eq!(embedded.graph().nodes().count(), 1); // the copy
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn embed_with(
        &self,
        counts: impl Into<Counts>,
        depth: usize,
        completion: Completion,
    ) -> Result<Embedded<Tag>, StageError> {
        if !(1..=MAX_DEPTH).contains(&depth) {
            return Err(StageError::RingDepth(depth));
        }
        let own = &*self.shared;
        let bucket = own.plan.holding(counts.into())?.index;
        // A graph that is a part of another is of one ring slot: its copies are not changed later.
        let shared = Shared::new(own.sibling(depth, completion)?, Arc::clone(&own.guard));
        let graph = |index| {
            let (mut graph, _) = shared.graph(index, &shared.plan.buckets[bucket])?;
            graph.keep_alive(Arc::clone(&shared))?;
            Ok::<_, GraphError>(graph)
        };
        let graphs = (0..depth).map(graph).collect::<Result<_, _>>()?;
        Ok(Embedded { shared, graphs, bucket, tag: PhantomData })
    }
}

impl<Tag> Embedded<Tag> {
    /// The staging graph; of the first ring slot, if there are several.
    pub fn graph(&self) -> &GraphDefinition {
        &self.graphs[0]
    }

    /// The staging graphs, one for each ring slot: each goes to a graph of the engine's
    /// ([`GraphDefinition::child`], [`GraphDefinition::append_to_capture`]).
    pub fn graphs(&self) -> &[GraphDefinition] {
        &self.graphs
    }

    /// Adds the staging graph to `graph`, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// As [`GraphDefinition::child`].
    pub fn as_child_of(
        &self,
        graph: &mut GraphDefinition,
        after: &[NodeId],
    ) -> Result<ChildNode, GraphError> {
        let node = graph.child(self.graph(), after)?;
        graph.label(node, "staging")?;
        Ok(node)
    }

    /// Adds the staging graph to what `stream` is capturing, also if the capture was begun by other
    /// code.
    ///
    /// # Errors
    ///
    /// As [`GraphDefinition::append_to_capture`].
    pub fn append_to_capture(&self, stream: &Stream) -> Result<(), GraphError> {
        self.graph().append_to_capture(stream)
    }

    /// Begins a step, to be submitted by [`Step::submit_with`] a launch of a graph that contains
    /// the staging graph. Waits for the launch before to be past its copies.
    ///
    /// # Errors
    ///
    /// As [`InputBuffers::begin`]; the bucket is the limit.
    pub fn begin(&self, tokens: usize, requests: usize) -> Result<Step<'_, Tag>, StageError> {
        let (counts, bucket) = self.checked(tokens, requests)?;
        Ok(Step::new(&self.shared, self.shared.claim()?, counts, Some(bucket)))
    }

    /// Begins a step if a ring slot is free; does not wait.
    ///
    /// # Errors
    ///
    /// [`StageError::WouldBlock`]: none is free. Otherwise as [`begin`](Self::begin).
    pub fn try_begin(&self, tokens: usize, requests: usize) -> Result<Step<'_, Tag>, StageError> {
        Self::try_begin_in(&self.shared, self.bucket, tokens, requests)
    }

    /// As [`try_begin`](Self::try_begin), without the graphs, which stay with one thread.
    pub(super) fn try_begin_in(
        shared: &Shared,
        bucket: usize,
        tokens: usize,
        requests: usize,
    ) -> Result<Step<'_, Tag>, StageError> {
        let bucket = &shared.plan.buckets[bucket];
        let counts = shared.checked_in(bucket, tokens, requests)?;
        let claim = shared.try_claim()?.ok_or(StageError::WouldBlock)?;
        Ok(Step::new(shared, claim, counts, Some(bucket)))
    }

    fn checked(&self, tokens: usize, requests: usize) -> Result<(Counts, &Bucket), StageError> {
        let bucket = &self.shared.plan.buckets[self.bucket];
        Ok((self.shared.checked_in(bucket, tokens, requests)?, bucket))
    }
}
