//! What all pools of the process share: thread caches, and which span is whose.
//!
//! A thread reaches its cache of a pool through a slot in thread-local storage, so a pool has
//! a slot number for as long as any thread has a cache in that slot. Caches are never freed and are
//! handed on from thread to thread, so the pointers to them are plain `'static` references.
//!
//! ```text
//!   thread      slots[0]  slots[1]  ...  slots[255]         slot 0: no pool, always empty
//!                  |         |
//!                empty     caches[7]                        caches: a bitmap says which are free
//!   process     pools[1]: | alive (1) | ... | threads with a cache in the slot (32) |
//!               pools[256] and on: pools without a slot, known by their addresses only
//! ```
//!
//! * `pools[s].state`: written by `open`, `close`, `attach`, `detach`; read by `open`. The
//!   `Release` of `close` and `detach` pairs with the `Acquire` of `open`: a new pool in the slot
//!   comes after every use of the old.
//! * `pools[s].base`, `len`, `id`: written by `open`; read by `owner_of`. Relaxed: for error
//!   messages.
//! * `caches.free`: written by threads; read by threads. Those of `lockfree::bitmap`: a cache's new
//!   owner sees it as the old one left it.

use std::alloc::{Layout, handle_alloc_error};

use super::cache::Cache;
use crate::lockfree::bitmap::{Bitmaps, Bits};
use crate::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use crate::sync::{OnceLock, try_update};

/// Slots of a thread: as many as a slot's number can name, so that finding one checks no bound.
/// Pools beyond have no thread caches.
pub(super) const SLOTS: usize = if cfg!(all(test, loom)) { 2 } else { 256 };

/// Pools whose spans the process knows. Addresses of pools beyond are foreign in error messages.
const POOLS: usize = if cfg!(all(test, loom)) { 2 } else { 1024 };

/// Caches of the process. Threads beyond have none.
const CACHES: usize = if cfg!(all(test, loom)) { 1 } else { 4096 };

crate::sync::global! {
    /// The process's only registry.
    pub(super) fn registry() -> &Registry = Registry::new();
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    pools: Box<[PoolSlot]>,
    next_id: AtomicU64,
    free: Bitmaps,
    /// Caches that were ever made are below this number.
    made: AtomicU32,
    caches: Box<[OnceLock<Box<CacheEntry>>]>,
}

#[derive(Debug, Default)]
struct PoolSlot {
    state: AtomicU64,
    id: AtomicU64,
    base: AtomicU64,
    len: AtomicU64,
}

/// A cache and the pool it is used for, 0 if none.
#[derive(Debug)]
pub(crate) struct CacheEntry {
    pub(crate) cache: Cache,
    /// Its number in the registry.
    pub(crate) number: usize,
    pool: AtomicU64,
}

/// A pool's place in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The slot of its thread caches; 0 if it has none.
    pub(crate) slot: u8,
    /// Its number among the known pools; 0 if it is not.
    place: usize,
    /// A number that no other pool of the process has or had; not 0.
    pub(crate) id: u64,
}

impl Registry {
    pub(crate) fn new() -> Self {
        let free = Bitmaps::new(1, CACHES);
        let free = free.unwrap_or_else(|| handle_alloc_error(Layout::new::<[u64; CACHES / 64]>()));
        free.get(0).fill(CACHES);
        Self {
            pools: (0..POOLS).map(|_| PoolSlot::default()).collect(),
            next_id: AtomicU64::new(1),
            free,
            made: AtomicU32::new(0),
            caches: (0..CACHES).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Gives a pool an id, and a place and a slot if one is left.
    pub(crate) fn open(&self, base: u64, len: usize) -> Seat {
        let id = self.next_id.fetch_add(1, Relaxed);
        for (place, pool) in self.pools.iter().enumerate().skip(1) {
            // Acquire: pairs with the Release of `close` and `detach`.
            if pool.state.compare_exchange(0, ALIVE, Acquire, Relaxed).is_ok() {
                pool.base.store(base, Relaxed);
                pool.len.store(len as u64, Relaxed);
                pool.id.store(id, Relaxed);
                let slot = u8::try_from(place).ok().filter(|_| place < SLOTS);
                return Seat { slot: slot.unwrap_or(0), place, id };
            }
        }
        Seat { slot: 0, place: 0, id }
    }

    /// Ends a pool. Its slot stays taken until the last thread has left it.
    pub(crate) fn close(&self, seat: Seat) {
        if let Some(pool) = self.pool(seat) {
            pool.id.store(0, Relaxed);
            // Release: pairs with the Acquire of `open`.
            pool.state.fetch_and(!ALIVE, Release);
        }
    }

    /// An unused cache for a thread's use of a pool, if one is left.
    pub(crate) fn attach(&self, seat: Seat, bytes: usize) -> Option<&CacheEntry> {
        let pool = self.pool(seat)?;
        let number = self.free.get(0).take(0, 1)?.indices().next()?;
        let entry = self.caches[number].get_or_init(|| {
            Box::new(CacheEntry { cache: Cache::new(number), pool: AtomicU64::new(0), number })
        });
        // Relaxed: statistics that miss a new cache were taken before it was of use.
        self.made.fetch_max(u32::try_from(number + 1).unwrap_or(u32::MAX), Relaxed);
        // Relaxed: the caller uses a pool that is alive.
        pool.state.fetch_add(1, Relaxed);
        entry.cache.configure(bytes);
        entry.pool.store(seat.id, Relaxed);
        Some(entry)
    }

    /// Ends a thread's use of the cache with a number, which the thread has flushed, unless the
    /// pool is gone.
    pub(crate) fn detach(&self, seat: Seat, number: usize) {
        if let Some(entry) = self.caches[number].get() {
            entry.cache.clear();
            entry.pool.store(0, Relaxed);
        }
        let given = self.free.get(0).give(Bits::one(number));
        debug_assert!(given.is_ok(), "cache {number} had no owner");
        if let Some(pool) = self.pool(seat) {
            // Release: pairs with the Acquire of `open`.
            let left = try_update(&pool.state, Release, |state| state.checked_sub(1).ok_or(()));
            debug_assert!(left.is_ok(), "more threads left a slot than entered it");
        }
    }

    /// The caches that threads have for a pool at this moment.
    pub(crate) fn caches_of(&self, id: u64) -> impl Iterator<Item = &Cache> {
        let made = self.made.load(Relaxed) as usize;
        let entries = self.caches[..made].iter().filter_map(OnceLock::get);
        entries.filter(move |entry| entry.pool.load(Relaxed) == id).map(|entry| &entry.cache)
    }

    /// The id of the pool whose span an address lies in.
    pub(crate) fn owner_of(&self, address: u64) -> Option<u64> {
        self.pools.iter().skip(1).find_map(|pool| {
            let id = pool.id.load(Relaxed);
            let inside = address.wrapping_sub(pool.base.load(Relaxed)) < pool.len.load(Relaxed);
            (id != 0 && inside).then_some(id)
        })
    }

    fn pool(&self, seat: Seat) -> Option<&PoolSlot> {
        if seat.place == 0 { None } else { self.pools.get(seat.place) }
    }
}

/// Set while the pool lives.
const ALIVE: u64 = 1 << 63;
