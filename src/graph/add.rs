#![expect(unsafe_code, reason = "calls the driver with raw addresses")]
//! Adding nodes to a definition: a method for each kind.

use core::ffi::c_void;
use core::ptr;
use std::sync::Arc;

use wharf_sys::Api;
use wharf_sys::bindings::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_HOST_NODE_PARAMS_v1, CUcontext, CUgraph, CUgraphNode,
};

use super::definition::GraphDefinition;
use super::error::GraphError;
use super::keep_alive::UserObject;
use super::node::{
    ChildNode, EmptyNode, EventRecordNode, EventWaitNode, HostNode, MemOpNode, MemcpyNode,
    MemsetNode, NodeId, NodeKind,
};
use super::params::{Copy1d, Fill, MemOp};
use super::record::{NodeRecord, RawNode, Work};
use crate::driver::Event;
use crate::error::Error;
use crate::stream::run_host_function;

impl GraphDefinition {
    /// Adds a node that does nothing, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// [`GraphError::ForeignNode`], [`GraphError::DuplicateEdge`]: `after` names a node of another
    /// graph, or one node twice. [`GraphError::Driver`]: the driver refused.
    #[doc(alias = "cuGraphAddEmptyNode")]
    pub fn empty(&mut self, after: &[NodeId]) -> Result<EmptyNode, GraphError> {
        self.add(NodeKind::Empty, None, after, |New { api, node, graph, after, len, .. }| {
            // SAFETY: `node` is valid for writes, and `after` is an array of `len` nodes of
            // `graph`, which is alive.
            unsafe { api.graph_add_empty_node.call(node, graph, after, len) }
        })
        .map(EmptyNode)
    }

    /// Adds a copy of one row, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// [`GraphError::ZeroLength`]: it copies 0 bytes. Otherwise as [`empty`](Self::empty).
    ///
    /// # Safety
    ///
    /// For every launch of this graph, its clones and executable graphs, until it is complete:
    ///
    /// * Source and destination are memory of the copy's size, of the kind that its direction
    ///   names. [`keep_alive`](Self::keep_alive) can keep them so.
    /// * Every write of the source, and every other use of the destination, is ordered before or
    ///   after the launch, by stream order or a wait.
    #[doc(alias = "cuGraphAddMemcpyNode")]
    pub unsafe fn memcpy(
        &mut self,
        copy: Copy1d,
        after: &[NodeId],
    ) -> Result<MemcpyNode, GraphError> {
        copy.check()?;
        self.add(NodeKind::Memcpy, Some(Work::Copy(copy)), after, |new| {
            let (New { api, node, graph, after, len, context }, params) = (new, copy.raw());
            let params = &raw const params;
            // SAFETY: as in `empty`; the memory is the caller's promise.
            unsafe { api.graph_add_memcpy_node.call(node, graph, after, len, params, context) }
        })
        .map(MemcpyNode)
    }

    /// Adds a fill of one row, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// [`GraphError::ZeroLength`], [`GraphError::Misaligned`]: it fills 0 bytes, or its address is
    /// not a multiple of the value's width. Otherwise as [`empty`](Self::empty).
    ///
    /// # Safety
    ///
    /// As [`memcpy`](Self::memcpy), for the destination.
    #[doc(alias = "cuGraphAddMemsetNode")]
    pub unsafe fn memset(
        &mut self,
        fill: Fill,
        after: &[NodeId],
    ) -> Result<MemsetNode, GraphError> {
        fill.check()?;
        self.add(NodeKind::Memset, Some(Work::Fill(fill)), after, |new| {
            let (New { api, node, graph, after, len, context }, params) = (new, fill.raw());
            let params = &raw const params;
            // SAFETY: as in `empty`; the memory is the caller's promise.
            unsafe { api.graph_add_memset_node.call(node, graph, after, len, params, context) }
        })
        .map(MemsetNode)
    }

    /// Adds stream memory operations, done in their order, behind the nodes `after`.
    ///
    /// # Errors
    ///
    /// * [`GraphError::MemOps`]: there are none, or more than 256.
    /// * [`GraphError::Misaligned`]: an address is not a multiple of 8.
    /// * [`GraphError::Driver`] with [`Error::Unsupported`]: the driver is older than CUDA 11.7.
    /// * Otherwise as [`empty`](Self::empty).
    ///
    /// # Safety
    ///
    /// * As [`memcpy`](Self::memcpy), for the words.
    /// * A word that is waited for is written by work that does not itself wait for this graph.
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
        let mut array: Vec<_> = operations.iter().map(|operation| operation.raw()).collect();
        let work = Work::MemOps(operations.len());
        self.add(NodeKind::MemOp, Some(work), after, |new| {
            let New { api, node, graph, after, len, context } = new;
            let params = CUDA_BATCH_MEM_OP_NODE_PARAMS {
                ctx: context,
                count: u32::try_from(array.len()).unwrap_or(0),
                paramArray: array.as_mut_ptr(),
                flags: 0,
            };
            let (add, params) = (&api.graph_add_batch_mem_op_node, &raw const params);
            // SAFETY: as in `empty`; the array is copied before the call returns (Driver API,
            // cuGraphAddBatchMemOpNode); the words are the caller's promise.
            unsafe { add.call(node, graph, after, len, params) }
        })
        .map(MemOpNode)
    }

    /// Adds a call of `function` at every launch, on a thread of the driver, behind the nodes
    /// `after`. The graph owns the function.
    ///
    /// The function must not call the driver or wait for device work, and is not called after an
    /// error in the context. A panic in it ends there.
    ///
    /// # Errors
    ///
    /// As [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddHostNode")]
    pub fn host_func<F>(&mut self, function: F, after: &[NodeId]) -> Result<HostNode, GraphError>
    where
        F: Fn() + Send + Sync + 'static,
    {
        // The driver gets a pointer to the function, whose box moves into the graph's user object.
        let function = Box::new(function);
        let data = ptr::from_ref(&*function).cast_mut().cast::<c_void>();
        let params = CUDA_HOST_NODE_PARAMS_v1 { fn_: Some(run_host_function::<F>), userData: data };
        self.add_owning(NodeKind::Host, function, after, |new| {
            let New { api, node, graph, after, len, .. } = new;
            let params = &raw const params;
            // SAFETY: as in `empty`; the function takes a pointer to an `F`, which the graph owns.
            unsafe { api.graph_add_host_node.call(node, graph, after, len, params) }
        })
        .map(HostNode)
    }

    /// Adds a record of `event`, behind the nodes `after`. The graph keeps the event alive.
    ///
    /// # Errors
    ///
    /// [`GraphError::OtherContext`]: the event is of another context. Otherwise as
    /// [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddEventRecordNode")]
    pub fn event_record(
        &mut self,
        event: &Arc<Event>,
        after: &[NodeId],
    ) -> Result<EventRecordNode, GraphError> {
        if event.context() != self.context() {
            return Err(GraphError::OtherContext);
        }
        let owner = Box::new(Arc::clone(event));
        self.add_owning(NodeKind::EventRecord, owner, after, |new| new.record(event))
            .map(EventRecordNode)
    }

    /// Adds a record of `event`, behind the nodes `after`. The graph does not keep it alive.
    ///
    /// # Safety
    ///
    /// The event is one of this context, and is alive at every launch.
    pub(crate) unsafe fn event_record_unowned(
        &mut self,
        event: &Event,
        after: &[NodeId],
    ) -> Result<EventRecordNode, GraphError> {
        self.add(NodeKind::EventRecord, None, after, |new| new.record(event)).map(EventRecordNode)
    }

    /// Adds a wait for what `event` holds at each launch, behind the nodes `after`. The graph
    /// keeps the event alive.
    ///
    /// # Errors
    ///
    /// As [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddEventWaitNode")]
    pub fn event_wait(
        &mut self,
        event: &Arc<Event>,
        after: &[NodeId],
    ) -> Result<EventWaitNode, GraphError> {
        let owner = Box::new(Arc::clone(event));
        self.add_owning(NodeKind::EventWait, owner, after, |new| new.wait(event)).map(EventWaitNode)
    }

    /// Adds a wait for what `event` holds at each launch, behind the nodes `after`. The graph does
    /// not keep it alive.
    ///
    /// # Safety
    ///
    /// The event is alive at every launch.
    pub(crate) unsafe fn event_wait_unowned(
        &mut self,
        event: &Event,
        after: &[NodeId],
    ) -> Result<EventWaitNode, GraphError> {
        self.add(NodeKind::EventWait, None, after, |new| new.wait(event)).map(EventWaitNode)
    }

    /// Adds a copy of `graph` as one node, behind the nodes `after`.
    ///
    /// The copy keeps alive what `graph` does. Later changes of `graph` do not affect it.
    ///
    /// # Errors
    ///
    /// As [`empty`](Self::empty).
    #[doc(alias = "cuGraphAddChildGraphNode")]
    pub fn child(&mut self, graph: &Self, after: &[NodeId]) -> Result<ChildNode, GraphError> {
        let child = graph.as_raw();
        self.add(NodeKind::Child, None, after, |New { api, node, graph, after, len, .. }| {
            // SAFETY: as in `empty`; the child is alive and copied.
            unsafe { api.graph_add_child_graph_node.call(node, graph, after, len, child) }
        })
        .map(ChildNode)
    }

    /// Adds a node by `call`.
    pub(super) fn add(
        &mut self,
        kind: NodeKind,
        work: Option<Work>,
        after: &[NodeId],
        call: impl FnOnce(New<'_>) -> Result<(), Error>,
    ) -> Result<NodeId, GraphError> {
        let mut raw_after = Vec::with_capacity(after.len());
        for (position, node) in after.iter().enumerate() {
            // Drivers differ in what they do with an edge that is given twice.
            if after[..position].contains(node) {
                return Err(GraphError::DuplicateEdge(*node));
            }
            raw_after.push(self.record(*node)?.raw.get());
        }
        let mut raw: CUgraphNode = ptr::null_mut();
        let scope = self.context().enter()?;
        call(New {
            api: self.context().driver().api(),
            node: &raw mut raw,
            graph: self.as_raw(),
            after: raw_after.as_ptr(),
            len: raw_after.len(),
            context: self.context().as_raw(),
        })?;
        drop(scope);
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let after = after.iter().map(|node| node.index).collect();
        self.nodes.push(NodeRecord { raw: RawNode(raw), kind, work, after, label: None });
        Ok(NodeId { graph: self.id(), index })
    }

    /// Adds a node that needs `owner` to be alive.
    fn add_owning(
        &mut self,
        kind: NodeKind,
        owner: Box<dyn Send>,
        after: &[NodeId],
        call: impl FnOnce(New<'_>) -> Result<(), Error>,
    ) -> Result<NodeId, GraphError> {
        let scope = self.context().enter()?;
        let object = UserObject::new(owner, self.context())?;
        object.share_with(self.as_raw())?;
        drop(scope);
        self.add(kind, None, after, call).inspect_err(|_| {
            // The node's error is the one to report; this one only delays the end of the owner.
            let taken = object.take_from(self.as_raw());
            self.context().release().note(self.context().driver(), taken);
        })
    }
}

/// Where a new node goes: the first arguments of every `cuGraphAdd...Node`, for the time of the
/// call.
pub(super) struct New<'a> {
    pub(super) api: &'a Api,
    pub(super) node: *mut CUgraphNode,
    pub(super) graph: CUgraph,
    pub(super) after: *const CUgraphNode,
    pub(super) len: usize,
    pub(super) context: CUcontext,
}

impl New<'_> {
    /// Makes it a wait for `event`, which is alive.
    fn wait(self, event: &Event) -> Result<(), Error> {
        let Self { api, node, graph, after, len, .. } = self;
        // SAFETY: as in `empty`; the event is alive.
        unsafe { api.graph_add_event_wait_node.call(node, graph, after, len, event.as_raw()) }
    }

    /// Makes it a record of `event`, which is alive.
    fn record(self, event: &Event) -> Result<(), Error> {
        let Self { api, node, graph, after, len, .. } = self;
        // SAFETY: as in `empty`; the event is alive.
        unsafe { api.graph_add_event_record_node.call(node, graph, after, len, event.as_raw()) }
    }
}
