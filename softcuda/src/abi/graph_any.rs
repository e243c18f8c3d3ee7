#![expect(unsafe_code, reason = "exports C functions")]
//! Nodes of any type by one structure, a tagged union.

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::graph_event::live_event;
use super::graph_kernel::{kernel_node, kernel_params};
use super::graph_memory::{alloc_node, free_node};
use super::graph_node::{Place, copy_node, fill_node, host_node, mem_op_node, set};
use super::graph_update::update_node;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::definition::Owner;
use crate::graph::node::{Action, Branches};
use crate::handle::{number, to_pointer};
use crate::machine::State;

exports! {
    Normal PFN_cuGraphAddNode_v12020: cuGraphAddNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *mut CUgraphNodeParams,
    ) => add;
    Normal PFN_cuGraphAddNode_v12030: cuGraphAddNode_v2(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode,
        data: *const CUgraphEdgeData, count: usize, params: *mut CUgraphNodeParams,
    ) => add_v2;
    Normal PFN_cuGraphNodeSetParams_v12020: cuGraphNodeSetParams(
        node: CUgraphNode, params: *mut CUgraphNodeParams,
    ) => set_params;
    Normal PFN_cuGraphNodeGetParams_v13020: cuGraphNodeGetParams(
        node: CUgraphNode, params: *mut CUgraphNodeParams,
    ) => get_params;
    Normal PFN_cuGraphExecNodeSetParams_v12020: cuGraphExecNodeSetParams(
        exec: CUgraphExec, node: CUgraphNode, params: *mut CUgraphNodeParams,
    ) => exec_set_params;
    Normal PFN_cuGraphConditionalHandleCreate_v12030: cuGraphConditionalHandleCreate(
        handle: *mut CUgraphConditionalHandle, graph: CUgraph, context: CUcontext,
        value: ::core::ffi::c_uint, flags: ::core::ffi::c_uint,
    ) => create_conditional_handle;
}

/// One member of the union, as bytes: every type of node has a structure of integers and pointers.
fn member<T: Copy>(params: &CUgraphNodeParams) -> T {
    const { assert!(size_of::<T>() <= 232) };
    // SAFETY: all bytes of the union were read from the program.
    let bytes = unsafe { params.__bindgen_anon_1.asBytes };
    // SAFETY: `T` is not larger than the bytes, and any bytes make one.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// Writes one member of the union.
fn with_member<T>(kind: CUgraphNodeType, value: T) -> CUgraphNodeParams {
    const { assert!(size_of::<T>() <= 232) };
    let mut union = CUgraphNodeParams_st__bindgen_ty_1 { reserved1: [0; 29] };
    // SAFETY: `T` is not larger than the union, which holds any bytes.
    unsafe { (&raw mut union).cast::<T>().write_unaligned(value) };
    CUgraphNodeParams { type_: kind, reserved0: [0; 3], __bindgen_anon_1: union, reserved2: 0 }
}

/// The action that the structure describes, with batches of memory operations left out: those
/// are read without the lock.
fn action_of(call: Call, state: &State, params: &CUgraphNodeParams) -> Status<Action> {
    match params.type_ {
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY => Ok(Action::Empty),
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL => kernel_node(call, state, &member(params)),
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY => {
            let copy: CUDA_MEMCPY_NODE_PARAMS = member(params);
            if copy.flags != 0 || copy.reserved != 0 {
                return Err(CudaError::INVALID_VALUE);
            }
            copy_node(call, state, &copy.copyParams, copy.copyCtx)
        }
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMSET => {
            let CUDA_MEMSET_NODE_PARAMS_v2 { dst, pitch, value, elementSize, width, height, ctx } =
                member(params);
            let fill = CUDA_MEMSET_NODE_PARAMS_v1 { dst, pitch, value, elementSize, width, height };
            fill_node(call, state, &fill, ctx)
        }
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_HOST => {
            let CUDA_HOST_NODE_PARAMS_v2 { fn_, userData, syncMode } = member(params);
            host_node(&CUDA_HOST_NODE_PARAMS_v1 { fn_, userData }, syncMode)
        }
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_GRAPH => {
            let child: CUDA_CHILD_GRAPH_NODE_PARAMS = member(params);
            // A graph is always copied into its node: moving one there is not supported.
            match child.ownership {
                CUgraphChildGraphNodeOwnership::CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE => {}
                CUgraphChildGraphNodeOwnership::CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE => {
                    return Err(CudaError::NOT_SUPPORTED);
                }
                _ => return Err(CudaError::INVALID_VALUE),
            }
            state.graphs.graph(number(child.graph))?;
            Ok(Action::Child(number(child.graph)))
        }
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_WAIT_EVENT => Ok(Action::Wait(live_event(
            state,
            member::<CUDA_EVENT_WAIT_NODE_PARAMS>(params).event,
        )?)),
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_EVENT_RECORD => Ok(Action::Record(live_event(
            state,
            member::<CUDA_EVENT_RECORD_NODE_PARAMS>(params).event,
        )?)),
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_EXT_SEMAS_SIGNAL
        | CUgraphNodeType::CU_GRAPH_NODE_TYPE_EXT_SEMAS_WAIT => Err(CudaError::NOT_SUPPORTED),
        _ => Err(CudaError::INVALID_VALUE),
    }
}

/// Reads the structure; a batch of memory operations becomes its action at once.
fn read(call: Call, params: *mut CUgraphNodeParams) -> Status<(CUgraphNodeParams, Option<Action>)> {
    let params = input(params)?;
    if params.reserved0 != [0; 3] || params.reserved2 != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let is_batch = params.type_ == CUgraphNodeType::CU_GRAPH_NODE_TYPE_BATCH_MEM_OP;
    let batch = if is_batch { Some(mem_op_node(call, &member(&params))?) } else { None };
    Ok((params, batch))
}

fn add(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut CUgraphNodeParams,
) -> Status {
    add_v2(call, node, graph, dependencies, core::ptr::null(), count, params)
}

fn add_v2(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
    params: *mut CUgraphNodeParams,
) -> Status {
    call.lock().graphs.graph(number(graph))?;
    let (given, batch) = read(call, params)?;
    let place = Place { node, graph, dependencies, data, count };
    match given.type_ {
        // These types return something in the parameters or need more than an action.
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC => {
            let mut alloc: CUDA_MEM_ALLOC_NODE_PARAMS_v2 = member(&given);
            alloc.dptr = alloc_node(call, place, &alloc.poolProps, alloc.bytesize)?;
            out(params, with_member(given.type_, alloc))
        }
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE => {
            free_node(call, place, member::<CUDA_MEM_FREE_NODE_PARAMS>(&given).dptr)
        }
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_CONDITIONAL => {
            let mut conditional: CUDA_CONDITIONAL_NODE_PARAMS = member(&given);
            conditional.phGraph_out = add_conditional(call, place, &conditional)?;
            out(params, with_member(given.type_, conditional))
        }
        _ => place.add(call, |state| batch.map_or_else(|| action_of(call, state, &given), Ok)),
    }
}

/// Adds a conditional node with empty graphs to be filled, and returns where their handles are.
fn add_conditional(
    call: Call,
    place: Place,
    params: &CUDA_CONDITIONAL_NODE_PARAMS,
) -> Status<*mut CUgraph> {
    let fits = match params.type_ {
        CUgraphConditionalNodeType::CU_GRAPH_COND_TYPE_IF => matches!(params.size, 1 | 2),
        CUgraphConditionalNodeType::CU_GRAPH_COND_TYPE_WHILE => params.size == 1,
        CUgraphConditionalNodeType::CU_GRAPH_COND_TYPE_SWITCH => (1..1024).contains(&params.size),
        _ => false,
    };
    if !fits || !valid(place.node) {
        return Err(CudaError::INVALID_VALUE);
    }
    let (at, graph) = (place.node, number(place.graph));
    place.add(call, |state| {
        let value = state.graphs.free_conditional(params.handle, graph)?;
        Ok(Action::Conditional(Branches {
            kind: params.type_,
            handle: params.handle,
            value,
            graphs: Vec::new(),
        }))
    })?;
    let mut state = call.lock();
    state.graphs.use_conditional(params.handle);
    let node = number(input(at)?);
    let graphs: Vec<_> =
        (0..params.size).map(|_| state.graphs.create_graph(Owner::Node(node))).collect();
    let Action::Conditional(branches) = &mut state.graphs.node_mut(node)?.action else {
        return Err(CudaError::INVALID_VALUE);
    };
    branches.graphs = graphs;
    // Handles of graphs are pointers of the same size as their numbers. The node owns the array.
    Ok(branches.graphs.as_ptr().cast_mut().cast())
}

fn create_conditional_handle(
    call: Call,
    handle: *mut CUgraphConditionalHandle,
    graph: CUgraph,
    context: CUcontext,
    value: ::core::ffi::c_uint,
    flags: ::core::ffi::c_uint,
) -> Status {
    if !valid(handle) || flags > 1 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    state.graphs.graph(number(graph))?;
    super::graph_node::node_context(call, &state, context)?;
    // Without CU_GRAPH_COND_ASSIGN_DEFAULT nothing sets the value, since no kernel runs.
    let made = state.graphs.create_conditional(number(graph), if flags == 1 { value } else { 0 });
    out(handle, made)
}

fn set_params(call: Call, node: CUgraphNode, params: *mut CUgraphNodeParams) -> Status {
    let (given, batch) = read(call, params)?;
    let mut state = call.lock();
    let known = state.graphs.node(number(node))?;
    if known.action.kind() != given.type_ {
        return Err(CudaError::INVALID_VALUE);
    }
    // Nodes that own memory or graphs keep what they were added with.
    if matches!(
        known.action,
        Action::Child(_) | Action::Alloc(_) | Action::Free(_) | Action::Conditional(_)
    ) {
        return Err(CudaError::NOT_SUPPORTED);
    }
    let action = batch.map_or_else(|| action_of(call, &state, &given), Ok)?;
    set(&mut state, node, action)
}

fn exec_set_params(
    call: Call,
    exec: CUgraphExec,
    node: CUgraphNode,
    params: *mut CUgraphNodeParams,
) -> Status {
    let (given, batch) = read(call, params)?;
    let mut state = call.lock();
    // An unknown node is reported before an unsupported type.
    state.graphs.step_of(number(exec), number(node))?;
    let is_memory = matches!(
        given.type_,
        CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC
            | CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE
            | CUgraphNodeType::CU_GRAPH_NODE_TYPE_CONDITIONAL
    );
    if is_memory {
        return Err(CudaError::NOT_SUPPORTED);
    }
    let action = batch.map_or_else(|| action_of(call, &state, &given), Ok)?;
    update_node(&mut state, number(exec), number(node), action)
}

fn get_params(call: Call, node: CUgraphNode, params: *mut CUgraphNodeParams) -> Status {
    if !valid(params) {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    let action = &state.graphs.node(number(node))?.action;
    let kind = action.kind();
    let found = match action {
        Action::Empty => with_member(kind, 0_u64),
        Action::Copy(copy) => {
            let copy = CUDA_MEMCPY_NODE_PARAMS {
                flags: 0,
                reserved: 0,
                copyCtx: to_pointer(copy.context),
                copyParams: copy.params.0,
            };
            with_member(kind, copy)
        }
        Action::Fill(fill) => {
            let CUDA_MEMSET_NODE_PARAMS_v1 { dst, pitch, value, elementSize, width, height } =
                fill.params();
            let ctx = to_pointer(fill.context);
            with_member(
                kind,
                CUDA_MEMSET_NODE_PARAMS_v2 { dst, pitch, value, elementSize, width, height, ctx },
            )
        }
        Action::Host(host) => with_member(
            kind,
            CUDA_HOST_NODE_PARAMS_v2 {
                fn_: host.function,
                userData: host.data.0,
                syncMode: host.sync_mode,
            },
        ),
        Action::MemOps(ops) => with_member(kind, ops.raw()),
        Action::Kernel(kernel) => with_member(kind, kernel_params(kernel)),
        Action::Record(event) | Action::Wait(event) => with_member(kind, event.raw),
        Action::Child(graph) => with_member(
            kind,
            CUDA_CHILD_GRAPH_NODE_PARAMS {
                graph: to_pointer(*graph),
                ownership: CUgraphChildGraphNodeOwnership::CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE,
            },
        ),
        Action::Alloc(block) => with_member(kind, super::graph_memory::alloc_params(block)),
        Action::Free(block) => with_member(kind, CUDA_MEM_FREE_NODE_PARAMS { dptr: block.device }),
        Action::Conditional(branches) => with_member(
            kind,
            CUDA_CONDITIONAL_NODE_PARAMS {
                handle: branches.handle,
                type_: branches.kind,
                size: u32::try_from(branches.graphs.len()).unwrap_or(0),
                phGraph_out: branches.graphs.as_ptr().cast_mut().cast(),
                ctx: core::ptr::null_mut(),
            },
        ),
    };
    out(params, found)
}
