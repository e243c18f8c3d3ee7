//! From a [`Task`] to [`Work`]: addresses become allocations, and the checks look at them.

use std::sync::Arc;

use wharf_sys::CudaError;

use crate::machine::{Machine, State, Work};
use crate::memory::Block;
use crate::memory::table::{Reach, host_address};
use crate::memory::transfer::{Copy, Fill, Side};
use crate::peer::Use;
use crate::report::{Check, Violation};
use crate::sched::work::MemOp;
use crate::task::{CopyTask, FillTask, KernelTask, MemOpTask, Operand, Place, Task};

/// The origin of the work, which decides when a pageable source is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// A call on a stream: a pageable source may be reused when it returns.
    Call,
    /// A launch of a graph.
    Launch,
    /// The begin of a graph that was launched before: a call may have freed its memory since, in
    /// the order of a stream that is not there yet.
    Begin,
}

impl Machine {
    /// Turns `task` into work of `context` that can be enqueued.
    ///
    /// # Errors
    ///
    /// `INVALID_VALUE`: an address is not what the task needs.
    pub(crate) fn prepare(
        &self,
        state: &State,
        call: &'static str,
        context: u64,
        task: &Task,
        when: When,
    ) -> Result<Work, CudaError> {
        Ok(match task {
            Task::Empty => Work::Nothing,
            Task::Copy(copy) => {
                Work::Copy(Box::new(self.prepare_copy(state, call, context, copy, when)?))
            }
            Task::Fill(fill) => {
                Work::Fill(Box::new(self.prepare_fill(state, call, context, fill, when)?))
            }
            Task::Host(function, data) => Work::Host(*function, *data),
            Task::Alloc(block) => Work::Begin(Arc::clone(block)),
            Task::Free(block) => Work::End(Arc::clone(block), State::finish_free),
            Task::MemOps(ops) => {
                let ops: Result<_, _> = ops
                    .iter()
                    .map(|op| self.prepare_mem_op(state, call, context, op, when))
                    .collect();
                Work::MemOps(ops?, 0)
            }
            // Kernels are out of scope: only their place in the order counts.
            Task::Kernel(KernelTask { native: None, .. }) => Work::Nothing,
            Task::Kernel(KernelTask { native: Some(launch), .. }) => Work::Native(launch.clone()),
        })
    }

    fn prepare_copy(
        &self,
        state: &State,
        call: &'static str,
        context: u64,
        task: &CopyTask,
        when: When,
    ) -> Result<Copy, CudaError> {
        let dst = self.side(state, call, task, (&task.dst, when))?;
        let src = self.side(state, call, task, (&task.src, when))?;
        for (side, operand, usage) in
            [(&dst, &task.dst, Use::CopyTo), (&src, &task.src, Use::CopyFrom)]
        {
            let context = operand.context.unwrap_or(context);
            self.check_access(state, call, context, (&side.blocks, operand.address), usage)?;
        }
        if task.height == 1 && task.depth == 1 {
            self.check_overlap(call, &dst, &src, task.width as u64);
        }
        let mut copy = Copy {
            dst,
            src,
            width: task.width,
            height: task.height,
            depth: task.depth,
            staged: None,
            hash: None,
            landing: state.queue.landing(),
        };
        // The call may return before the copy runs, and the program may then reuse pageable memory,
        // but not pinned memory.
        if when == When::Call && copy.src.is_pageable() && copy.bytes() > 0 {
            copy.stage().map_err(|_| CudaError::INVALID_VALUE)?;
        } else if self.config.checks.source_stable
            && copy.src.blocks.iter().all(|block| block.kind.is_host())
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
        (operand, when): (&Operand, When),
    ) -> Result<Side, CudaError> {
        let extent = task.extent(operand).ok_or(CudaError::INVALID_VALUE)?;
        let Operand { address, place, pitch, layer, .. } = *operand;
        let pageable = Side { host: address, shown: address, pitch, layer, blocks: Vec::new() };
        let end = address.checked_add(extent as u64).ok_or(CudaError::INVALID_VALUE)?;
        if extent == 0 {
            return Ok(pageable);
        }
        let reach = match when {
            When::Call | When::Launch => state.memory.reach(address, extent),
            When::Begin => state.memory.reach_launched(address, extent),
        };
        match reach {
            Reach::Known(blocks) => {
                let host = blocks.first().map_or(address, |block| host_address(block, address));
                return Ok(Side { host, shown: address, pitch, layer, blocks });
            }
            Reach::Straddles(block) => {
                self.out_of_bounds(call, block, address, extent);
                return Err(CudaError::INVALID_VALUE);
            }
            Reach::Unknown => {}
        }
        // An unknown address is pageable memory of the program, unless it cannot be.
        let outside_user_space = address < 4096 || end >= 1 << 47;
        if place == Place::Device || outside_user_space {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(pageable)
    }

    /// "The memory areas may not overlap" (`cudaMemcpy`): a device moves bytes in any order.
    fn check_overlap(&self, call: &'static str, dst: &Side, src: &Side, size: u64) {
        if dst.host.abs_diff(src.host) >= size {
            return;
        }
        self.violate(Check::Overlap, || Violation {
            check: Check::Overlap,
            call,
            what: format!(
                "destination [{:#x}, {:#x}) has bytes of the source [{:#x}, {:#x})",
                dst.shown,
                dst.shown.saturating_add(size),
                src.shown,
                src.shown.saturating_add(size)
            ),
            stream: 0,
        });
    }

    fn out_of_bounds(&self, call: &'static str, block: &Block, address: u64, extent: usize) {
        self.violate(Check::Bounds, || Violation {
            check: Check::Bounds,
            call,
            what: format!(
                "[{address:#x}, {:#x}) is not inside one allocation: it overlaps {:#x} of {} bytes \
                 and bytes outside",
                address.saturating_add(extent as u64),
                block.device,
                block.size
            ),
            stream: 0,
        });
    }

    fn prepare_fill(
        &self,
        state: &State,
        call: &'static str,
        context: u64,
        task: &FillTask,
        when: When,
    ) -> Result<Fill, CudaError> {
        let row = task.width.checked_mul(task.element).ok_or(CudaError::INVALID_VALUE)?;
        let operand = Operand { pitch: task.pitch, ..Operand::linear(task.address, Place::Device) };
        // A fill has the shape of a copy of one side.
        let shape =
            CopyTask { dst: operand, src: operand, width: row, height: task.height, depth: 1 };
        if !task.address.is_multiple_of(task.element as u64) || task.height > 1 && task.pitch < row
        {
            return Err(CudaError::INVALID_VALUE);
        }
        let dst = self.side(state, call, &shape, (&operand, when))?;
        self.check_access(state, call, context, (&dst.blocks, task.address), Use::Write)?;
        Ok(Fill {
            dst,
            value: task.value,
            element: task.element,
            width: task.width,
            height: task.height,
        })
    }

    fn prepare_mem_op(
        &self,
        state: &State,
        call: &'static str,
        context: u64,
        task: &MemOpTask,
        when: When,
    ) -> Result<MemOp, CudaError> {
        let reached = |address: u64, wide, usage| {
            let (host, block) = word(state, address, wide, when)?;
            self.check_access(
                state,
                call,
                context,
                (std::slice::from_ref(&block), address),
                usage,
            )?;
            Ok((host, block))
        };
        Ok(match *task {
            MemOpTask::Barrier => MemOp::Barrier,
            MemOpTask::Write { address, value, wide } => {
                let (address, block) = reached(address, wide, Use::Write)?;
                MemOp::Write { address, value, wide, block }
            }
            MemOpTask::Wait { address, value, wide, condition } => {
                let (address, block) = reached(address, wide, Use::Read)?;
                MemOp::Wait { address, value, wide, condition, block }
            }
        })
    }
}

/// The host address of an aligned word that the device reaches.
fn word(
    state: &State,
    address: u64,
    wide: bool,
    when: When,
) -> Result<(u64, Arc<Block>), CudaError> {
    let size = if wide { 8 } else { 4 };
    if !address.is_multiple_of(size as u64) {
        return Err(CudaError::INVALID_VALUE);
    }
    let known = state.memory.cover(address, size).and_then(|blocks| blocks.into_iter().next());
    let leaving = || match when {
        When::Call | When::Launch => None,
        When::Begin => state.memory.leaving_at(address, size).cloned(),
    };
    let block = known.or_else(leaving).ok_or(CudaError::INVALID_VALUE)?;
    // "None of the operations accepts pointers to managed memory buffers" (Stream Memory
    // Operations).
    if state.is_managed(block.kind) {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok((host_address(&block, address), block))
}
