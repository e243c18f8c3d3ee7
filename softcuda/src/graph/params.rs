//! Between the structures of the driver API and tasks.

use core::ptr;

use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUDA_MEMCPY3D, CUmemorytype, CUstreamBatchMemOpParams,
    CUstreamBatchMemOpParams_union_CUstreamMemOpMemoryBarrierParams_st,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st__bindgen_ty_1,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st,
    CUstreamBatchMemOpParams_union_CUstreamMemOpWriteValueParams_st__bindgen_ty_1, CUstreamBatchMemOpType,
};

use super::node::{Action, CopyNode, FillNode, HostNode, MemOpNode, Opaque};
use crate::abi::Status;
use crate::sched::work::Condition;
use crate::task::{CopyTask, MemOpTask, Operand, Place, Task};

impl Action {
    /// The node that a stream operation becomes when it is captured.
    pub(crate) fn captured(task: &Task, context: u64) -> Status<Self> {
        Ok(match task {
            Task::Alloc(_) | Task::Free(_) => return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED),
            Task::Empty => Self::Empty,
            Task::Copy(copy) => {
                Self::Copy(CopyNode { task: *copy, params: Opaque(copy_params(copy)), context })
            }
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
            Task::Kernel(kernel) => Self::Kernel(*kernel),
        })
    }
}

/// One side of a copy, as [`CUDA_MEMCPY3D`] describes it.
struct Described {
    kind: CUmemorytype,
    host: u64,
    device: u64,
    x: usize,
    y: usize,
    z: usize,
    lod: usize,
    pitch: usize,
    height: usize,
}

/// The copy that the structure describes.
///
/// # Errors
///
/// `INVALID_VALUE`: what `cuMemcpy3D` does not allow, and arrays.
pub(crate) fn copy_task(params: &CUDA_MEMCPY3D) -> Status<CopyTask> {
    let shape = (params.WidthInBytes, params.Height, params.Depth);
    let src = Described {
        kind: params.srcMemoryType,
        host: params.srcHost.expose_provenance() as u64,
        device: params.srcDevice,
        x: params.srcXInBytes,
        y: params.srcY,
        z: params.srcZ,
        lod: params.srcLOD,
        pitch: params.srcPitch,
        height: params.srcHeight,
    };
    let dst = Described {
        kind: params.dstMemoryType,
        host: params.dstHost.expose_provenance() as u64,
        device: params.dstDevice,
        x: params.dstXInBytes,
        y: params.dstY,
        z: params.dstZ,
        lod: params.dstLOD,
        pitch: params.dstPitch,
        height: params.dstHeight,
    };
    if !params.reserved0.is_null() || !params.reserved1.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let (width, height, depth) = shape;
    Ok(CopyTask { dst: operand(&dst, shape)?, src: operand(&src, shape)?, width, height, depth })
}

/// Where a side begins: x bytes, y rows and z layers into its memory.
fn operand(side: &Described, (width, height, depth): (usize, usize, usize)) -> Status<Operand> {
    let (base, place) = match side.kind {
        CUmemorytype::CU_MEMORYTYPE_HOST => (side.host, Place::Host),
        CUmemorytype::CU_MEMORYTYPE_DEVICE => (side.device, Place::Device),
        CUmemorytype::CU_MEMORYTYPE_UNIFIED => (side.device, Place::Unified),
        _ => return Err(CudaError::INVALID_VALUE),
    };
    let row = side.x.checked_add(width).ok_or(CudaError::INVALID_VALUE)?;
    let has_rows = height > 1 || depth > 1 || side.y > 0 || side.z > 0;
    let has_layers = depth > 1 || side.z > 0;
    let rows = side.y.checked_add(height).ok_or(CudaError::INVALID_VALUE)?;
    if side.lod != 0 || has_rows && side.pitch < row || has_layers && side.height < rows {
        return Err(CudaError::INVALID_VALUE);
    }
    let pitch = if has_rows { side.pitch } else { 0 };
    let layer = if has_layers { pitch.checked_mul(side.height) } else { Some(0) };
    let layer = layer.ok_or(CudaError::INVALID_VALUE)?;
    let offset = side.y.checked_mul(pitch).and_then(|rows| rows.checked_add(side.z.checked_mul(layer)?));
    let offset = offset.and_then(|offset| offset.checked_add(side.x)).ok_or(CudaError::INVALID_VALUE)?;
    let address = base.checked_add(offset as u64).ok_or(CudaError::INVALID_VALUE)?;
    Ok(Operand { address, place, pitch, layer })
}

/// The structure that describes a copy.
pub(crate) fn copy_params(task: &CopyTask) -> CUDA_MEMCPY3D {
    let kind = |side: &Operand| match side.place {
        Place::Host => CUmemorytype::CU_MEMORYTYPE_HOST,
        Place::Device => CUmemorytype::CU_MEMORYTYPE_DEVICE,
        Place::Unified => CUmemorytype::CU_MEMORYTYPE_UNIFIED,
    };
    let host = |side: &Operand| if side.place == Place::Host { side.address as usize } else { 0 };
    let device = |side: &Operand| if side.place == Place::Host { 0 } else { side.address };
    let rows = |side: &Operand| side.layer.checked_div(side.pitch).unwrap_or(0);
    CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: kind(&task.src),
        srcHost: ptr::with_exposed_provenance(host(&task.src)),
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
        dstHost: ptr::with_exposed_provenance_mut(host(&task.dst)),
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
