//! Caches: the magazines of one owner, between its allocations and the store.
//!
//! The bitmaps of a [`Store`] take the place of a depot of full magazines: blocks come in batches
//! of up to 15, lowest address first. A batch that spills is left in the thread's place of the
//! transfer cache for whichever thread misses next; if one lies there already, the blocks go to
//! their slabs, of large ones the highest, so a slab can become empty again.
//!
//! ```text
//!   Cache      | magazine of class 0 | class 1 | ... | class 43 | preferred slab of each class
//! ```
//!
//! * all: written by the cache's one owner; read by owner. Relaxed; a cache changes owner through a
//!   bitmap, which orders it.

use super::error::AllocError;
use super::magazine::{BATCH, ITEMS, Magazine};
use super::number::{NO_SLICE, SliceId};
use super::recall::RecallState;
use super::size_class::{SizeClass, block_size};
use super::store::{CACHED_CLASSES, Reserved, Store};
use crate::memory::MemoryResource;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// All magazines of one owner in one pool.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Cache {
    pub(crate) magazines: [Magazine; CACHED_CLASSES],
    /// The slab of each class that the owner used last; [`NO_SLICE`] if there is none.
    pub(super) preferred: [AtomicU32; SizeClass::COUNT],
    pub(super) recall: RecallState,
    /// Which place of the transfer cache is the owner's.
    pub(super) number: usize,
}

/// Which blocks and slabs a thread stays with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// The slab that it used last, and the blocks that it freed last: for small blocks it matters
    /// most that threads stay out of each other's words.
    Local,
    /// The lowest, so that the highest slabs become empty: large blocks are most of the memory.
    Lowest,
}

/// A block on its way to the caller: address and class.
pub(crate) type Fresh = (u64, SizeClass);

impl Cache {
    /// An empty cache that holds nothing until [`configure`](Self::configure).
    pub(crate) fn new(number: usize) -> Self {
        Self {
            magazines: std::array::from_fn(|_| Magazine::new()),
            preferred: std::array::from_fn(|_| AtomicU32::new(NO_SLICE)),
            recall: RecallState::new(),
            number,
        }
    }

    /// Sets the limits for caches of at most `bytes`.
    pub(crate) fn configure(&self, bytes: usize) {
        for (limit, magazine) in limits(bytes).into_iter().zip(&self.magazines) {
            magazine.set_limit(limit);
        }
        for preferred in &self.preferred {
            preferred.store(NO_SLICE, Relaxed);
        }
    }

    /// Bytes in the magazines at this moment.
    pub(crate) fn bytes(&self) -> usize {
        self.counts().map(|(class, len)| class.block_size() * len).sum()
    }

    /// Blocks of each class in the magazines at this moment.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (SizeClass, usize)> {
        SizeClass::all()
            .zip(&self.magazines)
            .map(|(class, mag)| (class, mag.len.load(Relaxed) as usize))
    }

    /// Gets a block for the caller, of a class whose magazine is empty, from what needs no search:
    /// a larger block that is cached, or a batch of the transfer cache.
    #[inline]
    pub(crate) fn refill_near<R>(&self, store: &Store<R>, class: SizeClass) -> Option<Fresh>
    where
        R: MemoryResource,
    {
        if self.is_open() && self.recall.note_miss(&store.recalls) {
            self.flush(store);
        }
        let (transfer, kind) = (&store.transfer_cache, class.index());
        let mut filling = self.magazine(class)?.filling();
        if !transfer.take(kind, self.number, |address| filling.put(address)) {
            if let Some(fresh) = self.stand_in(class) {
                return Some(fresh);
            }
            transfer.take_any(kind, |address| filling.put(address));
        }
        Some((filling.end()?, class))
    }

    /// Gets a block for the caller, and a batch of others for the magazine, which is empty, from
    /// the store.
    pub(crate) fn refill<R: MemoryResource>(
        &self,
        store: &Store<R>,
        class: SizeClass,
    ) -> Result<Fresh, AllocError> {
        let Some(magazine) = self.magazine(class) else {
            let reserved = self.reserve(store, class, 1)?;
            return Ok((store.collect_one(reserved), reserved.class));
        };
        let reserved = self.reserve(store, class, magazine.batch())?;
        // Of a larger class that stands in there is one.
        let mut filling = magazine.filling();
        store.collect(reserved, |address| filling.put(address));
        Ok((filling.end().unwrap_or(0), reserved.class))
    }

    /// A cached block of up to a quarter more, for a class whose blocks are runs of their own:
    /// their magazines are short, and other such blocks lie in a map under a lock. A magazine that
    /// is nearly empty lends none: it would be the next to miss.
    fn stand_in(&self, class: SizeClass) -> Option<Fresh> {
        if class.index() < SizeClass::SHARED {
            return None;
        }
        let longest = class.block_size() / 4 * 5;
        std::iter::successors(class.next(), |class| class.next())
            .take_while(|larger| larger.block_size() <= longest)
            .find_map(|larger| Some((self.magazines.get(larger.index())?.lend()?, larger)))
    }

    /// Reserves up to `want` blocks: of the slab that the owner used last, where blocks are small,
    /// else of the lowest with room, else of a new one.
    fn reserve<R: MemoryResource>(
        &self,
        store: &Store<R>,
        class: SizeClass,
        want: u32,
    ) -> Result<Reserved, AllocError> {
        let preferred = &self.preferred[class.index()];
        let reserved = match store.reserve(class, want, SliceId::from_word(preferred.load(Relaxed)))
        {
            Some(reserved) => reserved,
            None => store.acquire(class, want, || self.flush_before_growth(store))?,
        };
        // What stood in for the class is no slab of it. A cache that holds nothing may be that of
        // every pool without caches, and a slab is one of this pool.
        if self.is_open() && reserved.class == class && Placement::of(class) == Placement::Local {
            preferred.store(reserved.head.word(), Relaxed);
        }
        Ok(reserved)
    }

    /// Frees what the cache holds, before a pool that had stopped growing grows for its owner.
    /// Returns whether it did.
    pub(crate) fn flush_before_growth<R: MemoryResource>(&self, store: &Store<R>) -> bool {
        let due = self.is_open() && self.recall.request(&store.recalls);
        if due {
            self.flush(store);
            store.flush_transfer_cache();
        }
        due
    }

    /// Whether the cache may hold blocks. One that may not may be shared by many threads.
    fn is_open(&self) -> bool {
        self.magazines[0].is_open()
    }

    /// The magazine for a class, if it may hold blocks.
    fn magazine(&self, class: SizeClass) -> Option<&Magazine> {
        self.magazines.get(class.index()).filter(|magazine| magazine.is_open())
    }

    /// Takes a block for which its magazine has no room. Half a magazine goes: the oldest to the
    /// transfer cache, if its place is empty; else to the slabs, of small blocks the oldest, of
    /// large ones the highest.
    pub(crate) fn spill<R: MemoryResource>(
        &self,
        store: &Store<R>,
        class: SizeClass,
        address: u64,
    ) {
        let Some(magazine) = self.magazine(class) else {
            let (head, index) = store.block_of(class, address);
            return store.free_one(head, index);
        };
        let kind = class.index();
        if Placement::of(class) == Placement::Lowest
            && !store.transfer_cache.has_place(kind, self.number)
        {
            let (highest, count) = magazine.trade_highest(address);
            return store.free_sorted(class, &highest[..count]);
        }
        let (mut oldest, count) = magazine.take_oldest(magazine.surplus());
        if !store.transfer_cache.put(kind, self.number, &oldest[..count]) {
            store.free_batch(class, &mut oldest[..count]);
        }
        let pushed = magazine.push(address);
        debug_assert!(pushed, "the magazine has just lost its older half");
    }

    /// Frees everything in the magazines.
    pub(crate) fn flush<R: MemoryResource>(&self, store: &Store<R>) {
        for (class, magazine) in SizeClass::all().zip(&self.magazines) {
            loop {
                let (mut some, count) = magazine.take_oldest(BATCH);
                if count == 0 {
                    break;
                }
                store.free_batch(class, &mut some[..count]);
            }
        }
    }

    /// Forgets everything: the store is gone, or has dropped the blocks itself.
    pub(crate) fn clear(&self) {
        for magazine in &self.magazines {
            magazine.len.store(0, Relaxed);
            magazine.set_limit(0);
        }
    }
}

impl Placement {
    fn of(class: SizeClass) -> Self {
        if class.block_size() <= LARGEST_LOCAL { Self::Local } else { Self::Lowest }
    }
}

/// The largest blocks that are placed locally.
const LARGEST_LOCAL: usize = if cfg!(all(test, loom)) { 512 } else { 16 << 10 };

/// The capacity of the magazine of each class, for caches of at most `bytes`.
///
/// A magazine that is refilled and spilled to its half misses about every `(limit / 2 + 1)^2`
/// operations, the time a random walk takes to leave it. For a given number of cached bytes, all
/// magazines together miss least if `limit + 2` is proportional to 1 / size^(1/3).
fn limits(bytes: usize) -> [u32; CACHED_CLASSES] {
    let limits = |scale: u32| -> [u32; CACHED_CLASSES] {
        std::array::from_fn(|class| {
            (scale * WEIGHTS[class] / (UNIT * UNIT)).saturating_sub(2).min(ITEMS)
        })
    };
    let fits = |scale: u32| {
        let sizes = SizeClass::all().map(SizeClass::block_size);
        sizes.zip(limits(scale)).map(|(size, limit)| size * limit as usize).sum::<usize>() <= bytes
    };
    // The largest scale that fits: all below it do.
    let (mut fitting, mut above) = (0, UNIT * (ITEMS + 2) + 1);
    while fitting + 1 < above {
        let middle = fitting.midpoint(above);
        if fits(middle) { fitting = middle } else { above = middle }
    }
    limits(fitting)
}

/// The weight of the largest class with magazines.
const UNIT: u32 = 64;

/// The ratio of the limits of classes: 1 / size^(1/3), in units of the largest class's 64th.
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
        let limits = limits(24 << 20);
        assert!(limits.is_sorted_by(|smaller, larger| smaller >= larger), "{limits:?}");
        assert!(limits[0] == ITEMS && limits[CACHED_CLASSES - 1] > 0, "{limits:?}");
    }
}
