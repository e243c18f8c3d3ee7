#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Definitions: nodes and edges, to be instantiated.

use core::fmt;
use core::ptr;

use wharf_sys::bindings::{CUgraph, CUgraph_st, CUgraphNode};

use super::error::GraphError;
use super::keep_alive::retain;
use super::node::{NodeId, NodeInfo};
use super::record::NodeRecord;
use crate::driver::Context;
use crate::error::Error;

/// A graph that can still be changed.
///
/// It may be sent to another thread, but is used by one at a time: the driver's graphs are not
/// synchronised, not even for reading.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use std::sync::Arc;
/// use wharf::driver::EventKind;
/// use wharf::graph::GraphDefinition;
/// use wharf::{Event, Stream};
///
/// let done = Arc::new(Event::new(&context, EventKind::Ordering)?);
/// let mut graph = GraphDefinition::new(&context)?;
/// let first = graph.host_func(|| println!("first"), &[])?;
/// let second = graph.host_func(|| println!("second"), &[first.into()])?;
/// graph.event_record(&done, &[second.into()])?;
///
/// let mut exec = graph.instantiate()?;
/// let stream = Stream::new(&context)?;
/// exec.launch(&stream)?;
/// done.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
#[doc(alias = "CUgraph")]
pub struct GraphDefinition {
    raw: RawGraph,
    context: Context,
    pub(super) nodes: Vec<NodeRecord>,
}

impl GraphDefinition {
    /// Makes an empty graph whose nodes run in `context`.
    ///
    /// # Errors
    ///
    /// [`GraphError::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphCreate")]
    pub fn new(context: &Context) -> Result<Self, GraphError> {
        context.driver().sweep();
        let _scope = context.make_current()?;
        let mut raw: CUgraph = ptr::null_mut();
        // SAFETY: `raw` is valid for writes for the whole call; the flags must be 0.
        unsafe { context.driver().api().graph_create.call(&raw mut raw, 0) }?;
        Ok(Self { raw: RawGraph(raw), context: context.clone(), nodes: Vec::new() })
    }

    /// Adds an edge: `node` then waits for `before`, too.
    ///
    /// # Errors
    ///
    /// * [`GraphError::ForeignNode`]: a node belongs to another definition.
    /// * [`GraphError::DuplicateEdge`]: the edge exists already.
    /// * [`GraphError::Cycle`]: `before` waits for `node`.
    /// * [`GraphError::Driver`]: the driver refused.
    #[doc(alias = "cuGraphAddDependencies")]
    pub fn depend(
        &mut self,
        node: impl Into<NodeId>,
        before: impl Into<NodeId>,
    ) -> Result<(), GraphError> {
        let (node, before) = (node.into(), before.into());
        let (to, from) = (self.record(node)?.raw.get(), self.record(before)?.raw.get());
        if self.nodes[index(node)].after.contains(&before.index) {
            return Err(GraphError::DuplicateEdge(before));
        }
        // The driver finds a cycle only when it instantiates, and does not name the edge.
        if self.leads_to(node.index, before.index) {
            return Err(GraphError::Cycle(before));
        }
        let _scope = self.context.enter()?;
        let add = &self.context.driver().api().graph_add_dependencies;
        // SAFETY: graph and nodes are alive; one edge.
        unsafe { add.call(self.as_raw(), &raw const from, &raw const to, 1) }?;
        self.nodes[index(node)].after.push(before.index);
        Ok(())
    }

    /// Gives the graph, its clones and its executable graphs a share of `owner`, which is dropped
    /// when the last of them and the last launch in flight is gone.
    ///
    /// # Errors
    ///
    /// [`GraphError::Driver`]: the driver refused; `owner` is dropped.
    #[doc(alias = "cuGraphRetainUserObject")]
    pub fn keep_alive(&mut self, owner: impl Send + 'static) -> Result<(), GraphError> {
        let _scope = self.context.enter()?;
        Ok(retain(self.as_raw(), Box::new(owner), &self.context)?)
    }

    /// Gives `node` a name for pictures, of one line or several.
    ///
    /// # Errors
    ///
    /// [`GraphError::ForeignNode`]: the node is another definition's.
    pub fn label(
        &mut self,
        node: impl Into<NodeId>,
        label: impl Into<String>,
    ) -> Result<(), GraphError> {
        let node = node.into();
        self.record(node)?;
        self.nodes[index(node)].label = Some(label.into());
        Ok(())
    }

    /// The nodes and their kinds, in the order in which they were added.
    pub fn nodes(&self) -> impl Iterator<Item = NodeInfo> {
        let graph = self.id();
        (0..)
            .zip(&self.nodes)
            .map(move |(index, record)| NodeInfo { id: NodeId { graph, index }, kind: record.kind })
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The context that nodes run in.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The driver's handle. Nodes that are added with it are not known here.
    pub fn as_raw(&self) -> CUgraph {
        self.raw.0
    }

    /// Destroys the graph. Its clones and executable graphs are not affected.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused; the handle is leaked.
    #[doc(alias = "cuGraphDestroy")]
    pub fn close(mut self) -> Result<(), Error> {
        self.give_back()
    }

    pub(super) fn with(raw: CUgraph, context: &Context, nodes: Vec<NodeRecord>) -> Self {
        Self { raw: RawGraph(raw), context: context.clone(), nodes }
    }

    /// The record of a node, if it is this graph's.
    pub(super) fn record(&self, node: NodeId) -> Result<&NodeRecord, GraphError> {
        let own = (node.graph == self.id()).then(|| self.nodes.get(index(node))).flatten();
        own.ok_or(GraphError::ForeignNode(node))
    }

    /// The node behind a handle of the driver's.
    pub(super) fn find(&self, raw: CUgraphNode) -> Option<NodeId> {
        let position = self.nodes.iter().position(|record| record.raw.get() == raw)?;
        Some(NodeId { graph: self.id(), index: u32::try_from(position).ok()? })
    }

    pub(super) fn id(&self) -> u64 {
        self.as_raw() as u64
    }

    /// Whether `target` waits, directly or not, for `source`.
    fn leads_to(&self, source: u32, target: u32) -> bool {
        let mut open = vec![target];
        let mut seen = vec![false; self.nodes.len()];
        while let Some(next) = open.pop() {
            if next == source {
                return true;
            }
            if !std::mem::replace(&mut seen[next as usize], true) {
                open.extend(&self.nodes[next as usize].after);
            }
        }
        false
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let raw = std::mem::replace(&mut self.raw.0, ptr::null_mut());
        if raw.is_null() {
            return Ok(());
        }
        let _scope = self.context.enter()?;
        // SAFETY: this owner's handle, destroyed once: it was taken.
        unsafe { self.context.driver().api().graph_destroy.call(raw) }
    }
}

impl fmt::Debug for GraphDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("GraphDefinition");
        out.field("raw", &self.as_raw()).field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Drop for GraphDefinition {
    fn drop(&mut self) {
        let outcome = self.give_back();
        self.context.release().note(self.context.driver(), outcome);
        self.context.driver().sweep();
    }
}

fn index(node: NodeId) -> usize {
    node.index as usize
}

/// The driver's handle of a graph.
struct RawGraph(*mut CUgraph_st);

// SAFETY: a graph belongs to no thread; it must not be used by several at once (Driver API, graph
// object thread safety), which a value that is not `Sync` cannot be.
unsafe impl Send for RawGraph {}
