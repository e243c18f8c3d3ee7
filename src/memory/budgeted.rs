//! A resource that commits within a budget.
#![expect(unsafe_code, reason = "passes commits on")]

use std::sync::Arc;

use super::budget::{Budget, Share};
use super::{MemoryKind, MemoryResource, PhysicalMemory, Registrations};
use crate::error::Error;

/// A resource whose commits count against a [`Budget`].
///
/// Where the span is one allocation, all of it counts from the moment that it is made, by
/// [`limit_to`](MemoryResource::limit_to): when a pool is. What sleeps stays counted: it comes
/// back.
///
/// Builders that take a budget wrap their resources themselves.
///
/// # Examples
///
/// ```
/// use wharf::memory::{Budget, Budgeted, UnbackedResource};
/// use wharf::slab::{PoolOptions, SlabPool};
///
/// let budget = Budget::new(4 << 20);
/// let memory = Budgeted::new(UnbackedResource::new(1 << 30)?, &budget, "slabs");
/// let pool = SlabPool::new(memory, PoolOptions::default())?;
/// let block = pool.alloc(1 << 20)?;
/// assert_eq!(budget.used(), 2 << 20); // a granule
/// # pool.dealloc(block)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Budgeted<R> {
    // Before its share: the memory goes back first.
    resource: R,
    /// None where no budget was given.
    share: Option<Arc<Share>>,
    /// Whether all of the span has been counted.
    is_counted: bool,
}

impl<R: MemoryResource> Budgeted<R> {
    /// Counts what `resource` commits from here on against `budget`, under `name`.
    pub fn new(resource: R, budget: &Budget, name: &str) -> Self {
        Self::if_any(resource, Some(budget), name)
    }

    /// As `new`, or the resource as it is.
    pub(crate) fn if_any(resource: R, budget: Option<&Budget>, name: &str) -> Self {
        let share = budget.map(|budget| budget.share(name, resource.kind()));
        if let (Some(share), Some(registrations)) = (&share, resource.registrations()) {
            // What leases keep of it outlives this.
            registrations.count_against(share);
        }
        Self { resource, share, is_counted: false }
    }

    /// The resource.
    pub fn resource(&self) -> &R {
        &self.resource
    }

    /// What commits and decommits count against.
    fn counting(&self) -> Option<&Share> {
        self.share.as_deref().filter(|_| !self.is_counted)
    }
}

// SAFETY: everything is the other resource's, and what is refused was not committed.
unsafe impl<R: MemoryResource> MemoryResource for Budgeted<R> {
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

    fn peers(&self) -> &[i32] {
        self.resource.peers()
    }

    fn is_whole(&self) -> bool {
        self.resource.is_whole()
    }

    fn limit_to(&mut self, bytes: usize) -> Result<(), Error> {
        let Some(share) = self.share.as_deref().filter(|_| self.resource.is_whole()) else {
            return self.resource.limit_to(bytes);
        };
        let unit = self.resource.granularity();
        let all = bytes.checked_next_multiple_of(unit).unwrap_or(bytes).min(self.resource.size());
        share.take(all)?;
        self.resource.limit_to(bytes).inspect_err(|_| share.give(all))?;
        // The resource may have been in use before, and be longer than it was told now.
        share.take(self.resource.size().saturating_sub(all)).inspect_err(|_| share.give(all))?;
        self.is_counted = true;
        Ok(())
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

    fn is_free(&self, offset: usize, len: usize) -> bool {
        self.resource.is_free(offset, len)
    }

    fn note_leak(&self, bytes: usize) {
        self.resource.note_leak(bytes);
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

    unsafe fn suspend(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the caller's promise is that of the other resource. The bytes stay counted, so
        // that there is room for them when they come back.
        unsafe { self.resource.suspend(offset, len) }
    }

    unsafe fn resume(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: as for the suspension.
        unsafe { self.resource.resume(offset, len) }
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let share = self.counting();
        share.map_or(Ok(()), |share| share.take(len))?;
        // SAFETY: the caller's promise is that of the other resource.
        unsafe { self.resource.commit(offset, len) }.inspect_err(|_| {
            share.iter().for_each(|share| share.give(len));
        })
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: as for the commit.
        unsafe { self.resource.decommit(offset, len) }?;
        self.counting().iter().for_each(|share| share.give(len));
        Ok(())
    }
}
