//! Graphs: work described once, launched any number of times with one driver call.
//!
//! ```text
//!   GraphDefinition ──instantiate──> GraphExec ──launch(&stream)──> runs
//!      ^   nodes, edges, labels         |  ^
//!      |                                |  └── set_copy, set_fill, set_enabled, update: later launches
//!   CaptureScope                        └── owns its definition
//!   (what a stream is given)
//! ```
//!
//! | the driver's rule | where it is kept |
//! |---|---|
//! | a graph, an executable graph: one thread at a time | both are `Send`, not `Sync`; changes take `&mut self` |
//! | a node named in an update must still be in the source graph | an executable graph owns its definition, nodes are not removed |
//! | updates of copies: one row, the same direction, the same memory | copies are [`Copy1d`]; [`GraphError::Direction`] |
//! | no copy and no fill of nothing | [`GraphError::ZeroLength`]; disable the node instead |
//! | only copies and fills can be disabled | [`GraphError::CannotDisable`] |
//! | no circles, no edge twice, no node of another graph | [`GraphError::Cycle`], [`DuplicateEdge`](GraphError::DuplicateEdge), [`ForeignNode`](GraphError::ForeignNode) |
//! | memory nodes forbid clones, relaunches, edge changes | refused: [`GraphError::MemoryNode`] |
//! | a capture ends on its stream and thread, and ends at all | [`CaptureScope`] |
//! | host functions must not call the driver | said, cannot be seen |
//!
//! # Keep-alive
//!
//! A node holds addresses, and a graph may outlive everybody who knows what they mean: its clones,
//! its executable graphs and their launches in flight all read and write them. Only the driver
//! knows when the last of these is gone, so owners are given to it, as user objects:
//! [`GraphDefinition::keep_alive`], [`GraphExec::keep_alive`], [`keep_alive_in_capture`]. The driver
//! gives them up on a thread that may not call it; they are dropped by the next call that makes,
//! instantiates or destroys a graph, or by [`Driver::drop_deferred`](crate::Driver::drop_deferred).

mod capture;
mod definition;
mod dot;
mod error;
mod exec;
mod keep_alive;
mod node;
mod params;
#[cfg(feature = "svg")]
mod svg;
mod update;

pub use self::capture::{CaptureMode, CaptureScope, keep_alive_in_capture};
pub use self::definition::GraphDefinition;
pub use self::dot::DotDetail;
pub use self::error::{CaptureFault, GraphError, InstantiateError, UpdateRefusal};
pub use self::exec::GraphExec;
pub use self::node::{
    ChildNode, EmptyNode, EventRecordNode, EventWaitNode, HostNode, MemOpNode, MemcpyNode, MemsetNode,
    NodeId, NodeKind,
};
pub use self::params::{Copy1d, Direction, Fill, FillValue, MemOp};
