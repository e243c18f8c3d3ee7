#![expect(unsafe_code, reason = "calls the driver with raw addresses")]
//! Copies and fills of raw addresses, in a stream's order.
//!
//! For layers that own the memory. A size or count of 0 succeeds without a driver call. "Until the
//! copy is done" means until the stream has reached it: an event recorded after it, or
//! [`Stream::synchronize`].
//!
//! The driver refuses a range of host memory that begins in one registration and ends in another,
//! or outside (`CUDA_ERROR_INVALID_VALUE`). A copy or fill of memory that is registered piece by
//! piece has to be cut at [`MemoryResource::pieces`](crate::memory::MemoryResource::pieces).

use core::ffi::c_void;

use wharf_sys::Api;
use wharf_sys::bindings::{CUdeviceptr, CUstream};

use super::Stream;
use crate::error::Error;

impl Stream {
    /// Copies `size` bytes from host memory at `source` to device memory at `destination`.
    ///
    /// A pageable `source` may be reused on return; a pinned one only when the copy is done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: an address is not known to the driver, or earlier work failed.
    ///
    /// # Safety
    ///
    /// * `source` is valid for reads of `size` bytes and, if pinned, unchanged until the copy is
    ///   done.
    /// * `destination` is valid for `size` bytes of device memory until the copy is done, and
    ///   nothing else uses them meanwhile.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemcpyHtoDAsync")]
    pub unsafe fn copy_htod(
        &self,
        destination: CUdeviceptr,
        source: *const c_void,
        size: usize,
    ) -> Result<(), Error> {
        self.submit_some(size, |api, stream| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memcpy_htod_async.call(destination, source, size, stream) }
        })
    }

    /// Copies `size` bytes from device memory at `source` to host memory at `destination`.
    ///
    /// A pageable `destination` is filled on return; a pinned one when the copy is done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: an address is not known to the driver, or earlier work failed.
    ///
    /// # Safety
    ///
    /// * `destination` is valid for writes of `size` bytes until the copy is done, and nothing
    ///   else uses them meanwhile.
    /// * `source` is valid for `size` bytes of device memory, unchanged until the copy is done.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemcpyDtoHAsync")]
    pub unsafe fn copy_dtoh(
        &self,
        destination: *mut c_void,
        source: CUdeviceptr,
        size: usize,
    ) -> Result<(), Error> {
        self.submit_some(size, |api, stream| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memcpy_dtoh_async.call(destination, source, size, stream) }
        })
    }

    /// Copies `size` bytes of device memory from `source` to `destination`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: an address is not known to the driver, or earlier work failed.
    ///
    /// # Safety
    ///
    /// * Both are valid for `size` bytes of device memory until the copy is done, and do not
    ///   overlap.
    /// * `source` is unchanged, and nothing else uses `destination`, until then.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemcpyDtoDAsync")]
    pub unsafe fn copy_dtod(
        &self,
        destination: CUdeviceptr,
        source: CUdeviceptr,
        size: usize,
    ) -> Result<(), Error> {
        self.submit_some(size, |api, stream| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memcpy_dtod_async.call(destination, source, size, stream) }
        })
    }

    /// Copies `size` bytes between any memory that the driver knows, on the host or a device; on
    /// the host within one [registration](crate::memory::MemoryResource::pieces).
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: an address is not known to the driver, or earlier work failed.
    ///
    /// # Safety
    ///
    /// As [`Stream::copy_dtod`].
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemcpyAsync")]
    pub unsafe fn copy(
        &self,
        destination: CUdeviceptr,
        source: CUdeviceptr,
        size: usize,
    ) -> Result<(), Error> {
        self.submit_some(size, |api, stream| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memcpy_async.call(destination, source, size, stream) }
        })
    }

    /// Writes `value` to `size` bytes of device memory at `destination`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the address is not known to the driver, or earlier work failed.
    ///
    /// # Safety
    ///
    /// `destination` is valid for `size` bytes of device memory until the fill is done, and
    /// nothing else uses them meanwhile.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemsetD8Async")]
    pub unsafe fn fill_d8(
        &self,
        destination: CUdeviceptr,
        value: u8,
        size: usize,
    ) -> Result<(), Error> {
        self.submit_some(size, |api, stream| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memset_d8_async.call(destination, value, size, stream) }
        })
    }

    /// Writes `value` to `len` 16-bit words of device memory at `destination`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the address is not known to the driver or not a multiple of 2, or earlier
    /// work failed.
    ///
    /// # Safety
    ///
    /// As [`Stream::fill_d8`], for `2 * len` bytes.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemsetD16Async")]
    pub unsafe fn fill_d16(
        &self,
        destination: CUdeviceptr,
        value: u16,
        len: usize,
    ) -> Result<(), Error> {
        self.submit_some(len, |api, stream| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memset_d16_async.call(destination, value, len, stream) }
        })
    }

    /// Writes `value` to `len` 32-bit words of device memory at `destination`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the address is not known to the driver or not a multiple of 4, or earlier
    /// work failed.
    ///
    /// # Safety
    ///
    /// As [`Stream::fill_d8`], for `4 * len` bytes.
    ///
    /// # References
    ///
    /// [Memory management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html)
    #[doc(alias = "cuMemsetD32Async")]
    pub unsafe fn fill_d32(
        &self,
        destination: CUdeviceptr,
        value: u32,
        len: usize,
    ) -> Result<(), Error> {
        self.submit_some(len, |api, stream| {
            // SAFETY: the caller's promise; the stream is alive.
            unsafe { api.memset_d32_async.call(destination, value, len, stream) }
        })
    }

    /// Makes one call of the driver's for `len` bytes or words; none for 0, which drivers answer
    /// differently.
    fn submit_some(
        &self,
        len: usize,
        call: impl FnOnce(&Api, CUstream) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if len == 0 { Ok(()) } else { self.submit(call) }
    }
}
