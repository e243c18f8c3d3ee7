#![expect(unsafe_code, reason = "exports C functions")]
//! Memory sets, linear and with rows.

use core::ffi::{c_uchar, c_uint, c_ushort};

use wharf_sys::bindings::*;

use super::exports;
use crate::call::Call;
use crate::errors::Status;
use crate::submit::Return;
use crate::task::{FillTask, Task};

exports! {
    Normal PFN_cuMemsetD8_v3020: cuMemsetD8_v2(
        dst: CUdeviceptr, value: c_uchar, len: usize,
    ) | cuMemsetD8_v2_ptds => d8;
    Normal PFN_cuMemsetD16_v3020: cuMemsetD16_v2(
        dst: CUdeviceptr, value: c_ushort, len: usize,
    ) | cuMemsetD16_v2_ptds => d16;
    Normal PFN_cuMemsetD32_v3020: cuMemsetD32_v2(
        dst: CUdeviceptr, value: c_uint, len: usize,
    ) | cuMemsetD32_v2_ptds => d32;
    Normal PFN_cuMemsetD8Async_v3020: cuMemsetD8Async(
        dst: CUdeviceptr, value: c_uchar, len: usize, stream: CUstream,
    ) | cuMemsetD8Async_ptsz => d8_async;
    Normal PFN_cuMemsetD16Async_v3020: cuMemsetD16Async(
        dst: CUdeviceptr, value: c_ushort, len: usize, stream: CUstream,
    ) | cuMemsetD16Async_ptsz => d16_async;
    Normal PFN_cuMemsetD32Async_v3020: cuMemsetD32Async(
        dst: CUdeviceptr, value: c_uint, len: usize, stream: CUstream,
    ) | cuMemsetD32Async_ptsz => d32_async;
    Normal PFN_cuMemsetD2D8_v3020: cuMemsetD2D8_v2(
        dst: CUdeviceptr, pitch: usize, value: c_uchar, width: usize, height: usize,
    ) | cuMemsetD2D8_v2_ptds => d2d8;
    Normal PFN_cuMemsetD2D16_v3020: cuMemsetD2D16_v2(
        dst: CUdeviceptr, pitch: usize, value: c_ushort, width: usize, height: usize,
    ) | cuMemsetD2D16_v2_ptds => d2d16;
    Normal PFN_cuMemsetD2D32_v3020: cuMemsetD2D32_v2(
        dst: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize,
    ) | cuMemsetD2D32_v2_ptds => d2d32;
    Normal PFN_cuMemsetD2D8Async_v3020: cuMemsetD2D8Async(
        dst: CUdeviceptr, pitch: usize, value: c_uchar, width: usize, height: usize,
        stream: CUstream,
    ) | cuMemsetD2D8Async_ptsz => d2d8_async;
    Normal PFN_cuMemsetD2D16Async_v3020: cuMemsetD2D16Async(
        dst: CUdeviceptr, pitch: usize, value: c_ushort, width: usize, height: usize,
        stream: CUstream,
    ) | cuMemsetD2D16Async_ptsz => d2d16_async;
    Normal PFN_cuMemsetD2D32Async_v3020: cuMemsetD2D32Async(
        dst: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize,
        stream: CUstream,
    ) | cuMemsetD2D32Async_ptsz => d2d32_async;
}

/// A fill of one row.
fn row(address: u64, value: u32, element: usize, width: usize) -> FillTask {
    FillTask { address, pitch: 0, value, element, width, height: 1 }
}

impl Call<'_> {
    /// "The memset is asynchronous with respect to the host, except when the target is pinned
    /// host memory or a unified memory region."
    fn fill_now(self, fill: FillTask) -> Status {
        self.forbid_synchronous()?;
        let state = self.lock();
        let waits = state.memory.find(fill.address).is_some_and(|block| {
            block.kind.is_host() || state.is_managed(block.kind) || block.always_synchronises()
        });
        drop(state);
        let returns = if waits { Return::Complete } else { Return::Enqueued };
        self.submit(core::ptr::null_mut(), &Task::Fill(fill), returns)
    }

    fn fill_later(self, fill: FillTask, stream: CUstream) -> Status {
        self.submit(stream, &Task::Fill(fill), Return::Enqueued)
    }
}

fn d8(call: Call, dst: CUdeviceptr, value: c_uchar, len: usize) -> Status {
    call.fill_now(row(dst, value.into(), 1, len))
}

fn d16(call: Call, dst: CUdeviceptr, value: c_ushort, len: usize) -> Status {
    call.fill_now(row(dst, value.into(), 2, len))
}

fn d32(call: Call, dst: CUdeviceptr, value: c_uint, len: usize) -> Status {
    call.fill_now(row(dst, value, 4, len))
}

fn d8_async(call: Call, dst: CUdeviceptr, value: c_uchar, len: usize, stream: CUstream) -> Status {
    call.fill_later(row(dst, value.into(), 1, len), stream)
}

fn d16_async(
    call: Call,
    dst: CUdeviceptr,
    value: c_ushort,
    len: usize,
    stream: CUstream,
) -> Status {
    call.fill_later(row(dst, value.into(), 2, len), stream)
}

fn d32_async(call: Call, dst: CUdeviceptr, value: c_uint, len: usize, stream: CUstream) -> Status {
    call.fill_later(row(dst, value, 4, len), stream)
}

fn d2d8(
    call: Call,
    dst: CUdeviceptr,
    pitch: usize,
    value: c_uchar,
    width: usize,
    height: usize,
) -> Status {
    call.fill_now(FillTask { pitch, height, ..row(dst, value.into(), 1, width) })
}

fn d2d16(
    call: Call,
    dst: CUdeviceptr,
    pitch: usize,
    value: c_ushort,
    width: usize,
    height: usize,
) -> Status {
    call.fill_now(FillTask { pitch, height, ..row(dst, value.into(), 2, width) })
}

fn d2d32(
    call: Call,
    dst: CUdeviceptr,
    pitch: usize,
    value: c_uint,
    width: usize,
    height: usize,
) -> Status {
    call.fill_now(FillTask { pitch, height, ..row(dst, value, 4, width) })
}

fn d2d8_async(
    call: Call,
    dst: CUdeviceptr,
    pitch: usize,
    value: c_uchar,
    width: usize,
    height: usize,
    stream: CUstream,
) -> Status {
    call.fill_later(FillTask { pitch, height, ..row(dst, value.into(), 1, width) }, stream)
}

fn d2d16_async(
    call: Call,
    dst: CUdeviceptr,
    pitch: usize,
    value: c_ushort,
    width: usize,
    height: usize,
    stream: CUstream,
) -> Status {
    call.fill_later(FillTask { pitch, height, ..row(dst, value.into(), 2, width) }, stream)
}

fn d2d32_async(
    call: Call,
    dst: CUdeviceptr,
    pitch: usize,
    value: c_uint,
    width: usize,
    height: usize,
    stream: CUstream,
) -> Status {
    call.fill_later(FillTask { pitch, height, ..row(dst, value, 4, width) }, stream)
}
