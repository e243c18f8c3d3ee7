//! Events: moments in a stream.

use std::sync::Arc;

use crate::order::OpId;
use crate::sched::work::Record;

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) context: u64,
    pub(crate) flags: u32,
    pub(crate) state: EventState,
}

/// The last record of an event.
#[derive(Clone, Debug)]
pub(crate) enum EventState {
    /// None yet: the event counts as complete.
    Unrecorded,
    /// The operation that records, and when it ran.
    Recorded { op: OpId, record: Arc<Record> },
    /// In a capture: the nodes that stand for the moment, and the capture they belong to.
    Captured { capture: u64, nodes: Vec<u64> },
}

/// `CU_EVENT_DISABLE_TIMING`
pub(crate) const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`
pub(crate) const INTERPROCESS: u32 = 4;
