//! Addresses without memory, for tests and benchmarks of pools.

#![expect(unsafe_code, reason = "vouches for addresses")]

use std::io;

use super::granule::{GRANULARITY, SPAN_ALIGNMENT, whole_granules};
use super::host_span::HostSpan;
use super::{MemoryKind, MemoryResource};
use crate::error::{CudaError, Error};
use crate::lockfree::bitmap::{Bitmaps, Bits};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A resource whose pages are never accessible, committed or not.
///
/// A pool that touches a managed byte faults at once, which proves that all its
/// metadata is elsewhere. It keeps account of committed ranges, refuses a `commit` or
/// `decommit` that breaks the contract, and fails calls on demand.
///
/// It may be shared between threads.
///
/// # Examples
///
/// ```
/// use wharf::memory::{MemoryKind, MemoryResource, UnbackedResource};
///
/// let resource = UnbackedResource::new(64 << 20)?;
/// assert_eq!(resource.kind(), MemoryKind::Unbacked);
/// assert_eq!(resource.committed(), 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct UnbackedResource {
    span: HostSpan,
    /// One bit a granule: free = not committed.
    uncommitted: Bitmaps,
    committed: AtomicUsize,
    commits: Faults,
    decommits: Faults,
}

impl UnbackedResource {
    /// Reserves `size` bytes of addresses, rounded up to whole granules of 2 MiB.
    ///
    /// # Errors
    ///
    /// The error of `mmap`, if the process, or any process, cannot have so many addresses.
    pub fn new(size: usize) -> io::Result<Self> {
        let too_large = |_| io::Error::from_raw_os_error(libc::ENOMEM);
        let size = whole_granules(size, GRANULARITY).map_err(too_large)?;
        // Before the bitmap, whose size is the span's: a span that is too large is an error here.
        let span = HostSpan::reserve(size, SPAN_ALIGNMENT)?;
        let granules = size / GRANULARITY;
        let uncommitted =
            Bitmaps::new(1, granules).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        uncommitted.get(0).fill(granules);
        Ok(Self {
            span,
            uncommitted,
            committed: AtomicUsize::new(0),
            commits: Faults::default(),
            decommits: Faults::default(),
        })
    }

    /// Bytes committed at this moment.
    pub fn committed(&self) -> usize {
        self.committed.load(Relaxed)
    }

    /// The count and the failures of `commit`.
    pub fn commits(&self) -> &Faults {
        &self.commits
    }

    /// The count and the failures of `decommit`.
    pub fn decommits(&self) -> &Faults {
        &self.decommits
    }

    /// Marks a range as committed, or as not. Returns whether it was the opposite before.
    fn mark(&self, offset: usize, len: usize, commit: bool) -> bool {
        let map = self.uncommitted.get(0);
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.span.size()) else {
            return false;
        };
        let granules = offset / GRANULARITY..end / GRANULARITY;
        // Bit by bit and atomically, so that of two calls that race for a granule one is refused.
        let flip = |granule| {
            let bit = Bits::one(granule);
            if commit { map.take_exact(bit) } else { map.give(bit).is_ok() }
        };
        offset.is_multiple_of(GRANULARITY)
            && len.is_multiple_of(GRANULARITY)
            && granules.into_iter().all(flip)
    }
}

// SAFETY: `HostSpan` keeps its addresses until the drop, and its alignment was made to be the
// granularity. There is no memory to vouch for: no kind's promise says that it can be touched.
unsafe impl MemoryResource for UnbackedResource {
    fn base(&self) -> u64 {
        self.span.base()
    }

    fn size(&self) -> usize {
        self.span.size()
    }

    fn granularity(&self) -> usize {
        GRANULARITY
    }

    fn kind(&self) -> MemoryKind {
        MemoryKind::Unbacked
    }

    fn ordinal(&self) -> Option<i32> {
        None
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.commits.next("commit", CudaError::OUT_OF_MEMORY)?;
        if !self.mark(offset, len, true) {
            return Err(Error::Driver { call: "commit", code: CudaError::INVALID_VALUE });
        }
        self.committed.fetch_add(len, Relaxed);
        Ok(())
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.decommits.next("decommit", CudaError::UNKNOWN)?;
        if !self.mark(offset, len, false) {
            return Err(Error::Driver { call: "decommit", code: CudaError::INVALID_VALUE });
        }
        self.committed.fetch_sub(len, Relaxed);
        Ok(())
    }
}

/// Counts calls and makes some of them fail.
#[derive(Debug, Default)]
pub struct Faults {
    calls: AtomicU64,
    failed: AtomicU64,
    one_in: AtomicU64,
}

impl Faults {
    /// Makes every `n`-th call from now on fail, every one if `n` is 1, none if it is 0.
    pub fn fail_one_in(&self, n: u64) {
        self.one_in.store(n, Relaxed);
    }

    /// Calls so far, failed ones included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Calls that failed on demand.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    fn next(&self, call: &'static str, code: CudaError) -> Result<(), Error> {
        let number = self.calls.fetch_add(1, Relaxed) + 1;
        // Of 0 only 0 is a multiple, and no call has that number.
        if !number.is_multiple_of(self.one_in.load(Relaxed)) {
            return Ok(());
        }
        self.failed.fetch_add(1, Relaxed);
        Err(Error::Driver { call, code })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_breaks_the_contract() {
        let resource = UnbackedResource::new(4 * GRANULARITY).unwrap();
        // SAFETY: only this thread uses it, and every wrong call is refused.
        let commit = |offset, len| unsafe { resource.commit(offset, len) };
        // SAFETY: as above.
        let decommit = |offset, len| unsafe { resource.decommit(offset, len) };
        commit(0, 2 * GRANULARITY).unwrap();
        assert!(commit(GRANULARITY, GRANULARITY).is_err());
        assert!(commit(3 * GRANULARITY, 2 * GRANULARITY).is_err());
        assert!(decommit(2 * GRANULARITY, GRANULARITY).is_err());
        assert_eq!(resource.committed(), 2 * GRANULARITY);
        decommit(0, 2 * GRANULARITY).unwrap();
        assert_eq!(resource.committed(), 0);
    }

    #[test]
    fn spans_that_no_process_has_are_errors() {
        for size in [usize::MAX, usize::MAX - 1, 1 << 63, 1 << 60, isize::MAX.unsigned_abs()] {
            let refused = UnbackedResource::new(size).map(drop).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::ENOMEM), "{size:#x}");
        }
        let resource = UnbackedResource::new(GRANULARITY).unwrap();
        // SAFETY: refused.
        assert!(unsafe { resource.commit(GRANULARITY, usize::MAX - GRANULARITY + 1) }.is_err());
    }

    #[test]
    fn fails_on_demand() {
        let resource = UnbackedResource::new(GRANULARITY).unwrap();
        assert_eq!(resource.base() % GRANULARITY as u64, 0);
        resource.commits().fail_one_in(1);
        // SAFETY: nothing is committed.
        let failed = unsafe { resource.commit(0, GRANULARITY) };
        assert_eq!(failed, Err(Error::Driver { call: "commit", code: CudaError::OUT_OF_MEMORY }));
        assert_eq!((resource.commits().failed(), resource.committed()), (1, 0));
    }
}
