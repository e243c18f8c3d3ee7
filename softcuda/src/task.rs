//! What a stream operation or a graph node does, as the program said it.
//!
//! A [`Task`] names addresses and handles. It becomes [`Work`] when it is enqueued, or when
//! the graph that holds it is launched: then addresses become allocations, which the work
//! keeps alive, and pageable sources of direct calls are copied aside.

use core::ffi::c_void;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::CUhostFn;

use crate::machine::{Machine, State};
use crate::memory::Block;
use crate::memory::table::host_address;
use crate::memory::transfer::{Copy, Fill, Side};
use crate::module::Launch;
use crate::report::{Check, Violation};
use crate::sched::Work;
use crate::sched::work::{Condition, MemOp, Opaque, UserData};

/// What a stream operation or a graph node does.
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

/// What the program says an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Host memory, pinned or pageable.
    Host,
    /// Memory that the device reaches.
    Device,
    /// Whatever the address is (unified addressing).
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
}

impl Operand {
    /// A range without rows.
    pub(crate) fn linear(address: u64, place: Place) -> Self {
        Self { address, place, pitch: 0, layer: 0 }
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

/// Who asks for the work: it decides when a pageable source is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// A call on a stream: a pageable source may be reused when it returns.
    Call,
    /// A launch of a graph.
    Launch,
}

impl Machine {
    /// Turns `task` into work that can be enqueued.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: an address is not what the task needs.
    pub(crate) fn prepare(
        &self,
        state: &State,
        call: &'static str,
        task: &Task,
        when: When,
    ) -> Result<Work, CudaError> {
        Ok(match task {
            Task::Empty => Work::Nothing,
            Task::Copy(copy) => Work::Copy(Box::new(self.prepare_copy(state, call, copy, when)?)),
            Task::Fill(fill) => Work::Fill(Box::new(self.prepare_fill(state, call, fill)?)),
            Task::Host(function, data) => Work::Host(*function, *data),
            Task::Alloc(block) => {
                let block = Arc::clone(block);
                Work::Apply(Box::new(move |_| block.begin()))
            }
            Task::Free(block) => {
                let block = Arc::clone(block);
                Work::Apply(Box::new(move |state| state.finish_free(&block)))
            }
            Task::MemOps(ops) => {
                let ops: Result<_, _> = ops.iter().map(|op| prepare_mem_op(state, op)).collect();
                Work::MemOps(ops?, 0)
            }
            // Kernels are out of scope: only their place in the order counts.
            Task::Kernel(KernelTask { native: None, .. }) => Work::Nothing,
            Task::Kernel(KernelTask { native: Some(launch), .. }) => {
                let launch = launch.clone();
                Work::Native(Box::new(move || launch.run()))
            }
        })
    }

    fn prepare_copy(
        &self,
        state: &State,
        call: &'static str,
        task: &CopyTask,
        when: When,
    ) -> Result<Copy, CudaError> {
        let dst = self.side(state, call, task, &task.dst)?;
        let src = self.side(state, call, task, &task.src)?;
        writable(&dst.blocks)?;
        let mut copy = Copy {
            dst,
            src,
            width: task.width,
            height: task.height,
            depth: task.depth,
            staged: None,
            hash: None,
        };
        if when == When::Call && copy.src.is_pageable() && copy.bytes() > 0 {
            copy.stage().map_err(|_| CudaError::INVALID_VALUE)?;
        } else if self.config.checks.source_stable && copy.src.blocks.iter().all(|block| block.kind.is_host())
        {
            copy.hash = copy.hash_source();
        }
        Ok(copy)
    }

    fn side(
        &self,
        state: &State,
        call: &'static str,
        task: &CopyTask,
        operand: &Operand,
    ) -> Result<Side, CudaError> {
        let extent = task.extent(operand).ok_or(CudaError::INVALID_VALUE)?;
        let Operand { address, place, pitch, layer } = *operand;
        let pageable = Side { host: address, shown: address, pitch, layer, blocks: Vec::new() };
        let end = address.checked_add(extent as u64).ok_or(CudaError::INVALID_VALUE)?;
        if extent == 0 {
            return Ok(pageable);
        }
        if let Some(blocks) = state.memory.cover(address, extent) {
            if !blocks.iter().all(|block| block.allows(false)) {
                // A mapping that no location was given access to.
                return Err(CudaError::INVALID_VALUE);
            }
            let host = blocks.first().map_or(address, |block| host_address(block, address));
            return Ok(Side { host, shown: address, pitch, layer, blocks });
        }
        let begins_in = state.memory.find(address);
        if let Some(block) = begins_in {
            self.out_of_bounds(call, block, address, extent);
        }
        // A range that only begins in registered memory is pageable to the driver.
        let in_driver_memory = begins_in.is_some_and(|block| block.is_owner());
        let outside_user_space = address < 4096 || end >= 1 << 47;
        if place == Place::Device || in_driver_memory || outside_user_space {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(pageable)
    }

    fn out_of_bounds(&self, call: &'static str, block: &Block, address: u64, extent: usize) {
        self.violate(Check::Bounds, || Violation {
            check: Check::Bounds,
            call,
            what: format!(
                "[{address:#x}, {:#x}) leaves allocation {:#x} of {} bytes",
                address.saturating_add(extent as u64),
                block.device,
                block.size
            ),
            stream: 0,
        });
    }

    fn prepare_fill(&self, state: &State, call: &'static str, task: &FillTask) -> Result<Fill, CudaError> {
        let row = task.width.checked_mul(task.element).ok_or(CudaError::INVALID_VALUE)?;
        let operand = Operand { address: task.address, place: Place::Device, pitch: task.pitch, layer: 0 };
        let shape = CopyTask { dst: operand, src: operand, width: row, height: task.height, depth: 1 };
        if !task.address.is_multiple_of(task.element as u64) || task.height > 1 && task.pitch < row {
            return Err(CudaError::INVALID_VALUE);
        }
        let dst = self.side(state, call, &shape, &operand)?;
        writable(&dst.blocks)?;
        Ok(Fill { dst, value: task.value, element: task.element, width: task.width, height: task.height })
    }
}

/// Refuses a destination that may only be read.
fn writable(blocks: &[Arc<Block>]) -> Result<(), CudaError> {
    if blocks.iter().all(|block| block.allows(true)) { Ok(()) } else { Err(CudaError::INVALID_VALUE) }
}

fn prepare_mem_op(state: &State, task: &MemOpTask) -> Result<MemOp, CudaError> {
    Ok(match *task {
        MemOpTask::Barrier => MemOp::Barrier,
        MemOpTask::Write { address, value, wide } => {
            let (address, block) = word(state, address, wide)?;
            writable(std::slice::from_ref(&block))?;
            MemOp::Write { address, value, wide, _block: block }
        }
        MemOpTask::Wait { address, value, wide, condition } => {
            let (address, block) = word(state, address, wide)?;
            MemOp::Wait { address, value, wide, condition, _block: block }
        }
    })
}

/// The host address of an aligned word that the device reaches.
fn word(state: &State, address: u64, wide: bool) -> Result<(u64, Arc<Block>), CudaError> {
    let size = if wide { 8 } else { 4 };
    if !address.is_multiple_of(size as u64) {
        return Err(CudaError::INVALID_VALUE);
    }
    let blocks = state.memory.cover(address, size).ok_or(CudaError::INVALID_VALUE)?;
    let block = blocks.into_iter().next().filter(|block| block.allows(false));
    let block = block.ok_or(CudaError::INVALID_VALUE)?;
    Ok((host_address(&block, address), block))
}
