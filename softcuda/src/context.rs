//! Contexts.

use std::collections::HashMap;

use wharf_sys::CudaError;

use crate::machine::State;
use crate::sched::OpId;
use crate::stream::Role;

/// A context: what streams, events and memory belong to.
#[derive(Debug)]
pub(crate) struct Context {
    /// The device's number.
    pub(crate) ordinal: i32,
    /// How often the primary context is retained; nothing for others.
    pub(crate) retained: Option<u32>,
    pub(crate) flags: u32,
    /// A number that no other context of the machine has or had.
    pub(crate) id: u64,
    /// The error of a device fault: every later call returns it.
    pub(crate) lost: Option<CudaError>,
    /// The legacy default stream, once used.
    pub(crate) legacy: Option<u64>,
    /// The per-thread default streams, by thread.
    pub(crate) per_thread: HashMap<u64, u64>,
    /// Contexts whose memory this one was given access to.
    pub(crate) peers: Vec<u64>,
    /// Values of `cuCtxSetLimit`, by limit.
    pub(crate) limits: HashMap<u32, usize>,
    /// What all later work comes behind: see `cuCtxWaitEvent`.
    pub(crate) barrier: OpId,
    /// How often it was made and attached to, less how often detached from.
    pub(crate) usage: u32,
}

impl Context {
    pub(crate) fn new(ordinal: i32, flags: u32, id: u64, retained: Option<u32>) -> Self {
        Self {
            ordinal,
            retained,
            flags,
            id,
            lost: None,
            legacy: None,
            per_thread: HashMap::new(),
            peers: Vec::new(),
            limits: HashMap::new(),
            barrier: 0,
            usage: 1,
        }
    }
}

impl State {
    /// The legacy default stream of `context`, or the one of `thread`.
    pub(crate) fn default_stream(&mut self, context: u64, thread: Option<u64>) -> Result<u64, CudaError> {
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

    /// Takes a context down with everything in it. Operations in flight keep what they use.
    pub(crate) fn destroy_context(&mut self, context: u64) {
        for stream in self.streams.handles() {
            if self.streams.get(stream).is_some_and(|stream| stream.context == context) {
                self.abandon_capture(stream);
                self.streams.remove(stream);
            }
        }
        for event in self.events.handles() {
            if self.events.get(event).is_some_and(|event| event.context == context) {
                self.events.remove(event);
            }
        }
        let owned: Vec<_> = self.memory.blocks().filter(|block| block.context == context).cloned().collect();
        for block in owned {
            self.release(&block);
        }
        self.forget_arrays(context);
        self.forget_modules(context);
        self.contexts.remove(context);
    }
}
