//! Between the structures of the driver API and tasks.

use core::ffi::c_void;
use core::ptr;

use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUDA_MEMCPY3D, CUmemorytype, CUstreamBatchMemOpParams,
    CUstreamBatchMemOpParams_union_CUstreamMemOpMemoryBarrierParams_st,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st__bindgen_ty_1,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st__bindgen_ty_1,
    CUstreamBatchMemOpType,
};

use super::node::{Action, CopyNode, FillNode, HostNode, MemOpNode};
use crate::address::pointer;
use crate::errors::Status;
use crate::sched::work::{Condition, Opaque};
use crate::task::{CopyTask, MemOpTask, Operand, Place, Task};

impl Action {
    /// The node that a stream operation becomes when it is captured.
    pub(crate) fn captured(task: &Task, context: u64) -> Status<Self> {
        Ok(match task {
            Task::Alloc(_) | Task::Free(_) => return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED),
            Task::Empty => Self::Empty,
            Task::Copy(copy) => Self::Copy(Box::new(CopyNode {
                task: *copy,
                params: Opaque(copy_params(copy)),
                context,
            })),
            Task::Fill(fill) => Self::Fill(FillNode { task: *fill, context }),
            Task::Host(function, data) => {
                Self::Host(HostNode { function: *function, data: *data, sync_mode: 0 })
            }
            Task::MemOps(tasks) => Self::MemOps(MemOpNode {
                tasks: tasks.clone(),
                params: tasks.iter().map(mem_op_params).collect(),
                flags: 0,
                context,
            }),
            Task::Kernel(kernel) => Self::Kernel(kernel.clone()),
        })
    }
}

/// The structure that describes a copy.
pub(crate) fn copy_params(task: &CopyTask) -> CUDA_MEMCPY3D {
    let kind = |side: &Operand| match side.place {
        Place::Host => CUmemorytype::CU_MEMORYTYPE_HOST,
        Place::Device => CUmemorytype::CU_MEMORYTYPE_DEVICE,
        Place::Unified => CUmemorytype::CU_MEMORYTYPE_UNIFIED,
    };
    let host = |side: &Operand| {
        if side.place == Place::Host { pointer::<c_void>(side.address) } else { ptr::null_mut() }
    };
    let device = |side: &Operand| if side.place == Place::Host { 0 } else { side.address };
    let rows = |side: &Operand| side.layer.checked_div(side.pitch).unwrap_or(0);
    CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: kind(&task.src),
        srcHost: host(&task.src).cast_const(),
        srcDevice: device(&task.src),
        srcArray: ptr::null_mut(),
        reserved0: ptr::null_mut(),
        srcPitch: task.src.pitch,
        srcHeight: rows(&task.src),
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: kind(&task.dst),
        dstHost: host(&task.dst),
        dstDevice: device(&task.dst),
        dstArray: ptr::null_mut(),
        reserved1: ptr::null_mut(),
        dstPitch: task.dst.pitch,
        dstHeight: rows(&task.dst),
        WidthInBytes: task.width,
        Height: task.height,
        Depth: task.depth,
    }
}

/// The structure that describes a stream memory operation.
pub(crate) fn mem_op_params(task: &MemOpTask) -> CUstreamBatchMemOpParams {
    match *task {
        MemOpTask::Barrier => CUstreamBatchMemOpParams {
            memoryBarrier: CUstreamBatchMemOpParams_union_CUstreamMemOpMemoryBarrierParams_st {
                operation: CUstreamBatchMemOpType::CU_STREAM_MEM_OP_BARRIER,
                flags: 0,
            },
        },
        MemOpTask::Write { address, value, wide } => CUstreamBatchMemOpParams {
            writeValue: CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st {
                operation: if wide {
                    CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_64
                } else {
                    CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_32
                },
                address,
                __bindgen_anon_1:
                    CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st__bindgen_ty_1 {
                        value64: value,
                    },
                flags: 0,
                alias: 0,
            },
        },
        MemOpTask::Wait { address, value, wide, condition } => CUstreamBatchMemOpParams {
            waitValue: CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st {
                operation: if wide {
                    CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WAIT_VALUE_64
                } else {
                    CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WAIT_VALUE_32
                },
                address,
                __bindgen_anon_1:
                    CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st__bindgen_ty_1 {
                        value64: value,
                    },
                flags: match condition {
                    Condition::GreaterOrEqual => 0,
                    Condition::Equal => 1,
                    Condition::And => 2,
                    Condition::Nor => 3,
                },
                alias: 0,
            },
        },
    }
}
