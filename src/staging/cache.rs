//! Executable graphs, kept by ring slot and bucket, bounded for all ring slots together.
//!
//! A ring slot's graphs belong to the holder of the slot's claim, so using one needs no atomics;
//! only the account is shared. When it is full, the least recently used graph of this slot is
//! evicted, then one of a free slot; if there is none, the step goes without a graph.
//!
//! ```text
//!    63            40 39                             0
//!   +----------------+--------------------------------+
//!   |     count      |             bytes              |   the account
//!   +----------------+--------------------------------+
//! ```
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | account | `take`, `give` | `take` | all `Relaxed`: it guards no data, only a sum |

use std::convert::Infallible;

use super::ring::{Claim, Ring};
use crate::address::to_usize;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::try_update;

/// How many graphs there may be, and of what size.
#[derive(Debug)]
pub(crate) struct Account {
    word: AtomicU64,
    max_count: u64,
    max_bytes: u64,
}

impl Account {
    pub(crate) fn new(max_count: usize, max_bytes: usize) -> Self {
        let clamp = |value: usize, max: u64| (value as u64).min(max);
        Self {
            word: AtomicU64::new(0),
            max_count: clamp(max_count, u64::MAX >> COUNT_SHIFT),
            max_bytes: clamp(max_bytes, BYTES_MASK),
        }
    }

    /// Counts a graph of so many bytes, if there is room.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let taken = try_update(&self.word, Relaxed, |word| {
            let (count, sum) = ((word >> COUNT_SHIFT) + 1, (word & BYTES_MASK) + bytes);
            if count <= self.max_count && sum <= self.max_bytes {
                Ok(count << COUNT_SHIFT | sum)
            } else {
                Err(())
            }
        });
        taken.is_ok()
    }

    /// Counts a graph no more.
    pub(crate) fn give(&self, bytes: u64) {
        self.word.fetch_sub(1 << COUNT_SHIFT | bytes, Relaxed);
    }

    /// How many graphs there are, and their bytes.
    pub(crate) fn used(&self) -> (usize, usize) {
        let word = self.word.load(Relaxed);
        let number = to_usize;
        (number(word >> COUNT_SHIFT), number(word & BYTES_MASK))
    }
}

/// The graphs of one ring slot.
#[derive(Debug)]
pub(crate) struct Cache<E> {
    entries: Box<[Option<Entry<E>>]>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry<E> {
    exec: E,
    bytes: u64,
    used: u64,
}

impl<E> Cache<E> {
    /// For so many buckets.
    pub(crate) fn new(buckets: usize) -> Self {
        Self { entries: (0..buckets).map(|_| None).collect(), clock: 0 }
    }

    /// The graph of a bucket, if there is one, which counts as a use.
    #[inline]
    pub(crate) fn get(&mut self, bucket: usize) -> Option<&mut E> {
        let entry = self.entries.get_mut(bucket)?.as_mut()?;
        self.clock += 1;
        entry.used = self.clock;
        Some(&mut entry.exec)
    }

    /// Whether there is a graph of a bucket.
    pub(crate) fn has(&self, bucket: usize) -> bool {
        self.entries.get(bucket).is_some_and(Option::is_some)
    }

    /// Keeps a graph of which the account knows.
    pub(crate) fn put(&mut self, bucket: usize, exec: E, bytes: u64) {
        self.clock += 1;
        self.entries[bucket] = Some(Entry { exec, bytes, used: self.clock });
    }

    /// Takes out the graph of a bucket, if there is one.
    pub(crate) fn remove(&mut self, bucket: usize, account: &Account) -> Option<E> {
        let Entry { exec, bytes, .. } = self.entries.get_mut(bucket)?.take()?;
        account.give(bytes);
        Some(exec)
    }

    /// Takes out the least recently used graph.
    pub(crate) fn evict(&mut self, account: &Account) -> Option<E> {
        let used = |index: &usize| self.entries[*index].as_ref().map(|entry| entry.used);
        let oldest =
            (0..self.entries.len()).filter(|index| used(index).is_some()).min_by_key(used)?;
        let Entry { exec, bytes, .. } = self.entries[oldest].take()?;
        account.give(bytes);
        Some(exec)
    }
}

/// Makes room for a graph of `bytes`, by evictions if need be: from the claimed slot, then from
/// slots that are free, or of which `is_done` says that the device has read them. Returns whether
/// there is room, which is then taken.
pub(crate) fn make_room<T, O, E>(
    account: &Account,
    bytes: u64,
    own: &mut Claim<'_, T, O>,
    ring: &Ring<T, O>,
    is_done: impl Fn(usize) -> bool,
    cache: impl Fn(&mut T) -> &mut Cache<E>,
) -> bool {
    while !account.take(bytes) {
        // The own slot first: evicting elsewhere needs a claim.
        if cache(own).evict(account).is_some() {
            continue;
        }
        let is_done = |index| Ok::<_, Infallible>(is_done(index));
        let mut others =
            (0..ring.len()).filter_map(|index| ring.claim_at(index, is_done).ok().flatten());
        if !others.any(|mut other| cache(&mut other).evict(account).is_some()) {
            return false;
        }
    }
    true
}

const COUNT_SHIFT: u32 = 40;
const BYTES_MASK: u64 = (1 << COUNT_SHIFT) - 1;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes() {
        let account = Account::new(2, 100);
        let ring = Ring::new([Cache::new(4), Cache::new(4)], |_| ());
        let claim = |index| ring.claim_at(index, |_| Ok::<_, ()>(false)).unwrap().unwrap();
        let mut first = claim(0);
        for bucket in [0, 1] {
            assert!(make_room(&account, 10, &mut first, &ring, |_| false, |cache| cache));
            first.put(bucket, bucket, 10);
        }
        assert_eq!(first.get(0), Some(&mut 0));
        assert!(make_room(&account, 10, &mut first, &ring, |_| false, |cache| cache));
        first.put(2, 2, 10);
        assert_eq!((first.has(0), first.has(1), first.has(2)), (true, false, true));
        drop(first);
        let mut second = claim(1);
        assert!(make_room(&account, 10, &mut second, &ring, |_| false, |cache| cache));
        second.put(0, 9, 10);
        assert_eq!(account.used(), (2, 20));
        assert!(!make_room(&account, 101, &mut second, &ring, |_| false, |cache| cache));
        assert_eq!(account.used(), (0, 0));
    }
}
