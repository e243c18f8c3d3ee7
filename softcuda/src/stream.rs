//! Streams: which operation comes behind which.

use std::collections::BTreeMap;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUstreamAttrValue_v1;

use crate::machine::State;
use crate::sched::work::Opaque;
use crate::sched::{OpId, Origin, Work};

/// What makes a stream special.
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
    /// Attributes that were set, by number.
    pub(crate) attributes: BTreeMap<u32, Opaque<CUstreamAttrValue_v1>>,
}

/// `CU_STREAM_NON_BLOCKING`
pub(crate) const NON_BLOCKING: u32 = 1;

impl Stream {
    pub(crate) fn new(context: u64, role: Role, flags: u32, priority: i32, id: u64) -> Self {
        Self { context, role, flags, priority, id, tail: 0, attributes: BTreeMap::new() }
    }

    /// Whether the legacy default stream waits for this one, and this one for it.
    pub(crate) fn is_blocking(&self) -> bool {
        self.role != Role::Legacy && self.flags & NON_BLOCKING == 0
    }
}

impl State {
    /// What the next operation of `stream` comes behind.
    ///
    /// The legacy default stream comes behind every blocking stream of its context, and every
    /// blocking stream behind it (CUDA driver API, stream synchronisation behaviour).
    pub(crate) fn stream_tail(&self, stream: u64) -> Result<Vec<OpId>, CudaError> {
        let this = self.streams.get(stream).ok_or(CudaError::INVALID_HANDLE)?;
        let barrier = self.contexts.get(this.context).map_or(0, |context| context.barrier);
        let mut tail = vec![this.tail, barrier];
        if this.role == Role::Legacy {
            let blocking =
                self.streams.values().filter(|other| other.context == this.context && other.is_blocking());
            tail.extend(blocking.map(|other| other.tail));
        } else if this.is_blocking() {
            let legacy = self.contexts.get(this.context).and_then(|context| context.legacy);
            tail.extend(legacy.and_then(|legacy| self.streams.get(legacy)).map(|legacy| legacy.tail));
        }
        Ok(tail)
    }

    /// Adds an operation to a stream, behind what the stream has and behind `also`.
    pub(crate) fn enqueue(
        &mut self,
        call: &'static str,
        stream: u64,
        work: Work,
        also: &[OpId],
    ) -> Result<OpId, CudaError> {
        let mut after = self.stream_tail(stream)?;
        after.extend_from_slice(also);
        let context = self.streams.get(stream).map_or(0, |stream| stream.context);
        let op = self.queue.add(Origin { call, context, stream }, work, &after);
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.tail = op;
        }
        Ok(op)
    }
}
