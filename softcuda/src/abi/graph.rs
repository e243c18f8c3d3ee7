#![expect(unsafe_code, reason = "exports C functions")]
//! Graphs: their making, their nodes and edges.

use core::ffi::{CStr, c_char, c_uint, c_ulonglong};
use core::ptr;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::call::{inputs, out_array};
use super::{Call, Status, exports, out, valid};
use crate::graph::Store;
use crate::graph::definition::Owner;
use crate::graph::dot::{Details, dot};
use crate::graph::node::{Edge, EdgeData};
use crate::handle::{number, to_pointer};

exports! {
    Normal PFN_cuGraphCreate_v10000: cuGraphCreate(graph: *mut CUgraph, flags: c_uint) => create;
    Always PFN_cuGraphDestroy_v10000: cuGraphDestroy(graph: CUgraph) => destroy;
    Normal PFN_cuGraphClone_v10000: cuGraphClone(copy: *mut CUgraph, graph: CUgraph) => clone;
    Normal PFN_cuGraphNodeFindInClone_v10000: cuGraphNodeFindInClone(node: *mut CUgraphNode, original: CUgraphNode, graph: CUgraph) => find_in_clone;
    Normal PFN_cuGraphNodeGetType_v10000: cuGraphNodeGetType(node: CUgraphNode, kind: *mut CUgraphNodeType) => node_type;
    Normal PFN_cuGraphNodeGetContainingGraph_v13010: cuGraphNodeGetContainingGraph(node: CUgraphNode, graph: *mut CUgraph) => containing_graph;
    Normal PFN_cuGraphNodeGetLocalId_v13010: cuGraphNodeGetLocalId(node: CUgraphNode, id: *mut c_uint) => local_id;
    Normal PFN_cuGraphNodeGetToolsId_v13010: cuGraphNodeGetToolsId(node: CUgraphNode, id: *mut c_ulonglong) => tools_id;
    Normal PFN_cuGraphGetId_v13010: cuGraphGetId(graph: CUgraph, id: *mut c_uint) => graph_id;
    Normal PFN_cuGraphGetNodes_v10000: cuGraphGetNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) => get_nodes;
    Normal PFN_cuGraphGetRootNodes_v10000: cuGraphGetRootNodes(graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) => get_root_nodes;
    Normal PFN_cuGraphGetEdges_v10000: cuGraphGetEdges(graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, count: *mut usize) => get_edges;
    Normal PFN_cuGraphGetEdges_v12030: cuGraphGetEdges_v2(
        graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, data: *mut CUgraphEdgeData, count: *mut usize,
    ) => get_edges_v2;
    Normal PFN_cuGraphNodeGetDependencies_v10000: cuGraphNodeGetDependencies(node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize) => get_dependencies;
    Normal PFN_cuGraphNodeGetDependencies_v12030: cuGraphNodeGetDependencies_v2(
        node: CUgraphNode, nodes: *mut CUgraphNode, data: *mut CUgraphEdgeData, count: *mut usize,
    ) => get_dependencies_v2;
    Normal PFN_cuGraphNodeGetDependentNodes_v10000: cuGraphNodeGetDependentNodes(node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize) => get_dependents;
    Normal PFN_cuGraphNodeGetDependentNodes_v12030: cuGraphNodeGetDependentNodes_v2(
        node: CUgraphNode, nodes: *mut CUgraphNode, data: *mut CUgraphEdgeData, count: *mut usize,
    ) => get_dependents_v2;
    Normal PFN_cuGraphAddDependencies_v10000: cuGraphAddDependencies(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize,
    ) => add_dependencies;
    Normal PFN_cuGraphAddDependencies_v12030: cuGraphAddDependencies_v2(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, data: *const CUgraphEdgeData, count: usize,
    ) => add_dependencies_v2;
    Normal PFN_cuGraphRemoveDependencies_v10000: cuGraphRemoveDependencies(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize,
    ) => remove_dependencies;
    Normal PFN_cuGraphRemoveDependencies_v12030: cuGraphRemoveDependencies_v2(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, data: *const CUgraphEdgeData, count: usize,
    ) => remove_dependencies_v2;
    Normal PFN_cuGraphDestroyNode_v10000: cuGraphDestroyNode(node: CUgraphNode) => destroy_node;
    Normal PFN_cuGraphDebugDotPrint_v11030: cuGraphDebugDotPrint(graph: CUgraph, path: *const c_char, flags: c_uint) => debug_dot_print;
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
    if state.graphs.graph(handle)?.owner != Owner::Program || state.graphs.captures.is_target(handle) {
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

fn find_in_clone(call: Call, node: *mut CUgraphNode, original: CUgraphNode, graph: CUgraph) -> Status {
    if !valid(node) {
        return Err(CudaError::INVALID_VALUE);
    }
    let found = call.lock().graphs.find_in_clone(number(original), number(graph));
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

/// Writes a list as every call does that lists nodes or edges: the number where `to` is null,
/// else up to `count` entries and zeros behind the last one.
struct List {
    capacity: Option<usize>,
    count: *mut usize,
}

impl List {
    fn new(is_null: bool, count: *mut usize) -> Status<Self> {
        let capacity = super::call::input(count)?;
        Ok(Self { capacity: (!is_null).then_some(capacity), count })
    }

    fn write<T: Copy>(&self, to: *mut T, values: &[T], nothing: T) -> Status {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let shown = values.len().min(capacity);
        out_array(to, &values[..shown])?;
        for index in shown..capacity {
            out(to.wrapping_add(index), nothing)?;
        }
        Ok(())
    }

    fn write_nodes(&self, to: *mut CUgraphNode, nodes: &[u64]) -> Status {
        let nodes: Vec<_> = nodes.iter().copied().map(to_pointer).collect();
        self.write(to, &nodes, ptr::null_mut())
    }

    fn write_data(&self, to: *mut CUgraphEdgeData, data: &[EdgeData]) -> Status {
        if to.is_null() {
            // A list of nodes without the annotations that they have would lose them.
            let is_lossy = self.capacity.is_some() && data.iter().any(|data| !data.is_default());
            return if is_lossy { Err(CudaError::LOSSY_QUERY) } else { Ok(()) };
        }
        let data: Vec<_> = data.iter().map(|data| data.to_raw()).collect();
        self.write(to, &data, EdgeData::default().to_raw())
    }

    fn write_count(&self, total: usize) -> Status {
        out(self.count, self.capacity.map_or(total, |capacity| total.min(capacity)))
    }
}

fn get_nodes(call: Call, graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> Status {
    let list = List::new(nodes.is_null(), count)?;
    let state = call.lock();
    let known = &state.graphs.graph(number(graph))?.nodes;
    list.write_nodes(nodes, known)?;
    list.write_count(known.len())
}

fn get_root_nodes(call: Call, graph: CUgraph, nodes: *mut CUgraphNode, count: *mut usize) -> Status {
    let list = List::new(nodes.is_null(), count)?;
    let state = call.lock();
    let is_root = |node: &u64| state.graphs.nodes.get(*node).is_some_and(|node| node.dependencies.is_empty());
    let roots: Vec<_> = state.graphs.graph(number(graph))?.nodes.iter().copied().filter(is_root).collect();
    list.write_nodes(nodes, &roots)?;
    list.write_count(roots.len())
}

fn get_edges(
    call: Call,
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    count: *mut usize,
) -> Status {
    get_edges_v2(call, graph, from, to, ptr::null_mut(), count)
}

fn get_edges_v2(
    call: Call,
    graph: CUgraph,
    from: *mut CUgraphNode,
    to: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Status {
    if from.is_null() != to.is_null() || from.is_null() && !data.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let list = List::new(from.is_null(), count)?;
    let edges = call.lock().graphs.edges(number(graph))?;
    let annotations: Vec<_> = edges.iter().map(|edge| edge.2).collect();
    list.write_data(data, &annotations)?;
    list.write_nodes(from, &edges.iter().map(|edge| edge.0).collect::<Vec<_>>())?;
    list.write_nodes(to, &edges.iter().map(|edge| edge.1).collect::<Vec<_>>())?;
    list.write_count(edges.len())
}

fn get_dependencies(call: Call, node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize) -> Status {
    get_dependencies_v2(call, node, nodes, ptr::null_mut(), count)
}

fn get_dependencies_v2(
    call: Call,
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Status {
    list_neighbours(call, nodes, data, count, |store| Ok(store.node(number(node))?.dependencies.clone()))
}

fn get_dependents(call: Call, node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize) -> Status {
    get_dependents_v2(call, node, nodes, ptr::null_mut(), count)
}

fn get_dependents_v2(
    call: Call,
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Status {
    let handle = number(node);
    list_neighbours(call, nodes, data, count, |store| {
        let edge_from = |dependent: &u64| {
            let edges = &store.nodes.get(*dependent)?.dependencies;
            let edge = edges.iter().find(|edge| edge.node == handle)?;
            Some(Edge { node: *dependent, data: edge.data })
        };
        Ok(store.node(handle)?.dependents.iter().filter_map(edge_from).collect())
    })
}

fn list_neighbours(
    call: Call,
    nodes: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
    find: impl FnOnce(&Store) -> Status<Vec<Edge>>,
) -> Status {
    if nodes.is_null() && !data.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let list = List::new(nodes.is_null(), count)?;
    let edges = find(&call.lock().graphs)?;
    list.write_data(data, &edges.iter().map(|edge| edge.data).collect::<Vec<_>>())?;
    list.write_nodes(nodes, &edges.iter().map(|edge| edge.node).collect::<Vec<_>>())?;
    list.write_count(edges.len())
}

/// Reads dependencies and their annotations, which may be left out.
pub(crate) fn edges_of(
    nodes: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Status<Vec<Edge>> {
    let nodes = inputs(nodes, count)?;
    let data = edge_data(data, nodes.len())?;
    Ok(nodes.into_iter().zip(data).map(|(node, data)| Edge { node: number(node), data }).collect())
}

fn edge_data(data: *const CUgraphEdgeData, count: usize) -> Status<Vec<EdgeData>> {
    if data.is_null() {
        return Ok(vec![EdgeData::default(); count]);
    }
    let check = |raw: CUgraphEdgeData| {
        // Ports of the later node are not defined for any type of node, and of the types of
        // edges only the default and the programmatic one.
        if raw.to_port != 0 || raw.type_ > 1 || raw.from_port > 2 || raw.reserved != [0; 5] {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(EdgeData { from_port: raw.from_port, to_port: raw.to_port, kind: raw.type_ })
    };
    inputs(data, count)?.into_iter().map(check).collect()
}

fn pairs(
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Status<Vec<(u64, u64, EdgeData)>> {
    let (from, to) = (inputs(from, count)?, inputs(to, count)?);
    let data = edge_data(data, from.len())?;
    let pairs = from.into_iter().zip(to).zip(data);
    Ok(pairs.map(|((from, to), data)| (number(from), number(to), data)).collect())
}

fn add_dependencies(
    call: Call,
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    count: usize,
) -> Status {
    add_dependencies_v2(call, graph, from, to, ptr::null(), count)
}

fn add_dependencies_v2(
    call: Call,
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Status {
    let mut state = call.lock();
    state.graphs.graph(number(graph))?;
    let edges = pairs(from, to, data, count)?;
    state.graphs.add_edges(number(graph), &edges)
}

fn remove_dependencies(
    call: Call,
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    count: usize,
) -> Status {
    remove_dependencies_v2(call, graph, from, to, ptr::null(), count)
}

fn remove_dependencies_v2(
    call: Call,
    graph: CUgraph,
    from: *const CUgraphNode,
    to: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
) -> Status {
    let mut state = call.lock();
    state.graphs.graph(number(graph))?;
    let edges = pairs(from, to, data, count)?;
    state.graphs.remove_edges(number(graph), &edges)
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
    std::fs::write(OsStr::from_bytes(path.to_bytes()), text).map_err(|_| CudaError::OPERATING_SYSTEM)
}
