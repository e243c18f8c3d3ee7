//! Graphs as the program edits them: nodes, edges, and what keeps them apart.

use std::collections::{BTreeMap, HashMap};

use wharf_sys::CudaError;

use super::Store;
use super::node::{Action, Edge, EdgeData, Node};
use super::user_object::Objects;
use crate::errors::Status;
use crate::handle::Name;

/// A graph.
#[derive(Debug)]
pub(crate) struct Graph {
    /// A number that no other graph of the machine has or had.
    pub(crate) id: u32,
    /// In the order in which they were added.
    pub(crate) nodes: Vec<u64>,
    pub(crate) owner: Owner,
    /// The graph that it was copied from, which may be gone.
    pub(crate) original: Option<Name>,
    /// References to user objects.
    pub(crate) objects: Objects,
    next_local: u32,
}

/// The owner of a graph, which alone may destroy it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Program,
    /// The capture that is making it.
    Capture,
    /// The child graph node that runs it.
    Node(u64),
}

impl Store {
    /// Makes an empty graph.
    pub(crate) fn create_graph(&mut self, owner: Owner) -> u64 {
        let id = self.next_id();
        self.graphs.insert(Graph {
            id,
            nodes: Vec::new(),
            owner,
            original: None,
            objects: Objects::new(),
            next_local: 0,
        })
    }

    /// Adds a node behind `dependencies`.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: a dependency is of another graph or named twice.
    pub(crate) fn add_node(
        &mut self,
        graph: u64,
        dependencies: &[Edge],
        action: Action,
    ) -> Status<u64> {
        self.check_members(graph, dependencies)?;
        // All checks come before the first change: a call that fails must leave the graph as it
        // was.
        for (index, edge) in dependencies.iter().enumerate() {
            if dependencies[..index].iter().any(|other| other.node == edge.node) {
                return Err(CudaError::INVALID_VALUE);
            }
        }
        let known = self.graph_mut(graph)?;
        let local = known.next_local;
        known.next_local += 1;
        let dependencies = dependencies.to_vec();
        let before: Vec<_> = dependencies.iter().map(|edge| edge.node).collect();
        let node = Node {
            graph,
            local,
            original: None,
            action,
            dependencies,
            dependents: Vec::new(),
            attributes: BTreeMap::new(),
        };
        let handle = self.nodes.insert(node);
        for node in before {
            self.node_mut(node)?.dependents.push(handle);
        }
        self.graph_mut(graph)?.nodes.push(handle);
        Ok(handle)
    }

    /// Refuses edges to nodes that `graph` does not contain.
    pub(crate) fn check_members(&self, graph: u64, edges: &[Edge]) -> Status {
        self.graph(graph)?;
        let is_member =
            |edge: &Edge| self.nodes.get(edge.node).is_some_and(|node| node.graph == graph);
        if edges.iter().all(is_member) { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// Makes each second node of `edges` wait for the first: all of them or none.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: a node is of another graph, or an edge exists already.
    pub(crate) fn add_edges(&mut self, graph: u64, edges: &[(u64, u64, EdgeData)]) -> Status {
        for (index, (from, to, _)) in edges.iter().enumerate() {
            self.check_members(graph, &[Edge::on(*from), Edge::on(*to)])?;
            let exists = self.node(*to)?.dependencies.iter().any(|edge| edge.node == *from);
            let twice = edges[..index].iter().any(|other| (other.0, other.1) == (*from, *to));
            if exists || twice || from == to {
                return Err(CudaError::INVALID_VALUE);
            }
        }
        // Only now, when every edge is known to be valid.
        for &(from, to, data) in edges {
            self.node_mut(to)?.dependencies.push(Edge { node: from, data });
            self.node_mut(from)?.dependents.push(to);
        }
        Ok(())
    }

    /// Takes edges away: all of them or none.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: there is no such edge with such data, or the graph may not lose edges.
    pub(crate) fn remove_edges(&mut self, graph: u64, edges: &[(u64, u64, EdgeData)]) -> Status {
        // "Dependencies cannot be removed from graphs which contain allocation or free nodes."
        if !edges.is_empty() && self.has_memory(graph) {
            return Err(CudaError::INVALID_VALUE);
        }
        for (index, (from, to, data)) in edges.iter().enumerate() {
            self.check_members(graph, &[Edge::on(*from), Edge::on(*to)])?;
            let wanted = Edge { node: *from, data: *data };
            let twice = edges[..index].contains(&(*from, *to, *data));
            if twice || !self.node(*to)?.dependencies.contains(&wanted) {
                return Err(CudaError::INVALID_VALUE);
            }
        }
        for &(from, to, _) in edges {
            self.node_mut(to)?.dependencies.retain(|edge| edge.node != from);
            self.node_mut(from)?.dependents.retain(|node| *node != to);
        }
        Ok(())
    }

    /// Removes a node and its edges.
    pub(crate) fn remove_node(&mut self, node: u64) -> Status {
        let removed = self.nodes.remove(node).ok_or(CudaError::INVALID_VALUE)?;
        for edge in &removed.dependencies {
            if let Some(before) = self.nodes.get_mut(edge.node) {
                before.dependents.retain(|dependent| *dependent != node);
            }
        }
        for dependent in &removed.dependents {
            if let Some(after) = self.nodes.get_mut(*dependent) {
                after.dependencies.retain(|edge| edge.node != node);
            }
        }
        if let Some(graph) = self.graphs.get_mut(removed.graph) {
            graph.nodes.retain(|other| *other != node);
        }
        // A capture must not demand a join of a node that is gone.
        self.captures.forget_node(node);
        self.drop_children(&removed.action);
        Ok(())
    }

    /// Removes a graph with its nodes and the graphs that belong to them.
    pub(crate) fn remove_graph(&mut self, graph: u64) -> Option<Graph> {
        let removed = self.graphs.remove(graph)?;
        for node in &removed.nodes {
            if let Some(node) = self.nodes.remove(*node) {
                self.drop_children(&node.action);
            }
        }
        Some(removed)
    }

    /// Removes the graphs that belong to a node's action.
    pub(crate) fn drop_children(&mut self, action: &Action) {
        for graph in action.graphs() {
            self.remove_graph(graph);
        }
    }

    /// The graphs that belong to the program, for leak reports.
    pub(crate) fn owned_graphs(&self) -> Vec<u64> {
        let handles = self.graphs.handles().into_iter();
        let is_owned = |graph: &Graph| graph.owner == Owner::Program;
        handles.filter(|handle| self.graphs.get(*handle).is_some_and(is_owned)).collect()
    }

    /// The edges of a graph: from, to, data.
    pub(crate) fn edges(&self, graph: u64) -> Status<Vec<(u64, u64, EdgeData)>> {
        let mut edges = Vec::new();
        for to in &self.graph(graph)?.nodes {
            edges.extend(
                self.node(*to)?.dependencies.iter().map(|edge| (edge.node, *to, edge.data)),
            );
        }
        Ok(edges)
    }

    /// The nodes of a graph, each behind what it depends on, as indices into its list.
    ///
    /// # Errors
    ///
    /// One of the nodes of a circle.
    pub(crate) fn order(&self, nodes: &[u64]) -> Result<Vec<usize>, u64> {
        let index: HashMap<u64, usize> =
            nodes.iter().enumerate().map(|(index, node)| (*node, index)).collect();
        let node = |index: usize| self.nodes.get(nodes[index]);
        // Kahn's algorithm: a node is taken when all of its dependencies were; nodes of a cycle
        // never are.
        let mut open: Vec<_> =
            (0..nodes.len()).map(|i| node(i).map_or(0, |n| n.dependencies.len())).collect();
        let mut order: Vec<_> = (0..nodes.len()).filter(|index| open[*index] == 0).collect();
        let mut next = 0;
        while let Some(done) = order.get(next).copied() {
            next += 1;
            for dependent in node(done).map_or(&[][..], |node| &node.dependents) {
                let Some(dependent) = index.get(dependent).copied() else { continue };
                open[dependent] -= 1;
                if open[dependent] == 0 {
                    order.push(dependent);
                }
            }
        }
        match open.iter().position(|count| *count > 0) {
            None => Ok(order),
            Some(circle) => Err(nodes[circle]),
        }
    }

    /// Whether `to` is among `from` and everything that those depend on.
    pub(crate) fn reaches(&self, from: &[u64], to: u64) -> bool {
        let mut stack = from.to_vec();
        let mut seen = std::collections::HashSet::new();
        while let Some(node) = stack.pop() {
            if node == to {
                return true;
            }
            // Diamonds would be walked once for each path otherwise.
            if seen.insert(node)
                && let Some(node) = self.nodes.get(node)
            {
                stack.extend(node.dependencies.iter().map(|edge| edge.node));
            }
        }
        false
    }
}
