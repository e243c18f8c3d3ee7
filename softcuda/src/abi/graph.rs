#![expect(unsafe_code, reason = "exports C functions")]
//! Graphs: their making, their nodes and edges.

use core::ffi::{CStr, c_char, c_uint, c_ulonglong};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::graph_edges::List;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::definition::Owner;
use crate::graph::dot::{Details, dot};
use crate::handle::{number, to_pointer};

exports! {
    Normal PFN_cuGraphCreate_v10000: cuGraphCreate(graph: *mut CUgraph, flags: c_uint) => create;
    Always PFN_cuGraphDestroy_v10000: cuGraphDestroy(graph: CUgraph) => destroy;
    Normal PFN_cuGraphClone_v10000: cuGraphClone(copy: *mut CUgraph, graph: CUgraph) => clone;
    Normal PFN_cuGraphNodeFindInClone_v10000: cuGraphNodeFindInClone(
        node: *mut CUgraphNode, original: CUgraphNode, graph: CUgraph,
    ) => find_in_clone;
    Normal PFN_cuGraphNodeGetType_v10000: cuGraphNodeGetType(
        node: CUgraphNode, kind: *mut CUgraphNodeType,
    ) => node_type;
    Normal PFN_cuGraphNodeGetContainingGraph_v13010: cuGraphNodeGetContainingGraph(
        node: CUgraphNode, graph: *mut CUgraph,
    ) => containing_graph;
    Normal PFN_cuGraphNodeGetLocalId_v13010: cuGraphNodeGetLocalId(
        node: CUgraphNode, id: *mut c_uint,
    ) => local_id;
    Normal PFN_cuGraphNodeGetToolsId_v13010: cuGraphNodeGetToolsId(
        node: CUgraphNode, id: *mut c_ulonglong,
    ) => tools_id;
    Normal PFN_cuGraphGetId_v13010: cuGraphGetId(graph: CUgraph, id: *mut c_uint) => graph_id;
    Normal PFN_cuGraphGetNodes_v10000: cuGraphGetNodes(
        graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize,
    ) => get_nodes;
    Normal PFN_cuGraphGetRootNodes_v10000: cuGraphGetRootNodes(
        graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize,
    ) => get_root_nodes;
    Normal PFN_cuGraphDestroyNode_v10000: cuGraphDestroyNode(node: CUgraphNode) => destroy_node;
    Normal PFN_cuGraphDebugDotPrint_v11030: cuGraphDebugDotPrint(
        graph: CUgraph, path: *const c_char, flags: c_uint,
    ) => debug_dot_print;
}

fn create(call: Call, graph: *mut CUgraph, flags: c_uint) -> Status {
    if !valid(graph) || flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let made = call.lock().graphs.create_graph(Owner::Program);
    out(graph, to_pointer(made))
}

fn destroy(call: Call, graph: CUgraph) -> Status {
    let mut state = call.lock();
    let handle = number(graph);
    // A graph in a child graph node belongs to the node, one that is being captured to the
    // capture: "all operations other than destroy and node removal are permitted".
    if state.graphs.graph(handle)?.owner != Owner::Program
        || state.graphs.captures.is_target(handle)
    {
        return Err(CudaError::INVALID_VALUE);
    }
    state.graphs.remove_graph(handle);
    state.collect_graph_memory();
    Ok(())
}

fn clone(call: Call, copy: *mut CUgraph, graph: CUgraph) -> Status {
    if !valid(copy) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    // "The graph cannot be cloned" where it contains allocation or free nodes.
    if state.graphs.has_memory(number(graph)) {
        return Err(CudaError::INVALID_VALUE);
    }
    let made = state.graphs.clone_graph(number(graph), Owner::Program)?;
    out(copy, to_pointer(made))
}

fn find_in_clone(
    call: Call,
    node: *mut CUgraphNode,
    original: CUgraphNode,
    graph: CUgraph,
) -> Status {
    if !valid(node) {
        return Err(CudaError::INVALID_VALUE);
    }
    let state = call.lock();
    let original = state.graphs.nodes.name(number(original)).ok_or(CudaError::INVALID_VALUE)?;
    let found = state.graphs.find_in_clone(original, number(graph));
    out(node, to_pointer(found.ok_or(CudaError::INVALID_VALUE)?))
}

fn node_type(call: Call, node: CUgraphNode, kind: *mut CUgraphNodeType) -> Status {
    let known = call.lock().graphs.node(number(node))?.action.kind();
    out(kind, known)
}

fn containing_graph(call: Call, node: CUgraphNode, graph: *mut CUgraph) -> Status {
    let known = call.lock().graphs.node(number(node))?.graph;
    out(graph, to_pointer(known))
}

fn local_id(call: Call, node: CUgraphNode, id: *mut c_uint) -> Status {
    let known = call.lock().graphs.node(number(node))?.local;
    out(id, known)
}

/// The graph's id and the node's number in it.
fn tools_id(call: Call, node: CUgraphNode, id: *mut c_ulonglong) -> Status {
    let state = call.lock();
    let known = state.graphs.node(number(node))?;
    let graph = state.graphs.graph(known.graph)?.id;
    out(id, u64::from(graph) << 32 | u64::from(known.local))
}

fn graph_id(call: Call, graph: CUgraph, id: *mut c_uint) -> Status {
    let known = call.lock().graphs.graph(number(graph))?.id;
    out(id, known)
}

fn get_nodes(call: Call, graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> Status {
    let list = List::new(nodes.is_null(), count)?;
    let state = call.lock();
    let known = &state.graphs.graph(number(graph))?.nodes;
    list.write_nodes(nodes, known)?;
    list.write_count(known.len())
}

fn get_root_nodes(
    call: Call,
    graph: CUgraph,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> Status {
    let list = List::new(nodes.is_null(), count)?;
    let state = call.lock();
    let is_root =
        |node: &u64| state.graphs.nodes.get(*node).is_some_and(|node| node.dependencies.is_empty());
    let roots: Vec<_> =
        state.graphs.graph(number(graph))?.nodes.iter().copied().filter(is_root).collect();
    list.write_nodes(nodes, &roots)?;
    list.write_count(roots.len())
}

fn destroy_node(call: Call, node: CUgraphNode) -> Status {
    let mut state = call.lock();
    let handle = number(node);
    let graph = state.graphs.node(handle)?.graph;
    if state.graphs.captures.is_target(graph) || state.graphs.has_memory(graph) {
        return Err(CudaError::INVALID_VALUE);
    }
    state.graphs.remove_node(handle)
}

fn debug_dot_print(call: Call, graph: CUgraph, path: *const c_char, flags: c_uint) -> Status {
    let state = call.lock();
    state.graphs.graph(number(graph))?;
    if !valid(path) || flags & !Details::ALL != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let text = dot(&state.graphs, number(graph), Details(flags));
    drop(state);
    // SAFETY: the program promised a string; it is read before the call returns.
    let path = unsafe { CStr::from_ptr(path) };
    std::fs::write(OsStr::from_bytes(path.to_bytes()), text)
        .map_err(|_| CudaError::OPERATING_SYSTEM)
}
