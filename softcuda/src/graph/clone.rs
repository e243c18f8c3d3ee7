//! Copies of graphs, and which node was copied from which.

use std::collections::HashMap;

use wharf_sys::CudaError;

use super::Store;
use super::definition::Owner;
use super::node::{Action, Edge, EdgeData};
use super::plan::Plan;
use crate::errors::Status;
use crate::handle::Name;

impl Store {
    /// Copies a graph with everything in it: "child graph nodes in the original graph are
    /// recursively copied into the clone".
    pub(crate) fn clone_graph(&mut self, graph: u64, owner: Owner) -> Status<u64> {
        let known = self.graph(graph)?;
        let (nodes, objects) = (known.nodes.clone(), known.objects.clone());
        let original = self.graphs.name(graph);
        let copy = self.create_graph(owner);
        let made = self.graph_mut(copy)?;
        (made.original, made.objects) = (original, objects);
        let mut copies = HashMap::new();
        for node in &nodes {
            let action = self.node(*node)?.action.clone();
            let new = self.add_node(copy, &[], action)?;
            let action = self.clone_children(new)?;
            let attributes = self.node(*node)?.attributes.clone();
            let original = self.nodes.name(*node);
            let made = self.node_mut(new)?;
            (made.action, made.attributes) = (action, attributes);
            made.original = original;
            copies.insert(*node, new);
        }
        // Edges come after all nodes: an edge may name a node that is copied later.
        for node in &nodes {
            self.copy_edges(*node, &copies)?;
        }
        Ok(copy)
    }

    /// Gives the copy of `node` the copies of its edges, in their order.
    fn copy_edges(&mut self, node: u64, copies: &HashMap<u64, u64>) -> Status {
        let known = self.node(node)?;
        let renamed = |node: &u64| copies.get(node).copied();
        let edge = |edge: &Edge| Some(Edge { node: renamed(&edge.node)?, data: edge.data });
        let dependencies = known.dependencies.iter().filter_map(edge).collect();
        let dependents = known.dependents.iter().filter_map(renamed).collect();
        if let Some(copy) = renamed(&node) {
            let copy = self.node_mut(copy)?;
            copy.dependencies = dependencies;
            copy.dependents = dependents;
        }
        Ok(())
    }

    /// The action of `node` with copies of the graphs that belong to it.
    fn clone_children(&mut self, node: u64) -> Status<Action> {
        Ok(match self.node(node)?.action.clone() {
            Action::Child(graph) => Action::Child(self.clone_graph(graph, Owner::Node(node))?),
            Action::Conditional(mut branches) => {
                let clone = |graph: &u64| self.clone_graph(*graph, Owner::Node(node));
                branches.graphs = branches.graphs.iter().map(clone).collect::<Status<_>>()?;
                Action::Conditional(branches)
            }
            action => action,
        })
    }

    /// Adds a node that runs a copy of `graph`.
    pub(crate) fn add_child(
        &mut self,
        parent: u64,
        dependencies: &[Edge],
        graph: u64,
    ) -> Status<u64> {
        self.graph(graph)?;
        // "If childGraph contains allocation nodes, free nodes, or conditional nodes, this call
        // will return an error."
        if self.has_memory(graph) || self.has_conditional(graph) {
            return Err(CudaError::INVALID_VALUE);
        }
        let node = self.add_node(parent, dependencies, Action::Empty)?;
        let child = self.clone_graph(graph, Owner::Node(node))?;
        self.node_mut(node)?.action = Action::Child(child);
        Ok(node)
    }

    fn has_conditional(&self, graph: u64) -> bool {
        let is_conditional = |node: &u64| match self.nodes.get(*node).map(|node| &node.action) {
            Some(Action::Conditional(_)) => true,
            Some(action) => action.graphs().into_iter().any(|child| self.has_conditional(child)),
            None => false,
        };
        self.graphs.get(graph).is_some_and(|graph| graph.nodes.iter().any(is_conditional))
    }

    /// The copy of `original` in `graph` or in a graph of its nodes.
    pub(crate) fn find_in_clone(&self, original: Name, graph: u64) -> Option<u64> {
        for node in &self.graphs.get(graph)?.nodes {
            let known = self.nodes.get(*node)?;
            if known.original == Some(original) {
                return Some(*node);
            }
            let mut children = known.action.graphs().into_iter();
            if let Some(found) = children.find_map(|child| self.find_in_clone(original, child)) {
                return Some(found);
            }
        }
        None
    }

    /// Makes a graph of a plan: what launching its executable graph does.
    pub(crate) fn graph_of_plan(&mut self, plan: &Plan, owner: Owner) -> Status<u64> {
        let graph = self.create_graph(owner);
        self.graph_mut(graph)?.objects.clone_from(&plan.objects);
        let mut nodes = vec![0; plan.steps.len()];
        // In the order of execution, so that the copies of dependencies exist.
        for index in &*plan.order {
            let step = &plan.steps[*index];
            let edge =
                |(index, data): &(usize, EdgeData)| Edge { node: nodes[*index], data: *data };
            let dependencies: Vec<_> = step.dependencies.iter().map(edge).collect();
            let action = if step.enabled { step.action.clone() } else { Action::Empty };
            let node = self.add_node(graph, &dependencies, action)?;
            if let Some(child) = &step.child {
                let child = self.graph_of_plan(child, Owner::Node(node))?;
                self.node_mut(node)?.action = Action::Child(child);
            }
            nodes[*index] = node;
        }
        Ok(graph)
    }
}
