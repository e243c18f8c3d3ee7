#![expect(unsafe_code, reason = "calls the driver; owns a handle")]
//! Definitions: nodes and edges, to be instantiated.

use core::ffi::c_void;
use core::fmt;
use core::ptr;
use std::sync::Arc;

use wharf_sys::bindings::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_HOST_NODE_PARAMS_v1, CUgraph, CUgraph_st, CUgraphNode,
};

use super::error::GraphError;
use super::keep_alive::{UserObject, retain};
use super::node::{
    ChildNode, EmptyNode, EventRecordNode, EventWaitNode, HostNode, MemOpNode, MemcpyNode, MemsetNode,
    NodeId, NodeKind, RawNode, Record, Work,
};
use super::params::{Copy1d, Fill, MemOp};
use crate::driver::{Context, Event};
use crate::error::Error;
use crate::stream::run_host_function;

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
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
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
    pub(super) nodes: Vec<Record>,
}

impl GraphDefinition {
    /// Makes an empty graph whose nodes run in `context`.
    ///
    /// # Errors
    ///
    /// [`GraphError::Driver`]: the driver cannot.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphCreate")]
    pub fn new(context: &Context) -> Result<Self, GraphError> {
        context.driver().drop_deferred()?;
        let _scope = context.enter()?;
        let mut raw: CUgraph = ptr::null_mut();
        // SAFETY: `raw` is valid for writes for the whole call; the flags must be 0.
        unsafe { context.driver().api().graph_create.call(&raw mut raw, 0) }?;
        Ok(Self { raw: RawGraph(raw), context: context.clone(), nodes: Vec::new() })
    }

    /// Adds a node that does nothing, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// [`GraphError::ForeignNode`], [`GraphError::DuplicateEdge`]: `after` is no set of nodes of this
    /// graph. [`GraphError::Driver`]: the driver cannot.
    #[doc(alias = "cuGraphAddEmptyNode")]
    pub fn empty(&mut self, after: &[NodeId]) -> Result<EmptyNode, GraphError> {
        self.add(NodeKind::Empty, None, after, |definition, node, after| {
            let api = definition.context.driver().api();
            // SAFETY: `node` and the array are valid for the call; graph and nodes are alive.
            unsafe { api.graph_add_empty_node.call(node, definition.as_raw(), after.as_ptr(), after.len()) }
        })
        .map(EmptyNode)
    }

    /// Adds a copy of one row, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// [`GraphError::ZeroLength`]: it copies nothing. Otherwise as [`empty`](Self::empty).
    ///
    /// # Safety
    ///
    /// For every launch of this graph, its clones and executable graphs, until it is complete:
    ///
    /// * both sides are memory of the copy's size on their side, which [`keep_alive`](Self::keep_alive)
    ///   can see to,
    /// * nobody writes the source or uses the destination unless stream order or a wait puts that
    ///   before or after.
    #[doc(alias = "cuGraphAddMemcpyNode")]
    pub unsafe fn memcpy(&mut self, copy: Copy1d, after: &[NodeId]) -> Result<MemcpyNode, GraphError> {
        copy.check()?;
        self.add(NodeKind::Memcpy, Some(Work::Copy(copy)), after, |definition, node, after| {
            let (api, context) = (definition.context.driver().api(), definition.context.as_raw());
            let (params, graph) = (copy.raw(), definition.as_raw());
            let (at, len, params) = (after.as_ptr(), after.len(), &raw const params);
            // SAFETY: as in `empty`; the memory is the caller's promise.
            unsafe { api.graph_add_memcpy_node.call(node, graph, at, len, params, context) }
        })
        .map(MemcpyNode)
    }

    /// Adds a fill of one row, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// [`GraphError::ZeroLength`], [`GraphError::Misaligned`]: it fills nothing, or not whole words.
    /// Otherwise as [`empty`](Self::empty).
    ///
    /// # Safety
    ///
    /// As [`memcpy`](Self::memcpy), for the destination.
    #[doc(alias = "cuGraphAddMemsetNode")]
    pub unsafe fn memset(&mut self, fill: Fill, after: &[NodeId]) -> Result<MemsetNode, GraphError> {
        fill.check()?;
        self.add(NodeKind::Memset, Some(Work::Fill(fill)), after, |definition, node, after| {
            let (api, context) = (definition.context.driver().api(), definition.context.as_raw());
            let (params, graph) = (fill.raw(), definition.as_raw());
            let (at, len, params) = (after.as_ptr(), after.len(), &raw const params);
            // SAFETY: as in `empty`; the memory is the caller's promise.
            unsafe { api.graph_add_memset_node.call(node, graph, at, len, params, context) }
        })
        .map(MemsetNode)
    }

    /// Adds stream memory operations, done in their order, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// [`GraphError::MemOps`], [`GraphError::Misaligned`]: not 1 to 256 operations on words.
    /// [`GraphError::Driver`] with [`Error::Unsupported`]: the driver is older than CUDA 11.7.
    /// Otherwise as [`empty`](Self::empty).
    ///
    /// # Safety
    ///
    /// * As [`memcpy`](Self::memcpy), for the words.
    /// * A word that is waited for is written by somebody who does not wait for this graph.
    #[doc(alias = "cuGraphAddBatchMemOpNode")]
    pub unsafe fn mem_ops(
        &mut self,
        operations: &[MemOp],
        after: &[NodeId],
    ) -> Result<MemOpNode, GraphError> {
        if !(1..=MemOp::MAX_COUNT).contains(&operations.len()) {
            return Err(GraphError::MemOps { count: operations.len() });
        }
        operations.iter().try_for_each(MemOp::check)?;
        let work = Work::MemOps(operations.len());
        self.add(NodeKind::MemOp, Some(work), after, |definition, node, after| {
            let mut array: Vec<_> = operations.iter().map(|operation| operation.raw()).collect();
            let params = CUDA_BATCH_MEM_OP_NODE_PARAMS {
                ctx: definition.context.as_raw(),
                count: u32::try_from(array.len()).unwrap_or(0),
                paramArray: array.as_mut_ptr(),
                flags: 0,
            };
            let api = definition.context.driver().api();
            let (graph, at, len) = (definition.as_raw(), after.as_ptr(), after.len());
            // SAFETY: as in `empty`; the array is copied before the call returns (Driver API,
            // cuGraphAddBatchMemOpNode); the words are the caller's promise.
            unsafe { api.graph_add_batch_mem_op_node.call(node, graph, at, len, &raw const params) }
        })
        .map(MemOpNode)
    }

    /// Adds a call of `function` on a thread of the driver's, at every launch, behind the nodes `after`.
    ///
    /// It must not call the driver or wait for device work, and is not called after an error in the
    /// context. A panic ends there. The graph owns it.
    ///
    /// # Errors
    ///
    /// As [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddHostNode")]
    pub fn host_func<F>(&mut self, function: F, after: &[NodeId]) -> Result<HostNode, GraphError>
    where
        F: Fn() + Send + Sync + 'static,
    {
        let function = Box::new(function);
        let data = ptr::from_ref(&*function).cast_mut().cast::<c_void>();
        let params = CUDA_HOST_NODE_PARAMS_v1 { fn_: Some(run_host_function::<F>), userData: data };
        self.add_owning(NodeKind::Host, function, after, |definition, node, after| {
            let api = definition.context.driver().api();
            let (graph, at, len) = (definition.as_raw(), after.as_ptr(), after.len());
            // SAFETY: as in `empty`; the function takes a pointer to an `F`, which the graph owns.
            unsafe { api.graph_add_host_node.call(node, graph, at, len, &raw const params) }
        })
        .map(HostNode)
    }

    /// Adds a record of `event`, behind the nodes `after`. The graph owns the event, too.
    ///
    /// # Errors
    ///
    /// [`GraphError::OtherContext`]: the event is of another context. Otherwise as [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddEventRecordNode")]
    pub fn event_record(
        &mut self,
        event: &Arc<Event>,
        after: &[NodeId],
    ) -> Result<EventRecordNode, GraphError> {
        if *event.context() != self.context {
            return Err(GraphError::OtherContext);
        }
        let raw = event.as_raw();
        self.add_owning(
            NodeKind::EventRecord,
            Box::new(Arc::clone(event)),
            after,
            |definition, node, after| {
                let api = definition.context.driver().api();
                let (graph, at, len) = (definition.as_raw(), after.as_ptr(), after.len());
                // SAFETY: as in `empty`; the event is alive.
                unsafe { api.graph_add_event_record_node.call(node, graph, at, len, raw) }
            },
        )
        .map(EventRecordNode)
    }

    /// Adds a record of `event`, behind the nodes `after`.
    ///
    /// # Safety
    ///
    /// The event is one of this context, and is alive at every launch.
    pub(crate) unsafe fn event_record_unowned(
        &mut self,
        event: &Event,
        after: &[NodeId],
    ) -> Result<EventRecordNode, GraphError> {
        let raw = event.as_raw();
        self.add(NodeKind::EventRecord, None, after, |definition, node, after| {
            let api = definition.context.driver().api();
            let (graph, at, len) = (definition.as_raw(), after.as_ptr(), after.len());
            // SAFETY: as in `empty`; the event is the caller's promise.
            unsafe { api.graph_add_event_record_node.call(node, graph, at, len, raw) }
        })
        .map(EventRecordNode)
    }

    /// Adds a wait for what `event` holds at each launch, behind the nodes `after`. The graph owns
    /// the event, too.
    ///
    /// # Errors
    ///
    /// As [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddEventWaitNode")]
    pub fn event_wait(&mut self, event: &Arc<Event>, after: &[NodeId]) -> Result<EventWaitNode, GraphError> {
        let raw = event.as_raw();
        self.add_owning(NodeKind::EventWait, Box::new(Arc::clone(event)), after, |definition, node, after| {
            let api = definition.context.driver().api();
            let (graph, at, len) = (definition.as_raw(), after.as_ptr(), after.len());
            // SAFETY: as in `empty`; the event is alive.
            unsafe { api.graph_add_event_wait_node.call(node, graph, at, len, raw) }
        })
        .map(EventWaitNode)
    }

    /// Adds a copy of `graph` as one node, behind the nodes `after`.
    ///
    /// What `graph` keeps alive, its copy does, too. Later changes of `graph` do not count.
    ///
    /// # Errors
    ///
    /// As [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddChildGraphNode")]
    pub fn child(&mut self, graph: &Self, after: &[NodeId]) -> Result<ChildNode, GraphError> {
        let child = graph.as_raw();
        self.add(NodeKind::Child, None, after, |definition, node, after| {
            let api = definition.context.driver().api();
            let (graph, at, len) = (definition.as_raw(), after.as_ptr(), after.len());
            // SAFETY: as in `empty`; the child is alive and copied.
            unsafe { api.graph_add_child_graph_node.call(node, graph, at, len, child) }
        })
        .map(ChildNode)
    }

    /// Lets `node` wait for `before`, too.
    ///
    /// # Errors
    ///
    /// [`GraphError::ForeignNode`], [`GraphError::DuplicateEdge`], [`GraphError::Cycle`]: there can be
    /// no such edge. [`GraphError::Driver`]: the driver cannot.
    #[doc(alias = "cuGraphAddDependencies")]
    pub fn depend(&mut self, node: impl Into<NodeId>, before: impl Into<NodeId>) -> Result<(), GraphError> {
        let (node, before) = (node.into(), before.into());
        let (to, from) = (self.record(node)?.raw.get(), self.record(before)?.raw.get());
        if self.nodes[index(node)].after.contains(&before.index) {
            return Err(GraphError::DuplicateEdge(before));
        }
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
    /// [`GraphError::Driver`]: the driver cannot; `owner` is dropped.
    #[doc(alias = "cuGraphRetainUserObject")]
    pub fn keep_alive(&mut self, owner: impl Send + 'static) -> Result<(), GraphError> {
        let _scope = self.context.enter()?;
        Ok(retain(self.as_raw(), Box::new(owner), &self.context)?)
    }

    /// Gives `node` a name for pictures.
    ///
    /// # Errors
    ///
    /// [`GraphError::ForeignNode`]: the node is another definition's.
    pub fn label(&mut self, node: impl Into<NodeId>, label: impl Into<String>) -> Result<(), GraphError> {
        let node = node.into();
        self.record(node)?;
        self.nodes[index(node)].label = Some(label.into());
        Ok(())
    }

    /// The nodes and their kinds, in the order in which they were added.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, NodeKind)> {
        let graph = self.id();
        (0..).zip(&self.nodes).map(move |(index, record)| (NodeId { graph, index }, record.kind))
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

    pub(super) fn with(raw: CUgraph, context: &Context, nodes: Vec<Record>) -> Self {
        Self { raw: RawGraph(raw), context: context.clone(), nodes }
    }

    /// What is known of a node, if it is this graph's.
    pub(super) fn record(&self, node: NodeId) -> Result<&Record, GraphError> {
        let own = (node.graph == self.id()).then(|| self.nodes.get(index(node))).flatten();
        own.ok_or(GraphError::ForeignNode(node))
    }

    /// The node behind a handle of the driver's.
    pub(super) fn find(&self, raw: CUgraphNode) -> Option<NodeId> {
        let position = self.nodes.iter().position(|record| record.raw.get() == raw)?;
        Some(NodeId { graph: self.id(), index: u32::try_from(position).ok()? })
    }

    fn id(&self) -> u64 {
        self.as_raw() as u64
    }

    /// Adds a node by `call`, which takes the place for its handle and its dependencies.
    fn add(
        &mut self,
        kind: NodeKind,
        work: Option<Work>,
        after: &[NodeId],
        call: impl FnOnce(&Self, *mut CUgraphNode, &[CUgraphNode]) -> Result<(), Error>,
    ) -> Result<NodeId, GraphError> {
        let mut raw_after = Vec::with_capacity(after.len());
        for (position, node) in after.iter().enumerate() {
            if after[..position].contains(node) {
                return Err(GraphError::DuplicateEdge(*node));
            }
            raw_after.push(self.record(*node)?.raw.get());
        }
        let scope = self.context.enter()?;
        let mut raw: CUgraphNode = ptr::null_mut();
        call(self, &raw mut raw, &raw_after)?;
        drop(scope);
        let after = after.iter().map(|node| node.index).collect();
        let node = NodeId { graph: self.id(), index: u32::try_from(self.nodes.len()).unwrap_or(u32::MAX) };
        self.nodes.push(Record { raw: RawNode(raw), kind, work, after, label: None });
        Ok(node)
    }

    /// Adds a node that needs `owner` to be alive.
    fn add_owning(
        &mut self,
        kind: NodeKind,
        owner: Box<dyn Send>,
        after: &[NodeId],
        call: impl FnOnce(&Self, *mut CUgraphNode, &[CUgraphNode]) -> Result<(), Error>,
    ) -> Result<NodeId, GraphError> {
        let scope = self.context.enter()?;
        let object = UserObject::new(owner, &self.context)?;
        object.share_with(self.as_raw())?;
        drop(scope);
        self.add(kind, None, after, call).inspect_err(|_| {
            // The node's error is the one to tell; this one only delays the end of the owner.
            self.context.release().note(self.context.driver(), object.take_from(self.as_raw()));
        })
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
// SAFETY: as above, for the nodes of a graph.
unsafe impl Send for RawNode {}
