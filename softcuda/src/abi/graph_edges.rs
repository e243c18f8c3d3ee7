#![expect(unsafe_code, reason = "exports C functions")]
//! Edges of graphs, and how lists of nodes and edges are written and read.

use core::ptr;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{inputs, out_array};
use super::{exports, out};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::Store;
use crate::graph::node::{Edge, EdgeData};
use crate::handle::{number, to_pointer};

exports! {
    Normal PFN_cuGraphGetEdges_v10000: cuGraphGetEdges(
        graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, count: *mut usize,
    ) => get_edges;
    Normal PFN_cuGraphGetEdges_v12030: cuGraphGetEdges_v2(
        graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, data: *mut CUgraphEdgeData,
        count: *mut usize,
    ) => get_edges_v2;
    Normal PFN_cuGraphNodeGetDependencies_v10000: cuGraphNodeGetDependencies(
        node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize,
    ) => get_dependencies;
    Normal PFN_cuGraphNodeGetDependencies_v12030: cuGraphNodeGetDependencies_v2(
        node: CUgraphNode, nodes: *mut CUgraphNode, data: *mut CUgraphEdgeData, count: *mut usize,
    ) => get_dependencies_v2;
    Normal PFN_cuGraphNodeGetDependentNodes_v10000: cuGraphNodeGetDependentNodes(
        node: CUgraphNode, nodes: *mut CUgraphNode, count: *mut usize,
    ) => get_dependents;
    Normal PFN_cuGraphNodeGetDependentNodes_v12030: cuGraphNodeGetDependentNodes_v2(
        node: CUgraphNode, nodes: *mut CUgraphNode, data: *mut CUgraphEdgeData, count: *mut usize,
    ) => get_dependents_v2;
    Normal PFN_cuGraphAddDependencies_v10000: cuGraphAddDependencies(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize,
    ) => add_dependencies;
    Normal PFN_cuGraphAddDependencies_v12030: cuGraphAddDependencies_v2(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode,
        data: *const CUgraphEdgeData, count: usize,
    ) => add_dependencies_v2;
    Normal PFN_cuGraphRemoveDependencies_v10000: cuGraphRemoveDependencies(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, count: usize,
    ) => remove_dependencies;
    Normal PFN_cuGraphRemoveDependencies_v12030: cuGraphRemoveDependencies_v2(
        graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode,
        data: *const CUgraphEdgeData, count: usize,
    ) => remove_dependencies_v2;
}

/// Writes a list as every call does that lists nodes or edges: the number where `to` is null,
/// else up to `count` entries and zeros behind the last one.
pub(super) struct List {
    capacity: Option<usize>,
    count: *mut usize,
}

impl List {
    pub(super) fn new(is_null: bool, count: *mut usize) -> Status<Self> {
        let capacity = super::arguments::input(count)?;
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

    pub(super) fn write_nodes(&self, to: *mut CUgraphNode, nodes: &[u64]) -> Status {
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

    pub(super) fn write_count(&self, total: usize) -> Status {
        out(self.count, self.capacity.map_or(total, |capacity| total.min(capacity)))
    }
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

fn get_dependencies(
    call: Call,
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> Status {
    get_dependencies_v2(call, node, nodes, ptr::null_mut(), count)
}

fn get_dependencies_v2(
    call: Call,
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    data: *mut CUgraphEdgeData,
    count: *mut usize,
) -> Status {
    list_neighbours(call, nodes, data, count, |store| {
        Ok(store.node(number(node))?.dependencies.clone())
    })
}

fn get_dependents(
    call: Call,
    node: CUgraphNode,
    nodes: *mut CUgraphNode,
    count: *mut usize,
) -> Status {
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
        // The data of an edge is kept with the later node.
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
    // The count alone can be asked for, the data alone cannot.
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
        if count > MOST_EDGES {
            return Err(CudaError::INVALID_VALUE);
        }
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

/// More edges than this in one call are a number gone wrong.
const MOST_EDGES: usize = 1 << 24;
