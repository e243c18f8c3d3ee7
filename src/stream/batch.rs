#![expect(unsafe_code, reason = "calls the driver with raw addresses")]
//! Several copies at once, in one driver call where the driver can.

use wharf_sys::bindings::{
    CUdeviceptr, CUmemLocation, CUmemLocation_st__bindgen_ty_1, CUmemLocationType,
    CUmemcpyAttributes_v1, CUmemcpySrcAccessOrder,
};

use super::Stream;
use crate::error::Error;

/// A copy between two addresses that the driver knows, on the host or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Where the bytes go.
    pub destination: CUdeviceptr,
    /// Where they come from.
    pub source: CUdeviceptr,
    /// How many bytes; not 0. On the host they lie in one
    /// [registration](crate::memory::MemoryResource::pieces).
    pub size: usize,
}

impl Stream {
    /// Makes copies in the stream's order, and in no order among themselves.
    ///
    /// One driver call where the driver has it (CUDA 12.8), else one a copy.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused one of the copies, or earlier work failed. Any of the
    /// others may have been submitted.
    ///
    /// # Safety
    ///
    /// For each copy, until the stream has come past it, also if the call fails:
    ///
    /// * Both addresses are valid for `size` bytes, and do not overlap.
    /// * The source is unchanged, and nothing but this copy uses the destination.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemcpyBatchAsync")]
    #[doc(alias = "cuMemcpyAsync")]
    pub unsafe fn copy_batch(&self, copies: &[Transfer]) -> Result<(), Error> {
        let api = self.context.driver().api();
        let has_batches =
            api.memcpy_batch_async_v13000.is_available() || api.memcpy_batch_async.is_available();
        if copies.len() > 1 && has_batches {
            // SAFETY: the caller's promise.
            return unsafe { self.copy_at_once(copies) };
        }
        let _scope = self.enter()?;
        copies.iter().try_for_each(|&Transfer { destination, source, size }| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memcpy_async.call(destination, source, size, self.as_raw()) }
        })
    }

    /// Makes copies, at least one, in one driver call, which this driver has.
    ///
    /// # Safety
    ///
    /// As [`copy_batch`](Self::copy_batch).
    unsafe fn copy_at_once(&self, copies: &[Transfer]) -> Result<(), Error> {
        let _scope = self.enter()?;
        let api = self.context.driver().api();
        let mut to: Vec<_> = copies.iter().map(|copy| copy.destination).collect();
        let mut from: Vec<_> = copies.iter().map(|copy| copy.source).collect();
        let mut sizes: Vec<_> = copies.iter().map(|copy| copy.size).collect();
        let (to, from, sizes) = (to.as_mut_ptr(), from.as_mut_ptr(), sizes.as_mut_ptr());
        let (count, stream) = (copies.len(), self.as_raw());
        // One set of attributes, for the copies from the first on.
        let (mut attributes, mut first, mut failed) = (in_stream_order(), 0, 0);
        let (attributes, first) = (&raw mut attributes, &raw mut first);
        if api.memcpy_batch_async_v13000.is_available() {
            let entry = &api.memcpy_batch_async_v13000;
            // SAFETY: the lists have `count` entries and live for the whole call; the rest is the
            // caller's promise, and the stream is alive.
            return unsafe { entry.call(to, from, sizes, count, attributes, first, 1, stream) };
        }
        let entry = &api.memcpy_batch_async;
        // SAFETY: as above; `failed` is valid for writes.
        unsafe { entry.call(to, from, sizes, count, attributes, first, 1, &raw mut failed, stream) }
    }
}

fn in_stream_order() -> CUmemcpyAttributes_v1 {
    let nowhere = CUmemLocation {
        type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_INVALID,
        __bindgen_anon_1: CUmemLocation_st__bindgen_ty_1 { id: 0 },
    };
    CUmemcpyAttributes_v1 {
        srcAccessOrder: CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM,
        srcLocHint: nowhere,
        dstLocHint: nowhere,
        flags: 0,
    }
}
