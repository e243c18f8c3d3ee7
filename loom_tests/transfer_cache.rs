//! The transfer cache: a batch has one owner, and is taken as it was left.

use super::{Guarded, model};
use crate::lockfree::transfer_cache::TransferCache;
use loom::sync::Arc;
use loom::thread;

struct Shared {
    cache: TransferCache,
    /// What each number in a batch stands for.
    items: Guarded,
}

impl Shared {
    fn new(items: usize) -> Arc<Self> {
        Arc::new(Self { cache: TransferCache::new(1, 1), items: Guarded::new(items) })
    }

    /// Uses numbers that are the caller's, and leaves them. Returns whether there was room.
    fn put(&self, numbers: &[u64]) -> bool {
        numbers.iter().for_each(|number| self.own(*number));
        self.cache.put(0, 0, numbers)
    }

    /// Takes numbers and uses them.
    fn take(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        self.cache.take(0, 0, |number| numbers.push(number));
        numbers.into_iter().inspect(|number| self.own(*number)).collect()
    }

    fn own(&self, number: u64) {
        self.items.own(usize::try_from(number).unwrap());
    }
}

/// A batch is left while another thread looks for one.
#[test]
fn transfer_cache_put_against_take() {
    model("transfer_cache_put_against_take", || {
        let shared = Shared::new(2);
        let other = shared.clone();
        let thread = thread::spawn(move || other.take());
        assert!(shared.put(&[0, 1]));
        let early = thread.join().unwrap();
        assert_eq!(if early.is_empty() { shared.take() } else { early }, [0, 1]);
    });
}

/// One batch for two: one of them gets it, whole.
#[test]
fn transfer_cache_take_against_take() {
    model("transfer_cache_take_against_take", || {
        let shared = Shared::new(2);
        assert!(shared.put(&[0, 1]));
        let other = shared.clone();
        let thread = thread::spawn(move || other.take());
        let here = shared.take();
        let there = thread.join().unwrap();
        assert_eq!(here.len() + there.len(), 2, "{here:?} {there:?}");
    });
}

/// One place for two threads: the one that finds none keeps what it has.
#[test]
fn transfer_cache_put_against_put() {
    model("transfer_cache_put_against_put", || {
        let shared = Shared::new(2);
        let other = shared.clone();
        let thread = thread::spawn(move || other.put(&[0]));
        let here = shared.put(&[1]);
        assert!(here ^ thread.join().unwrap());
        assert_eq!(shared.take(), [u64::from(here)]);
    });
}

/// A place is used again, by the thread that put before, as soon as it was emptied: the taker has
/// read all of the first batch.
#[test]
fn transfer_cache_place_is_used_again() {
    model("transfer_cache_place_is_used_again", || {
        let shared = Shared::new(4);
        assert!(shared.put(&[0, 1]));
        let other = shared.clone();
        let thread = thread::spawn(move || other.put(&[2, 3]));
        let here = shared.take();
        let left = thread.join().unwrap();
        assert_eq!(here, [0, 1]);
        let mut rest = shared.take();
        rest.extend(here);
        rest.sort_unstable();
        assert_eq!(rest, if left { vec![0, 1, 2, 3] } else { vec![0, 1] });
    });
}
