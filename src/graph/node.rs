//! Handles of nodes, one type for each kind.

use core::fmt;

use wharf_sys::bindings::CUgraphNodeType;

/// A node of one definition.
///
/// The typed handles turn into it, for edges.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId {
    pub(super) graph: u64,
    pub(super) index: u32,
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of graph {:#x}", self.index, self.graph)
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])+ $name:ident;)+) => {$(
        $(#[$doc])+
        ///
        /// Valid in the definition that made it and in executable graphs of that definition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub(super) NodeId);

        impl From<$name> for NodeId {
            fn from(node: $name) -> Self {
                node.0
            }
        }
    )+};
}

handles! {
    /// A node that copies bytes: one row, or several.
    MemcpyNode;
    /// A node that fills one row.
    MemsetNode;
    /// A node that does nothing: a point that others wait for.
    EmptyNode;
    /// A node that calls a host function.
    HostNode;
    /// A node that records an event.
    EventRecordNode;
    /// A node that waits for an event.
    EventWaitNode;
    /// A node of stream memory operations.
    MemOpNode;
    /// A node that runs a copy of another graph.
    ChildNode;
}

/// A node of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Names it in this graph.
    pub id: NodeId,
    /// What it does.
    pub kind: NodeKind,
}

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeKind {
    /// Copies one row.
    Memcpy,
    /// Fills one row.
    Memset,
    /// Nothing.
    Empty,
    /// Calls a host function.
    Host,
    /// Records an event.
    EventRecord,
    /// Waits for an event.
    EventWait,
    /// Stream memory operations.
    MemOp,
    /// Runs a graph.
    Child,
    /// Runs a kernel; only in captured graphs.
    Kernel,
    /// Something else that was captured: the driver's number of the type.
    Other(u32),
}

impl NodeKind {
    pub(super) fn of(raw: CUgraphNodeType) -> Self {
        match raw {
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY => Self::Memcpy,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMSET => Self::Memset,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY => Self::Empty,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_HOST => Self::Host,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_EVENT_RECORD => Self::EventRecord,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_WAIT_EVENT => Self::EventWait,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_BATCH_MEM_OP => Self::MemOp,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_GRAPH => Self::Child,
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL => Self::Kernel,
            other => Self::Other(other.0),
        }
    }

    /// "Currently only kernel, memset and memcpy nodes are supported" (Driver API,
    /// cuGraphNodeSetEnabled).
    pub(super) fn can_be_disabled(self) -> bool {
        matches!(self, Self::Memcpy | Self::Memset | Self::Kernel)
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memcpy => "memcpy",
            Self::Memset => "memset",
            Self::Empty => "empty",
            Self::Host => "host",
            Self::EventRecord => "event record",
            Self::EventWait => "event wait",
            Self::MemOp => "memory operations",
            Self::Child => "child graph",
            Self::Kernel => "kernel",
            Self::Other(number) => return write!(f, "type {number}"),
        })
    }
}
