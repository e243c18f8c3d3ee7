//! A resource of which every committed KiB is guarded data.

#![expect(unsafe_code, reason = "implements MemoryResource")]

use super::Guarded;
use crate::error::{CudaError, Error};
use crate::memory::{MemoryKind, MemoryResource};
use crate::slab::SizeClass;
use crate::slab::geometry::Geometry;
use crate::slab::space::PiecePolicy;
use crate::slab::span::PoolSpan;
use crate::slab::store::Store;
use crate::slab::trim::TrimPolicy;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Small enough that a granule is one word of blocks.
pub(super) const GRANULE: usize = 4096;
const UNIT: usize = 1024;
pub(super) const BASE: u64 = 1 << 30;

/// Numbers for addresses; commit and decommit use what they are given as its only owner.
pub(super) struct Upstream {
    units: Guarded,
    pub(super) committed: AtomicUsize,
    /// A bit for each granule that is suspended.
    suspended: AtomicUsize,
    limit: usize,
    pub(super) commits: AtomicUsize,
    /// The number of the commit that fails, counted from 1.
    pub(super) fails: usize,
}

impl Upstream {
    pub(super) fn new(granules: usize, limit: usize) -> Self {
        Self {
            units: Guarded::new(granules * GRANULE / UNIT),
            committed: AtomicUsize::new(0),
            suspended: AtomicUsize::new(0),
            limit: limit * GRANULE,
            commits: AtomicUsize::new(0),
            fails: 0,
        }
    }

    fn own(&self, offset: usize, len: usize) {
        (offset / UNIT..(offset + len).div_ceil(UNIT)).for_each(|unit| self.units.own(unit));
    }
}

// SAFETY: `loom` fails the model when two threads use a cell at once; that is what it is for.
unsafe impl Sync for Guarded {}

// SAFETY: no memory is behind the addresses, and nothing touches them.
unsafe impl MemoryResource for Upstream {
    fn base(&self) -> u64 {
        BASE
    }

    fn size(&self) -> usize {
        self.units.0.len() * UNIT
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
        if self.commits.fetch_add(1, Relaxed) + 1 == self.fails {
            return Err(Error::Driver { call: "commit", code: CudaError::OUT_OF_MEMORY });
        }
        self.own(offset, len);
        let before = self.committed.fetch_add(len, Relaxed);
        assert!(before + len <= self.limit, "more is committed than the limit allows");
        Ok(())
    }

    unsafe fn suspend(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.own(offset, len);
        let before = self.suspended.fetch_or(bits(offset, len), Relaxed);
        assert_eq!(before & bits(offset, len), 0, "suspended twice");
        self.committed.fetch_sub(len, Relaxed);
        Ok(())
    }

    unsafe fn resume(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.own(offset, len);
        let before = self.suspended.fetch_and(!bits(offset, len), Relaxed);
        assert_eq!(before & bits(offset, len), bits(offset, len), "resumed and not suspended");
        self.committed.fetch_add(len, Relaxed);
        Ok(())
    }

    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.own(offset, len);
        let bits = bits(offset, len);
        if self.suspended.fetch_and(!bits, Relaxed) & bits == 0 {
            self.committed.fetch_sub(len, Relaxed);
        }
        Ok(())
    }
}

/// A bit for each granule of a range.
fn bits(offset: usize, len: usize) -> usize {
    (offset / GRANULE..(offset + len) / GRANULE).map(|granule| 1 << granule).sum()
}

/// A store whose slabs are whole granules.
pub(super) fn store_on(upstream: Upstream) -> Arc<Store<Upstream>> {
    sliced(upstream, GRANULE)
}

/// A store of `granules` granules of which `limit` may be committed.
pub(super) fn store(granules: usize, limit: usize) -> Arc<Store<Upstream>> {
    store_on(Upstream::new(granules, limit))
}

/// The same with two slices a granule.
pub(super) fn halves(granules: usize, limit: usize) -> Arc<Store<Upstream>> {
    sliced(Upstream::new(granules, limit), GRANULE / 2)
}

fn sliced(upstream: Upstream, slice: usize) -> Arc<Store<Upstream>> {
    let granules = upstream.size() / GRANULE;
    let limit = upstream.limit;
    let geometry = Geometry::new(BASE, GRANULE, slice, granules);
    let policy = PiecePolicy { fixed: Some(1), most: 1, inside_pieces: false, grows_down: false };
    Arc::new(Store::new(PoolSpan::new(upstream), geometry, limit, policy).unwrap())
}

/// The class of blocks of `size` bytes.
pub(super) fn class(size: usize) -> SizeClass {
    SizeClass::of(size).unwrap()
}

/// Uses a block as its only owner.
pub(super) fn own(store: &Store<Upstream>, class: SizeClass, address: u64) {
    let offset = usize::try_from(address - BASE).unwrap();
    store.span.resource().own(offset, class.block_size());
}

/// Allocates and uses one block; its address.
pub(super) fn alloc(store: &Store<Upstream>, class: SizeClass) -> Option<u64> {
    let reserved = store.acquire(class, 1, || false).ok()?;
    let address = store.collect_one(reserved);
    own(store, reserved.class, address);
    // The models ask only for classes of which the next larger have no slab.
    assert_eq!(reserved.class, class);
    Some(address)
}

/// Uses and frees one block.
pub(super) fn free(store: &Store<Upstream>, class: SizeClass, address: u64) {
    own(store, class, address);
    store.free_batch(class, &mut [address]);
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
    assert!(store.open_runs().unwrap().is_empty());
}
