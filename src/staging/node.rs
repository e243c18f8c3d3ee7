#![expect(unsafe_code, reason = "nodes name raw addresses")]
//! The nodes of staging graphs.

use std::ptr::with_exposed_provenance_mut;

use crate::address::to_usize;
use crate::driver::Event;
use crate::error::Error;
use crate::graph::{
    Copy1d, Copy2d, Direction, GraphDefinition, GraphError, GraphExec, MemOp, MemcpyNode, NodeId,
};
use crate::stream::Stream;

/// Adds a copy between a ring slot and device memory.
pub(super) fn add_copy(
    graph: &mut GraphDefinition,
    copy: Copy1d,
    after: &[NodeId],
) -> Result<MemcpyNode, GraphError> {
    // SAFETY: both regions live as long as the set, which waits for its launches before it gives
    // them back, or are kept alive in a graph that is embedded elsewhere; a source of results that
    // is not the set's is vouched for by the caller of `source`. The host uses a ring slot only
    // when its copy is done, and stream order or the guard of the destination orders the device.
    unsafe { graph.memcpy(copy, after) }
}

/// Adds a copy of rows from a ring slot to device memory.
pub(super) fn add_copy_of_rows(
    graph: &mut GraphDefinition,
    copy: Copy2d,
    after: &[NodeId],
) -> Result<MemcpyNode, GraphError> {
    // SAFETY: as in `add_copy`, for each row.
    unsafe { graph.memcpy_rows(copy, after) }
}

/// Adds the write that says that a ring slot was read, behind its copies.
pub(super) fn add_done(
    graph: &mut GraphDefinition,
    word: u64,
    after: &[NodeId],
) -> Result<NodeId, GraphError> {
    // SAFETY: the word belongs to the ring slot, and lives as its memory does.
    unsafe { graph.mem_ops(&[MemOp::Write64 { address: word, value: 1 }], after) }.map(NodeId::from)
}

/// Adds the record that other streams wait for, behind the rest.
pub(super) fn add_record(
    graph: &mut GraphDefinition,
    event: &Event,
    after: &[NodeId],
) -> Result<NodeId, GraphError> {
    // SAFETY: the event was made with the ring slot, in the set's context, and lives as its memory
    // does.
    unsafe { graph.event_record_unowned(event, after) }.map(NodeId::from)
}

/// Adds the wait for an event of the set, before the rest.
pub(super) fn add_wait(graph: &mut GraphDefinition, event: &Event) -> Result<NodeId, GraphError> {
    // SAFETY: as in `add_record`.
    unsafe { graph.event_wait_unowned(event, &[]) }.map(NodeId::from)
}

/// Lets a copy have other memory than the set's.
pub(super) fn redirect(
    exec: &mut GraphExec,
    node: MemcpyNode,
    copy: Copy1d,
) -> Result<(), GraphError> {
    // SAFETY: as in `add_copy`; the caller of `refer`, or of `source`, vouched for the memory,
    // whose owner is kept until the ring slot is used again.
    unsafe { exec.set_copy(node, copy) }
}

/// Copies between a ring slot and device memory, without a graph.
pub(super) fn enqueue_copy(stream: &Stream, copy: Copy1d) -> Result<(), Error> {
    let ((destination, source), size) = (copy.addresses(), copy.size());
    let host = |address| with_exposed_provenance_mut(to_usize(address));
    match copy.direction() {
        // SAFETY: as in `add_copy`.
        Direction::Htod => unsafe { stream.copy_htod(destination, host(source), size) },
        // SAFETY: as in `add_copy`.
        Direction::Dtoh => unsafe { stream.copy_dtoh(host(destination), source, size) },
        // SAFETY: as in `add_copy`.
        Direction::Dtod => unsafe { stream.copy_dtod(destination, source, size) },
    }
}
