#![expect(unsafe_code, reason = "exports C functions")]
//! Copies with rows and layers, of memory and of arrays.

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::copy::host;
use super::exports;
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;
use crate::handle::number;
use crate::machine::State;
use crate::submit::Return;
use crate::task::{CopyTask, Operand, Place, Task};

exports! {
    Normal PFN_cuMemcpy2D_v3020: cuMemcpy2D_v2(
        copy: *const CUDA_MEMCPY2D_v2,
    ) | cuMemcpy2D_v2_ptds => copy_2d;
    Normal PFN_cuMemcpy2DUnaligned_v3020: cuMemcpy2DUnaligned_v2(
        copy: *const CUDA_MEMCPY2D_v2,
    ) | cuMemcpy2DUnaligned_v2_ptds => copy_2d;
    Normal PFN_cuMemcpy2DAsync_v3020: cuMemcpy2DAsync_v2(
        copy: *const CUDA_MEMCPY2D_v2, stream: CUstream,
    ) | cuMemcpy2DAsync_v2_ptsz => copy_2d_async;
    Normal PFN_cuMemcpy3D_v3020: cuMemcpy3D_v2(
        copy: *const CUDA_MEMCPY3D,
    ) | cuMemcpy3D_v2_ptds => copy_3d;
    Normal PFN_cuMemcpy3DAsync_v3020: cuMemcpy3DAsync_v2(
        copy: *const CUDA_MEMCPY3D, stream: CUstream,
    ) | cuMemcpy3DAsync_v2_ptsz => copy_3d_async;
    Normal PFN_cuMemcpy3DPeer_v4000: cuMemcpy3DPeer(
        copy: *const CUDA_MEMCPY3D_PEER_v1,
    ) | cuMemcpy3DPeer_ptds => copy_3d_peer;
    Normal PFN_cuMemcpy3DPeerAsync_v4000: cuMemcpy3DPeerAsync(
        copy: *const CUDA_MEMCPY3D_PEER_v1, stream: CUstream,
    ) | cuMemcpy3DPeerAsync_ptsz => copy_3d_peer_async;
}

/// One side of a copy as its structure says it.
#[derive(Clone, Copy, Debug)]
struct Side {
    kind: CUmemorytype,
    host: u64,
    device: u64,
    array: u64,
    /// In bytes, rows and layers.
    origin: [usize; 3],
    pitch: usize,
    /// Rows from one layer to the next.
    height: usize,
    level: usize,
}

impl Side {
    /// The operand that the structure's side describes, for a copy of `extent` bytes, rows and
    /// layers.
    fn resolve(self, call: Call, state: &State, extent: [usize; 3]) -> Status<Operand> {
        // "The srcLOD and dstLOD members … must be set to 0."
        if self.level != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        match self.kind {
            CUmemorytype::CU_MEMORYTYPE_HOST => self.memory(call, self.host, Place::Host, extent),
            CUmemorytype::CU_MEMORYTYPE_DEVICE => {
                self.memory(call, self.device, Place::Device, extent)
            }
            CUmemorytype::CU_MEMORYTYPE_UNIFIED => {
                self.memory(call, self.device, Place::Unified, extent)
            }
            CUmemorytype::CU_MEMORYTYPE_ARRAY => {
                let array = state.arrays.get(self.array).ok_or(CudaError::INVALID_HANDLE)?;
                array.operand(self.origin, extent).ok_or(CudaError::INVALID_VALUE)
            }
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    fn memory(
        self,
        call: Call,
        base: u64,
        place: Place,
        [width, rows, _]: [usize; 3],
    ) -> Status<Operand> {
        let [x, y, z] = self.origin;
        let row = x.checked_add(width).ok_or(CudaError::INVALID_VALUE)?;
        let layer_rows = y.checked_add(rows).ok_or(CudaError::INVALID_VALUE)?;
        // "If specified, srcPitch must be greater than or equal to WidthInBytes + srcXInBytes",
        // and the height likewise; else the copy is packed.
        let pitch = if self.pitch == 0 { row } else { self.pitch };
        let height = if self.height == 0 { layer_rows } else { self.height };
        if pitch < row || height < layer_rows || pitch > max_pitch(call) {
            return Err(CudaError::INVALID_VALUE);
        }
        let layer = pitch.checked_mul(height).ok_or(CudaError::INVALID_VALUE)?;
        let offset =
            (|| z.checked_mul(layer)?.checked_add(y.checked_mul(pitch)?)?.checked_add(x))();
        let address = offset.and_then(|offset| base.checked_add(offset as u64));
        Ok(Operand {
            address: address.ok_or(CudaError::INVALID_VALUE)?,
            place,
            pitch,
            layer,
            context: None,
        })
    }
}

fn max_pitch(call: Call) -> usize {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_PITCH;
    let limit = attributes::of(&call.machine.config, attribute, 0);
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// A copy that was read from its structure, and when a call without a stream returns.
type Parsed = (CopyTask, Return);

fn parse(call: Call, state: &State, dst: Side, src: Side, extent: [usize; 3]) -> Status<Parsed> {
    call.context(state)?;
    let task = CopyTask {
        dst: dst.resolve(call, state, extent)?,
        src: src.resolve(call, state, extent)?,
        width: extent[0],
        height: extent[1],
        depth: extent[2],
    };
    let on_device = |kind| {
        matches!(kind, CUmemorytype::CU_MEMORYTYPE_DEVICE | CUmemorytype::CU_MEMORYTYPE_ARRAY)
    };
    // "For transfers from device memory to device memory, no host-side synchronization is
    // performed."
    let enqueued = on_device(dst.kind) && on_device(src.kind);
    Ok((task, if enqueued { Return::Enqueued } else { Return::Complete }))
}

fn parse_2d(call: Call, copy: *const CUDA_MEMCPY2D_v2) -> Status<Parsed> {
    let copy = input(copy)?;
    let src = Side {
        kind: copy.srcMemoryType,
        host: host(copy.srcHost),
        device: copy.srcDevice,
        array: number(copy.srcArray),
        origin: [copy.srcXInBytes, copy.srcY, 0],
        pitch: copy.srcPitch,
        height: 0,
        level: 0,
    };
    let dst = Side {
        kind: copy.dstMemoryType,
        host: host(copy.dstHost),
        device: copy.dstDevice,
        array: number(copy.dstArray),
        origin: [copy.dstXInBytes, copy.dstY, 0],
        pitch: copy.dstPitch,
        height: 0,
        level: 0,
    };
    parse(call, &call.lock(), dst, src, [copy.WidthInBytes, copy.Height, 1])
}

impl Call<'_> {
    /// Reads the structure of a three-dimensional copy, of a stream's or of a graph node's.
    pub(crate) fn parse_3d(self, state: &State, copy: &CUDA_MEMCPY3D) -> Status<Parsed> {
        let src = Side {
            kind: copy.srcMemoryType,
            host: host(copy.srcHost),
            device: copy.srcDevice,
            array: number(copy.srcArray),
            origin: [copy.srcXInBytes, copy.srcY, copy.srcZ],
            pitch: copy.srcPitch,
            height: copy.srcHeight,
            level: copy.srcLOD,
        };
        let dst = Side {
            kind: copy.dstMemoryType,
            host: host(copy.dstHost),
            device: copy.dstDevice,
            array: number(copy.dstArray),
            origin: [copy.dstXInBytes, copy.dstY, copy.dstZ],
            pitch: copy.dstPitch,
            height: copy.dstHeight,
            level: copy.dstLOD,
        };
        parse(self, state, dst, src, [copy.WidthInBytes, copy.Height, copy.Depth])
    }
}

fn parse_peer(call: Call, copy: *const CUDA_MEMCPY3D_PEER_v1) -> Status<Parsed> {
    let copy = input(copy)?;
    let state = call.lock();
    for context in [copy.srcContext, copy.dstContext] {
        // The context of host memory may be left out.
        if !context.is_null() && !state.contexts.contains(number(context)) {
            return Err(CudaError::INVALID_CONTEXT);
        }
    }
    let plain = CUDA_MEMCPY3D {
        srcXInBytes: copy.srcXInBytes,
        srcY: copy.srcY,
        srcZ: copy.srcZ,
        srcLOD: copy.srcLOD,
        srcMemoryType: copy.srcMemoryType,
        srcHost: copy.srcHost,
        srcDevice: copy.srcDevice,
        srcArray: copy.srcArray,
        reserved0: core::ptr::null_mut(),
        srcPitch: copy.srcPitch,
        srcHeight: copy.srcHeight,
        dstXInBytes: copy.dstXInBytes,
        dstY: copy.dstY,
        dstZ: copy.dstZ,
        dstLOD: copy.dstLOD,
        dstMemoryType: copy.dstMemoryType,
        dstHost: copy.dstHost,
        dstDevice: copy.dstDevice,
        dstArray: copy.dstArray,
        reserved1: core::ptr::null_mut(),
        dstPitch: copy.dstPitch,
        dstHeight: copy.dstHeight,
        WidthInBytes: copy.WidthInBytes,
        Height: copy.Height,
        Depth: copy.Depth,
    };
    let (mut task, returns) = call.parse_3d(&state, &plain)?;
    let of = |context: CUcontext| (!context.is_null()).then(|| number(context));
    (task.dst.context, task.src.context) = (of(copy.dstContext), of(copy.srcContext));
    Ok((task, returns))
}

fn now(call: Call, (task, returns): Parsed) -> Status {
    call.copy_now(task, returns)
}

fn later(call: Call, (task, _): Parsed, stream: CUstream) -> Status {
    call.submit(stream, &Task::Copy(task), Return::AsDocumented)
}

fn copy_2d(call: Call, copy: *const CUDA_MEMCPY2D_v2) -> Status {
    now(call, parse_2d(call, copy)?)
}

fn copy_2d_async(call: Call, copy: *const CUDA_MEMCPY2D_v2, stream: CUstream) -> Status {
    later(call, parse_2d(call, copy)?, stream)
}

fn copy_3d(call: Call, copy: *const CUDA_MEMCPY3D) -> Status {
    let copy = input(copy)?;
    let parsed = call.parse_3d(&call.lock(), &copy)?;
    now(call, parsed)
}

fn copy_3d_async(call: Call, copy: *const CUDA_MEMCPY3D, stream: CUstream) -> Status {
    let copy = input(copy)?;
    let parsed = call.parse_3d(&call.lock(), &copy)?;
    later(call, parsed, stream)
}

fn copy_3d_peer(call: Call, copy: *const CUDA_MEMCPY3D_PEER_v1) -> Status {
    now(call, parse_peer(call, copy)?)
}

fn copy_3d_peer_async(call: Call, copy: *const CUDA_MEMCPY3D_PEER_v1, stream: CUstream) -> Status {
    later(call, parse_peer(call, copy)?, stream)
}
