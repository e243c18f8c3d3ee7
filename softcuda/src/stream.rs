//! Streams: which operation comes behind which.

use std::collections::BTreeMap;

use wharf_sys::bindings::CUstreamAttrValue_v1;

use crate::order::OpId;
use crate::race::Track;
use crate::sched::work::Opaque;

/// The kind of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Made by the program.
    Created,
    /// The context's default stream, which synchronises with its blocking streams.
    Legacy,
    /// A thread's default stream.
    PerThread,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) context: u64,
    pub(crate) role: Role,
    pub(crate) flags: u32,
    pub(crate) priority: i32,
    /// A number that no other stream or context of the machine has or had.
    pub(crate) id: u64,
    /// The last operation, or zero.
    pub(crate) tail: OpId,
    /// Where order is watched and the stream was used.
    pub(crate) track: Option<Track>,
    /// Attributes that were set, by number.
    pub(crate) attributes: BTreeMap<u32, Opaque<CUstreamAttrValue_v1>>,
}

/// `CU_STREAM_NON_BLOCKING`
pub(crate) const NON_BLOCKING: u32 = 1;

impl Stream {
    pub(crate) fn new(context: u64, role: Role, flags: u32, priority: i32, id: u64) -> Self {
        Self {
            context,
            role,
            flags,
            priority,
            id,
            tail: 0,
            track: None,
            attributes: BTreeMap::new(),
        }
    }

    /// Whether the legacy default stream waits for this one, and this one for it.
    pub(crate) fn is_blocking(&self) -> bool {
        self.role != Role::Legacy && self.flags & NON_BLOCKING == 0
    }
}
