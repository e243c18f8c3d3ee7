//! The calling thread's caches: one load on the hot path, everything else on the slow one.
//!
//! The slots need no initialisation and no destructor, so reading one is a plain load. What must
//! happen when a thread ends hangs on a second thread-local, which only the slow path touches.
//! A slot without a cache points at one that is empty and full at once: taking and putting both
//! fail into the slow path, so the hot path needs no test for it.

use std::cell::{Cell, RefCell};
use std::sync::Weak;

use super::budget::CacheBudget;
use super::cache::Cache;
use super::magazine::Magazine;
use super::number::NO_SLICE;
use super::recall::{MISSES_TO_STABLE, RecallState};
use super::registry::{CacheEntry, SLOTS, Seat, registry};
use super::size_class::SizeClass;
use super::store::CACHED_CLASSES;
use crate::sync::{
    self,
    atomic::{AtomicU32, AtomicU64},
};

/// Frees a thread's blocks when the thread ends: a pool, whatever its resource.
pub(super) trait Flush: Send + Sync {
    /// Frees everything in `cache`.
    fn flush(&self, cache: &Cache);

    /// What threads' caches may hold together.
    fn budget(&self) -> &CacheBudget;
}

sync::thread_local! {
    static CURRENT: [Cell<&'static Cache>; SLOTS] =
        const { sync::array![Cell::new(empty()); SLOTS] };
    static GUARD: RefCell<Guard> = const { RefCell::new(Guard { attached: Vec::new() }) };
}

sync::global! {
    /// The cache of every slot that has none: nothing to take, no room to put.
    const fn empty() -> &Cache = Cache {
        magazines: sync::array![
            Magazine {
                len: AtomicU32::new(0),
                limit: AtomicU32::new(0),
                items: sync::array![AtomicU64::new(0); _],
            };
            CACHED_CLASSES
        ],
        preferred: sync::array![AtomicU32::new(NO_SLICE); SizeClass::COUNT],
        recall: RecallState {
            rest: AtomicU32::new(MISSES_TO_STABLE),
            growths: AtomicU32::new(0),
            requests: AtomicU32::new(0),
        },
        number: 0,
    };
}

/// The calling thread's cache in a slot.
#[inline]
pub(super) fn current(slot: u8) -> &'static Cache {
    CURRENT.with(|slots| slots[usize::from(slot) % SLOTS].get())
}

/// The calling thread's cache of a pool, made if need be; the empty one if there can be none.
#[inline]
pub(super) fn attach(
    seat: Seat,
    bytes: usize,
    pool: impl FnOnce() -> Weak<dyn Flush>,
) -> &'static Cache {
    let found = current(seat.slot);
    if seat.slot == 0 || bytes == 0 || !is_empty(found) {
        found
    } else {
        attach_new(seat, bytes, pool())
    }
}

/// Makes the calling thread's cache of a pool.
#[cold]
#[inline(never)]
fn attach_new(seat: Seat, bytes: usize, pool: Weak<dyn Flush>) -> &'static Cache {
    // A thread that is ending has no guard any more, and must not get a cache without one.
    let attached = GUARD.try_with(|guard| {
        let mut guard = guard.try_borrow_mut().ok()?;
        guard.leave_dead_pools();
        let granted = pool.upgrade()?.budget().grant(bytes);
        let Some(entry) = registry().attach(seat, granted) else {
            pool.upgrade()?.budget().give_back(granted);
            return None;
        };
        guard.attached.push(Attached { seat, entry, granted, pool });
        Some(&entry.cache)
    });
    let Ok(Some(cache)) = attached else { return empty() };
    CURRENT.with(|slots| slots[usize::from(seat.slot)].set(cache));
    cache
}

/// Frees the calling thread's cached blocks of a pool, and lets other threads have the cache.
pub(super) fn detach(seat: Seat) {
    // During the end of a thread its guard has detached everything already.
    let _ = GUARD.try_with(|guard| {
        if let Ok(mut guard) = guard.try_borrow_mut() {
            guard.leave(|attached| attached.seat == seat);
        }
    });
}

/// Whether a cache is the one of slots that have none.
fn is_empty(cache: &Cache) -> bool {
    std::ptr::eq(cache, empty())
}

/// What a thread has to leave when it ends.
#[derive(Debug)]
struct Guard {
    attached: Vec<Attached>,
}

struct Attached {
    seat: Seat,
    entry: &'static CacheEntry,
    /// The most bytes that the cache holds.
    granted: usize,
    pool: Weak<dyn Flush>,
}

impl Guard {
    /// Leaves pools that were dropped, so that their slots become free.
    fn leave_dead_pools(&mut self) {
        self.leave(|attached| attached.pool.strong_count() == 0);
    }

    fn leave(&mut self, which: impl Fn(&Attached) -> bool) {
        let (leave, stay) = std::mem::take(&mut self.attached).into_iter().partition(which);
        self.attached = stay;
        leave.into_iter().for_each(Attached::leave);
    }
}

impl Attached {
    fn leave(self) {
        // First the slot: if a free allocates from the pool, it must not find this cache.
        let _ = CURRENT.try_with(|slots| slots[usize::from(self.seat.slot)].set(empty()));
        if let Some(pool) = self.pool.upgrade() {
            pool.flush(&self.entry.cache);
            pool.budget().give_back(self.granted);
        }
        registry().detach(self.seat, self.entry.number);
    }
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.leave(|_| true);
    }
}
