//! The one place where a pool commits and decommits.

#![expect(unsafe_code, reason = "vouches for the ranges given to the resource")]

use crate::error::Error;
use crate::memory::MemoryResource;

/// A pool's resource, whose ranges only the pool uses.
#[derive(Debug)]
pub(crate) struct Span<R> {
    resource: R,
}

impl<R: MemoryResource> Span<R> {
    pub(crate) fn new(resource: R) -> Self {
        Self { resource }
    }

    pub(crate) fn resource(&self) -> &R {
        &self.resource
    }

    /// Commits a run of granules that the caller has just taken from the run map.
    pub(super) fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the run map holds the granules of the span, which are multiples of the
        // granularity, and hands each to one run at a time. A run goes back to it only after
        // its decommit succeeded, so nothing of this one is committed.
        unsafe { self.resource.commit(offset, len) }
    }

    /// Decommits a run of which the caller has claimed the state while all blocks were free.
    pub(super) fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: a run keeps the length of its commit until it is given back to the run map.
        // It is claimed with every block free, and who frees a block promises that its use is
        // over.
        unsafe { self.resource.decommit(offset, len) }
    }
}
