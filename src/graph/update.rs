#![expect(unsafe_code, reason = "calls the driver")]
//! Changes of executable graphs. Later launches see them, launches in flight do not.

use core::ptr;
use std::sync::Arc;

use wharf_sys::bindings::{CUgraphExecUpdateResult, CUgraphExecUpdateResultInfo, CUgraphNode};

use super::definition::GraphDefinition;
use super::error::{GraphError, UpdateRefusal};
use super::exec::GraphExec;
use super::keep_alive::Attachments;
use super::node::{ChildNode, EventRecordNode, EventWaitNode, MemcpyNode, MemsetNode, NodeId};
use super::params::{Copy1d, Fill};
use super::record::Work;
use crate::driver::Event;
use crate::error::CudaError;
#[cfg(doc)]
use crate::error::Error;

impl GraphExec {
    /// Changes the copy that `node` makes in later launches.
    ///
    /// # Errors
    ///
    /// * [`GraphError::ZeroLength`]: it copies 0 bytes; [disable](Self::set_enabled) the node
    ///   instead.
    /// * [`GraphError::Direction`]: the node copies in another direction.
    /// * [`GraphError::ForeignNode`]: the node is another graph's.
    /// * [`GraphError::Driver`] with [`CudaError::INVALID_VALUE`]: an address is memory of another
    ///   kind, mapping or context than the one that it replaces.
    ///
    /// # Safety
    ///
    /// As [`GraphDefinition::memcpy`]; [`keep_alive`](Self::keep_alive) can see to the memory.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphExecMemcpyNodeSetParams")]
    pub unsafe fn set_copy(&mut self, node: MemcpyNode, copy: Copy1d) -> Result<(), GraphError> {
        let record = self.definition.record(node.into())?;
        let Some(Work::Copy(old)) = record.work else {
            return Err(GraphError::NotKnown(node.into()));
        };
        copy.check()?;
        if old.direction() != copy.direction() {
            return Err(GraphError::Direction { node: old.direction(), given: copy.direction() });
        }
        let _scope = self.context().enter()?;
        let (params, context) = (copy.raw(), self.context().as_raw());
        let set = &self.context().driver().api().graph_exec_memcpy_node_set_params;
        // SAFETY: exec and node are alive, the node in its graph; the memory is the caller's
        // promise.
        Ok(unsafe { set.call(self.as_raw(), record.raw.get(), &raw const params, context) }?)
    }

    /// Changes the fill that `node` makes in later launches.
    ///
    /// # Errors
    ///
    /// As [`set_copy`](Self::set_copy), and [`GraphError::Misaligned`].
    ///
    /// # Safety
    ///
    /// As [`GraphDefinition::memset`].
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphExecMemsetNodeSetParams")]
    pub unsafe fn set_fill(&mut self, node: MemsetNode, fill: Fill) -> Result<(), GraphError> {
        let record = self.definition.record(node.into())?;
        fill.check()?;
        let _scope = self.context().enter()?;
        let (params, context) = (fill.raw(), self.context().as_raw());
        let set = &self.context().driver().api().graph_exec_memset_node_set_params;
        // SAFETY: as in `set_copy`.
        Ok(unsafe { set.call(self.as_raw(), record.raw.get(), &raw const params, context) }?)
    }

    /// Lets `node` record another event, which this executable graph owns from here on.
    ///
    /// # Errors
    ///
    /// [`GraphError::OtherContext`], [`GraphError::ForeignNode`], [`GraphError::Driver`].
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphExecEventRecordNodeSetEvent")]
    pub fn set_record(
        &mut self,
        node: EventRecordNode,
        event: &Arc<Event>,
    ) -> Result<(), GraphError> {
        if event.context() != self.context() {
            return Err(GraphError::OtherContext);
        }
        let raw = self.definition.record(node.into())?.raw.get();
        let _scope = self.definition.context().enter()?;
        let set = &self.context().driver().api().graph_exec_event_record_node_set_event;
        // SAFETY: exec, node and event are alive, the last as long as the exec.
        unsafe { set.call(self.as_raw(), raw, event.as_raw()) }?;
        // Launches in flight use the old event, which stays as long as this graph.
        self.attach(Box::new(Arc::clone(event)));
        Ok(())
    }

    /// Lets `node` wait for another event, which this executable graph owns from here on.
    ///
    /// # Errors
    ///
    /// [`GraphError::ForeignNode`], [`GraphError::Driver`].
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphExecEventWaitNodeSetEvent")]
    pub fn set_wait(&mut self, node: EventWaitNode, event: &Arc<Event>) -> Result<(), GraphError> {
        let raw = self.definition.record(node.into())?.raw.get();
        let _scope = self.definition.context().enter()?;
        let set = &self.context().driver().api().graph_exec_event_wait_node_set_event;
        // SAFETY: as in `set_record`.
        unsafe { set.call(self.as_raw(), raw, event.as_raw()) }?;
        self.attach(Box::new(Arc::clone(event)));
        Ok(())
    }

    /// Lets `node` run what `graph` does, which has the same nodes and edges. `graph` must be kept
    /// alive by the caller as far as its [kept owners](Self::keep_alive) go: an update takes no
    /// references for a child.
    ///
    /// # Errors
    ///
    /// [`GraphError::ForeignNode`]; [`GraphError::Driver`] with [`CudaError::INVALID_VALUE`]:
    /// `graph` does not fit.
    ///
    /// # Safety
    ///
    /// The memory that nodes of `graph` name lives as long as launches of this executable graph.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphExecChildGraphNodeSetParams")]
    pub unsafe fn set_child(
        &mut self,
        node: ChildNode,
        graph: &GraphDefinition,
    ) -> Result<(), GraphError> {
        let record = self.definition.record(node.into())?;
        let _scope = self.context().enter()?;
        let set = &self.context().driver().api().graph_exec_child_graph_node_set_params;
        // SAFETY: all are alive; the memory is the caller's promise.
        Ok(unsafe { set.call(self.as_raw(), record.raw.get(), graph.as_raw()) }?)
    }

    /// Enables or disables a copy, a fill or a kernel. A disabled node does nothing, and others
    /// still wait for it.
    ///
    /// # Errors
    ///
    /// * [`GraphError::CannotDisable`], [`GraphError::ForeignNode`].
    /// * [`GraphError::Driver`] with [`Error::Unsupported`]: the driver is older than CUDA 11.6.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphNodeSetEnabled")]
    pub fn set_enabled(
        &mut self,
        node: impl Into<NodeId>,
        enabled: bool,
    ) -> Result<(), GraphError> {
        let record = self.definition.record(node.into())?;
        if !record.kind.can_be_disabled() {
            return Err(GraphError::CannotDisable(record.kind));
        }
        let _scope = self.context().enter()?;
        let set = &self.context().driver().api().graph_node_set_enabled;
        // SAFETY: exec and node are alive, the node in its graph.
        Ok(unsafe { set.call(self.as_raw(), record.raw.get(), u32::from(enabled)) }?)
    }

    /// Lets this executable graph do what
    /// `definition` does, which has the same nodes and edges, and keep alive what `definition`
    /// does.
    ///
    /// Nodes are paired in the order in which nodes and edges were added. The handles for further
    /// updates stay those of [`definition`](Self::definition).
    ///
    /// # Errors
    ///
    /// * [`GraphError::Update`]: it does not fit; the reason, and the node of `definition`, are the
    ///   driver's.
    /// * [`GraphError::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Graph management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html)
    #[doc(alias = "cuGraphExecUpdate")]
    pub fn update(&mut self, definition: &GraphDefinition) -> Result<(), GraphError> {
        let context = self.context();
        let _scope = context.enter()?;
        // The driver replaces this graph's references by those of `definition`, so what came with
        // earlier updates is lent to that meanwhile.
        let Some(Attachments { object, .. }) = &self.attachments else {
            return self.try_update(definition);
        };
        object.share_with(definition.as_raw())?;
        let outcome = self.try_update(definition);
        context.release().note(context.driver(), object.take_from(definition.as_raw()));
        outcome
    }

    fn try_update(&self, definition: &GraphDefinition) -> Result<(), GraphError> {
        let api = self.context().driver().api();
        let (mut result, mut node): (_, CUgraphNode) =
            (CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR, ptr::null_mut());
        // CUDA 12 changed the signature, and kept the name.
        let outcome = if api.graph_exec_update_v12000.is_available() {
            let mut info = CUgraphExecUpdateResultInfo {
                result,
                errorNode: node,
                errorFromNode: ptr::null_mut(),
            };
            let update = &api.graph_exec_update_v12000;
            // SAFETY: both graphs are alive and used by this thread; `info` is valid for writes.
            let outcome = unsafe { update.call(self.as_raw(), definition.as_raw(), &raw mut info) };
            (result, node) = (info.result, info.errorNode);
            outcome
        } else {
            let update = &api.graph_exec_update;
            let (node, result) = (&raw mut node, &raw mut result);
            // SAFETY: as above, for both places.
            unsafe { update.call(self.as_raw(), definition.as_raw(), node, result) }
        };
        outcome.map_err(|error| match error.code() {
            Some(CudaError::GRAPH_EXEC_UPDATE_FAILURE) => GraphError::Update {
                reason: UpdateRefusal::of(result),
                node: definition.find(node),
            },
            _ => GraphError::Driver(error),
        })
    }
}
