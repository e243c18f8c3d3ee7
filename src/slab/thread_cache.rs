//! The calling thread's caches: one load on the hot path, everything else on the slow one.
//!
//! The slots need no initialisation and no destructor, so reading one is a plain load. What must
//! happen when a thread ends hangs on a second thread-local, which only the slow path touches.
//! A slot without a cache points at one that is empty and full at once: taking and putting both
//! fail into the slow path, so the hot path needs no test for it.

use std::cell::{Cell, RefCell};
use std::sync::Weak;

use super::magazine::{Cache, Magazine, NO_SLAB};
use super::recall::Heard;
use super::registry::{CacheEntry, REGISTRY, SLOTS, Seat};
use super::size_class::SizeClass;
use super::store::CACHED_CLASSES;
use crate::sync::atomic::{AtomicU32, AtomicU64};

/// What takes a thread's blocks back when the thread ends: a pool, whatever its resource.
pub(super) trait Drain: Send + Sync {
    /// Gives everything in `cache` back.
    fn drain(&self, cache: &Cache);
}

thread_local! {
    static CURRENT: [Cell<&'static Cache>; SLOTS] = const { [const { Cell::new(&EMPTY) }; SLOTS] };
    static GUARD: RefCell<Guard> = const { RefCell::new(Guard { attached: Vec::new() }) };
}

/// The cache of every slot that has none: nothing to take, no room to put.
static EMPTY: Cache = Cache {
    magazines: [const {
        Magazine { len: AtomicU32::new(0), limit: AtomicU32::new(0), items: [const { AtomicU64::new(0) }; _] }
    }; CACHED_CLASSES],
    preferred: [const { AtomicU32::new(NO_SLAB) }; SizeClass::COUNT],
    heard: Heard { quiet: AtomicU32::new(0), growths: AtomicU32::new(0), recalls: AtomicU32::new(0) },
};

/// The calling thread's cache in a slot.
#[inline]
pub(super) fn current(slot: usize) -> &'static Cache {
    CURRENT.with(|slots| slots[slot % SLOTS].get())
}

/// The calling thread's cache of a pool, made if need be; the empty one if there can be none.
#[inline]
pub(super) fn attach(seat: Seat, bytes: usize, pool: impl FnOnce() -> Weak<dyn Drain>) -> &'static Cache {
    let found = current(seat.slot);
    if seat.slot == 0 || bytes == 0 || !is_empty(found) { found } else { attach_new(seat, bytes, pool()) }
}

/// Makes the calling thread's cache of a pool.
#[cold]
#[inline(never)]
fn attach_new(seat: Seat, bytes: usize, pool: Weak<dyn Drain>) -> &'static Cache {
    // A thread that is ending has no guard any more, and must not get a cache without one.
    let attached = GUARD.try_with(|guard| {
        let mut guard = guard.try_borrow_mut().ok()?;
        guard.leave_dead_pools();
        let entry = REGISTRY.attach(seat, bytes)?;
        guard.attached.push(Attached { seat, entry, pool });
        Some(&entry.cache)
    });
    let Ok(Some(cache)) = attached else { return &EMPTY };
    CURRENT.with(|slots| slots[seat.slot].set(cache));
    cache
}

/// Gives the calling thread's blocks of a pool back, and its cache to other threads.
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
    std::ptr::eq(cache, &raw const EMPTY)
}

/// What a thread has to give back when it ends.
#[derive(Debug)]
struct Guard {
    attached: Vec<Attached>,
}

struct Attached {
    seat: Seat,
    entry: &'static CacheEntry,
    pool: Weak<dyn Drain>,
}

impl Guard {
    /// Leaves pools that nobody can use any more, so that their slots become free.
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
        // First the slot: if giving back allocates from the pool, it must not find this cache.
        let _ = CURRENT.try_with(|slots| slots[self.seat.slot].set(&EMPTY));
        if let Some(pool) = self.pool.upgrade() {
            pool.drain(&self.entry.cache);
        }
        REGISTRY.detach(self.seat, self.entry.number);
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
