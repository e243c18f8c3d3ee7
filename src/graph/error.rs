//! Errors of graphs and captures.

use core::fmt;

use wharf_sys::bindings::CUgraphExecUpdateResult;

use super::direction::Direction;
use super::node::{NodeId, NodeKind};
use crate::error::{CudaError, Error};

/// A graph could not be made, changed or launched. The call has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError {
    /// The driver refused.
    Driver(Error),
    /// A copy or a fill of 0 bytes, which a node cannot be: leave the node out, or disable it.
    ZeroLength,
    /// An address is not aligned as the operation needs.
    Misaligned {
        /// The address.
        address: u64,
        /// The alignment that the operation needs, in bytes.
        align: u32,
    },
    /// More memory operations than one node holds, or none: it is 1 to 256.
    MemOps {
        /// The number given.
        count: usize,
    },
    /// A node of another definition.
    ForeignNode(NodeId),
    /// An edge that is there already, or that was given twice.
    DuplicateEdge(NodeId),
    /// An edge that would close a cycle.
    Cycle(NodeId),
    /// The direction of a copy, which an update cannot change.
    Direction {
        /// The node's.
        node: Direction,
        /// The one given.
        given: Direction,
    },
    /// A captured node, whose parameters an update would need to know.
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
        /// The kind of failure.
        fault: CaptureFault,
        /// The driver's error.
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
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED => {
                Self::Parameters
            }
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED => {
                Self::Attributes
            }
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_FUNCTION_CHANGED
            | CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE => {
                Self::Function
            }
            CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED => Self::NotSupported,
            _ => Self::Other,
        }
    }
}

/// How a capture failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CaptureFault {
    /// It could not begin.
    Begin,
    /// A call that captures forbid has invalidated it.
    Invalidated,
    /// A stream that joined it was not joined back.
    Unjoined,
    /// It was ended on another thread.
    WrongThread,
    /// A captured call failed for a reason of its own.
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
            Self::Begin => {
                "the capture could not begin: the legacy stream cannot capture, nor can a stream \
                 that is capturing"
            }
            Self::Invalidated => {
                "the capture was invalidated by a call that captures forbid: do not wait, query, \
                 allocate or use uncaptured events before its end, or do so on a thread with \
                 relaxed capture"
            }
            Self::Unjoined => {
                "a stream that joined the capture was not joined back: record an event there, and \
                 wait for it here"
            }
            Self::WrongThread => {
                "the capture was ended on another thread: end it on the thread that began it"
            }
            Self::Work => "a captured call failed",
        }
    }
}

/// The driver's codes for a capture that is, or thereby becomes, invalid.
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
                "a graph node cannot copy or fill 0 bytes: leave the node out, or disable it",
            ),
            Self::Misaligned { address, align } => {
                write!(f, "address {address:#x} is not a multiple of {align}")
            }
            Self::MemOps { count } => {
                write!(f, "{count} memory operations were given for one node, which holds 1 to 256")
            }
            Self::ForeignNode(node) => write!(f, "{node:?} belongs to another definition"),
            Self::DuplicateEdge(node) => {
                write!(f, "the edge from {node:?} exists already, or was given twice")
            }
            Self::Cycle(node) => write!(f, "the edge from {node:?} would close a cycle"),
            Self::Direction { node, given } => {
                write!(f, "the node copies {node}, and an update cannot change that to {given}")
            }
            Self::NotKnown(node) => {
                write!(
                    f,
                    "{node:?} was captured: only nodes that were added by name can be updated"
                )
            }
            Self::CannotDisable(kind) => {
                write!(
                    f,
                    "a node of kind {kind} cannot be disabled: only copies, fills and kernels can"
                )
            }
            Self::MemoryNode { allocates } => {
                let what = if *allocates { "allocates" } else { "frees" };
                write!(
                    f,
                    "the captured graph {what} memory: do so before the capture, on a stream that \
                     is not capturing"
                )
            }
            Self::OtherContext => {
                f.write_str("the stream, event or graph belongs to another context")
            }
            Self::Update { reason, node } => {
                write!(f, "the driver cannot update the executable graph: {reason:?} changed")?;
                node.map_or(Ok(()), |node| write!(f, " at {node:?}"))
            }
            Self::Capture { fault, error } => write!(f, "{} ({error})", fault.advice()),
            Self::NotCapturing => {
                f.write_str("the stream is not capturing, or its capture is invalid")
            }
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
