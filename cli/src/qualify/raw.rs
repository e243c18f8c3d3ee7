//! Commits, and copies by raw address.
#![expect(unsafe_code, reason = "commits memory and copies by raw address")]

use core::ffi::c_void;
use std::{ptr, slice};

use wharf::memory::MemoryResource;
use wharf::pool::Buffer;
use wharf::{Error, Stream};

/// A committed range of a resource, the only one that it has.
pub(super) struct Range<'a, R: MemoryResource> {
    resource: &'a R,
    offset: usize,
    len: usize,
}

impl<'a, R: MemoryResource> Range<'a, R> {
    /// Commits `len` bytes from `offset` on, in whole granules, of a resource that has committed
    /// nothing there.
    pub(super) fn commit(resource: &'a R, offset: usize, len: usize) -> Result<Self, Error> {
        // SAFETY: the caller commits a range once, until it is decommitted, on one thread.
        unsafe { resource.commit(offset, len) }?;
        Ok(Self { resource, offset, len })
    }

    pub(super) fn decommit(self) -> Result<(), Error> {
        // SAFETY: the range of one commit; copies from and to it were waited for.
        unsafe { self.resource.decommit(self.offset, self.len) }
    }

    /// Writes `bytes` to the beginning, by the device.
    pub(super) fn write(&self, bytes: &[u8], stream: &Stream) -> Result<(), Error> {
        let bytes = &bytes[..bytes.len().min(self.len)];
        let from: *const c_void = bytes.as_ptr().cast();
        // SAFETY: the range is committed and as long; the bytes stay until the copy was waited for.
        unsafe { stream.copy_htod(self.address(), from, bytes.len()) }?;
        stream.synchronize()
    }

    /// Reads `len` bytes from the beginning, by the device.
    pub(super) fn read(&self, len: usize, stream: &Stream) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len.min(self.len)];
        let to: *mut c_void = bytes.as_mut_ptr().cast();
        // SAFETY: as in `write`.
        unsafe { stream.copy_dtoh(to, self.address(), bytes.len()) }?;
        stream.synchronize()?;
        Ok(bytes)
    }

    /// The bytes as the host sees them; only of memory that the host reaches, and with nothing of
    /// the device's under way.
    pub(super) fn host(&mut self, len: usize) -> &mut [u8] {
        let address = self.resource.base() + self.offset as u64;
        // Linux on 64-bit machines only: an address of the host fits.
        let start = ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0));
        // SAFETY: committed host memory, zeroed by the system or written since; the reference ends
        // before the range does.
        unsafe { slice::from_raw_parts_mut(start, len.min(self.len)) }
    }

    /// Where the device sees it.
    fn address(&self) -> u64 {
        self.resource.device_address(self.offset, self.len).unwrap_or(0)
    }
}

/// Copies from device memory at `address` into a buffer, in the order of `stream`.
pub(super) fn fetch(to: &Buffer<u32>, address: u64, stream: &Stream) -> Result<(), Error> {
    // SAFETY: the address is used below only, before the buffer is dropped.
    let target = unsafe { to.as_device_ptr() }?;
    // SAFETY: the caller names memory that is as long as the buffer, and stays until the stream is
    // done.
    unsafe { stream.copy(target, address, to.size()) }?;
    to.record_use(stream)
}

/// Has the device write `value` to `len` elements at `address`, in the order of `stream`.
pub(super) fn fill(address: u64, value: u32, len: usize, stream: &Stream) -> Result<(), Error> {
    // SAFETY: the caller names memory of a set that it keeps until the stream is done.
    unsafe { stream.fill_d32(address, value, len) }
}
