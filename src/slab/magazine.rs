//! Magazines: blocks that one thread took in advance, as ready-made addresses.
//!
//! The array caches of [Bonwick and Adams](https://www.usenix.org/legacy/event/usenix01/full_papers/bonwick/bonwick.pdf)
//! and of jemalloc and tcmalloc, over the bitmaps of a [`Store`] instead of a depot: blocks come
//! in batches of up to 15, lowest address first. A batch that spills is left as a parcel for whichever thread misses
//! next; if one lies there already, the blocks go to their slabs, of large ones the highest, so a slab can become
//! empty again.
//!
//! ```text
//!   Cache      | magazine of class 0 | class 1 | ... | class 43 | preferred slab of each class
//!   Magazine   | len | limit | address 0 | ... | address 29 |      256 bytes
//! ```
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `len` | the cache's one owner | owner, statistics | Relaxed: to others an estimate |
//! | all else | the cache's one owner | owner | Relaxed; a cache changes owner through a bitmap, which orders it |

use super::error::AllocError;
use super::recall::Heard;
use super::size_class::{SizeClass, block_size};
use super::store::{CACHED_CLASSES, Store};
use crate::lockfree::parcels;
use crate::memory::MemoryResource;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Addresses in a magazine: with the lengths, four cache lines. Fewer in the models.
const ITEMS: usize = if cfg!(all(test, loom)) { 4 } else { 30 };

/// Blocks that move at once between a magazine and the store, at most: half a magazine, as a parcel holds.
const BATCH: usize = ITEMS / 2;

/// The blocks of one class in a cache.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Magazine {
    pub(super) len: AtomicU32,
    pub(super) limit: AtomicU32,
    pub(super) items: [AtomicU64; ITEMS],
}

/// All magazines of one owner in one pool.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Cache {
    pub(crate) magazines: [Magazine; CACHED_CLASSES],
    pub(super) preferred: [AtomicU32; SizeClass::COUNT],
    pub(super) heard: Heard,
}

/// A block on its way to the caller: address and class.
pub(crate) type Fresh = (u64, SizeClass);

impl Magazine {
    pub(super) fn new() -> Self {
        Self {
            len: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            items: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Takes the block that was put last.
    #[inline]
    pub(crate) fn pop(&self) -> Option<u64> {
        let len = self.len.load(Relaxed);
        // One comparison finds both an empty magazine and the end of the array.
        let top = len.wrapping_sub(1);
        let address = self.items.get(top as usize)?.load(Relaxed);
        self.len.store(top, Relaxed);
        Some(address)
    }

    /// Puts a block, if there is room.
    #[inline]
    pub(crate) fn push(&self, address: u64) -> bool {
        let len = self.len.load(Relaxed);
        if len >= self.limit.load(Relaxed) {
            return false;
        }
        let Some(item) = self.items.get(len as usize) else { return false };
        item.store(address, Relaxed);
        self.len.store(len + 1, Relaxed);
        true
    }

    /// How many blocks move at once, the caller's own among them: the magazine is half full then.
    fn batch(&self) -> usize {
        (self.limit.load(Relaxed) as usize / 2 + 1).min(BATCH)
    }

    /// Puts the blocks of a parcel into the empty magazine, but for one: the caller's.
    fn unpack(&self, (blocks, count): ([u64; parcels::MOST], usize)) -> Option<u64> {
        let (first, others) = blocks[..count].split_first()?;
        for (item, block) in self.items.iter().zip(others) {
            item.store(*block, Relaxed);
        }
        self.len.store(u32::try_from(others.len()).unwrap_or(0), Relaxed);
        Some(*first)
    }

    /// Takes the `count` blocks that were put first, at most a batch.
    fn take_oldest(&self, count: usize) -> ([usize; BATCH], usize) {
        let len = (self.len.load(Relaxed) as usize).min(ITEMS);
        let count = count.min(len).min(BATCH);
        let mut taken = [0; BATCH];
        if count == 0 {
            return (taken, 0);
        }
        for (taken, item) in taken.iter_mut().zip(&self.items[..count]) {
            *taken = usize::try_from(item.load(Relaxed)).unwrap_or(usize::MAX);
        }
        for at in count..len {
            self.items[at - count].store(self.items[at].load(Relaxed), Relaxed);
        }
        self.len.store(u32::try_from(len - count).unwrap_or(0), Relaxed);
        (taken, count)
    }

    /// Takes one address more than fits, and gives a batch of the highest, in order; the lowest are
    /// on top then.
    fn trade_highest(&self, address: u64) -> ([usize; ITEMS + 1], usize) {
        let len = (self.len.load(Relaxed) as usize).min(ITEMS);
        let mut all = [0; ITEMS + 1];
        for (slot, item) in all.iter_mut().zip(&self.items[..len]) {
            *slot = usize::try_from(item.load(Relaxed)).unwrap_or(usize::MAX);
        }
        all[len] = usize::try_from(address).unwrap_or(usize::MAX);
        all[..=len].sort_unstable();
        let kept = len + 1 - self.batch().min(len + 1);
        for (item, address) in self.items.iter().zip(all[..kept].iter().rev()) {
            item.store(*address as u64, Relaxed);
        }
        self.len.store(u32::try_from(kept).unwrap_or(0), Relaxed);
        all.copy_within(kept..=len, 0);
        (all, len + 1 - kept)
    }
}

impl Cache {
    /// An empty cache that holds nothing until [`configure`](Self::configure).
    pub(crate) fn new() -> Self {
        Self {
            magazines: std::array::from_fn(|_| Magazine::new()),
            preferred: std::array::from_fn(|_| AtomicU32::new(NO_SLAB)),
            heard: Heard::new(),
        }
    }

    /// Sets the limits for caches of at most `bytes`.
    pub(crate) fn configure(&self, bytes: usize) {
        for (limit, magazine) in limits(bytes).into_iter().zip(&self.magazines) {
            magazine.limit.store(limit, Relaxed);
        }
        for preferred in &self.preferred {
            preferred.store(NO_SLAB, Relaxed);
        }
    }

    /// Bytes in the magazines at this moment.
    pub(crate) fn bytes(&self) -> usize {
        self.counts().map(|(class, len)| class.block_size() * len).sum()
    }

    /// Blocks of each class in the magazines at this moment.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (SizeClass, usize)> {
        SizeClass::all().zip(&self.magazines).map(|(class, mag)| (class, mag.len.load(Relaxed) as usize))
    }

    /// Gets a block from the store, and a batch of others for the magazine.
    pub(crate) fn refill<R: MemoryResource>(
        &self,
        store: &Store<R>,
        class: SizeClass,
    ) -> Result<Fresh, AllocError> {
        if self.keeps() && self.heard.miss(&store.recalls) {
            self.drain(store);
        }
        let magazine = self.magazines.get(class.index()).filter(|magazine| magazine.limit.load(Relaxed) > 0);
        if let Some(magazine) = magazine
            && let Some(address) = magazine.unpack(store.parcels.take(class.index()))
        {
            return Ok((address, class));
        }
        let want = magazine.map_or(1, |magazine| u32::try_from(magazine.batch()).unwrap_or(1));
        let preferred = &self.preferred[class.index()];
        let reserved = match store.reserve(class, want, preferred.load(Relaxed) as usize) {
            Some(reserved) => reserved,
            None => store.acquire(class, want, || self.recall(store))?,
        };
        // The lowest address goes to the caller, the others into the magazine, which is empty.
        let (mut first, mut taken) = (0, 0_usize);
        store.collect(reserved, |address| {
            match taken.checked_sub(1).and_then(|at| magazine?.items.get(at)) {
                Some(item) => item.store(address as u64, Relaxed),
                None => first = address as u64,
            }
            taken += 1;
        });
        if taken > 1
            && let Some(magazine) = magazine
        {
            magazine.len.store(u32::try_from(taken - 1).unwrap_or(0), Relaxed);
        }
        // Large blocks always go to the lowest slab with room, so that the highest become empty;
        // for small ones it matters more that threads stay out of each other's words.
        if reserved.class == class && class.block_size() <= PREFERRING {
            preferred.store(u32::try_from(reserved.head).unwrap_or(NO_SLAB), Relaxed);
        }
        Ok((first, reserved.class))
    }

    /// Gives back what the cache keeps, before a pool that had stopped growing grows for its owner; whether
    /// it did.
    pub(crate) fn recall<R: MemoryResource>(&self, store: &Store<R>) -> bool {
        let due = self.keeps() && self.heard.before_growth(&store.recalls);
        if due {
            self.drain(store);
            store.unpack();
        }
        due
    }

    /// Whether the cache may keep anything; one that may not may be everybody's.
    fn keeps(&self) -> bool {
        self.magazines[0].limit.load(Relaxed) > 0
    }

    /// Takes a block for which its magazine has no room. Half a magazine goes: the oldest as a parcel, if its
    /// place is empty; else to the slabs, of small blocks the oldest, of large ones the highest, so that high
    /// slabs become empty.
    pub(crate) fn spill<R: MemoryResource>(&self, store: &Store<R>, class: SizeClass, address: u64) {
        match self.magazines.get(class.index()).filter(|magazine| magazine.limit.load(Relaxed) > 0) {
            Some(magazine) if class.block_size() <= PREFERRING || store.parcels.has_place(class.index()) => {
                let (mut oldest, count) = magazine.take_oldest(magazine.batch());
                if !store.parcels.put(class.index(), &oldest[..count]) {
                    store.give(class, &mut oldest[..count]);
                }
                let pushed = magazine.push(address);
                debug_assert!(pushed, "the magazine has just lost its older half");
            }
            Some(magazine) => {
                let (highest, count) = magazine.trade_highest(address);
                store.give_sorted(class, &highest[..count]);
            }
            None => {
                let (head, index) = store.block_of(class, usize::try_from(address).unwrap_or(usize::MAX));
                store.give_one(head, index);
            }
        }
    }

    /// Gives everything back to the store.
    pub(crate) fn drain<R: MemoryResource>(&self, store: &Store<R>) {
        for (class, magazine) in SizeClass::all().zip(&self.magazines) {
            loop {
                let (mut some, count) = magazine.take_oldest(BATCH);
                if count == 0 {
                    break;
                }
                store.give(class, &mut some[..count]);
            }
        }
    }

    /// Forgets everything: the store is gone, or has dropped the blocks itself.
    pub(crate) fn clear(&self) {
        for magazine in &self.magazines {
            magazine.len.store(0, Relaxed);
            magazine.limit.store(0, Relaxed);
        }
    }
}

/// The largest blocks for which a thread stays with the slab it used last, and with the blocks.
const PREFERRING: usize = if cfg!(all(test, loom)) { 512 } else { 16 << 10 };

/// No slab is preferred.
pub(super) const NO_SLAB: u32 = u32::MAX;

/// How many blocks of each class a cache of at most `bytes` holds.
///
/// A magazine that is refilled and spilled to its half misses about every `(limit / 2 + 1)^2`
/// operations, the time a random walk takes to leave it. For a given sum of bytes, all magazines
/// together miss least if `limit + 2` goes with the cube root of 1 / size.
fn limits(bytes: usize) -> [u32; CACHED_CLASSES] {
    let limits = |scale: u32| -> [u32; CACHED_CLASSES] {
        std::array::from_fn(|class| (scale * WEIGHTS[class] / (UNIT * UNIT)).saturating_sub(2).min(MOST))
    };
    let fits = |scale: u32| {
        let sizes = SizeClass::all().map(SizeClass::block_size);
        sizes.zip(limits(scale)).map(|(size, limit)| size * limit as usize).sum::<usize>() <= bytes
    };
    // The largest scale that fits: all below it do.
    let (mut fitting, mut above) = (0, UNIT * (MOST + 2) + 1);
    while fitting + 1 < above {
        let middle = fitting.midpoint(above);
        if fits(middle) { fitting = middle } else { above = middle }
    }
    limits(fitting)
}

/// [`ITEMS`] as the type of a limit.
const MOST: u32 = if cfg!(all(test, loom)) { 4 } else { 30 };

/// The weight of the largest class with magazines.
const UNIT: u32 = 64;

/// How the limits of classes are to each other: cube roots of 1 / size.
static WEIGHTS: [u32; CACHED_CLASSES] = {
    let mut weights = [0; CACHED_CLASSES];
    let mut class = 0;
    while class < weights.len() {
        let (largest, size) = (block_size(CACHED_CLASSES - 1), block_size(class));
        let cube = (UNIT as u64).pow(3) * largest as u64 / size as u64;
        let mut root = UNIT;
        while (root as u64 + 1).pow(3) <= cube {
            root += 1;
        }
        weights[class] = root;
        class += 1;
    }
    weights
};

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_bounded_in_bytes() {
        for bytes in [0, 1 << 20, 3 << 20, 8 << 20, 16 << 20] {
            let cached: usize = SizeClass::all()
                .take(CACHED_CLASSES)
                .zip(limits(bytes))
                .map(|(class, limit)| class.block_size() * limit as usize)
                .sum();
            assert!(cached <= bytes, "{cached} of {bytes}");
        }
        assert_eq!(SizeClass::of(1 << 20).map(SizeClass::index), Some(CACHED_CLASSES - 1));
        // As much of the bytes as goes: one block more of the largest class would be too many.
        let limits = limits(14 << 20);
        assert!(limits.is_sorted_by(|smaller, larger| smaller >= larger), "{limits:?}");
        assert!(limits[0] == MOST && limits[CACHED_CLASSES - 1] > 0, "{limits:?}");
    }

    #[test]
    fn a_magazine_of_large_blocks_loses_its_highest() {
        let magazine = Magazine::new();
        magazine.limit.store(4, Relaxed);
        assert!([5, 3, 9, 1].into_iter().all(|address| magazine.push(address)));
        let (highest, count) = magazine.trade_highest(7);
        assert_eq!(highest[..count], [5, 7, 9]);
        assert_eq!((magazine.pop(), magazine.pop(), magazine.pop()), (Some(1), Some(3), None));
        // Where one fits, the higher of two goes.
        magazine.limit.store(1, Relaxed);
        assert!(magazine.push(6));
        let (highest, count) = magazine.trade_highest(8);
        assert_eq!((&highest[..count], magazine.pop()), (&[8][..], Some(6)));
    }

    #[test]
    fn a_magazine_is_a_stack_that_loses_its_oldest() {
        let magazine = Magazine::new();
        assert!(!magazine.push(1));
        magazine.limit.store(4, Relaxed);
        assert!((1..=4).all(|address| magazine.push(address)));
        assert!(!magazine.push(5));
        let (oldest, count) = magazine.take_oldest(magazine.batch());
        assert_eq!(oldest[..count], [1, 2, 3]);
        assert_eq!((magazine.pop(), magazine.pop()), (Some(4), None));
    }
}
