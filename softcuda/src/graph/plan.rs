//! Executable graphs: a graph as it was when it was instantiated or last updated.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUgraphInstantiateResult;

use super::Store;
use super::node::{Action, EdgeData};
use super::operand::{Locations, locations};
use super::user_object::Objects;
use crate::handle::Name;
use crate::memory::table::Table;
use crate::order::Lane;
use crate::order::OpId;

/// An executable graph.
#[derive(Debug)]
pub(crate) struct Exec {
    /// A number that no other graph of the machine has or had.
    pub(crate) id: u32,
    /// The graph that it was made from, which may be gone.
    pub(crate) graph: Name,
    pub(crate) flags: u64,
    /// The work of a launch. A launch in flight shares it, so an update makes a copy.
    pub(crate) plan: Arc<Plan>,
    /// The end of the last launch or upload, or zero.
    pub(crate) last: OpId,
    /// A lane for each step, where order is watched.
    pub(crate) lanes: Vec<Arc<Lane>>,
}

/// The nodes of a graph with their edges, apart from the graph.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// In the order in which they were added to the graph.
    pub(crate) steps: Vec<Step>,
    /// Indices of the steps, each behind what it depends on.
    pub(crate) order: Arc<[usize]>,
    /// Where a node of the graph is among the steps.
    index: Arc<HashMap<Name, usize>>,
    /// Whether any step, of a child's plan too, records or waits for an event.
    pub(crate) has_events: bool,
    /// Whether any step allocates or frees.
    pub(crate) has_memory: bool,
    /// References to user objects, the graph's as they were.
    pub(crate) objects: Arc<Objects>,
}

/// One node of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The node of the graph, which may be gone.
    pub(crate) node: u64,
    pub(crate) action: Action,
    /// The memory that the action used when it was given to the plan.
    pub(crate) locations: Locations,
    /// The plan of the child graph, for a child graph node.
    pub(crate) child: Option<Plan>,
    /// Steps that it waits for, in the order in which the edges were made.
    pub(crate) dependencies: Vec<(usize, EdgeData)>,
    /// Whether another step waits for it.
    pub(crate) is_last: bool,
    /// A disabled step does nothing, and others still wait for it.
    pub(crate) enabled: bool,
}

/// Why a graph cannot be instantiated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Obstacle {
    /// A node of a circle.
    Structure(u64),
    /// A node that the flags do not allow.
    Unsupported(u64),
    /// Anything else.
    Other(CudaError),
}

impl Exec {
    /// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`
    pub(crate) fn frees_on_launch(&self) -> bool {
        self.flags & 1 != 0
    }
}

impl Obstacle {
    pub(crate) fn code(self) -> CudaError {
        match self {
            Self::Structure(_) | Self::Unsupported(_) => CudaError::INVALID_VALUE,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn node(self) -> u64 {
        match self {
            Self::Structure(node) | Self::Unsupported(node) => node,
            Self::Other(_) => 0,
        }
    }

    pub(crate) fn result(self) -> CUgraphInstantiateResult {
        match self {
            Self::Structure(_) => {
                CUgraphInstantiateResult::CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE
            }
            Self::Unsupported(_) => {
                CUgraphInstantiateResult::CUDA_GRAPH_INSTANTIATE_NODE_OPERATION_NOT_SUPPORTED
            }
            Self::Other(_) => CUgraphInstantiateResult::CUDA_GRAPH_INSTANTIATE_ERROR,
        }
    }
}

impl Plan {
    /// The steps of `graph`, children included.
    pub(crate) fn of(store: &Store, memory: &Table, graph: u64) -> Result<Self, Obstacle> {
        let nodes = &store.graph(graph).map_err(Obstacle::Other)?.nodes;
        let order = store.order(nodes).map_err(Obstacle::Structure)?;
        let place: HashMap<_, _> =
            nodes.iter().enumerate().map(|(index, node)| (*node, index)).collect();
        let mut steps = Vec::with_capacity(nodes.len());
        for handle in nodes {
            let node = store.node(*handle).map_err(Obstacle::Other)?;
            let child = match node.action {
                Action::Child(graph) => Some(Self::of(store, memory, graph)?),
                Action::Conditional(ref branches) => {
                    let chosen = branches.chosen().map_err(Obstacle::Other)?;
                    chosen.map(|graph| Self::of(store, memory, graph)).transpose()?
                }
                _ => None,
            };
            let edge = |edge: &super::node::Edge| Some((*place.get(&edge.node)?, edge.data));
            steps.push(Step {
                node: *handle,
                action: node.action.clone(),
                locations: locations(memory, &node.action),
                child,
                dependencies: node.dependencies.iter().filter_map(edge).collect(),
                is_last: node.dependents.is_empty(),
                enabled: true,
            });
        }
        // By name and not by handle: the program may destroy the node, and the handle may be
        // reused.
        let name = |(node, index): (&u64, &usize)| Some((store.nodes.name(*node)?, *index));
        let index = place.iter().filter_map(name).collect();
        let has_events = steps.iter().any(Step::has_events);
        let has_memory = store.has_memory(graph);
        let objects = Arc::new(store.graph(graph).map_err(Obstacle::Other)?.objects.clone());
        Ok(Self {
            steps,
            order: order.into(),
            index: Arc::new(index),
            has_events,
            has_memory,
            objects,
        })
    }

    /// The step of `node`, in this plan or a child's.
    pub(crate) fn step(&self, node: Name) -> Option<&Step> {
        match self.index.get(&node) {
            Some(index) => self.steps.get(*index),
            None => self.children().find_map(|child| child.step(node)),
        }
    }

    /// The step of `node`, in this plan or a child's, to change it.
    pub(crate) fn step_mut(&mut self, node: Name) -> Option<&mut Step> {
        match self.index.get(&node) {
            Some(index) => self.steps.get_mut(*index),
            None => {
                let mut children = self.steps.iter_mut().filter_map(|step| step.child.as_mut());
                children.find_map(|child| child.step_mut(node))
            }
        }
    }

    /// "The graph can only contain kernel nodes, memcpy nodes, memset nodes, and child graph
    /// nodes. The graph cannot be empty."
    pub(crate) fn check_device_launch(&self) -> Result<(), Obstacle> {
        let mut unsupported = None;
        let mut works = 0;
        self.walk(&mut |step| match step.action {
            Action::Kernel(_) | Action::Copy(_) | Action::Fill(_) => works += 1,
            Action::Child(_) => {}
            _ => unsupported = unsupported.or(Some(step.node)),
        });
        match unsupported {
            Some(node) => Err(Obstacle::Unsupported(node)),
            None if works == 0 => Err(Obstacle::Other(CudaError::INVALID_VALUE)),
            None => Ok(()),
        }
    }

    fn children(&self) -> impl Iterator<Item = &Self> {
        self.steps.iter().filter_map(|step| step.child.as_ref())
    }

    /// The steps in an order in which they may run, a child's before the child node's own.
    pub(crate) fn walk(&self, visit: &mut impl FnMut(&Step)) {
        for index in &*self.order {
            let step = &self.steps[*index];
            if let Some(child) = &step.child {
                child.walk(visit);
            }
            visit(step);
        }
    }
}

impl Step {
    /// "Currently only kernel, memset and memcpy nodes are supported."
    pub(crate) fn can_be_disabled(&self) -> bool {
        matches!(self.action, Action::Kernel(_) | Action::Copy(_) | Action::Fill(_))
    }

    pub(crate) fn has_events(&self) -> bool {
        matches!(self.action, Action::Record(_) | Action::Wait(_))
            || self.child.as_ref().is_some_and(|child| child.has_events)
    }
}
