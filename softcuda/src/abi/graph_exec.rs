#![expect(unsafe_code, reason = "exports C functions")]
//! Executable graphs: making, launching and destroying them.

use core::ffi::{c_char, c_uint, c_ulonglong};
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::plan::{Exec, Obstacle, Plan};
use crate::handle::{number, to_pointer};
use crate::machine::{State, Work};

/// `cuGraphInstantiate` with a place for the node that is wrong and for words about it.
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuGraphInstantiate_v10000 = Option<
    unsafe extern "C" fn(
        *mut CUgraphExec,
        CUgraph,
        *mut CUgraphNode,
        *mut c_char,
        usize,
    ) -> CUresult,
>;
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuGraphInstantiate_v11000 = PFN_cuGraphInstantiate_v10000;

exports! {
    Normal PFN_cuGraphInstantiate_v10000: cuGraphInstantiate(
        exec: *mut CUgraphExec, graph: CUgraph, node: *mut CUgraphNode, log: *mut c_char,
        size: usize,
    ) => instantiate_with_log;
    Normal PFN_cuGraphInstantiate_v11000: cuGraphInstantiate_v2(
        exec: *mut CUgraphExec, graph: CUgraph, node: *mut CUgraphNode, log: *mut c_char,
        size: usize,
    ) => instantiate_with_log;
    Normal PFN_cuGraphInstantiateWithFlags_v11040: cuGraphInstantiateWithFlags(
        exec: *mut CUgraphExec, graph: CUgraph, flags: c_ulonglong,
    ) => instantiate_with_flags;
    Normal PFN_cuGraphInstantiateWithParams_v12000: cuGraphInstantiateWithParams(
        exec: *mut CUgraphExec, graph: CUgraph, params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
    ) | cuGraphInstantiateWithParams_ptsz => instantiate_with_params;
    Normal PFN_cuGraphExecGetFlags_v12000: cuGraphExecGetFlags(
        exec: CUgraphExec, flags: *mut cuuint64_t,
    ) => get_flags;
    Normal PFN_cuGraphExecGetId_v13010: cuGraphExecGetId(
        exec: CUgraphExec, id: *mut c_uint,
    ) => get_id;
    Always PFN_cuGraphExecDestroy_v10000: cuGraphExecDestroy(exec: CUgraphExec) => destroy;
    Normal PFN_cuGraphUpload_v11010: cuGraphUpload(
        exec: CUgraphExec, stream: CUstream,
    ) | cuGraphUpload_ptsz => upload;
    Normal PFN_cuGraphLaunch_v10000: cuGraphLaunch(
        exec: CUgraphExec, stream: CUstream,
    ) | cuGraphLaunch_ptsz => launch;
}

const AUTO_FREE: u64 =
    CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH.0 as u64;
const UPLOAD: u64 = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD.0 as u64;
const DEVICE_LAUNCH: u64 =
    CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH.0 as u64;
const NODE_PRIORITY: u64 =
    CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY.0 as u64;

impl State {
    /// Makes an executable graph.
    fn instantiate(&mut self, graph: u64, flags: u64) -> Result<u64, Obstacle> {
        let known = AUTO_FREE | UPLOAD | DEVICE_LAUNCH | NODE_PRIORITY;
        let contradicts = flags & AUTO_FREE != 0 && flags & DEVICE_LAUNCH != 0;
        // "The graph will not be instantiable until the user calls cuStreamEndCapture."
        let is_captured = self.graphs.captures.is_target(graph);
        if flags & !known != 0 || contradicts || is_captured {
            return Err(Obstacle::Other(CudaError::INVALID_VALUE));
        }
        let plan = Plan::of(&self.graphs, &self.memory, graph)?;
        let graph =
            self.graphs.graphs.name(graph).ok_or(Obstacle::Other(CudaError::INVALID_VALUE))?;
        // "There can be at most one executable graph in existence for that graph at a time."
        if plan.has_memory && self.graphs.execs.values().any(|exec| exec.graph == graph) {
            return Err(Obstacle::Other(CudaError::INVALID_VALUE));
        }
        if flags & DEVICE_LAUNCH != 0 {
            plan.check_device_launch()?;
        }
        let id = self.graphs.next_id();
        let (plan, lanes) = (Arc::new(plan), Vec::new());
        Ok(self.graphs.execs.insert(Exec { id, graph, flags, plan, last: 0, lanes }))
    }
}

fn instantiate_with_log(
    call: Call,
    exec: *mut CUgraphExec,
    graph: CUgraph,
    node: *mut CUgraphNode,
    log: *mut c_char,
    size: usize,
) -> Status {
    if size > 0 && valid(log) {
        // The words about the error are none.
        out(log, 0)?;
    }
    match instantiate(call, exec, graph, 0) {
        Ok(()) => Ok(()),
        Err(obstacle) => {
            if !node.is_null() {
                out(node, to_pointer(obstacle.node()))?;
            }
            Err(obstacle.code())
        }
    }
}

fn instantiate_with_flags(
    call: Call,
    exec: *mut CUgraphExec,
    graph: CUgraph,
    flags: c_ulonglong,
) -> Status {
    // The flag is for the call that takes a stream to upload in.
    if flags & UPLOAD != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    instantiate(call, exec, graph, flags).map_err(Obstacle::code)
}

fn instantiate(
    call: Call,
    exec: *mut CUgraphExec,
    graph: CUgraph,
    flags: u64,
) -> Result<(), Obstacle> {
    if !valid(exec) {
        return Err(Obstacle::Other(CudaError::INVALID_VALUE));
    }
    let mut state = call.lock();
    let made = state.instantiate(number(graph), flags)?;
    out(exec, to_pointer(made)).map_err(Obstacle::Other)
}

fn instantiate_with_params(
    call: Call,
    exec: *mut CUgraphExec,
    graph: CUgraph,
    params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS,
) -> Status {
    let given = input(params)?;
    let mut result = instantiate(call, exec, graph, given.flags);
    if result.is_ok() && given.flags & UPLOAD != 0 {
        result = input(exec)
            .and_then(|exec| upload(call, exec, given.hUploadStream))
            .map_err(Obstacle::Other);
    }
    let (node, code) = match &result {
        Ok(()) => (0, CUgraphInstantiateResult::CUDA_GRAPH_INSTANTIATE_SUCCESS),
        Err(obstacle) => (obstacle.node(), obstacle.result()),
    };
    // The parameters say why also where the call fails.
    out(
        params,
        CUDA_GRAPH_INSTANTIATE_PARAMS { hErrNode_out: to_pointer(node), result_out: code, ..given },
    )?;
    result.map_err(Obstacle::code)
}

fn get_flags(call: Call, exec: CUgraphExec, flags: *mut cuuint64_t) -> Status {
    let known = call.lock().graphs.exec(number(exec))?.flags;
    out(flags, known)
}

fn get_id(call: Call, exec: CUgraphExec, id: *mut c_uint) -> Status {
    let known = call.lock().graphs.exec(number(exec))?.id;
    out(id, known)
}

fn destroy(call: Call, exec: CUgraphExec) -> Status {
    // A launch in flight has the plan and everything that it uses.
    let mut state = call.lock();
    state.graphs.execs.remove(number(exec)).ok_or(CudaError::INVALID_VALUE)?;
    state.collect_graph_memory();
    Ok(())
}

fn upload(call: Call, exec: CUgraphExec, stream: CUstream) -> Status {
    let mut state = call.lock();
    let last = state.graphs.exec(number(exec))?.last;
    let stream = call.stream(&mut state, stream)?;
    call.forbid_on_capturing(&mut state, stream)?;
    let op = state.enqueue(call.name, stream, Work::Nothing, &[last])?;
    state.graphs.exec_mut(number(exec))?.last = op;
    drop(call.machine.kick(state));
    Ok(())
}

fn launch(call: Call, exec: CUgraphExec, stream: CUstream) -> Status {
    let mut state = call.lock();
    let handle = number(exec);
    state.graphs.exec(handle)?;
    let stream = call.stream(&mut state, stream)?;
    if let Some(capture) = state.capture_of(stream)? {
        return state.graphs.capture_launch(capture, stream, handle);
    }
    call.launch(&mut state, handle, stream)?;
    drop(call.machine.kick(state));
    Ok(())
}
