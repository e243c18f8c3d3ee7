//! A resource of which every committed KiB has an owner while it is in use.

#![expect(unsafe_code, reason = "implements MemoryResource")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::error::{CudaError, Error};
use crate::memory::{MemoryKind, MemoryResource};
use crate::slab::SizeClass;
use crate::slab::geometry::Geometry;
use crate::slab::space::PiecePolicy;
use crate::slab::span::PoolSpan;
use crate::slab::store::Store;
use crate::slab::trim::TrimPolicy;
use shuttle::thread;

pub(super) const GRANULE: usize = 4096;
const UNIT: usize = 1024;
const BASE: u64 = 1 << 30;

/// Numbers for addresses. What it counts is not the schedule's business, hence `std`'s atomics.
pub(super) struct Upstream {
    units: Vec<Unit>,
    committed: AtomicUsize,
    limit: usize,
    commits: AtomicUsize,
    /// One in so many commits fails; none if 0.
    fail_one_in: usize,
}

#[derive(Default)]
struct Unit {
    in_use: AtomicBool,
    committed: AtomicBool,
}

impl Upstream {
    fn own(&self, offset: usize, len: usize) {
        let units = &self.units[offset / UNIT..(offset + len).div_ceil(UNIT)];
        assert!(
            units.iter().all(|unit| !unit.in_use.swap(true, Relaxed)),
            "two use the same bytes"
        );
        // Another thread that takes itself for their owner gets the chance to use them.
        thread::yield_now();
        units.iter().for_each(|unit| unit.in_use.store(false, Relaxed));
    }

    fn commit_units(&self, offset: usize, len: usize, to: bool) {
        let units = &self.units[offset / UNIT..(offset + len).div_ceil(UNIT)];
        assert!(
            units.iter().all(|unit| unit.committed.swap(to, Relaxed) != to),
            "committed twice, or not"
        );
    }
}

// SAFETY: no memory is behind the addresses, and nothing touches them.
unsafe impl MemoryResource for Upstream {
    fn base(&self) -> u64 {
        BASE
    }

    fn size(&self) -> usize {
        self.units.len() * UNIT
    }

    fn granularity(&self) -> usize {
        GRANULE
    }

    fn kind(&self) -> MemoryKind {
        MemoryKind::Unbacked
    }

    fn ordinal(&self) -> Option<i32> {
        None
    }

    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let number = self.commits.fetch_add(1, Relaxed) + 1;
        if self.fail_one_in > 0 && number.is_multiple_of(self.fail_one_in) {
            return Err(Error::Driver { call: "commit", code: CudaError::OUT_OF_MEMORY });
        }
        self.own(offset, len);
        self.commit_units(offset, len, true);
        let before = self.committed.fetch_add(len, Relaxed);
        assert!(before + len <= self.limit, "more is committed than the limit allows");
        Ok(())
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.own(offset, len);
        self.commit_units(offset, len, false);
        self.committed.fetch_sub(len, Relaxed);
        Ok(())
    }
}

/// A store of `granules` granules of which `limit` may be committed.
pub(super) fn store(granules: usize, limit: usize, fail_one_in: usize) -> Arc<Store<Upstream>> {
    let upstream = Upstream {
        units: (0..granules * GRANULE / UNIT).map(|_| Unit::default()).collect(),
        committed: AtomicUsize::new(0),
        limit: limit * GRANULE,
        commits: AtomicUsize::new(0),
        fail_one_in,
    };
    let geometry = Geometry::new(BASE, GRANULE, GRANULE / 4, granules);
    let policy = PiecePolicy { fixed: None, most: 4, inside_pieces: false, grows_down: false };
    Arc::new(Store::new(PoolSpan::new(upstream), geometry, limit * GRANULE, policy).unwrap())
}

/// Uses a block as its only owner.
pub(super) fn own(store: &Store<Upstream>, class: SizeClass, address: u64) {
    let offset = usize::try_from(address - BASE).unwrap();
    store.span.resource().own(offset, class.block_size());
}

/// Releases all that is empty; bytes.
pub(super) fn trim(store: &Store<Upstream>) -> usize {
    store.trim(TrimPolicy { now: 0, idle: 0, keep: 0 }).released
}

/// Nothing is taken, and a trim leaves nothing committed.
pub(super) fn assert_clean(store: &Store<Upstream>) {
    store.flush_transfer_cache();
    assert_eq!(store.taken(), 0);
    trim(store);
    assert_eq!(store.budget.reserved(), 0);
    assert_eq!(store.span.resource().committed.load(Relaxed), 0);
}
