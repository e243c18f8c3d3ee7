//! The one place where a pool commits and decommits.

#![expect(unsafe_code, reason = "vouches for the ranges given to the resource")]

use std::cell::RefCell;
use std::ptr;

use crate::error::{CudaError, Error};
use crate::memory::{MemoryKind, MemoryResource};
use crate::profile::Heaps;

/// A pool's resource, whose ranges only the pool uses.
#[derive(Debug)]
pub(crate) struct PoolSpan<R> {
    resource: R,
    /// Tells a memory checker of blocks.
    pub(super) heaps: Heaps,
}

impl<R: MemoryResource> PoolSpan<R> {
    pub(crate) fn new(resource: R) -> Self {
        // Checkers watch what the driver has allocated for kernels. A device's memory comes with a
        // context.
        let kind = match resource.kind() {
            MemoryKind::Device => Some("device"),
            MemoryKind::Managed => Some("managed"),
            _ => None,
        };
        let heaps = Heaps::new(kind.filter(|_| resource.ordinal().is_some()));
        Self { resource, heaps }
    }

    pub(crate) fn resource(&self) -> &R {
        &self.resource
    }

    /// Commits a run of granules that the caller has just taken from the run map.
    pub(super) fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let _inside = self.enter();
        // SAFETY: the run map holds the granules of the span, which are multiples of the
        // granularity, and hands each to one run at a time. A run goes back to it only after
        // its decommit succeeded, so nothing of this one is committed.
        unsafe { self.resource.commit(offset, len) }?;
        self.heaps.commit(self.resource.base() + offset as u64, len);
        Ok(())
    }

    /// Takes the memory behind a piece away for a while.
    pub(super) fn suspend(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: pieces are what one commit obtained. The pool's owner promises that neither the
        // host nor the device uses its memory while the pool sleeps.
        unsafe { self.resource.suspend(offset, len) }
    }

    /// Puts memory behind a piece again that was suspended.
    pub(super) fn resume(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the store resumes what it has suspended, once.
        unsafe { self.resource.resume(offset, len) }
    }

    /// Decommits granules of which the caller has claimed the run while all blocks were free, or
    /// has taken all slices.
    pub(super) fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let address = self.resource.base() + offset as u64;
        self.heaps.decommit(address);
        let _inside = self.enter();
        // SAFETY: granules are given back as they were committed: a run of granules keeps its
        // length until it is given back to the run map, or is one granule that is cut, all of whose
        // slices the caller has taken. No block there is allocated, and a caller that frees a
        // block promises that its use is over.
        let outcome = unsafe { self.resource.decommit(offset, len) };
        if outcome == Err(Error::Leased) {
            self.heaps.commit(address, len);
        }
        outcome
    }

    /// Refuses a thread that is inside of a commit or decommit here: the resource, or a transport
    /// that it tells, has called the pool, which would wait for itself.
    pub(super) fn check_reentry(&self) -> Result<(), Error> {
        let inside = INSIDE.try_with(|inside| inside.borrow().contains(&self.number()));
        if inside.unwrap_or(false) { Err(REENTERED) } else { Ok(()) }
    }

    fn enter(&self) -> Inside {
        // A thread that has ended its thread-locals has no hooks that would ask.
        let entered = INSIDE.try_with(|inside| inside.borrow_mut().push(self.number()));
        Inside(entered.is_ok())
    }

    /// Tells the span from others while a call on it lasts.
    fn number(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

/// A call of the resource's, by this thread.
struct Inside(bool);

impl Drop for Inside {
    fn drop(&mut self) {
        if self.0 {
            let _popped = INSIDE.try_with(|inside| inside.borrow_mut().pop());
        }
    }
}

crate::sync::thread_local! {
    /// The spans that this thread commits or decommits in, each in a call of the one before.
    static INSIDE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

const REENTERED: Error = Error::Driver {
    call: "growth or trim of a pool inside of its own commit or decommit: use another pool there",
    code: CudaError::NOT_PERMITTED,
};
