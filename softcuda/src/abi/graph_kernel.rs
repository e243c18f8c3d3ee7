#![expect(unsafe_code, reason = "exports C functions")]
//! Kernel nodes: described, ordered and never executed, since kernels are out of scope.

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::graph_node::{Place, get, node_context, set};
use super::graph_update::update_node;
use super::launch::Shape;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::node::Action;
use crate::handle::{number, to_pointer};
use crate::machine::State;
use crate::sched::work::Opaque;
use crate::task::KernelTask;

exports! {
    Normal PFN_cuGraphAddKernelNode_v10000: cuGraphAddKernelNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *const CUDA_KERNEL_NODE_PARAMS_v1,
    ) => add;
    Normal PFN_cuGraphAddKernelNode_v12000: cuGraphAddKernelNode_v2(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *const CUDA_KERNEL_NODE_PARAMS_v2,
    ) => add_v2;
    Normal PFN_cuGraphKernelNodeGetParams_v10000: cuGraphKernelNodeGetParams(
        node: CUgraphNode, params: *mut CUDA_KERNEL_NODE_PARAMS_v1,
    ) => get_params;
    Normal PFN_cuGraphKernelNodeGetParams_v12000: cuGraphKernelNodeGetParams_v2(
        node: CUgraphNode, params: *mut CUDA_KERNEL_NODE_PARAMS_v2,
    ) => get_params_v2;
    Normal PFN_cuGraphKernelNodeSetParams_v10000: cuGraphKernelNodeSetParams(
        node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS_v1,
    ) => set_params;
    Normal PFN_cuGraphKernelNodeSetParams_v12000: cuGraphKernelNodeSetParams_v2(
        node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS_v2,
    ) => set_params_v2;
    Normal PFN_cuGraphExecKernelNodeSetParams_v10010: cuGraphExecKernelNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS_v1,
    ) => exec_set_params;
    Normal PFN_cuGraphExecKernelNodeSetParams_v12000: cuGraphExecKernelNodeSetParams_v2(
        exec: CUgraphExec, node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS_v2,
    ) => exec_set_params_v2;
    Normal PFN_cuGraphKernelNodeCopyAttributes_v11000: cuGraphKernelNodeCopyAttributes(
        dst: CUgraphNode, src: CUgraphNode,
    ) => copy_attributes;
    Normal PFN_cuGraphKernelNodeGetAttribute_v11000: cuGraphKernelNodeGetAttribute(
        node: CUgraphNode, attribute: CUkernelNodeAttrID, value: *mut CUkernelNodeAttrValue_v1,
    ) => get_attribute;
    Normal PFN_cuGraphKernelNodeSetAttribute_v11000: cuGraphKernelNodeSetAttribute(
        node: CUgraphNode, attribute: CUkernelNodeAttrID, value: *const CUkernelNodeAttrValue_v1,
    ) => set_attribute;
}

/// The newer structure with what the older one says.
fn widen(params: &CUDA_KERNEL_NODE_PARAMS_v1) -> CUDA_KERNEL_NODE_PARAMS_v2 {
    let nothing = core::ptr::null_mut();
    CUDA_KERNEL_NODE_PARAMS_v2 {
        func: params.func,
        gridDimX: params.gridDimX,
        gridDimY: params.gridDimY,
        gridDimZ: params.gridDimZ,
        blockDimX: params.blockDimX,
        blockDimY: params.blockDimY,
        blockDimZ: params.blockDimZ,
        sharedMemBytes: params.sharedMemBytes,
        kernelParams: params.kernelParams,
        extra: params.extra,
        kern: nothing,
        ctx: core::ptr::null_mut(),
    }
}

/// The node that a kernel's parameters describe.
pub(crate) fn kernel_node(
    call: Call,
    state: &State,
    params: &CUDA_KERNEL_NODE_PARAMS_v2,
) -> Status<Action> {
    let (function, kernel) = (number(params.func), number(params.kern));
    // Exactly one of the two names the kernel.
    let named = if function == 0 { kernel } else { function };
    if function != 0 && kernel != 0 || named == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let shape = Shape {
        grid: [params.gridDimX, params.gridDimY, params.gridDimZ],
        block: [params.blockDimX, params.blockDimY, params.blockDimZ],
        shared: params.sharedMemBytes,
    };
    let context = node_context(call, state, params.ctx)?;
    let task = call.kernel_task(state, named, shape, params.kernelParams, params.extra)?;
    Ok(Action::Kernel(KernelTask { function, kernel, context, ..task }))
}

/// The parameters that describe a kernel.
pub(crate) fn kernel_params(kernel: &KernelTask) -> CUDA_KERNEL_NODE_PARAMS_v2 {
    CUDA_KERNEL_NODE_PARAMS_v2 {
        func: to_pointer(kernel.function),
        gridDimX: kernel.grid[0],
        gridDimY: kernel.grid[1],
        gridDimZ: kernel.grid[2],
        blockDimX: kernel.block[0],
        blockDimY: kernel.block[1],
        blockDimZ: kernel.block[2],
        sharedMemBytes: kernel.shared,
        kernelParams: kernel.params.0,
        extra: kernel.extra.0,
        kern: to_pointer(kernel.kernel),
        ctx: to_pointer(kernel.context),
    }
}

fn narrow(params: &CUDA_KERNEL_NODE_PARAMS_v2) -> CUDA_KERNEL_NODE_PARAMS_v1 {
    CUDA_KERNEL_NODE_PARAMS_v1 {
        func: params.func,
        gridDimX: params.gridDimX,
        gridDimY: params.gridDimY,
        gridDimZ: params.gridDimZ,
        blockDimX: params.blockDimX,
        blockDimY: params.blockDimY,
        blockDimZ: params.blockDimZ,
        sharedMemBytes: params.sharedMemBytes,
        kernelParams: params.kernelParams,
        extra: params.extra,
    }
}

fn add(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> Status {
    let params = widen(&input(params)?);
    Place::new(node, graph, dependencies, count)
        .add(call, |state| kernel_node(call, state, &params))
}

fn add_v2(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *const CUDA_KERNEL_NODE_PARAMS_v2,
) -> Status {
    let params = input(params)?;
    Place::new(node, graph, dependencies, count)
        .add(call, |state| kernel_node(call, state, &params))
}

fn get_params(call: Call, node: CUgraphNode, params: *mut CUDA_KERNEL_NODE_PARAMS_v1) -> Status {
    get(call, node, params, |action| match action {
        Action::Kernel(kernel) => Some(narrow(&kernel_params(kernel))),
        _ => None,
    })
}

fn get_params_v2(call: Call, node: CUgraphNode, params: *mut CUDA_KERNEL_NODE_PARAMS_v2) -> Status {
    get(call, node, params, |action| match action {
        Action::Kernel(kernel) => Some(kernel_params(kernel)),
        _ => None,
    })
}

fn set_kernel(call: Call, node: CUgraphNode, params: &CUDA_KERNEL_NODE_PARAMS_v2) -> Status {
    let mut state = call.lock();
    let action = kernel_node(call, &state, params)?;
    set(&mut state, node, action)
}

fn set_params(call: Call, node: CUgraphNode, params: *const CUDA_KERNEL_NODE_PARAMS_v1) -> Status {
    set_kernel(call, node, &widen(&input(params)?))
}

fn set_params_v2(
    call: Call,
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS_v2,
) -> Status {
    set_kernel(call, node, &input(params)?)
}

fn exec_set(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: &CUDA_KERNEL_NODE_PARAMS_v2,
) -> Status {
    let mut state = call.lock();
    let action = kernel_node(call, &state, params)?;
    update_node(&mut state, number(exec), number(node), action)
}

fn exec_set_params(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS_v1,
) -> Status {
    exec_set(call, exec, node, &widen(&input(params)?))
}

fn exec_set_params_v2(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *const CUDA_KERNEL_NODE_PARAMS_v2,
) -> Status {
    exec_set(call, exec, node, &input(params)?)
}

/// Refuses a node that is none of a kernel.
fn check_kernel(state: &State, node: CUgraphNode) -> Status {
    match state.graphs.node(number(node))?.action {
        Action::Kernel(_) => Ok(()),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

fn copy_attributes(call: Call, dst: CUgraphNode, src: CUgraphNode) -> Status {
    let mut state = call.lock();
    check_kernel(&state, dst)?;
    check_kernel(&state, src)?;
    let attributes = state.graphs.node(number(src))?.attributes.clone();
    state.graphs.node_mut(number(dst))?.attributes = attributes;
    Ok(())
}

/// An attribute that was not set is zero.
fn get_attribute(
    call: Call,
    node: CUgraphNode,
    attribute: CUkernelNodeAttrID,
    value: *mut CUkernelNodeAttrValue_v1,
) -> Status {
    if !valid(value) {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    check_kernel(&state, node)?;
    let known = state.graphs.node(number(node))?.attributes.get(&attribute.0);
    out(value, known.map_or(CUkernelNodeAttrValue_v1 { pad: [0; 64] }, |known| known.0))
}

fn set_attribute(
    call: Call,
    node: CUgraphNode,
    attribute: CUkernelNodeAttrID,
    value: *const CUkernelNodeAttrValue_v1,
) -> Status {
    let value = input(value)?;
    let mut state = call.lock();
    check_kernel(&state, node)?;
    state.graphs.node_mut(number(node))?.attributes.insert(attribute.0, Opaque(value));
    Ok(())
}
