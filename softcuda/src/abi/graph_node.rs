#![expect(unsafe_code, reason = "exports C functions")]
//! Nodes of graphs: adding them, and their parameters.

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::graph_edges::edges_of;
use super::memop::mem_ops;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::node::{Action, CopyNode, FillNode, HostNode, MemOpNode};
use crate::graph::operand::{check_copy, locate_fill};
use crate::handle::{number, to_pointer};
use crate::machine::State;
use crate::sched::work::{Opaque, UserData};
use crate::task::FillTask;

exports! {
    Normal PFN_cuGraphAddEmptyNode_v10000: cuGraphAddEmptyNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
    ) => add_empty;
    Normal PFN_cuGraphAddMemcpyNode_v10000: cuGraphAddMemcpyNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *const CUDA_MEMCPY3D_v2, context: CUcontext,
    ) => add_copy;
    Normal PFN_cuGraphMemcpyNodeGetParams_v10000: cuGraphMemcpyNodeGetParams(
        node: CUgraphNode, params: *mut CUDA_MEMCPY3D_v2,
    ) => get_copy;
    Normal PFN_cuGraphMemcpyNodeSetParams_v10000: cuGraphMemcpyNodeSetParams(
        node: CUgraphNode, params: *const CUDA_MEMCPY3D_v2,
    ) => set_copy;
    Normal PFN_cuGraphAddMemsetNode_v10000: cuGraphAddMemsetNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *const CUDA_MEMSET_NODE_PARAMS_v1, context: CUcontext,
    ) => add_fill;
    Normal PFN_cuGraphMemsetNodeGetParams_v10000: cuGraphMemsetNodeGetParams(
        node: CUgraphNode, params: *mut CUDA_MEMSET_NODE_PARAMS_v1,
    ) => get_fill;
    Normal PFN_cuGraphMemsetNodeSetParams_v10000: cuGraphMemsetNodeSetParams(
        node: CUgraphNode, params: *const CUDA_MEMSET_NODE_PARAMS_v1,
    ) => set_fill;
    Normal PFN_cuGraphAddHostNode_v10000: cuGraphAddHostNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *const CUDA_HOST_NODE_PARAMS_v1,
    ) => add_host;
    Normal PFN_cuGraphHostNodeGetParams_v10000: cuGraphHostNodeGetParams(
        node: CUgraphNode, params: *mut CUDA_HOST_NODE_PARAMS_v1,
    ) => get_host;
    Normal PFN_cuGraphHostNodeSetParams_v10000: cuGraphHostNodeSetParams(
        node: CUgraphNode, params: *const CUDA_HOST_NODE_PARAMS_v1,
    ) => set_host;
    Normal PFN_cuGraphAddChildGraphNode_v10000: cuGraphAddChildGraphNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        child: CUgraph,
    ) => add_child;
    Normal PFN_cuGraphChildGraphNodeGetGraph_v10000: cuGraphChildGraphNodeGetGraph(
        node: CUgraphNode, graph: *mut CUgraph,
    ) => get_child;
    Normal PFN_cuGraphAddBatchMemOpNode_v11070: cuGraphAddBatchMemOpNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
    ) => add_mem_ops;
    Normal PFN_cuGraphBatchMemOpNodeGetParams_v11070: cuGraphBatchMemOpNodeGetParams(
        node: CUgraphNode, params: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS,
    ) => get_mem_ops;
    Normal PFN_cuGraphBatchMemOpNodeSetParams_v11070: cuGraphBatchMemOpNodeSetParams(
        node: CUgraphNode, params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
    ) => set_mem_ops;
}

/// Where a node is added: what every call that adds one begins with.
pub(crate) struct Place {
    pub(crate) node: *mut CUgraphNode,
    pub(crate) graph: CUgraph,
    pub(crate) dependencies: *const CUgraphNode,
    pub(crate) data: *const CUgraphEdgeData,
    pub(crate) count: usize,
}

impl Place {
    pub(crate) fn new(
        node: *mut CUgraphNode,
        graph: CUgraph,
        dependencies: *const CUgraphNode,
        count: usize,
    ) -> Self {
        Self { node, graph, dependencies, data: core::ptr::null(), count }
    }

    /// Adds a node that does what `action` says.
    pub(crate) fn add(self, call: Call, action: impl FnOnce(&State) -> Status<Action>) -> Status {
        if !valid(self.node) {
            return Err(CudaError::INVALID_VALUE);
        }
        let mut state = call.lock();
        state.graphs.graph(number(self.graph))?;
        let edges = edges_of(self.dependencies, self.data, self.count)?;
        let action = action(&state)?;
        let node = match action {
            Action::Child(child) => state.graphs.add_child(number(self.graph), &edges, child)?,
            action => state.graphs.add_node(number(self.graph), &edges, action)?,
        };
        out(self.node, to_pointer(node))
    }
}

/// The context that a node is given: the current one where it is given none.
pub(crate) fn node_context(call: Call, state: &State, context: CUcontext) -> Status<u64> {
    if context.is_null() {
        return call.context(state);
    }
    let handle = number(context);
    if state.contexts.contains(handle) { Ok(handle) } else { Err(CudaError::INVALID_CONTEXT) }
}

/// Changes what a node of the type of `action` does.
pub(crate) fn set(state: &mut State, node: CUgraphNode, action: Action) -> Status {
    let known = state.graphs.node_mut(number(node))?;
    if known.action.kind() != action.kind() {
        return Err(CudaError::INVALID_VALUE);
    }
    known.action = action;
    Ok(())
}

/// Reads something of a node of one type.
pub(crate) fn get<T>(
    call: Call,
    node: CUgraphNode,
    to: *mut T,
    read: impl FnOnce(&Action) -> Option<T>,
) -> Status {
    let state = call.lock();
    let value = read(&state.graphs.node(number(node))?.action).ok_or(CudaError::INVALID_VALUE)?;
    out(to, value)
}

fn add_empty(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
) -> Status {
    Place::new(node, graph, dependencies, count).add(call, |_| Ok(Action::Empty))
}

/// The node that a copy's parameters describe.
pub(crate) fn copy_node(
    call: Call,
    state: &State,
    params: &CUDA_MEMCPY3D,
    context: CUcontext,
) -> Status<Action> {
    let (task, _) = call.parse_3d(state, params)?;
    let context = node_context(call, state, context)?;
    check_copy(&state.memory, &task)?;
    Ok(Action::Copy(Box::new(CopyNode { task, params: Opaque(*params), context })))
}

fn add_copy(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_MEMCPY3D,
    context: CUcontext,
) -> Status {
    let params = input(params)?;
    let place = Place::new(node, graph, dependencies, count);
    place.add(call, |state| copy_node(call, state, &params, context))
}

fn get_copy(call: Call, node: CUgraphNode, params: *mut CUDA_MEMCPY3D) -> Status {
    get(call, node, params, |action| match action {
        Action::Copy(copy) => Some(copy.params.0),
        _ => None,
    })
}

fn set_copy(call: Call, node: CUgraphNode, params: *const CUDA_MEMCPY3D) -> Status {
    let params = input(params)?;
    let mut state = call.lock();
    let Action::Copy(before) = &state.graphs.node(number(node))?.action else {
        return Err(CudaError::INVALID_VALUE);
    };
    let context = to_pointer(before.context);
    let action = copy_node(call, &state, &params, context)?;
    set(&mut state, node, action)
}

/// The node that a memset's parameters describe.
pub(crate) fn fill_node(
    call: Call,
    state: &State,
    params: &CUDA_MEMSET_NODE_PARAMS_v1,
    context: CUcontext,
) -> Status<Action> {
    let CUDA_MEMSET_NODE_PARAMS_v1 { dst, pitch, value, elementSize, width, height } = *params;
    let task =
        FillTask { address: dst, pitch, value, element: elementSize as usize, width, height };
    let context = node_context(call, state, context)?;
    locate_fill(&state.memory, &task)?;
    Ok(Action::Fill(FillNode { task, context }))
}

fn add_fill(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_MEMSET_NODE_PARAMS_v1,
    context: CUcontext,
) -> Status {
    let params = input(params)?;
    let place = Place::new(node, graph, dependencies, count);
    place.add(call, |state| fill_node(call, state, &params, context))
}

fn get_fill(call: Call, node: CUgraphNode, params: *mut CUDA_MEMSET_NODE_PARAMS_v1) -> Status {
    get(call, node, params, |action| match action {
        Action::Fill(fill) => Some(fill.params()),
        _ => None,
    })
}

fn set_fill(call: Call, node: CUgraphNode, params: *const CUDA_MEMSET_NODE_PARAMS_v1) -> Status {
    let params = input(params)?;
    let mut state = call.lock();
    let Action::Fill(before) = &state.graphs.node(number(node))?.action else {
        return Err(CudaError::INVALID_VALUE);
    };
    let context = to_pointer(before.context);
    let action = fill_node(call, &state, &params, context)?;
    set(&mut state, node, action)
}

/// The node that calls a host function.
pub(crate) fn host_node(params: &CUDA_HOST_NODE_PARAMS_v1, sync_mode: u32) -> Status<Action> {
    if params.fn_.is_none() {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(Action::Host(HostNode { function: params.fn_, data: UserData(params.userData), sync_mode }))
}

fn add_host(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_HOST_NODE_PARAMS_v1,
) -> Status {
    let params = input(params)?;
    Place::new(node, graph, dependencies, count).add(call, |_| host_node(&params, 0))
}

fn get_host(call: Call, node: CUgraphNode, params: *mut CUDA_HOST_NODE_PARAMS_v1) -> Status {
    get(call, node, params, |action| match action {
        Action::Host(host) => {
            Some(CUDA_HOST_NODE_PARAMS_v1 { fn_: host.function, userData: host.data.0 })
        }
        _ => None,
    })
}

fn set_host(call: Call, node: CUgraphNode, params: *const CUDA_HOST_NODE_PARAMS_v1) -> Status {
    let action = host_node(&input(params)?, 0)?;
    set(&mut call.lock(), node, action)
}

fn add_child(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    child: CUgraph,
) -> Status {
    let place = Place::new(node, graph, dependencies, count);
    place.add(call, |state| {
        state.graphs.graph(number(child))?;
        Ok(Action::Child(number(child)))
    })
}

fn get_child(call: Call, node: CUgraphNode, graph: *mut CUgraph) -> Status {
    get(call, node, graph, |action| match action {
        Action::Child(child) => Some(to_pointer(*child)),
        _ => None,
    })
}

/// The node of a batch of stream memory operations, and the context that it is given. The
/// lock is not held yet: what an operation needs of the device is asked under it.
pub(crate) fn mem_op_node(call: Call, params: &CUDA_BATCH_MEM_OP_NODE_PARAMS) -> Status<Action> {
    if params.flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let tasks = mem_ops(call, params.count, params.paramArray)?;
    let given = super::arguments::inputs(params.paramArray.cast_const(), tasks.len())?;
    let context = node_context(call, &call.lock(), params.ctx)?;
    Ok(Action::MemOps(MemOpNode { tasks, params: given, flags: params.flags, context }))
}

fn add_mem_ops(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Status {
    let action = mem_op_node(call, &input(params)?)?;
    Place::new(node, graph, dependencies, count).add(call, |_| Ok(action))
}

fn get_mem_ops(
    call: Call,
    node: CUgraphNode,
    params: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Status {
    get(call, node, params, |action| match action {
        Action::MemOps(ops) => Some(ops.raw()),
        _ => None,
    })
}

fn set_mem_ops(
    call: Call,
    node: CUgraphNode,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Status {
    let action = mem_op_node(call, &input(params)?)?;
    set(&mut call.lock(), node, action)
}
