//! What can go wrong with graphs.

use core::fmt;

use wharf_sys::bindings::CUgraphExecUpdateResult;

use super::definition::GraphDefinition;
use super::node::{NodeId, NodeKind};
use super::params::Direction;
use crate::error::{CudaError, Error};

/// A graph cannot be made, changed or launched so. The call has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// The driver refused.
    Driver(Error),
    /// A copy or a fill of nothing, which graphs cannot hold: leave the node out, or disable it.
    ZeroLength,
    /// An address that the operation cannot use.
    Misaligned {
        /// The address.
        address: u64,
        /// What it must be a multiple of.
        align: u32,
    },
    /// A number of memory operations that one node cannot hold: it is 1 to 256.
    MemOps {
        /// The number given.
        count: usize,
    },
    /// A node of another definition.
    ForeignNode(NodeId),
    /// An edge that is there already, or that was given twice.
    DuplicateEdge(NodeId),
    /// An edge that would close a circle.
    Cycle(NodeId),
    /// The direction of a copy, which an update cannot change.
    Direction {
        /// The node's.
        node: Direction,
        /// The one given.
        given: Direction,
    },
    /// The type of a captured node that an update needs to know.
    NotKnown(NodeId),
    /// A node of a kind that cannot be disabled: only copies, fills and kernels can.
    CannotDisable(NodeKind),
    /// A node that allocates or frees memory. Such graphs cannot be cloned, relaunched before their
    /// memory is freed or changed, and their memory escapes every account; allocate before the
    /// capture.
    MemoryNode {
        /// Whether it allocates.
        allocates: bool,
    },
    /// An object of another context.
    OtherContext,
    /// The driver could not update the whole graph; it is as before.
    Update {
        /// Why.
        reason: UpdateRefusal,
        /// The node of the new definition that does not fit, if the driver named one.
        node: Option<NodeId>,
    },
    /// A capture failed.
    Capture {
        /// What happened to it.
        fault: CaptureFault,
        /// What the driver answered.
        error: Error,
    },
    /// The stream is not capturing.
    NotCapturing,
}

/// Why an executable graph cannot become another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UpdateRefusal {
    /// Other nodes or edges.
    Topology,
    /// A node of another kind.
    NodeKind,
    /// Parameters that cannot change, such as the kind or context of memory.
    Parameters,
    /// Attributes that cannot change.
    Attributes,
    /// A function that cannot take the place of the other.
    Function,
    /// Something about a node that updates do not support.
    NotSupported,
    /// Anything else.
    Other,
}

impl UpdateRefusal {
    pub(super) fn of(raw: CUgraphExecUpdateResult) -> Self {
        match raw {
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED => Self::Topology,
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED => Self::NodeKind,
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED => Self::Parameters,
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED => Self::Attributes,
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED
            | CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE => {
                Self::Function
            }
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED => Self::NotSupported,
            _ => Self::Other,
        }
    }
}

/// What happened to a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CaptureFault {
    /// It could not begin.
    Begin,
    /// A call that captures forbid has spoilt it.
    Invalidated,
    /// A stream that joined it was not joined back.
    Unjoined,
    /// It was ended on another thread.
    WrongThread,
    /// What was captured could not be enqueued, for a reason of its own.
    Work,
}

impl CaptureFault {
    pub(super) fn of(error: Error) -> Self {
        match error.code() {
            Some(CudaError::STREAM_CAPTURE_UNJOINED) => Self::Unjoined,
            Some(CudaError::STREAM_CAPTURE_WRONG_THREAD) => Self::WrongThread,
            Some(code) if FORBIDDEN.contains(&code) => Self::Invalidated,
            _ => Self::Work,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Begin => "the capture could not begin: is the stream the legacy one, or capturing already?",
            Self::Invalidated => {
                "a call that captures forbid spoilt the capture: do not wait, query, allocate or use \
                 uncaptured events between its begin and its end, or do so on a thread with relaxed capture"
            }
            Self::Unjoined => {
                "a stream that joined the capture was not joined back: record an event there, wait for it here"
            }
            Self::WrongThread => "the capture was ended on another thread",
            Self::Work => "what was to be captured failed",
        }
    }
}

/// What the driver answers when a capture is, or thereby becomes, invalid.
const FORBIDDEN: [CudaError; 7] = [
    CudaError::STREAM_CAPTURE_UNSUPPORTED,
    CudaError::STREAM_CAPTURE_INVALIDATED,
    CudaError::STREAM_CAPTURE_MERGE,
    CudaError::STREAM_CAPTURE_UNMATCHED,
    CudaError::STREAM_CAPTURE_ISOLATION,
    CudaError::STREAM_CAPTURE_IMPLICIT,
    CudaError::CAPTURED_EVENT,
];

impl From<Error> for GraphError {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => error.fmt(f),
            Self::ZeroLength => f.write_str(
                "a copy or fill of nothing cannot be in a graph: leave the node out or disable it",
            ),
            Self::Misaligned { address, align } => {
                write!(f, "address {address:#x} is no multiple of {align}")
            }
            Self::MemOps { count } => write!(f, "{count} memory operations in a node, which holds 1 to 256"),
            Self::ForeignNode(node) => write!(f, "{node:?} belongs to another definition"),
            Self::DuplicateEdge(node) => write!(f, "the edge from {node:?} is there twice"),
            Self::Cycle(node) => write!(f, "the edge from {node:?} would close a circle"),
            Self::Direction { node, given } => {
                write!(f, "the node copies {node}, an update to {given} cannot change that")
            }
            Self::NotKnown(node) => {
                write!(f, "{node:?} was captured, only nodes that were added can be updated")
            }
            Self::CannotDisable(kind) => {
                write!(f, "a node of kind {kind} cannot be disabled, only copies, fills and kernels")
            }
            Self::MemoryNode { allocates } => {
                let what = if *allocates { "allocates" } else { "frees" };
                write!(
                    f,
                    "the graph {what} memory: do so before the capture, on a stream that is not capturing"
                )
            }
            Self::OtherContext => f.write_str("stream, event or graph of another context"),
            Self::Update { reason, node } => {
                write!(f, "the driver cannot update the graph: {reason:?} changed")?;
                node.map_or(Ok(()), |node| write!(f, " at {node:?}"))
            }
            Self::Capture { fault, error } => write!(f, "{} ({error})", fault.advice()),
            Self::NotCapturing => f.write_str("the stream is not capturing"),
        }
    }
}

impl core::error::Error for GraphError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Driver(error) | Self::Capture { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// The driver could not instantiate a definition, which comes back.
#[derive(Debug)]
pub struct InstantiateError {
    /// The definition, as it was.
    pub definition: GraphDefinition,
    /// Why.
    pub error: GraphError,
}

impl fmt::Display for InstantiateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot instantiate a graph of {} nodes: {}", self.definition.len(), self.error)
    }
}

impl core::error::Error for InstantiateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<InstantiateError> for GraphError {
    fn from(failed: InstantiateError) -> Self {
        failed.error
    }
}
