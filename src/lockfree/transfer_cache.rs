//! A transfer cache: small batches of numbers that one thread leaves for another, as a whole.
//!
//! That of [tcmalloc](https://google.github.io/tcmalloc/design.html), without its lock: a few
//! places for each kind, each with room for one batch. Where one thread allocates what another
//! frees, a batch goes from one core to the other in two cache lines, instead of block by block
//! through state words and bitmaps. A thread leaves its batches in one of the places, and looks
//! there first: threads that free what they allocate do not wait for each other's lines.
//!
//! ```text
//!   word     | items + 2, or 0: nothing here, or 1: being written or read |
//!   items    | number 0 | ... | number 14 |             128 bytes with the word
//!
//!            put: CAS               Release
//!   Empty -------------> Busy ----------------> Full
//!     ^                   | ^                    |
//!     +-------------------+ +--------------------+
//!           Release               take: CAS
//! ```
//!
//! * `word`: written by `put`, `take`; read by both, statistics. The `Release` that ends a
//!   `put` pairs with the `Acquire` of `take`: the items are seen; the one that ends a `take` pairs
//!   with the `Acquire` of `put`: the items were read before they are overwritten.
//! * `items`: written by the thread that made the word Busy; read by the same. Relaxed: ordered by
//!   `word`.
//!
//! A thread that stops while a place is busy keeps that place from the others, which go elsewhere.

use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Numbers in a batch, at most. Fewer in the models.
pub(crate) const MOST: usize = if cfg!(all(test, loom)) { 2 } else { 15 };

/// Places for batches of several kinds.
#[derive(Debug)]
pub(crate) struct TransferCache {
    batches: Box<[Batch]>,
    each: usize,
}

#[derive(Debug)]
#[repr(C, align(128))]
struct Batch {
    word: AtomicU64,
    items: [AtomicU64; MOST],
}

impl TransferCache {
    /// `each` places, all empty, for each of so many kinds.
    pub(crate) fn new(kinds: usize, each: usize) -> Self {
        Self { batches: (0..kinds * each).map(|_| Batch::new()).collect(), each }
    }

    /// Whether a batch of a kind would find a thread's place empty at this moment.
    pub(crate) fn has_place(&self, kind: usize, thread: usize) -> bool {
        self.place(kind, thread).word.load(Relaxed) == EMPTY
    }

    /// Leaves 1 to [`MOST`] numbers of a kind in a thread's place. Returns whether it was empty.
    pub(crate) fn put(&self, kind: usize, thread: usize, items: &[u64]) -> bool {
        self.place(kind, thread).put(items)
    }

    /// Takes the numbers of the batch of a kind in a thread's place. `put` gets them. Returns
    /// whether there was one.
    #[inline]
    pub(crate) fn take(&self, kind: usize, thread: usize, put: impl FnMut(u64)) -> bool {
        self.place(kind, thread).take(put)
    }

    /// As [`take`](Self::take), of any thread's place.
    #[inline]
    pub(crate) fn take_any(&self, kind: usize, mut put: impl FnMut(u64)) -> bool {
        self.of(kind).iter().any(|batch| batch.take(&mut put))
    }

    /// How many numbers of a kind lie here at this moment.
    pub(crate) fn count(&self, kind: usize) -> usize {
        self.of(kind).iter().map(|batch| len(batch.word.load(Relaxed)).unwrap_or(0)).sum()
    }

    fn place(&self, kind: usize, thread: usize) -> &Batch {
        &self.batches[kind * self.each + thread % self.each]
    }

    fn of(&self, kind: usize) -> &[Batch] {
        &self.batches[kind * self.each..(kind + 1) * self.each]
    }
}

impl Batch {
    fn new() -> Self {
        Self { word: AtomicU64::new(EMPTY), items: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    fn put(&self, items: &[u64]) -> bool {
        // Relaxed: the compare-and-swap decides. Acquire: pairs with the Release of `take`.
        if items.len() > MOST
            || self.word.load(Relaxed) != EMPTY
            || self.word.compare_exchange(EMPTY, BUSY, Acquire, Relaxed).is_err()
        {
            return false;
        }
        for (place, item) in self.items.iter().zip(items) {
            place.store(*item, Relaxed);
        }
        // Release: pairs with the Acquire of `take`.
        self.word.store(items.len() as u64 + FULL, Release);
        true
    }

    #[inline]
    fn take(&self, put: impl FnMut(u64)) -> bool {
        let word = self.word.load(Relaxed);
        let Some(len) = len(word) else { return false };
        // Acquire: pairs with the Release of `put`. The same length may be another batch by now,
        // and as good.
        if self.word.compare_exchange(word, BUSY, Acquire, Relaxed).is_err() {
            return false;
        }
        self.items[..len].iter().map(|item| item.load(Relaxed)).for_each(put);
        // Release: pairs with the Acquire of `put`.
        self.word.store(EMPTY, Release);
        true
    }
}

/// How many items a word says there are, if it does.
fn len(word: u64) -> Option<usize> {
    usize::try_from(word.checked_sub(FULL)?).ok().filter(|len| *len <= MOST)
}

const EMPTY: u64 = 0;
const BUSY: u64 = 1;
const FULL: u64 = 2;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn take(cache: &TransferCache, kind: usize, thread: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        assert_eq!(cache.take(kind, thread, |item| taken.push(item)), !taken.is_empty());
        taken
    }

    #[test]
    fn a_batch_is_taken_as_it_was_left() {
        let cache = TransferCache::new(3, 2);
        assert!(cache.put(1, 0, &[7, 8, 9]) && cache.put(1, 1, &[4]));
        assert!(!cache.put(1, 2, &[5]), "a batch lies in the thread's place");
        assert_eq!((cache.count(0), cache.count(1), cache.count(2)), (0, 4, 0));
        assert_eq!((take(&cache, 0, 0), take(&cache, 1, 0)), (vec![], vec![7, 8, 9]));
        assert!(!cache.put(1, 0, &[0; MOST + 1]), "more than a batch holds");
        assert!(cache.has_place(1, 0) && cache.put(1, 0, &[1; MOST]) && !cache.has_place(1, 0));
        assert_eq!(cache.count(1), MOST + 1);
    }

    #[test]
    fn a_thread_takes_its_own_batch_or_any() {
        let cache = TransferCache::new(1, 2);
        assert!(cache.put(0, 0, &[1]) && cache.put(0, 1, &[2]));
        assert_eq!((take(&cache, 0, 3), take(&cache, 0, 3)), (vec![2], vec![]));
        let mut taken = 0;
        assert!(cache.take_any(0, |item| taken = item) && !cache.take_any(0, |_| {}));
        assert_eq!(taken, 1);
    }
}
