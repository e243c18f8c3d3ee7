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

pub(crate) mod clone;
pub(crate) mod definition;
pub(crate) mod dot;
pub(crate) mod launch;
pub(crate) mod memory;
pub(crate) mod node;
pub(crate) mod operand;
pub(crate) mod params;
pub(crate) mod plan;
pub(crate) mod update;
pub(crate) mod user_object;

use std::collections::BTreeMap;

use wharf_sys::CudaError;

use crate::capture::Captures;
use crate::handle::{Kind, Registry};
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
    /// The values of conditional handles.
    pub(crate) conditionals: BTreeMap<u64, u32>,
    /// The last number given to a graph or an executable graph as its id.
    last_id: u32,
}

impl Store {
    pub(crate) fn new(machine: u16) -> Self {
        Self {
            graphs: Registry::new(Kind::Graph, machine),
            nodes: Registry::new(Kind::Node, machine),
            execs: Registry::new(Kind::Exec, machine),
            user_objects: Registry::new(Kind::UserObject, machine),
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

    /// Makes a conditional handle with this value.
    pub(crate) fn create_conditional(&mut self, value: u32) -> u64 {
        let handle = self.next_id().into();
        self.conditionals.insert(handle, value);
        handle
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
