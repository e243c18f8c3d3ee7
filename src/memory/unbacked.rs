//! Addresses with nothing behind them: what tests and benchmarks run a pool on.

#![expect(unsafe_code, reason = "maps and unmaps address space")]

use std::io;
use std::ptr::{self, NonNull};

use super::{MemoryKind, MemoryResource};
use crate::error::{CudaError, Error};
use crate::lockfree::bitmap::{Bitmaps, Bits};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A resource whose pages are never accessible, committed or not.
///
/// Whatever runs on it and touches a managed byte dies at once, which proves that all its
/// metadata is elsewhere. It keeps account of what is committed, refuses a `commit` or
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
    span: Mapping,
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
    /// What `mmap` said, if the process may not have so many addresses.
    pub fn new(size: usize) -> io::Result<Self> {
        let size = size.max(1).next_multiple_of(GRANULARITY);
        let granules = size / GRANULARITY;
        let uncommitted = Bitmaps::new(1, granules);
        uncommitted.get(0).fill(granules);
        Ok(Self {
            span: Mapping::reserve(size)?,
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

    /// Turns the bits of a range over, all or none; whether they all were `to`'s opposite.
    fn mark(&self, offset: usize, len: usize, commit: bool) -> bool {
        let map = self.uncommitted.get(0);
        let granules = offset / GRANULARITY..(offset + len) / GRANULARITY;
        let flip = |granule| {
            let bit = Bits::one(granule);
            if commit { map.take_exact(bit) } else { map.give(bit).is_ok() }
        };
        offset.is_multiple_of(GRANULARITY)
            && len.is_multiple_of(GRANULARITY)
            && offset + len <= self.span.size
            && granules.into_iter().all(flip)
    }
}

// SAFETY: `Mapping` keeps its addresses until the drop, and its alignment was made to be the
// granularity. There is no memory to vouch for: no kind's promise says that it can be touched.
unsafe impl MemoryResource for UnbackedResource {
    fn base(&self) -> u64 {
        self.span.base.as_ptr().addr() as u64
    }

    fn size(&self) -> usize {
        self.span.size
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

/// Address space that belongs to this object, aligned to [`ALIGN`].
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    size: usize,
    /// What `mmap` returned, before alignment.
    start: NonNull<libc::c_void>,
}

impl Mapping {
    fn reserve(size: usize) -> io::Result<Self> {
        let with_slack = size + ALIGN;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the system's choice touches no other.
        let start = unsafe { libc::mmap(ptr::null_mut(), with_slack, libc::PROT_NONE, flags, -1, 0) };
        let found = NonNull::new(start).filter(|start| start.as_ptr() != libc::MAP_FAILED);
        let Some(start) = found else { return Err(io::Error::last_os_error()) };
        let base = start.cast::<u8>().map_addr(|address| {
            // Of a mapping larger by `ALIGN`, the aligned part fits and is not at 0.
            address.saturating_add(address.get().wrapping_neg() & (ALIGN - 1))
        });
        Ok(Self { base, size, start })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `reserve` mapped exactly this, and only this object unmaps it.
        let result = unsafe { libc::munmap(self.start.as_ptr(), self.size + ALIGN) };
        debug_assert_eq!(result, 0, "munmap of a mapping of ours");
    }
}

// SAFETY: the pointers are never read or written through; they are addresses.
unsafe impl Send for Mapping {}

// SAFETY: as for Send; nothing about a mapping changes before its drop.
unsafe impl Sync for Mapping {}

/// Of the start of the span: more than the granularity, as drivers give it.
const ALIGN: usize = 64 << 20;

/// As that of device memory.
const GRANULARITY: usize = 2 << 20;

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
