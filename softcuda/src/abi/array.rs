#![expect(unsafe_code, reason = "exports C functions")]
//! Arrays, and copies between them and linear memory.

use core::ffi::{c_uint, c_void};

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::copy::host;
use super::{exports, out, valid};
use crate::array::{Array, Shape};
use crate::attributes;
use crate::call::Call;
use crate::errors::Status;
use crate::handle::{number, to_pointer};
use crate::memory::Kind;
use crate::submit::Return;
use crate::task::{CopyTask, Operand, Place, Task};

exports! {
    Normal PFN_cuArrayCreate_v3020: cuArrayCreate_v2(
        array: *mut CUarray, descriptor: *const CUDA_ARRAY_DESCRIPTOR_v2,
    ) => create;
    Normal PFN_cuArrayGetDescriptor_v3020: cuArrayGetDescriptor_v2(
        descriptor: *mut CUDA_ARRAY_DESCRIPTOR_v2, array: CUarray,
    ) => get_descriptor;
    Normal PFN_cuArray3DCreate_v3020: cuArray3DCreate_v2(
        array: *mut CUarray, descriptor: *const CUDA_ARRAY3D_DESCRIPTOR_v2,
    ) => create_3d;
    Normal PFN_cuArray3DGetDescriptor_v3020: cuArray3DGetDescriptor_v2(
        descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR_v2, array: CUarray,
    ) => get_descriptor_3d;
    Normal PFN_cuArrayDestroy_v2000: cuArrayDestroy(array: CUarray) => destroy;
    Normal PFN_cuArrayGetMemoryRequirements_v11060: cuArrayGetMemoryRequirements(
        requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS_v1, array: CUarray, device: CUdevice,
    ) => get_memory_requirements;
    Normal PFN_cuArrayGetPlane_v11020: cuArrayGetPlane(
        plane: *mut CUarray, array: CUarray, index: c_uint,
    ) => get_plane;
    Normal PFN_cuDeviceGetTexture1DLinearMaxWidth_v11010: cuDeviceGetTexture1DLinearMaxWidth(
        width: *mut usize, format: CUarray_format, channels: c_uint, device: CUdevice,
    ) => get_texture_1d_linear_max_width;
    Normal PFN_cuMemcpyAtoD_v3020: cuMemcpyAtoD_v2(
        dst: CUdeviceptr, src: CUarray, offset: usize, size: usize,
    ) | cuMemcpyAtoD_v2_ptds => atod;
    Normal PFN_cuMemcpyDtoA_v3020: cuMemcpyDtoA_v2(
        dst: CUarray, offset: usize, src: CUdeviceptr, size: usize,
    ) | cuMemcpyDtoA_v2_ptds => dtoa;
    Normal PFN_cuMemcpyAtoH_v3020: cuMemcpyAtoH_v2(
        dst: *mut c_void, src: CUarray, offset: usize, size: usize,
    ) | cuMemcpyAtoH_v2_ptds => atoh;
    Normal PFN_cuMemcpyHtoA_v3020: cuMemcpyHtoA_v2(
        dst: CUarray, offset: usize, src: *const c_void, size: usize,
    ) | cuMemcpyHtoA_v2_ptds => htoa;
    Normal PFN_cuMemcpyAtoA_v3020: cuMemcpyAtoA_v2(
        dst: CUarray, dst_offset: usize, src: CUarray, src_offset: usize, size: usize,
    ) | cuMemcpyAtoA_v2_ptds => atoa;
    Normal PFN_cuMemcpyAtoHAsync_v3020: cuMemcpyAtoHAsync_v2(
        dst: *mut c_void, src: CUarray, offset: usize, size: usize, stream: CUstream,
    ) | cuMemcpyAtoHAsync_v2_ptsz => atoh_async;
    Normal PFN_cuMemcpyHtoAAsync_v3020: cuMemcpyHtoAAsync_v2(
        dst: CUarray, offset: usize, src: *const c_void, size: usize, stream: CUstream,
    ) | cuMemcpyHtoAAsync_v2_ptsz => htoa_async;
}

/// Flags of an array: `CUDA_ARRAY3D_*`.
const LAYERED: u32 = 0x01;
const CUBEMAP: u32 = 0x04;
const GATHER: u32 = 0x08;
const FLAGS: u32 = 0x3f;

impl Shape {
    /// Checks the extents against the flags and against what the device has.
    fn check(&self, call: Call) -> Status {
        let is_layered = self.flags & LAYERED != 0;
        let is_cube = self.flags & CUBEMAP != 0;
        let faces = if is_layered { self.depth.is_multiple_of(6) } else { self.depth == 6 };
        let is_hollow = self.width == 0 || self.depth != 0 && self.height == 0 && !is_layered;
        let has_no_layer = is_layered && self.depth == 0;
        let is_no_cube = is_cube && (self.width != self.height || self.depth == 0 || !faces);
        if self.element().is_none()
            || is_hollow
            || has_no_layer
            || is_no_cube
            || self.flags & !FLAGS != 0
        {
            return Err(CudaError::INVALID_VALUE);
        }
        // Limits depend on the kind of array, so they are looked up after its flags are known to be
        // consistent.
        let extents = [self.width, self.height, self.depth];
        for (extent, attribute) in extents.into_iter().zip(self.limits()) {
            let limit = attribute.and_then(|limit| attributes::of(&call.machine.config, limit, 0));
            if limit.is_some_and(|limit| extent > usize::try_from(limit).unwrap_or(0)) {
                return Err(CudaError::INVALID_VALUE);
            }
        }
        Ok(())
    }

    /// The device attributes that limit width, height and depth.
    fn limits(&self) -> [Option<CUdevice_attribute>; 3] {
        type A = CUdevice_attribute;
        let attributes = match (self.flags & CUBEMAP != 0, self.flags & LAYERED != 0) {
            (true, true) => (
                A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH,
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH),
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS),
            ),
            (true, false) => (
                A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH,
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH),
                None,
            ),
            (false, true) if self.height == 0 => (
                A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_WIDTH,
                None,
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_LAYERS),
            ),
            (false, true) => (
                A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_WIDTH,
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_HEIGHT),
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS),
            ),
            (false, false) if self.height == 0 => {
                (A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_WIDTH, None, None)
            }
            (false, false) if self.depth == 0 && self.flags & GATHER != 0 => (
                A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_WIDTH,
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_HEIGHT),
                None,
            ),
            (false, false) if self.depth == 0 => (
                A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_WIDTH,
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_HEIGHT),
                None,
            ),
            (false, false) => (
                A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH,
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT),
                Some(A::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH),
            ),
        };
        [Some(attributes.0), attributes.1, attributes.2]
    }
}

fn create(call: Call, array: *mut CUarray, descriptor: *const CUDA_ARRAY_DESCRIPTOR_v2) -> Status {
    let descriptor = input(descriptor)?;
    let shape = Shape {
        width: descriptor.Width,
        height: descriptor.Height,
        depth: 0,
        format: descriptor.Format,
        channels: descriptor.NumChannels,
        flags: 0,
    };
    create_shape(call, array, shape)
}

fn create_3d(
    call: Call,
    array: *mut CUarray,
    descriptor: *const CUDA_ARRAY3D_DESCRIPTOR_v2,
) -> Status {
    let descriptor = input(descriptor)?;
    let shape = Shape {
        width: descriptor.Width,
        height: descriptor.Height,
        depth: descriptor.Depth,
        format: descriptor.Format,
        channels: descriptor.NumChannels,
        flags: descriptor.Flags,
    };
    create_shape(call, array, shape)
}

fn create_shape(call: Call, array: *mut CUarray, shape: Shape) -> Status {
    if !valid(array) {
        return Err(CudaError::INVALID_VALUE);
    }
    call.context(&call.lock())?;
    shape.check(call)?;
    let (_, _, size) = shape.layout().ok_or(CudaError::OUT_OF_MEMORY)?;
    let block = call.allocate(Kind::Array, size)?;
    let made = Array::new(shape, block).ok_or(CudaError::INVALID_VALUE)?;
    out(array, to_pointer(call.lock().arrays.insert(made)))
}

impl Call<'_> {
    fn shape(self, array: CUarray) -> Status<Shape> {
        let state = self.lock();
        self.context(&state)?;
        state.arrays.get(number(array)).map(|array| array.shape).ok_or(CudaError::INVALID_HANDLE)
    }
}

fn get_descriptor(call: Call, descriptor: *mut CUDA_ARRAY_DESCRIPTOR_v2, array: CUarray) -> Status {
    let shape = call.shape(array)?;
    out(
        descriptor,
        CUDA_ARRAY_DESCRIPTOR_v2 {
            Width: shape.width,
            Height: shape.height,
            Format: shape.format,
            NumChannels: shape.channels,
        },
    )
}

fn get_descriptor_3d(
    call: Call,
    descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR_v2,
    array: CUarray,
) -> Status {
    let shape = call.shape(array)?;
    out(
        descriptor,
        CUDA_ARRAY3D_DESCRIPTOR_v2 {
            Width: shape.width,
            Height: shape.height,
            Depth: shape.depth,
            Format: shape.format,
            NumChannels: shape.channels,
            Flags: shape.flags,
        },
    )
}

fn destroy(call: Call, array: CUarray) -> Status {
    let state = call.lock();
    let block = state.arrays.get(number(array)).map(|array| array.block.clone());
    drop(state);
    call.free_block(&block.ok_or(CudaError::INVALID_HANDLE)?)?;
    call.lock().arrays.remove(number(array)).map(|_| ()).ok_or(CudaError::INVALID_HANDLE)
}

fn get_memory_requirements(
    call: Call,
    requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS_v1,
    array: CUarray,
    device: CUdevice,
) -> Status {
    let (pitch, _, size) = call.shape(array)?.layout().ok_or(CudaError::INVALID_VALUE)?;
    call.device(device)?;
    let alignment = 1 << pitch.trailing_zeros();
    out(requirements, CUDA_ARRAY_MEMORY_REQUIREMENTS_v1 { size, alignment, reserved: [0; 4] })
}

fn get_texture_1d_linear_max_width(
    call: Call,
    width: *mut usize,
    format: CUarray_format,
    channels: c_uint,
    device: CUdevice,
) -> Status {
    call.device(device)?;
    let shape = Shape { width: 1, height: 0, depth: 0, format, channels, flags: 0 };
    shape.element().ok_or(CudaError::INVALID_VALUE)?;
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LINEAR_WIDTH;
    let limit = attributes::of(&call.machine.config, attribute, device).unwrap_or(0);
    out(width, usize::try_from(limit).unwrap_or(0))
}

/// No format here has planes.
fn get_plane(call: Call, plane: *mut CUarray, array: CUarray, _: c_uint) -> Status {
    call.shape(array)?;
    let _ = plane;
    Err(CudaError::INVALID_VALUE)
}

impl Call<'_> {
    /// `size` bytes of a one-dimensional array from `offset` on.
    fn row(self, array: CUarray, offset: usize, size: usize) -> Status<Operand> {
        let state = self.lock();
        let array = state.arrays.get(number(array)).ok_or(CudaError::INVALID_HANDLE)?;
        if array.shape.depth != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        array.operand([offset, 0, 0], [size, 1, 1]).ok_or(CudaError::INVALID_VALUE)
    }

    fn copy_row(self, dst: Operand, src: Operand, size: usize, returns: Return) -> Status {
        self.copy_now(CopyTask::linear(dst, src, size), returns)
    }

    fn copy_row_later(self, dst: Operand, src: Operand, size: usize, stream: CUstream) -> Status {
        self.submit(stream, &Task::Copy(CopyTask::linear(dst, src, size)), Return::AsDocumented)
    }
}

fn device(address: u64) -> Operand {
    Operand::linear(address, Place::Device)
}

fn program<T>(pointer: *const T) -> Operand {
    Operand::linear(host(pointer), Place::Host)
}

fn atod(call: Call, dst: CUdeviceptr, src: CUarray, offset: usize, size: usize) -> Status {
    call.copy_row(device(dst), call.row(src, offset, size)?, size, Return::Enqueued)
}

fn dtoa(call: Call, dst: CUarray, offset: usize, src: CUdeviceptr, size: usize) -> Status {
    call.copy_row(call.row(dst, offset, size)?, device(src), size, Return::Enqueued)
}

fn atoh(call: Call, dst: *mut c_void, src: CUarray, offset: usize, size: usize) -> Status {
    call.copy_row(program(dst), call.row(src, offset, size)?, size, Return::Complete)
}

fn htoa(call: Call, dst: CUarray, offset: usize, src: *const c_void, size: usize) -> Status {
    call.copy_row(call.row(dst, offset, size)?, program(src), size, Return::Complete)
}

fn atoa(
    call: Call,
    dst: CUarray,
    dst_offset: usize,
    src: CUarray,
    src_offset: usize,
    size: usize,
) -> Status {
    let (dst, src) = (call.row(dst, dst_offset, size)?, call.row(src, src_offset, size)?);
    call.copy_row(dst, src, size, Return::Enqueued)
}

fn atoh_async(
    call: Call,
    dst: *mut c_void,
    src: CUarray,
    offset: usize,
    size: usize,
    stream: CUstream,
) -> Status {
    call.copy_row_later(program(dst), call.row(src, offset, size)?, size, stream)
}

fn htoa_async(
    call: Call,
    dst: CUarray,
    offset: usize,
    src: *const c_void,
    size: usize,
    stream: CUstream,
) -> Status {
    call.copy_row_later(call.row(dst, offset, size)?, program(src), size, stream)
}
