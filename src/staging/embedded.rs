//! Staging as a part of the engine's own graph.

use std::marker::PhantomData;
use std::sync::Arc;

use super::buffers::InputBuffers;
use super::error::StageError;
use super::len::Counts;
use super::shared::Shared;
use super::slot_id::Untagged;
use super::step::Step;
use crate::graph::{ChildNode, GraphDefinition, GraphError, NodeId};
use crate::stream::Stream;

/// A staging graph with a ring slot of its own, to be a part of other graphs: then a step needs no
/// launch besides the engine's.
///
/// It stages to the same device memory as its set. A graph that contains it keeps alive what it
/// needs. Its one ring slot is free again when the launch has copied it.
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
    graph: GraphDefinition,
    bucket: usize,
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
        let own = &*self.shared;
        let bucket = own.plan.holding(counts.into())?.index;
        // A graph that is a part of another has one ring slot: its copies are not changed later.
        let shared = Arc::new(Shared::new(own.sibling(1)?, Arc::clone(&own.guard)));
        let (mut graph, _) = shared.graph(0, &shared.plan.buckets[bucket])?;
        graph.keep_alive(Arc::clone(&shared))?;
        Ok(Embedded { shared, graph, bucket, tag: PhantomData })
    }
}

impl<Tag> Embedded<Tag> {
    /// The staging graph.
    pub fn graph(&self) -> &GraphDefinition {
        &self.graph
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
        let node = graph.child(&self.graph, after)?;
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
        self.graph.append_to_capture(stream)
    }

    /// Begins a step, to be submitted by [`Step::submit_with`] a launch of a graph that contains
    /// the staging graph. Waits for the launch before to be past its copies.
    ///
    /// # Errors
    ///
    /// As [`InputBuffers::begin`]; the bucket is the limit.
    pub fn begin(&self, tokens: usize, requests: usize) -> Result<Step<'_, Tag>, StageError> {
        let bucket = &self.shared.plan.buckets[self.bucket];
        let counts = self.shared.checked_in(bucket, tokens, requests)?;
        Ok(Step::in_bucket(&self.shared, self.shared.claim()?, counts, Some(bucket)))
    }
}
