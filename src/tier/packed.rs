//! Memory in smaller units than its resource commits.
//!
//! A device maps memory in granules of 2 MiB. Objects of all sizes that each had whole granules, or
//! slabs of their own class, would leave a good part of a small tier unused. Here any range of
//! small units may be committed: a granule is, as long as one of its units is.
//!
//! ```text
//!   granule  |        2 MiB        |        2 MiB        |        2 MiB        |
//!   ranges   |=====|=======|  |====================|===| |                     |
//!   users             3                     2                       0: not committed
//! ```
//!
//! * `users[g]`: written by `hold`, `release`; read by both. Their `Release` pairs with their
//!   `Acquire`: who adds itself to a granule sees that it is committed, who commits it again that
//!   it was decommitted.

#![expect(unsafe_code, reason = "vouches for addresses")]

use crate::error::{CudaError, Error};
use crate::memory::{MemoryKind, MemoryResource, PhysicalMemory};
use crate::slab::budget::Budget;
use crate::sync::atomic::AtomicU32;
use crate::sync::atomic::{
    Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::thread;

/// A resource whose granules are shared by ranges of units.
#[derive(Debug)]
pub(super) struct Packed<R> {
    upstream: R,
    unit: usize,
    /// How many ranges a granule is committed for, or one of [`BUSY`] and [`LOST`].
    users: Box<[AtomicU32]>,
    /// What may be committed, in whole granules.
    budget: Budget,
}

impl<R: MemoryResource> Packed<R> {
    /// Shares granules of `upstream`, of which no other owner commits any, and never commits more
    /// than `limit` bytes. `unit` is a power of two and not larger than a granule.
    pub(super) fn new(upstream: R, unit: usize, limit: usize) -> Self {
        let granules = upstream.size() / upstream.granularity();
        let users = (0..granules).map(|_| AtomicU32::new(0)).collect();
        Self { unit: unit.min(upstream.granularity()), users, budget: Budget::new(limit), upstream }
    }

    /// The granules that a range has a part of.
    fn granules(&self, offset: usize, len: usize) -> std::ops::Range<usize> {
        let granule = self.upstream.granularity();
        offset / granule..(offset + len).div_ceil(granule)
    }

    /// Adds a range to the users of a granule, and commits it for the first.
    fn hold(&self, granule: usize) -> Result<(), Error> {
        let users = &self.users[granule];
        loop {
            match users.load(Relaxed) {
                0 => {
                    // Acquire: pairs with the Release of `release`.
                    if users.compare_exchange(0, BUSY, Acquire, Relaxed).is_ok() {
                        let outcome = self.commit_granule(granule);
                        // Release: pairs with the Acquire below.
                        users.store(u32::from(outcome.is_ok()), Release);
                        return outcome;
                    }
                }
                // Another thread is in the driver with it.
                BUSY => thread::yield_now(),
                LOST => return Err(self.out_of_memory()),
                seen => {
                    // Acquire: pairs with the Release above.
                    if users.compare_exchange_weak(seen, seen + 1, Acquire, Relaxed).is_ok() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes a range from the users of a granule, and decommits it after the last.
    fn release(&self, granule: usize) -> Result<(), Error> {
        let users = &self.users[granule];
        loop {
            let seen = users.load(Relaxed);
            let next = if seen == 1 { BUSY } else { seen - 1 };
            // Acquire and Release: pair with those of `hold` and of other ends.
            match users.compare_exchange_weak(seen, next, AcqRel, Relaxed) {
                Ok(1) => break,
                Ok(_) => return Ok(()),
                Err(_) => {}
            }
        }
        let len = self.upstream.granularity();
        // SAFETY: exactly the range of the commit in `hold`; no part of it is in use any more, as
        // the caller promises.
        let outcome = unsafe { self.upstream.decommit(granule * len, len) };
        if outcome.is_ok() {
            self.budget.release(len);
        }
        // Release: pairs with the Acquire of `hold`.
        users.store(if outcome.is_ok() { 0 } else { LOST }, Release);
        outcome
    }

    fn commit_granule(&self, granule: usize) -> Result<(), Error> {
        let len = self.upstream.granularity();
        self.budget.reserve(len).map_err(|_| self.out_of_memory())?;
        // SAFETY: a granule of the span; nothing of it is committed, and its word is BUSY, so
        // no other thread commits it.
        let committed = unsafe { self.upstream.commit(granule * len, len) };
        if committed.is_ok() {
            self.budget.note_commit(len);
        } else {
            self.budget.cancel(len);
        }
        committed
    }

    fn out_of_memory(&self) -> Error {
        Error::Driver { call: "commit of a granule", code: CudaError::OUT_OF_MEMORY }
    }
}

// SAFETY: the span and its addresses are the upstream's, which holds what it promises; the unit is
// a power of two that divides its granule. A range is committed if all its granules are, and they
// stay so until the last range in them is decommitted; a commit that fails gives back what it held.
unsafe impl<R: MemoryResource> MemoryResource for Packed<R> {
    fn base(&self) -> u64 {
        self.upstream.base()
    }

    fn size(&self) -> usize {
        self.upstream.size()
    }

    fn granularity(&self) -> usize {
        self.unit
    }

    fn kind(&self) -> MemoryKind {
        self.upstream.kind()
    }

    fn ordinal(&self) -> Option<i32> {
        self.upstream.ordinal()
    }

    fn limit_to(&mut self, bytes: usize) -> Result<(), Error> {
        self.upstream.limit_to(bytes)
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        self.upstream.device_address(offset, len)
    }

    fn piece_len(&self, offset: usize, len: usize) -> usize {
        self.upstream.piece_len(offset, len)
    }

    fn physical_memory(&self) -> Option<PhysicalMemory> {
        self.upstream.physical_memory()
    }

    fn note_leak(&self, _units: usize) {
        // Of whole granules.
        self.upstream.note_leak(self.budget.reserved());
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let granules = self.granules(offset, len);
        for granule in granules.clone() {
            if let Err(error) = self.hold(granule) {
                // One that cannot be given back is out of use, which the next commit of it is told.
                let _lost =
                    (granules.start..granule).filter(|held| self.release(*held).is_err()).count();
                return Err(error);
            }
        }
        Ok(())
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        // All of them, whatever one says.
        self.granules(offset, len).map(|granule| self.release(granule)).fold(Ok(()), Result::and)
    }
}

/// A thread is committing or decommitting the granule.
const BUSY: u32 = u32::MAX;
/// The granule could not be decommitted.
const LOST: u32 = u32::MAX - 1;

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "a failed test panics")]
mod tests {
    use super::*;
    use crate::memory::UnbackedResource;

    const GRANULE: usize = 2 << 20;
    const UNIT: usize = 64 << 10;

    fn packed(limit: usize) -> Packed<UnbackedResource> {
        Packed::new(UnbackedResource::new(8 * GRANULE).unwrap(), UNIT, limit)
    }

    fn commit(packed: &Packed<UnbackedResource>, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the tests commit no unit twice.
        unsafe { packed.commit(offset, len) }
    }

    fn decommit(packed: &Packed<UnbackedResource>, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the tests decommit what they have committed.
        unsafe { packed.decommit(offset, len) }
    }

    #[test]
    fn a_granule_lasts_as_long_as_a_range_in_it() {
        let packed = packed(3 * GRANULE);
        commit(&packed, 0, UNIT).unwrap();
        commit(&packed, UNIT, GRANULE).unwrap();
        assert_eq!(packed.upstream.committed(), 2 * GRANULE);
        decommit(&packed, 0, UNIT).unwrap();
        assert_eq!(packed.upstream.committed(), 2 * GRANULE);
        decommit(&packed, UNIT, GRANULE).unwrap();
        assert_eq!(packed.upstream.committed(), 0);
    }

    #[test]
    fn the_limit_holds_and_a_commit_that_fails_takes_nothing() {
        let packed = packed(2 * GRANULE);
        commit(&packed, 0, UNIT).unwrap();
        let error = commit(&packed, UNIT, 2 * GRANULE).unwrap_err();
        assert_eq!(error.code(), Some(CudaError::OUT_OF_MEMORY));
        assert_eq!(packed.upstream.committed(), GRANULE);
        packed.upstream.commits().fail_one_in(1);
        assert!(commit(&packed, GRANULE, UNIT).is_err());
        packed.upstream.commits().fail_one_in(0);
        commit(&packed, GRANULE, UNIT).unwrap();
        assert_eq!(packed.upstream.committed(), 2 * GRANULE);
    }

    #[test]
    fn a_granule_that_is_lost_stays_out_of_use() {
        let packed = packed(2 * GRANULE);
        commit(&packed, 0, UNIT).unwrap();
        packed.upstream.decommits().fail_one_in(1);
        assert!(decommit(&packed, 0, UNIT).is_err());
        packed.upstream.decommits().fail_one_in(0);
        assert!(commit(&packed, UNIT, UNIT).is_err());
        commit(&packed, GRANULE, UNIT).unwrap();
    }

    #[test]
    fn threads_share_granules() {
        let packed = packed(8 * GRANULE);
        thread::scope(|scope| {
            for lane in 0..4 {
                let packed = &packed;
                scope.spawn(move || {
                    for round in 0..500 {
                        let at = (round % 7 * GRANULE) + lane * UNIT;
                        commit(packed, at, UNIT).unwrap();
                        decommit(packed, at, UNIT).unwrap();
                    }
                });
            }
        });
        assert_eq!(packed.upstream.committed(), 0);
    }
}
