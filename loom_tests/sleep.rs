//! Sleep of a store and of a pool, against what other threads do with their memory.

use super::model;
use super::upstream::{GRANULE, Upstream, assert_clean, class, store, trim};
use crate::error::Error;
use crate::slab::store::Store;
use crate::slab::{AllocError, Keeper};
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;
use std::ops::Range;

/// Contents are nothing here.
struct Nothing;

impl Keeper for Nothing {
    fn save(&mut self, _held: &[Range<u64>]) -> Result<(), Error> {
        Ok(())
    }

    fn restore(&self, _pieces: &[Range<u64>]) -> Result<(), Error> {
        Ok(())
    }
}

fn committed(store: &Store<Upstream>) -> usize {
    store.span.resource().committed.load(Relaxed)
}

/// A thread needs a granule while another puts the store to sleep: the granule is committed before
/// and goes with the others, or the thread is told. Nothing is committed in the sleep.
#[test]
fn store_sleep_against_growth() {
    model("store_sleep_against_growth", || {
        let store = store(2, 2);
        let held = store.acquire_large(GRANULE, 1, None, || false).unwrap().0;
        let other = store.clone();
        let thread = thread::spawn(move || other.acquire(class(GRANULE), 1, || false));
        store.sleep(&mut Nothing).unwrap();
        let grown = thread.join().unwrap();
        assert_eq!(committed(&store), 0, "memory is committed in a store that sleeps");
        store.wake(&Nothing).unwrap();
        let blocks = match grown {
            Ok(reserved) => {
                store.free_batch(reserved.class, &mut [store.collect_one(reserved)]);
                2
            }
            Err(error) => {
                assert_eq!(error, AllocError::Asleep);
                1
            }
        };
        assert_eq!(committed(&store), blocks * GRANULE);
        store.free_large(held);
        assert_clean(&store);
    });
}

/// A piece becomes free while the store wakes: it is resumed, or given up, and not both.
#[test]
fn store_wake_against_free() {
    model("store_wake_against_free", || {
        let store = store(1, 1);
        let held = store.acquire_large(GRANULE, 1, None, || false).unwrap().0;
        store.sleep(&mut Nothing).unwrap();
        let other = store.clone();
        let thread = thread::spawn(move || {
            other.free_large(held);
            trim(&other)
        });
        store.wake(&Nothing).unwrap();
        thread.join().unwrap();
        assert_clean(&store);
    });
}
