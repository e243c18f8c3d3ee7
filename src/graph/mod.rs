//! Graphs: work described once, launched any number of times by one driver call each.
//!
//! Engines that capture use [`CaptureScope`] and [`GraphExec`]; engines that build graphs use
//! [`GraphDefinition`].
//!
//! ```text
//!   GraphDefinition ──instantiate──> GraphExec ──launch(&stream)──> runs
//!      ^   nodes, edges, labels         |  ^
//!      |                                |  └── set_copy, set_fill, set_enabled, update
//!   CaptureScope                        └── owns its definition
//!   (work enqueued on a stream)
//! ```
//!
//! | the driver's rule | how it is kept |
//! |---|---|
//! | a graph is used by one thread at a time | `Send`, not `Sync`; changes take `&mut self` |
//! | a node of an update is still in its graph | the executable graph owns the definition |
//! | an updated copy has one row and its old direction | [`Copy1d`]; [`GraphError::Direction`] |
//! | no copy and no fill of 0 bytes | [`GraphError::ZeroLength`]; disable the node instead |
//! | only copies and fills can be disabled | [`GraphError::CannotDisable`] |
//! | no cycles | [`GraphError::Cycle`] |
//! | no edge twice | [`GraphError::DuplicateEdge`] |
//! | no node of another graph | [`GraphError::ForeignNode`] |
//! | memory nodes forbid clones, relaunches, edge changes | refused: [`GraphError::MemoryNode`] |
//! | a capture ends on its stream and thread, and ends at all | [`CaptureScope`] |
//! | host functions must not call the driver | documented; it cannot be checked |
//!
//! # Keep-alive
//!
//! A node holds addresses, and a graph may outlive the objects that own the memory: its clones, its
//! executable graphs and their launches in flight all read and write it. Only the driver knows when
//! the last of these is gone, so owners are given to it, as user objects:
//! [`GraphDefinition::keep_alive`], [`GraphExec::keep_alive`], [`keep_alive_in_capture`]. The
//! driver gives them up on a thread that may not call it; they are dropped by the next call that
//! makes, instantiates or destroys a graph, or by
//! [`Driver::drop_deferred`](crate::Driver::drop_deferred).

mod add;
mod capture;
mod definition;
mod direction;
mod dot;
mod error;
mod exec;
mod instantiate;
mod keep_alive;
mod node;
mod params;
mod record;
mod rows;
#[cfg(feature = "svg")]
mod svg;
mod update;

pub use self::capture::{CaptureMode, CaptureScope, keep_alive_in_capture};
pub use self::definition::GraphDefinition;
pub use self::direction::Direction;
pub use self::dot::DotDetail;
pub(crate) use self::dot::escaped;
pub use self::error::{CaptureFault, GraphError, UpdateRefusal};
pub use self::exec::GraphExec;
pub use self::instantiate::InstantiateError;
pub use self::node::{
    ChildNode, EmptyNode, EventRecordNode, EventWaitNode, HostNode, MemOpNode, MemcpyNode,
    MemsetNode, NodeId, NodeInfo, NodeKind,
};
pub use self::params::{Copy1d, Copy2d, Fill, FillValue, MemOp};
