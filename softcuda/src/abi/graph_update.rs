#![expect(unsafe_code, reason = "exports C functions")]
//! Changes of executable graphs.

use core::ffi::c_uint;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, out_if_any};
use super::graph_event::live_event;
use super::graph_node::{copy_node, fill_node, host_node, mem_op_node};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::node::Action;
use crate::graph::update::Misfit;
use crate::handle::{number, to_pointer};
use crate::machine::State;

exports! {
    Normal PFN_cuGraphExecMemcpyNodeSetParams_v10020: cuGraphExecMemcpyNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_MEMCPY3D_v2, context: CUcontext,
    ) => set_copy;
    Normal PFN_cuGraphExecMemsetNodeSetParams_v10020: cuGraphExecMemsetNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_MEMSET_NODE_PARAMS_v1,
        context: CUcontext,
    ) => set_fill;
    Normal PFN_cuGraphExecHostNodeSetParams_v10020: cuGraphExecHostNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_HOST_NODE_PARAMS_v1,
    ) => set_host;
    Normal PFN_cuGraphExecChildGraphNodeSetParams_v11010: cuGraphExecChildGraphNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, graph: CUgraph,
    ) => set_child;
    Normal PFN_cuGraphExecEventRecordNodeSetEvent_v11010: cuGraphExecEventRecordNodeSetEvent(
        exec: CUgraphExec, node: CUgraphNode, event: CUevent,
    ) => set_record;
    Normal PFN_cuGraphExecEventWaitNodeSetEvent_v11010: cuGraphExecEventWaitNodeSetEvent(
        exec: CUgraphExec, node: CUgraphNode, event: CUevent,
    ) => set_wait;
    Normal PFN_cuGraphExecBatchMemOpNodeSetParams_v11070: cuGraphExecBatchMemOpNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
    ) => set_mem_ops;
    Normal PFN_cuGraphNodeSetEnabled_v11060: cuGraphNodeSetEnabled(
        exec: CUgraphExec, node: CUgraphNode, enabled: c_uint,
    ) => set_enabled;
    Normal PFN_cuGraphNodeGetEnabled_v11060: cuGraphNodeGetEnabled(
        exec: CUgraphExec, node: CUgraphNode, enabled: *mut c_uint,
    ) => get_enabled;
    Normal PFN_cuGraphExecUpdate_v10020: cuGraphExecUpdate(
        exec: CUgraphExec, graph: CUgraph, node: *mut CUgraphNode,
        result: *mut CUgraphExecUpdateResult,
    ) => update;
    Normal PFN_cuGraphExecUpdate_v12000: cuGraphExecUpdate_v2(
        exec: CUgraphExec, graph: CUgraph, info: *mut CUgraphExecUpdateResultInfo,
    ) => update_v2;
}

/// Lets the step of `node` do `action` in later launches.
pub(super) fn update_node(state: &mut State, exec: u64, node: u64, action: Action) -> Status {
    state.graphs.update_node(&state.memory, exec, node, action)
}

fn set_copy(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_MEMCPY3D,
    context: CUcontext,
) -> Status {
    let params = input(params)?;
    let mut state = call.lock();
    let action = copy_node(call, &state, &params, context)?;
    update_node(&mut state, number(exec), number(node), action)
}

fn set_fill(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_MEMSET_NODE_PARAMS_v1,
    context: CUcontext,
) -> Status {
    let params = input(params)?;
    let mut state = call.lock();
    let action = fill_node(call, &state, &params, context)?;
    update_node(&mut state, number(exec), number(node), action)
}

fn set_host(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_HOST_NODE_PARAMS_v1,
) -> Status {
    let action = host_node(&input(params)?, 0)?;
    update_node(&mut call.lock(), number(exec), number(node), action)
}

fn set_child(call: Call, exec: CUgraphExec, node: CUgraphNode, graph: CUgraph) -> Status {
    let mut state = call.lock();
    state.graphs.graph(number(graph))?;
    update_node(&mut state, number(exec), number(node), Action::Child(number(graph)))
}

fn set_record(call: Call, exec: CUgraphExec, node: CUgraphNode, event: CUevent) -> Status {
    let mut state = call.lock();
    let action = Action::Record(live_event(&state, event)?);
    update_node(&mut state, number(exec), number(node), action)
}

fn set_wait(call: Call, exec: CUgraphExec, node: CUgraphNode, event: CUevent) -> Status {
    let mut state = call.lock();
    let action = Action::Wait(live_event(&state, event)?);
    update_node(&mut state, number(exec), number(node), action)
}

fn set_mem_ops(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS,
) -> Status {
    let action = mem_op_node(call, &input(params)?)?;
    update_node(&mut call.lock(), number(exec), number(node), action)
}

fn set_enabled(call: Call, exec: CUgraphExec, node: CUgraphNode, enabled: c_uint) -> Status {
    call.lock().graphs.enable_node(number(exec), number(node), enabled != 0)
}

fn get_enabled(call: Call, exec: CUgraphExec, node: CUgraphNode, enabled: *mut c_uint) -> Status {
    if !valid(enabled) {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    let (_, step) = state.graphs.step_of(number(exec), number(node))?;
    if !step.can_be_disabled() {
        return Err(CudaError::INVALID_VALUE);
    }
    out(enabled, c_uint::from(step.enabled))
}

/// Updates and says how it went; a handle that names nothing is no update that failed.
fn update_all(call: Call, exec: CUgraphExec, graph: CUgraph) -> (Misfit, Status) {
    let fine = Misfit {
        result: CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_SUCCESS,
        ..Misfit::invalid()
    };
    let State { graphs, memory, .. } = &mut *call.lock();
    match graphs.update_exec(memory, number(exec), number(graph)) {
        Ok(()) => (fine, Ok(())),
        Err(misfit) if misfit == Misfit::invalid() => (misfit, Err(CudaError::INVALID_VALUE)),
        Err(misfit) => (misfit, Err(CudaError::GRAPH_EXEC_UPDATE_FAILURE)),
    }
}

fn update(
    call: Call,
    exec: CUgraphExec,
    graph: CUgraph,
    node: *mut CUgraphNode,
    result: *mut CUgraphExecUpdateResult,
) -> Status {
    if !node.is_null() && !valid(node) || !result.is_null() && !valid(result) {
        return Err(CudaError::INVALID_VALUE);
    }
    let (misfit, status) = update_all(call, exec, graph);
    out_if_any(node, to_pointer(misfit.node))?;
    out_if_any(result, misfit.result)?;
    status
}

fn update_v2(
    call: Call,
    exec: CUgraphExec,
    graph: CUgraph,
    info: *mut CUgraphExecUpdateResultInfo,
) -> Status {
    if !info.is_null() && !valid(info) {
        return Err(CudaError::INVALID_VALUE);
    }
    let (misfit, status) = update_all(call, exec, graph);
    let found = CUgraphExecUpdateResultInfo {
        result: misfit.result,
        errorNode: to_pointer(misfit.node),
        errorFromNode: to_pointer(misfit.from),
    };
    out_if_any(info, found)?;
    status
}
