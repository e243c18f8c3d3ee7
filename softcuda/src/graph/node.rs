//! Nodes: what a graph does at one point, and behind which others.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS_v1,
    CUgraphConditionalNodeType, CUgraphEdgeData, CUgraphNodeType, CUhostFn,
    CUkernelNodeAttrValue_v1, CUstreamBatchMemOpParams,
};

use crate::handle::{Name, to_pointer};
use crate::memory::Block;
use crate::sched::work::{Opaque, UserData};
use crate::task::{CopyTask, FillTask, KernelTask, MemOpTask};

/// A node of a graph.
#[derive(Debug)]
pub(crate) struct Node {
    /// The graph that contains it.
    pub(crate) graph: u64,
    /// Its number in the graph, counted from zero and never used twice there.
    pub(crate) local: u32,
    /// The node that it was copied from, which may be gone.
    pub(crate) original: Option<Name>,
    pub(crate) action: Action,
    /// The nodes that it waits for, in the order in which the edges were made.
    pub(crate) dependencies: Vec<Edge>,
    /// The nodes that wait for it, in the order in which the edges were made.
    pub(crate) dependents: Vec<u64>,
    /// Attributes of a kernel node that were set, by number.
    pub(crate) attributes: BTreeMap<u32, Opaque<CUkernelNodeAttrValue_v1>>,
}

/// An edge as the later node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The node waited for.
    pub(crate) node: u64,
    pub(crate) data: EdgeData,
}

impl Edge {
    /// A full dependency on `node`.
    pub(crate) fn on(node: u64) -> Self {
        Self { node, data: EdgeData::default() }
    }
}

/// The annotation of an edge: zeros stand for a full dependency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EdgeData {
    pub(crate) from_port: u8,
    pub(crate) to_port: u8,
    pub(crate) kind: u8,
}

impl EdgeData {
    pub(crate) fn is_default(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn to_raw(self) -> CUgraphEdgeData {
        CUgraphEdgeData {
            from_port: self.from_port,
            to_port: self.to_port,
            type_: self.kind,
            reserved: [0; 5],
        }
    }
}

/// The operation of a node.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Nothing: a point that others wait for.
    Empty,
    Copy(Box<CopyNode>),
    Fill(FillNode),
    Host(HostNode),
    MemOps(MemOpNode),
    Kernel(KernelTask),
    /// Records this event.
    Record(Name),
    /// Waits for what this event has recorded at the launch.
    Wait(Name),
    /// Runs this graph, which belongs to the node.
    Child(u64),
    /// Brings memory of a graph to life.
    Alloc(Arc<Block>),
    /// Ends the life of memory of a graph.
    Free(Arc<Block>),
    /// Runs one of several graphs, or none.
    Conditional(Branches),
}

impl Action {
    /// The type as the driver API names it.
    pub(crate) fn kind(&self) -> CUgraphNodeType {
        match self {
            Self::Empty => CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY,
            Self::Copy(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY,
            Self::Fill(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMSET,
            Self::Host(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_HOST,
            Self::MemOps(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_BATCH_MEM_OP,
            Self::Kernel(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL,
            Self::Record(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_EVENT_RECORD,
            Self::Wait(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_WAIT_EVENT,
            Self::Child(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_GRAPH,
            Self::Alloc(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC,
            Self::Free(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE,
            Self::Conditional(_) => CUgraphNodeType::CU_GRAPH_NODE_TYPE_CONDITIONAL,
        }
    }
}

impl Action {
    /// The graphs that belong to the node.
    pub(crate) fn graphs(&self) -> Vec<u64> {
        match self {
            Self::Child(graph) => vec![*graph],
            Self::Conditional(branches) => branches.graphs.clone(),
            _ => Vec::new(),
        }
    }
}

/// A conditional node. No kernel runs that could set its value, which so is the default one.
#[derive(Clone, Debug)]
pub(crate) struct Branches {
    pub(crate) kind: CUgraphConditionalNodeType,
    pub(crate) handle: u64,
    /// The value of the condition at every launch.
    pub(crate) value: u32,
    /// The graphs, which belong to the node; their handles are lent to the program.
    pub(crate) graphs: Vec<u64>,
}

impl Branches {
    /// The graph that runs, if one does.
    ///
    /// # Errors
    ///
    /// A loop that nothing ends.
    pub(crate) fn chosen(&self) -> Result<Option<u64>, CudaError> {
        let at = |index: usize| self.graphs.get(index).copied();
        match self.kind {
            CUgraphConditionalNodeType::CU_GRAPH_COND_TYPE_SWITCH => Ok(at(self.value as usize)),
            CUgraphConditionalNodeType::CU_GRAPH_COND_TYPE_WHILE if self.value != 0 => {
                Err(CudaError::NOT_SUPPORTED)
            }
            CUgraphConditionalNodeType::CU_GRAPH_COND_TYPE_WHILE => Ok(None),
            _ => Ok(at(usize::from(self.value == 0))),
        }
    }
}

/// A copy, and the structure that described it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyNode {
    pub(crate) task: CopyTask,
    pub(crate) params: Opaque<CUDA_MEMCPY3D>,
    pub(crate) context: u64,
}

/// A memset, and the structure that described it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FillNode {
    pub(crate) task: FillTask,
    pub(crate) context: u64,
}

impl FillNode {
    pub(crate) fn params(&self) -> CUDA_MEMSET_NODE_PARAMS_v1 {
        let FillTask { address, pitch, value, element, width, height } = self.task;
        CUDA_MEMSET_NODE_PARAMS_v1 {
            dst: address,
            pitch,
            value,
            // One, two or four.
            elementSize: u32::try_from(element).unwrap_or(0),
            width,
            height,
        }
    }
}

/// A host function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostNode {
    pub(crate) function: CUhostFn,
    pub(crate) data: UserData,
    /// How a waiting host thread is told, kept for who asks.
    pub(crate) sync_mode: u32,
}

/// Stream memory operations, and the structures that described them.
#[derive(Clone)]
pub(crate) struct MemOpNode {
    pub(crate) tasks: Vec<MemOpTask>,
    /// Lent to the program by `cuGraphBatchMemOpNodeGetParams`.
    pub(crate) params: Vec<CUstreamBatchMemOpParams>,
    pub(crate) flags: u32,
    pub(crate) context: u64,
}

impl MemOpNode {
    /// The structure that describes the node; its array is the node's own, to be read only.
    pub(crate) fn raw(&self) -> CUDA_BATCH_MEM_OP_NODE_PARAMS {
        CUDA_BATCH_MEM_OP_NODE_PARAMS {
            ctx: to_pointer(self.context),
            // At most 256 operations were let in.
            count: u32::try_from(self.params.len()).unwrap_or(0),
            paramArray: self.params.as_ptr().cast_mut(),
            flags: self.flags,
        }
    }
}

impl core::fmt::Debug for MemOpNode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("MemOpNode")
            .field("tasks", &self.tasks)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}
