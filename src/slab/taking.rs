//! Taking: at the limit, and in a trim, blocks that idle threads have cached are freed for them.
//!
//! A magazine is its thread's own, and using it costs no fence. So a thread that takes what another
//! has cached has to be sure that the owner is not in the middle of it:
//!
//! ```text
//!   owner                          taker
//!   busy = 1                       lock = 1           owners' slow paths stay out from here on
//!   light fence                    heavy fence
//!   look at `len` (or `lock`)      busy? give up
//!   use the magazine               len = LOCKED       fast paths find neither block nor room
//!   busy = 0                       heavy fence
//!                                  busy? give up
//!                                  take the blocks of each `len` that still is LOCKED
//! ```
//!
//! Either the owner finds the lock, or the taker finds the owner busy. An owner that had read a
//! length before it was locked stores the next one over the lock, and keeps its magazine. What
//! belongs to a thread that works is left to it: it has a `recall` of its own.
//!
//! * `busy`, `lock`: see `visit`.
//! * `len` of a magazine: besides the owner, written by a taker. Its `Release` pairs with the
//!   `Acquire` of the owner's next use: the owner fills items after the taker has read them.

use super::cache::Cache;
use super::magazine::{ITEMS, LOCKED, Magazine};
use super::pool::SlabPool;
use super::registry::{CacheEntry, registry};
use super::size_class::SizeClass;
use super::store::Store;
use crate::memory::MemoryResource;
use crate::sync::atomic::{Ordering::Relaxed, Ordering::Release};
use crate::sync::heavy_fence;

impl<R: MemoryResource> Store<R> {
    /// Frees what idle owners have in these caches, which are this store's as long as `is_ours`
    /// holds. Returns whether there was something.
    pub(crate) fn take_idle(&self, caches: &[&Cache], is_ours: impl Fn(&Cache) -> bool) -> bool {
        let unlocked = caches.iter().copied().filter(|cache| cache.visit.try_lock());
        let mut locked: Vec<&Cache> = unlocked.collect();
        let keep = |locked: &mut Vec<&Cache>, may_stay: &dyn Fn(&Cache) -> bool| {
            locked.retain(|cache| {
                let stays = may_stay(cache);
                if !stays {
                    cache.visit.unlock();
                }
                stays
            });
        };
        let is_fenced = !locked.is_empty() && heavy_fence();
        // An owner that left the cache after this look has to wait for the lock.
        keep(&mut locked, &|cache| is_fenced && !cache.visit.is_busy() && is_ours(cache));
        let lens: Vec<_> = locked.iter().map(|cache| cache.lock_magazines()).collect();
        let is_fenced = !locked.is_empty() && heavy_fence();
        let mut taken = false;
        for (cache, lens) in locked.into_iter().zip(lens) {
            let may_take = is_fenced && !cache.visit.is_busy();
            for ((class, magazine), len) in SizeClass::all().zip(&cache.magazines).zip(lens) {
                if !may_take {
                    magazine.unlock(len);
                    continue;
                }
                let (mut blocks, count) = magazine.take_locked(len);
                if count > 0 {
                    self.free_batch(class, &mut blocks[..count]);
                    taken = true;
                }
            }
            cache.visit.unlock();
        }
        taken
    }
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// Frees what idle threads have cached. Returns whether there was something.
    pub(super) fn take_idle(&self) -> bool {
        let id = self.seat.id;
        if self.cache_bytes == 0 {
            return false;
        }
        let entries: Vec<&CacheEntry> = registry().entries_of(id).collect();
        let is_ours = |cache: &Cache| {
            let entry = entries.iter().find(|entry| std::ptr::eq(&raw const entry.cache, cache));
            entry.is_some_and(|entry| entry.is_of(id))
        };
        let own = std::ptr::from_ref(super::thread_cache::current(self.seat.slot));
        let others = entries.iter().map(|entry| &entry.cache);
        let others: Vec<_> = others.filter(|cache| !std::ptr::eq(*cache, own)).collect();
        self.store.take_idle(&others, is_ours)
    }
}

impl Cache {
    /// Locks all magazines; the lengths that they had.
    fn lock_magazines(&self) -> Vec<u32> {
        self.magazines.iter().map(|magazine| magazine.len.swap(LOCKED, Relaxed)).collect()
    }
}

impl Magazine {
    /// Gives a magazine back that was locked at a length, unless its owner has done so.
    fn unlock(&self, len: u32) {
        // Relaxed: nothing was taken.
        let _owners = self.len.compare_exchange(LOCKED, len, Relaxed, Relaxed);
    }

    /// Takes all blocks of a magazine that was locked at a length, unless its owner has used it
    /// since.
    fn take_locked(&self, len: u32) -> ([u64; ITEMS as usize], usize) {
        let mut taken = [0; ITEMS as usize];
        if self.len.load(Relaxed) != LOCKED {
            return (taken, 0);
        }
        let count = len.min(ITEMS) as usize;
        for (block, item) in taken.iter_mut().zip(&self.items[..count]) {
            *block = item.load(Relaxed);
        }
        // Release: pairs with the Acquire of the owner's next look at the length.
        self.len.store(0, Release);
        (taken, count)
    }
}
