//! Contexts.

use std::collections::HashMap;

use wharf_sys::CudaError;

use crate::order::OpId;

/// A context: what streams, events and memory belong to.
#[derive(Debug)]
pub(crate) struct Context {
    /// The device's number.
    pub(crate) ordinal: i32,
    /// The number of times that the primary context is retained; none for other contexts.
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
    /// The operation that all later work follows: see `cuCtxWaitEvent`.
    pub(crate) barrier: OpId,
    /// The usage count: one, plus calls of `cuCtxAttach`, minus calls of `cuCtxDetach`.
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
