//! Streams of a machine: which operation comes behind which.

use std::sync::Arc;

use wharf_sys::CudaError;

use super::{State, Work};
use crate::order::OpId;
use crate::race::Track;
use crate::sched::Origin;
use crate::stream::{Role, Stream};

impl State {
    /// Makes a stream.
    pub(crate) fn new_stream(
        &mut self,
        context: u64,
        role: Role,
        flags: u32,
        priority: i32,
    ) -> u64 {
        self.next_id += 1;
        self.streams.insert(Stream::new(context, role, flags, priority, self.next_id))
    }

    /// The legacy default stream of `context`, or the one of `thread`.
    pub(crate) fn default_stream(
        &mut self,
        context: u64,
        thread: Option<u64>,
    ) -> Result<u64, CudaError> {
        let owner = self.contexts.get(context).ok_or(CudaError::INVALID_CONTEXT)?;
        let known = match thread {
            None => owner.legacy,
            Some(thread) => owner.per_thread.get(&thread).copied(),
        };
        if let Some(stream) = known {
            return Ok(stream);
        }
        let role = if thread.is_some() { Role::PerThread } else { Role::Legacy };
        let stream = self.new_stream(context, role, 0, 0);
        let owner = self.contexts.get_mut(context).ok_or(CudaError::INVALID_CONTEXT)?;
        match thread {
            None => owner.legacy = Some(stream),
            Some(thread) => {
                owner.per_thread.insert(thread, stream);
            }
        }
        Ok(stream)
    }

    /// The operations that the next operation of `stream` follows.
    ///
    /// The legacy default stream comes behind every blocking stream of its context, and every
    /// blocking stream behind it (CUDA driver API, stream synchronisation behaviour).
    pub(crate) fn stream_tail(&self, stream: u64) -> Result<Vec<OpId>, CudaError> {
        let this = self.streams.get(stream).ok_or(CudaError::INVALID_HANDLE)?;
        let barrier = self.contexts.get(this.context).map_or(0, |context| context.barrier);
        let mut tail = vec![this.tail, barrier];
        if this.role == Role::Legacy {
            let blocking = self
                .streams
                .values()
                .filter(|other| other.context == this.context && other.is_blocking());
            tail.extend(blocking.map(|other| other.tail));
        } else if this.is_blocking() {
            let legacy = self.contexts.get(this.context).and_then(|context| context.legacy);
            tail.extend(
                legacy.and_then(|legacy| self.streams.get(legacy)).map(|legacy| legacy.tail),
            );
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
        // A stream gets a lane with its first operation: many streams are never used.
        let track = self.track(stream);
        self.queue.set_track(op, track);
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.tail = op;
        }
        Ok(op)
    }

    /// The track of a stream, where order is watched.
    pub(crate) fn track(&mut self, stream: u64) -> Option<Track> {
        let known = self.streams.get_mut(stream)?;
        if known.track.is_none() {
            let lane = self.queue.new_lane()?;
            known.track = Some(Track { lane, place: place(stream, known) });
        }
        known.track.clone()
    }
}

/// A stream in words: its handle may be another's by the time that they are read.
fn place(handle: u64, stream: &Stream) -> Arc<str> {
    let id = stream.id;
    match stream.role {
        Role::Created => format!("stream {handle:#x} (id {id})"),
        Role::Legacy => format!("the legacy default stream (id {id})"),
        Role::PerThread => format!("a per-thread default stream (id {id})"),
    }
    .into()
}
