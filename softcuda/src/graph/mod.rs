//! Graphs: work that is described once and launched often.
//!
//! ```text
//!  cuGraphAdd..Node, capture        instantiate                 launch
//!  Graph, its Nodes and edges  -------------------> Exec --------------------> operations
//!         (definition)              copies into      |  Arc<Plan>   (launch)
//!                                   a Plan (plan)    |
//!                                                    +-- updates change the plan (update):
//!                                                        a launch keeps the one it was given
//! ```
//!
//! * [`node`]: what a node does, and its edges.
//! * [`definition`]: graphs as the program edits them.
//! * [`params`], [`operand`]: what nodes are described by, and the memory that they use.
//! * [`dot`]: pictures of graphs.
//! * [`clone`]: copies of graphs, and which node was copied from which.
//! * [`plan`]: a graph as it was when it was instantiated or last updated.
//! * [`update`]: what may change in it.
//! * [`user_object`]: what is told when no graph needs it any more.
//! * [`memory`]: allocation and free nodes.
//! * [`launch`]: from an executable graph to operations.
//!
//! Handles name graphs and nodes in a [`Store`]; nothing here points at anything else. What
//! the driver API reference lists for handles that name nothing is `CUDA_ERROR_INVALID_VALUE`.

pub(crate) mod capture;
pub(crate) mod clone;
pub(crate) mod definition;
pub(crate) mod dot;
pub(crate) mod memory;
pub(crate) mod node;
pub(crate) mod operand;
pub(crate) mod params;
pub(crate) mod plan;
pub(crate) mod update;
pub(crate) mod user_object;

use std::collections::BTreeMap;

use wharf_sys::CudaError;

use crate::handle::{Kind, Numbering, Registry};
use capture::Captures;
use definition::Graph;
use memory::Memory;
use node::Node;
use plan::Exec;
use user_object::UserObject;

/// The graphs of one machine and what belongs to them.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) graphs: Registry<Graph>,
    pub(crate) nodes: Registry<Node>,
    pub(crate) execs: Registry<Exec>,
    pub(crate) user_objects: Registry<UserObject>,
    pub(crate) captures: Captures,
    pub(crate) memory: Memory,
    conditionals: BTreeMap<u64, Conditional>,
    /// The last number given to a graph or an executable graph as its id.
    last_id: u32,
}

/// The value behind a conditional handle.
#[derive(Debug)]
struct Conditional {
    /// The graph that it was made for.
    graph: u64,
    value: u32,
    /// A node has it.
    is_used: bool,
}

impl Store {
    pub(crate) fn new(numbering: Numbering) -> Self {
        Self {
            graphs: Registry::new(Kind::Graph, numbering),
            nodes: Registry::new(Kind::Node, numbering),
            execs: Registry::new(Kind::Exec, numbering),
            user_objects: Registry::new(Kind::UserObject, numbering),
            captures: Captures::default(),
            memory: Memory::default(),
            conditionals: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// A number that no other graph or executable graph of the machine has or had.
    pub(crate) fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// Makes a conditional handle with this value, for a node of `graph`.
    pub(crate) fn create_conditional(&mut self, graph: u64, value: u32) -> u64 {
        let handle = self.next_id().into();
        // Handles of graphs that are gone serve no node.
        let graphs = &self.graphs;
        self.conditionals.retain(|_, conditional| graphs.contains(conditional.graph));
        self.conditionals.insert(handle, Conditional { graph, value, is_used: false });
        handle
    }

    /// The value of a conditional handle that a new node of `graph` takes. "The conditional handle
    /// must be associated with a conditional node in this graph or one of its children"
    /// (`cuGraphConditionalHandleCreate`), and with one only.
    pub(crate) fn free_conditional(&self, handle: u64, graph: u64) -> Result<u32, CudaError> {
        let known = self.conditionals.get(&handle).ok_or(CudaError::INVALID_VALUE)?;
        let parent = |graph: &u64| match self.graphs.get(*graph)?.owner {
            definition::Owner::Node(node) => self.nodes.get(node).map(|node| node.graph),
            _ => None,
        };
        let is_inside =
            std::iter::successors(Some(graph), parent).any(|graph| graph == known.graph);
        if is_inside && !known.is_used { Ok(known.value) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// Notes that a node has a conditional handle.
    pub(crate) fn use_conditional(&mut self, handle: u64) {
        if let Some(conditional) = self.conditionals.get_mut(&handle) {
            conditional.is_used = true;
        }
    }

    pub(crate) fn graph(&self, graph: u64) -> Result<&Graph, CudaError> {
        self.graphs.get(graph).ok_or(CudaError::INVALID_VALUE)
    }

    pub(crate) fn graph_mut(&mut self, graph: u64) -> Result<&mut Graph, CudaError> {
        self.graphs.get_mut(graph).ok_or(CudaError::INVALID_VALUE)
    }

    pub(crate) fn node(&self, node: u64) -> Result<&Node, CudaError> {
        self.nodes.get(node).ok_or(CudaError::INVALID_VALUE)
    }

    pub(crate) fn node_mut(&mut self, node: u64) -> Result<&mut Node, CudaError> {
        self.nodes.get_mut(node).ok_or(CudaError::INVALID_VALUE)
    }

    pub(crate) fn exec(&self, exec: u64) -> Result<&Exec, CudaError> {
        self.execs.get(exec).ok_or(CudaError::INVALID_VALUE)
    }

    pub(crate) fn exec_mut(&mut self, exec: u64) -> Result<&mut Exec, CudaError> {
        self.execs.get_mut(exec).ok_or(CudaError::INVALID_VALUE)
    }
}
