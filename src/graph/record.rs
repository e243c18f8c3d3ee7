#![expect(unsafe_code, reason = "owns handles")]
//! The record that a definition keeps of each of its nodes.

use wharf_sys::bindings::{CUgraphNode, CUgraphNode_st};

use super::node::NodeKind;
use super::params::{Copy1d, Copy2d, Fill};

/// A node of a definition: handle, kind, parameters, edges.
#[derive(Clone, Debug)]
pub(super) struct NodeRecord {
    pub(super) raw: RawNode,
    pub(super) kind: NodeKind,
    /// The parameters, for checks of updates and for pictures. `None` for captured nodes.
    pub(super) work: Option<Work>,
    /// Indices of the nodes that it waits for.
    pub(super) after: Vec<u32>,
    pub(super) label: Option<String>,
}

/// The parameters of a node that was not captured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Copy(Copy1d),
    Rows(Copy2d),
    Fill(Fill),
    MemOps(usize),
}

/// The driver's handle of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawNode(pub(super) *mut CUgraphNode_st);

impl RawNode {
    pub(super) fn get(self) -> CUgraphNode {
        self.0
    }
}

// SAFETY: a node belongs to its graph, and that to no thread; neither is used by several at once
// (Driver API, graph object thread safety), since a definition is not `Sync`.
unsafe impl Send for RawNode {}
