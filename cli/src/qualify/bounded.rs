//! Memory of which a device seems to have no more than some.
#![expect(unsafe_code, reason = "passes commits on")]

use std::sync::atomic::{AtomicUsize, Ordering};

use wharf::memory::{MemoryKind, MemoryResource, PhysicalMemory, Registrations};
use wharf::{CudaError, Error};

/// Refuses commits beyond a number of bytes, as a driver does that is out of memory. So a device is
/// full without one's taking all of it from other programs.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    resource: R,
    bytes: usize,
    committed: AtomicUsize,
}

impl<R: MemoryResource> Bounded<R> {
    pub(super) fn new(resource: R, bytes: usize) -> Self {
        Self { resource, bytes, committed: AtomicUsize::new(0) }
    }
}

// SAFETY: everything is the other resource's, and what is refused was not committed.
unsafe impl<R: MemoryResource> MemoryResource for Bounded<R> {
    fn base(&self) -> u64 {
        self.resource.base()
    }

    fn size(&self) -> usize {
        self.resource.size()
    }

    fn granularity(&self) -> usize {
        self.resource.granularity()
    }

    fn kind(&self) -> MemoryKind {
        self.resource.kind()
    }

    fn ordinal(&self) -> Option<i32> {
        self.resource.ordinal()
    }

    fn limit_to(&mut self, bytes: usize) -> Result<(), Error> {
        self.resource.limit_to(bytes)
    }

    fn check_fork(&self) -> Result<(), Error> {
        self.resource.check_fork()
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        self.resource.device_address(offset, len)
    }

    fn piece_len(&self, offset: usize, len: usize) -> usize {
        self.resource.piece_len(offset, len)
    }

    fn physical_memory(&self) -> Option<PhysicalMemory> {
        self.resource.physical_memory()
    }

    fn note_leak(&self, bytes: usize) {
        self.resource.note_leak(bytes);
    }

    fn peers(&self) -> &[i32] {
        self.resource.peers()
    }

    fn with_context(&self, call: &mut dyn FnMut()) -> Result<(), Error> {
        self.resource.with_context(call)
    }

    fn keep_from_children(&self, offset: usize, len: usize) {
        self.resource.keep_from_children(offset, len);
    }

    fn registrations(&self) -> Option<Registrations> {
        self.resource.registrations()
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let after = self.committed.fetch_add(len, Ordering::Relaxed) + len;
        let room = if after <= self.bytes {
            // SAFETY: the caller's promise is that of the other resource.
            unsafe { self.resource.commit(offset, len) }
        } else {
            Err(Error::Driver { call: "cuMemCreate", code: CudaError::OUT_OF_MEMORY })
        };
        if room.is_err() {
            self.committed.fetch_sub(len, Ordering::Relaxed);
        }
        room
    }

    unsafe fn suspend(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: passed on.
        unsafe { self.resource.suspend(offset, len) }
    }

    unsafe fn resume(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: passed on.
        unsafe { self.resource.resume(offset, len) }
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: as for the commit.
        unsafe { self.resource.decommit(offset, len) }?;
        self.committed.fetch_sub(len, Ordering::Relaxed);
        Ok(())
    }
}
