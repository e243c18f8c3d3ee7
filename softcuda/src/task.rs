//! Operations of streams and graph nodes, as the program described them.
//!
//! A [`Task`] names addresses and handles. It becomes [`Work`](crate::sched::Work) when it is
//! enqueued, or when the graph that holds it is launched: then addresses become allocations, which
//! the work keeps alive, and pageable sources of direct calls are copied aside.

use core::ffi::c_void;
use std::sync::Arc;

use wharf_sys::bindings::CUhostFn;

use crate::memory::Block;
use crate::module::Launch;
use crate::sched::work::{Condition, Opaque, UserData};

/// An operation of a stream or a graph node.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Nothing.
    Empty,
    /// A copy.
    Copy(CopyTask),
    /// A memset.
    Fill(FillTask),
    /// A host function.
    Host(CUhostFn, UserData),
    /// Stream memory operations, in order.
    MemOps(Vec<MemOpTask>),
    /// A stream-ordered allocation that comes to life; its memory was reserved before.
    Alloc(Arc<Block>),
    /// A stream-ordered allocation that ends; its memory goes back to where it came from.
    Free(Arc<Block>),
    /// A kernel.
    Kernel(KernelTask),
}

/// The kind of an address, as the program declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Host memory, pinned or pageable.
    Host,
    /// Memory that the device reaches.
    Device,
    /// Any kind (unified addressing).
    Unified,
}

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) address: u64,
    pub(crate) place: Place,
    /// Bytes from one row to the next.
    pub(crate) pitch: usize,
    /// Bytes from one layer to the next.
    pub(crate) layer: usize,
    /// The context whose device reaches it, where it is not the stream's: a peer copy's.
    pub(crate) context: Option<u64>,
}

impl Operand {
    /// A range without rows.
    pub(crate) fn linear(address: u64, place: Place) -> Self {
        Self { address, place, pitch: 0, layer: 0, context: None }
    }
}

/// A copy of `depth` layers of `height` rows of `width` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyTask {
    pub(crate) dst: Operand,
    pub(crate) src: Operand,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) depth: usize,
}

impl CopyTask {
    /// A copy of `size` bytes.
    pub(crate) fn linear(dst: Operand, src: Operand, size: usize) -> Self {
        Self { dst, src, width: size, height: 1, depth: 1 }
    }

    /// Bytes from the first to behind the last of one side.
    pub(crate) fn extent(&self, side: &Operand) -> Option<usize> {
        if self.width == 0 || self.height == 0 || self.depth == 0 {
            return Some(0);
        }
        let rows = side.pitch.checked_mul(self.height - 1)?;
        let layers = side.layer.checked_mul(self.depth - 1)?;
        rows.checked_add(layers)?.checked_add(self.width)
    }
}

/// A fill of `height` rows of `width` elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FillTask {
    pub(crate) address: u64,
    pub(crate) pitch: usize,
    pub(crate) value: u32,
    /// Bytes an element: 1, 2 or 4.
    pub(crate) element: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// A launch of a kernel, as the program described it. The pointers are handed back to who asks.
#[derive(Clone, Debug)]
pub(crate) struct KernelTask {
    pub(crate) function: u64,
    pub(crate) kernel: u64,
    pub(crate) context: u64,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub(crate) shared: u32,
    pub(crate) params: Opaque<*mut *mut c_void>,
    pub(crate) extra: Opaque<*mut *mut c_void>,
    /// The native code that stands for the kernel, with the parameters' values.
    pub(crate) native: Option<Launch>,
}

/// One stream memory operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemOpTask {
    Write { address: u64, value: u64, wide: bool },
    Wait { address: u64, value: u64, wide: bool, condition: Condition },
    Barrier,
}
