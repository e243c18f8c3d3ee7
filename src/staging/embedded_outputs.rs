#![expect(unsafe_code, reason = "takes the caller's word for how graphs are launched")]
//! Fetching results as a part of the engine's own graph.

use std::marker::PhantomData;
use std::sync::Arc;

use super::error::StageError;
use super::fetch::Fetch;
use super::len::Counts;
use super::outputs::OutputBuffers;
use super::slot_id::Untagged;
use super::transfer::Transfer;
use crate::graph::{ChildNode, GraphDefinition, GraphError, NodeId};
use crate::profile::range;
use crate::stream::Stream;

/// Graphs of copies to a ring of their own, one for each ring slot, to be parts of the engine's
/// graphs: then the results of a step need no launch besides the engine's.
///
/// The copies read the device memory of the set. The engine has a graph for each ring slot, which
/// contains that slot's copies, and launches the one that a fetch has taken
/// ([`Fetch::ring_slot`]). With a ring of two, the results of a step are read while the next step
/// runs. A graph that contains one keeps alive what it needs.
///
/// Where the engine's graph has the inputs of a step as well ([`Embedded`](super::Embedded)), the
/// ring slots of the two need not be the same: it has a graph for each pair, or one ring slot of
/// inputs. One launch then is for both: the step's `submit_with` has the fetch's inside.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use std::time::Duration;
/// use wharf::Stream;
/// use wharf::graph::GraphDefinition;
/// use wharf::staging::{Len, OutputBuffers, StageError};
///
/// let outputs = OutputBuffers::builder(&context).slot::<i32>("sampled", Len::Requests);
/// let outputs = outputs.buckets([4, 8]).ring_depth(2).build()?;
/// let (sampled, embedded) = (outputs.slot_id::<i32>("sampled")?, outputs.embed(8)?);
///
/// let mut engines = Vec::new();
/// for ring_slot in 0..embedded.ring_depth() {
///     let mut engine = GraphDefinition::new(&context)?;
///     let model = engine.host_func(|| println!("the model runs here"), &[])?;
///     // SAFETY: the graph is launched for fetches of this ring slot alone.
///     unsafe { embedded.as_child_of(ring_slot, &mut engine, &[model.into()])? };
///     engines.push(engine.instantiate()?);
/// }
/// let stream = Stream::new(&context)?;
/// for _ in 0..3 {
///     let fetch = embedded.begin(5, 2)?;
///     let engine = &mut engines[fetch.ring_slot()];
///     let pending = fetch.submit_with::<StageError>(&stream, || Ok(engine.launch(&stream)?))?;
///     assert_eq!(pending.wait(Duration::from_secs(10))?.read(sampled)?, [0, 0]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EmbeddedOutputs<Tag = Untagged> {
    pub(super) shared: Arc<Transfer>,
    /// One for each ring slot.
    graphs: Box<[GraphDefinition]>,
    pub(super) bucket: usize,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> OutputBuffers<Tag> {
    /// Makes graphs of copies of the bucket that holds `counts`, or so many tokens, to be parts of
    /// other graphs: one for each slot of a ring as deep as the set's.
    ///
    /// # Errors
    ///
    /// * [`StageError::TooLarge`]: no bucket holds them.
    /// * [`StageError::Driver`], [`StageError::Graph`]: the driver refused.
    pub fn embed(&self, counts: impl Into<Counts>) -> Result<EmbeddedOutputs<Tag>, StageError> {
        let bucket = self.shared.plan.holding(counts.into())?.index;
        let shared =
            Arc::new(self.shared.sibling(self.ring_depth(), self.shared.options.completion)?);
        let graph = |index| {
            let (mut graph, _) = shared.graph(index, &shared.plan.buckets[bucket])?;
            graph.keep_alive(Arc::clone(&shared))?;
            Ok::<_, GraphError>(graph)
        };
        let graphs = (0..shared.ring.len()).map(graph).collect::<Result<_, _>>()?;
        Ok(EmbeddedOutputs { shared, graphs, bucket, tag: PhantomData })
    }
}

impl<Tag> EmbeddedOutputs<Tag> {
    /// How many ring slots there are.
    pub fn ring_depth(&self) -> usize {
        self.graphs.len()
    }

    /// Adds the copies of a ring slot to `graph`, behind the nodes `after`, which write the
    /// results.
    ///
    /// # Errors
    ///
    /// * [`StageError::RingSlot`]: `ring_slot` is not below [`ring_depth`](Self::ring_depth).
    /// * [`StageError::Graph`]: as [`GraphDefinition::child`].
    ///
    /// # Safety
    ///
    /// A graph that contains the copies is launched by [`Fetch::submit_with`], once for a fetch of
    /// that ring slot, and not otherwise: another launch would overwrite what the host reads.
    pub unsafe fn as_child_of(
        &self,
        ring_slot: usize,
        graph: &mut GraphDefinition,
        after: &[NodeId],
    ) -> Result<ChildNode, StageError> {
        let node = graph.child(self.graph(ring_slot)?, after)?;
        graph.label(node, "results")?;
        Ok(node)
    }

    /// Adds the copies of a ring slot to what `stream` is capturing, behind what it has captured so
    /// far, also if the capture was begun by other code.
    ///
    /// # Errors
    ///
    /// * [`StageError::RingSlot`]: `ring_slot` is not below [`ring_depth`](Self::ring_depth).
    /// * [`StageError::Graph`]: as [`GraphDefinition::append_to_capture`].
    ///
    /// # Safety
    ///
    /// As for [`as_child_of`](Self::as_child_of).
    pub unsafe fn append_to_capture(
        &self,
        ring_slot: usize,
        stream: &Stream,
    ) -> Result<(), StageError> {
        Ok(self.graph(ring_slot)?.append_to_capture(stream)?)
    }

    /// The copies of a ring slot.
    fn graph(&self, ring_slot: usize) -> Result<&GraphDefinition, StageError> {
        let missing = StageError::RingSlot { given: ring_slot, depth: self.ring_depth() };
        self.graphs.get(ring_slot).ok_or(missing)
    }

    /// Begins a fetch, to be submitted [with](Fetch::submit_with) a launch of the engine's graph
    /// that has its [ring slot](Fetch::ring_slot). Waits for a ring slot if need be.
    ///
    /// # Errors
    ///
    /// As [`OutputBuffers::begin`]; the bucket is the limit.
    pub fn begin(&self, tokens: usize, requests: usize) -> Result<Fetch<Tag>, StageError> {
        let _range = range!("staging::begin");
        let bucket = &self.shared.plan.buckets[self.bucket];
        let counts = self.shared.checked_in(bucket, tokens, requests)?;
        Ok(Fetch::new(&self.shared, self.shared.claim()?, counts, Some(bucket)))
    }

    /// Begins a fetch if a ring slot is free; does not wait.
    ///
    /// # Errors
    ///
    /// [`StageError::WouldBlock`]: none is free. Otherwise as [`begin`](Self::begin).
    pub fn try_begin(&self, tokens: usize, requests: usize) -> Result<Fetch<Tag>, StageError> {
        Self::try_begin_in(&self.shared, self.bucket, tokens, requests)
    }

    /// As [`try_begin`](Self::try_begin), without the graphs, which stay with one thread.
    pub(super) fn try_begin_in(
        shared: &Arc<Transfer>,
        bucket: usize,
        tokens: usize,
        requests: usize,
    ) -> Result<Fetch<Tag>, StageError> {
        let _range = range!("staging::begin");
        let bucket = &shared.plan.buckets[bucket];
        let counts = shared.checked_in(bucket, tokens, requests)?;
        let claim = shared.try_claim()?.ok_or(StageError::WouldBlock)?;
        Ok(Fetch::new(shared, claim, counts, Some(bucket)))
    }
}
