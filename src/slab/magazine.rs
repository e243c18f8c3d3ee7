//! Magazines: blocks of one class that one thread took in advance, as ready-made addresses.
//!
//! The array caches of [Bonwick and
//! Adams](https://www.usenix.org/legacy/event/usenix01/full_papers/bonwick/bonwick.pdf) and of
//! jemalloc and tcmalloc.
//!
//! ```text
//!   Magazine   | len | limit | address 0 | ... | address 29 |      256 bytes
//! ```
//!
//! * `len`: written by the cache's one owner; read by owner, statistics. Relaxed: to others an
//!   estimate.
//! * all else: written by the cache's one owner; read by owner. Relaxed; a cache changes owner
//!   through a bitmap, which orders it.

#![expect(unsafe_code, reason = "a free checks the magazine's limit alone")]

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Addresses in a magazine: with the lengths, four cache lines. Fewer in the models.
pub(super) const ITEMS: u32 = if cfg!(all(test, loom)) { 4 } else { 30 };

/// Blocks that move at once between a magazine and the store, at most: half a magazine, as the
/// transfer cache holds of a class.
pub(super) const BATCH: u32 = ITEMS / 2;

/// The blocks of one class in a cache.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Magazine {
    pub(super) len: AtomicU32,
    /// At most [`ITEMS`]: set by [`set_limit`](Self::set_limit) alone.
    pub(super) limit: AtomicU32,
    pub(super) items: [AtomicU64; ITEMS as usize],
}

/// Blocks on their way out of a magazine: addresses, and how many they are.
pub(super) type Taken<const N: usize> = ([u64; N], usize);

impl Magazine {
    pub(super) fn new() -> Self {
        Self {
            len: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            items: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Sets how many blocks the magazine may hold: at most [`ITEMS`].
    pub(super) fn set_limit(&self, limit: u32) {
        self.limit.store(limit.min(ITEMS), Relaxed);
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

    /// Puts a block, if there is room. Returns whether there was.
    #[inline]
    pub(crate) fn push(&self, address: u64) -> bool {
        let len = self.len.load(Relaxed);
        if len >= self.limit.load(Relaxed) {
            return false;
        }
        // SAFETY: below the limit, which is no more than there are items.
        unsafe { self.items.get_unchecked(len as usize) }.store(address, Relaxed);
        self.len.store(len + 1, Relaxed);
        true
    }

    /// Whether the magazine may hold blocks.
    pub(super) fn is_open(&self) -> bool {
        self.limit.load(Relaxed) > 0
    }

    /// Takes a block for another class, if more than a quarter of what fits is here.
    pub(super) fn lend(&self) -> Option<u64> {
        let rich = self.len.load(Relaxed) > self.limit.load(Relaxed) / 4;
        rich.then(|| self.pop())?
    }

    /// How many blocks move at once, the caller's own among them: the magazine is half full then.
    pub(super) fn batch(&self) -> u32 {
        (self.limit.load(Relaxed) / 2 + 1).min(BATCH)
    }

    /// How many blocks go when there is no room for one more: a batch, or more after a batch of a
    /// thread whose magazines hold more.
    pub(super) fn surplus(&self) -> u32 {
        let above = (self.len.load(Relaxed) + 1).saturating_sub(self.limit.load(Relaxed));
        self.batch().max(above).min(BATCH)
    }

    /// Fills the empty magazine with what comes, but for the first block: the caller's.
    #[inline]
    pub(super) fn filling(&self) -> Filling<'_> {
        debug_assert_eq!(self.len.load(Relaxed), 0, "filled before it was empty");
        Filling { magazine: self, first: None, len: 0 }
    }

    /// Takes the `count` blocks that were put first, at most a batch.
    pub(super) fn take_oldest(&self, count: u32) -> Taken<{ BATCH as usize }> {
        let len = self.len.load(Relaxed).min(ITEMS);
        let count = count.min(len).min(BATCH);
        let mut taken = [0; BATCH as usize];
        if count == 0 {
            return (taken, 0);
        }
        for (taken, item) in taken.iter_mut().zip(&self.items[..count as usize]) {
            *taken = item.load(Relaxed);
        }
        for at in count as usize..len as usize {
            self.items[at - count as usize].store(self.items[at].load(Relaxed), Relaxed);
        }
        self.len.store(len - count, Relaxed);
        (taken, count as usize)
    }

    /// Takes one address more than fits, and gives a batch of the highest, in order; the lowest are
    /// on top then.
    pub(super) fn trade_highest(&self, address: u64) -> Taken<{ ITEMS as usize + 1 }> {
        let len = self.len.load(Relaxed).min(ITEMS);
        let mut all = [0; ITEMS as usize + 1];
        for (slot, item) in all.iter_mut().zip(&self.items[..len as usize]) {
            *slot = item.load(Relaxed);
        }
        let count = len + 1;
        all[len as usize] = address;
        all[..count as usize].sort_unstable();
        let kept = count - self.surplus().min(count);
        // Highest first: the next allocation takes the lowest.
        for (item, address) in self.items.iter().zip(all[..kept as usize].iter().rev()) {
            item.store(*address, Relaxed);
        }
        self.len.store(kept, Relaxed);
        all.copy_within(kept as usize..count as usize, 0);
        (all, (count - kept) as usize)
    }
}

/// Blocks on their way into an empty magazine.
#[derive(Debug)]
#[must_use]
pub(super) struct Filling<'a> {
    magazine: &'a Magazine,
    first: Option<u64>,
    len: u32,
}

impl Filling<'_> {
    /// Puts one of at most [`ITEMS`] blocks.
    #[inline]
    pub(super) fn put(&mut self, address: u64) {
        if self.first.is_none() {
            self.first = Some(address);
        } else if let Some(item) = self.magazine.items.get(self.len as usize) {
            item.store(address, Relaxed);
            self.len += 1;
        }
    }

    /// Ends it. Returns the first block.
    #[inline]
    pub(super) fn end(self) -> Option<u64> {
        self.magazine.len.store(self.len, Relaxed);
        self.first
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_magazine_of_large_blocks_loses_its_highest() {
        let magazine = Magazine::new();
        magazine.set_limit(4);
        assert!([5, 3, 9, 1].into_iter().all(|address| magazine.push(address)));
        let (highest, count) = magazine.trade_highest(7);
        assert_eq!(highest[..count], [5, 7, 9]);
        assert_eq!((magazine.pop(), magazine.pop(), magazine.pop()), (Some(1), Some(3), None));
        // Where one fits, the higher of two goes.
        magazine.set_limit(1);
        assert!(magazine.push(6));
        let (highest, count) = magazine.trade_highest(8);
        assert_eq!((&highest[..count], magazine.pop()), (&[8][..], Some(6)));
    }

    #[test]
    fn a_magazine_takes_a_batch_of_one_that_holds_more_and_has_room_again() {
        let magazine = Magazine::new();
        magazine.set_limit(1);
        let mut filling = magazine.filling();
        (1..=u64::from(BATCH)).for_each(|address| filling.put(address));
        assert_eq!(filling.end(), Some(1));
        let (_, count) = magazine.take_oldest(magazine.surplus());
        assert_eq!(count, BATCH as usize - 1);
        assert!(magazine.push(99) && !magazine.push(100));
        magazine.set_limit(2);
        assert_eq!(magazine.trade_highest(7).1, 2);
    }

    #[test]
    fn a_magazine_is_a_stack_that_loses_its_oldest() {
        let magazine = Magazine::new();
        assert!(!magazine.push(1));
        magazine.set_limit(4);
        assert!((1..=4).all(|address| magazine.push(address)));
        assert!(!magazine.push(5));
        let (oldest, count) = magazine.take_oldest(magazine.batch());
        assert_eq!(oldest[..count], [1, 2, 3]);
        assert_eq!((magazine.pop(), magazine.pop()), (Some(4), None));
    }
}
