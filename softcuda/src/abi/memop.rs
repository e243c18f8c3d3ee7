#![expect(unsafe_code, reason = "exports C functions")]
//! Stream memory operations.

use core::ffi::c_uint;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::inputs;
use super::exports;
use crate::call::Call;
use crate::errors::Status;
use crate::sched::work::Condition;
use crate::submit::Return;
use crate::task::{MemOpTask, Task};

exports! {
    Normal PFN_cuStreamWriteValue32_v8000: cuStreamWriteValue32(
        stream: CUstream, address: CUdeviceptr, value: cuuint32_t, flags: c_uint,
    ) | cuStreamWriteValue32_ptsz => write_32;
    Normal PFN_cuStreamWriteValue32_v11070: cuStreamWriteValue32_v2(
        stream: CUstream, address: CUdeviceptr, value: cuuint32_t, flags: c_uint,
    ) | cuStreamWriteValue32_v2_ptsz => write_32;
    Normal PFN_cuStreamWriteValue64_v9000: cuStreamWriteValue64(
        stream: CUstream, address: CUdeviceptr, value: cuuint64_t, flags: c_uint,
    ) | cuStreamWriteValue64_ptsz => write_64;
    Normal PFN_cuStreamWriteValue64_v11070: cuStreamWriteValue64_v2(
        stream: CUstream, address: CUdeviceptr, value: cuuint64_t, flags: c_uint,
    ) | cuStreamWriteValue64_v2_ptsz => write_64;
    Normal PFN_cuStreamWaitValue32_v8000: cuStreamWaitValue32(
        stream: CUstream, address: CUdeviceptr, value: cuuint32_t, flags: c_uint,
    ) | cuStreamWaitValue32_ptsz => wait_32;
    Normal PFN_cuStreamWaitValue32_v11070: cuStreamWaitValue32_v2(
        stream: CUstream, address: CUdeviceptr, value: cuuint32_t, flags: c_uint,
    ) | cuStreamWaitValue32_v2_ptsz => wait_32;
    Normal PFN_cuStreamWaitValue64_v9000: cuStreamWaitValue64(
        stream: CUstream, address: CUdeviceptr, value: cuuint64_t, flags: c_uint,
    ) | cuStreamWaitValue64_ptsz => wait_64;
    Normal PFN_cuStreamWaitValue64_v11070: cuStreamWaitValue64_v2(
        stream: CUstream, address: CUdeviceptr, value: cuuint64_t, flags: c_uint,
    ) | cuStreamWaitValue64_v2_ptsz => wait_64;
    Normal PFN_cuStreamBatchMemOp_v8000: cuStreamBatchMemOp(
        stream: CUstream, count: c_uint, ops: *mut CUstreamBatchMemOpParams, flags: c_uint,
    ) | cuStreamBatchMemOp_ptsz => batch;
    Normal PFN_cuStreamBatchMemOp_v11070: cuStreamBatchMemOp_v2(
        stream: CUstream, count: c_uint, ops: *mut CUstreamBatchMemOpParams, flags: c_uint,
    ) | cuStreamBatchMemOp_v2_ptsz => batch;
}

/// "Operations … must be between 1 and 256."
const MOST: c_uint = 256;
/// `CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER`: weaker is allowed to be stronger.
const NO_MEMORY_BARRIER: c_uint = 1;
/// `CU_STREAM_WAIT_VALUE_FLUSH`
const FLUSH: c_uint = 1 << 30;

fn write(address: u64, value: u64, wide: bool, flags: c_uint) -> Status<MemOpTask> {
    if flags & !NO_MEMORY_BARRIER != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(MemOpTask::Write { address, value, wide })
}

fn wait(call: Call, address: u64, value: u64, wide: bool, flags: c_uint) -> Status<MemOpTask> {
    let condition = match flags & !FLUSH {
        0 => Condition::GreaterOrEqual,
        1 => Condition::Equal,
        2 => Condition::And,
        3 => Condition::Nor,
        _ => return Err(CudaError::INVALID_VALUE),
    };
    if flags & FLUSH != 0 {
        call.require_flush()?;
    }
    // Older devices lack this condition alone.
    if condition == Condition::Nor {
        call.require(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR)?;
    }
    Ok(MemOpTask::Wait { address, value, wide, condition })
}

impl Call<'_> {
    /// Refuses what the current device does not have.
    pub(crate) fn require(self, attribute: CUdevice_attribute) -> Status {
        let ordinal = self.ordinal(&self.lock())?;
        match crate::attributes::of(&self.machine.config, attribute, ordinal) {
            Some(0) | None => Err(CudaError::NOT_SUPPORTED),
            Some(_) => Ok(()),
        }
    }

    fn mem_op(self, stream: CUstream, op: MemOpTask) -> Status {
        self.submit(stream, &Task::MemOps(vec![op]), Return::Enqueued)
    }

    /// Needed to flush writes of other devices.
    fn require_flush(self) -> Status {
        self.require(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES)
    }

    fn require_wide(self) -> Status {
        self.require(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS)
    }
}

fn write_32(
    call: Call,
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint32_t,
    flags: c_uint,
) -> Status {
    call.mem_op(stream, write(address, value.into(), false, flags)?)
}

fn write_64(
    call: Call,
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint64_t,
    flags: c_uint,
) -> Status {
    call.require_wide()?;
    call.mem_op(stream, write(address, value, true, flags)?)
}

fn wait_32(
    call: Call,
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint32_t,
    flags: c_uint,
) -> Status {
    call.mem_op(stream, wait(call, address, value.into(), false, flags)?)
}

fn wait_64(
    call: Call,
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint64_t,
    flags: c_uint,
) -> Status {
    call.require_wide()?;
    call.mem_op(stream, wait(call, address, value, true, flags)?)
}

fn batch(
    call: Call,
    stream: CUstream,
    count: c_uint,
    ops: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
) -> Status {
    if flags != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    call.submit(stream, &Task::MemOps(mem_ops(call, count, ops)?), Return::Enqueued)
}

/// Reads the operations of a batch, of a stream's or of a graph node's.
pub(crate) fn mem_ops(
    call: Call,
    count: c_uint,
    ops: *const CUstreamBatchMemOpParams,
) -> Status<Vec<MemOpTask>> {
    if !(1..=MOST).contains(&count) {
        return Err(CudaError::INVALID_VALUE);
    }
    inputs(ops, count as usize)?.iter().map(|op| mem_op(call, op)).collect()
}

fn mem_op(call: Call, op: &CUstreamBatchMemOpParams) -> Status<MemOpTask> {
    // SAFETY: every variant begins with the operation, and all bytes were read from the program.
    let operation = unsafe { op.operation };
    let wide = matches!(
        operation,
        CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WAIT_VALUE_64
            | CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_64
    );
    if wide {
        call.require_wide()?;
    }
    match operation {
        CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WAIT_VALUE_32
        | CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WAIT_VALUE_64 => {
            // SAFETY: the operation says that this is the variant.
            let op = unsafe { op.waitValue };
            // SAFETY: both variants are integers that begin at the same byte; all eight were read.
            let value = unsafe { op.__bindgen_anon_1.value64 };
            wait(call, op.address, if wide { value } else { value & 0xffff_ffff }, wide, op.flags)
        }
        CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_32
        | CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_64 => {
            // SAFETY: the operation says that this is the variant.
            let op = unsafe { op.writeValue };
            // SAFETY: as above.
            let value = unsafe { op.__bindgen_anon_1.value64 };
            write(op.address, if wide { value } else { value & 0xffff_ffff }, wide, op.flags)
        }
        CUstreamBatchMemOpType::CU_STREAM_MEM_OP_BARRIER => Ok(MemOpTask::Barrier),
        CUstreamBatchMemOpType::CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES => {
            call.require_flush()?;
            Ok(MemOpTask::Barrier)
        }
        _ => Err(CudaError::INVALID_VALUE),
    }
}
