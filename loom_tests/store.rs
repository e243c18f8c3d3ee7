//! The store: every hand-over of blocks, slabs and granules between two threads.

use super::model;
use super::upstream::{
    GRANULE, Upstream, alloc, assert_clean, class, free, halves, store, store_on, trim,
};
use crate::slab::Retirement;
use loom::sync::Arc;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;

/// Two blocks a granule.
const HALF: usize = 2048;
/// One block a granule.
const WHOLE: usize = 4096;
/// Two blocks in half a granule.
const QUARTER: usize = 1024;

/// Two threads allocate and free in one slab.
#[test]
fn store_alloc_against_alloc() {
    model("store_alloc_against_alloc", || {
        let store = store(1, 1);
        let seed = alloc(&store, class(HALF)).unwrap();
        free(&store, class(HALF), seed);
        let other = store.clone();
        let thread = thread::spawn(move || {
            let block = alloc(&other, class(HALF)).unwrap();
            free(&other, class(HALF), block);
        });
        let block = alloc(&store, class(HALF)).unwrap();
        free(&store, class(HALF), block);
        thread.join().unwrap();
        assert_clean(&store);
    });
}

/// A block of a full slab is freed while another thread looks for one: it finds it or is told
/// that there is none, and a later look finds it.
#[test]
fn store_free_against_alloc() {
    model("store_free_against_alloc", || {
        let store = store(1, 1);
        let block = alloc(&store, class(WHOLE)).unwrap();
        let other = store.clone();
        let thread = thread::spawn(move || {
            if let Some(block) = alloc(&other, class(WHOLE)) {
                free(&other, class(WHOLE), block);
            }
        });
        free(&store, class(WHOLE), block);
        thread.join().unwrap();
        // The slab may have been released and committed anew; it is not lost.
        assert!(alloc(&store, class(WHOLE)).is_some());
    });
}

/// A block of a full slab is freed while another thread takes the slab out of the hints.
#[test]
fn store_hint_is_never_lost() {
    model("store_hint_is_never_lost", || {
        let store = store(1, 1);
        let block = alloc(&store, class(WHOLE)).unwrap();
        let other = store.clone();
        let thread = thread::spawn(move || other.reserve(class(WHOLE), 1, None));
        free(&store, class(WHOLE), block);
        let early = thread.join().unwrap();
        assert!(early.is_some() || store.reserve(class(WHOLE), 1, None).is_some());
    });
}

/// The last block of a slab is freed while another thread releases empty slabs.
#[test]
fn store_last_free_against_trim() {
    model("store_last_free_against_trim", || {
        let store = store(1, 1);
        let block = alloc(&store, class(HALF)).unwrap();
        let other = store.clone();
        let thread = thread::spawn(move || trim(&other));
        free(&store, class(HALF), block);
        let early = thread.join().unwrap();
        assert_eq!(early + trim(&store), GRANULE, "an empty slab is lost to the trim");
        assert_clean(&store);
    });
}

/// An empty slab is released while another thread wants it for another class.
#[test]
fn store_release_against_reclass() {
    model("store_release_against_reclass", || {
        let store = store(1, 1);
        let block = alloc(&store, class(HALF)).unwrap();
        free(&store, class(HALF), block);
        let other = store.clone();
        let thread = thread::spawn(move || trim(&other));
        if let Some(block) = alloc(&store, class(WHOLE)) {
            free(&store, class(WHOLE), block);
        }
        thread.join().unwrap();
        assert_clean(&store);
    });
}

/// An empty slab is released while another thread grows into the same granule.
#[test]
fn store_release_against_growth() {
    model("store_release_against_growth", || {
        // The limit leaves room; the span does not.
        let store = store(1, 2);
        let block = alloc(&store, class(HALF)).unwrap();
        free(&store, class(HALF), block);
        let other = store.clone();
        let thread = thread::spawn(move || trim(&other));
        if let Some(block) = alloc(&store, class(WHOLE)) {
            free(&store, class(WHOLE), block);
        }
        thread.join().unwrap();
        assert_clean(&store);
    });
}

/// An empty slab is given another class while a thread allocates from it under its old one.
#[test]
fn store_reclass_against_alloc() {
    model("store_reclass_against_alloc", || {
        let store = store(1, 1);
        let block = alloc(&store, class(HALF)).unwrap();
        free(&store, class(HALF), block);
        let other = store.clone();
        let thread = thread::spawn(move || {
            if let Some(block) = alloc(&other, class(HALF)) {
                free(&other, class(HALF), block);
            }
        });
        if let Some(block) = alloc(&store, class(WHOLE)) {
            free(&store, class(WHOLE), block);
        }
        thread.join().unwrap();
        assert_clean(&store);
    });
}

/// Two threads want the first block of a class: one grows, and its slab serves both.
#[test]
fn store_growth_against_growth() {
    model("store_growth_against_growth", || {
        let store = store(2, 2);
        let other = store.clone();
        let thread = thread::spawn(move || alloc(&other, class(HALF)).unwrap());
        let here = alloc(&store, class(HALF)).unwrap();
        let there = thread.join().unwrap();
        assert_ne!(here, there);
        assert_eq!(store.span.resource().commits.load(Relaxed), 1, "both grew");
        free(&store, class(HALF), here);
        free(&store, class(HALF), there);
        assert_clean(&store);
    });
}

/// Two classes want the last granule that the limit allows: one gets it.
#[test]
fn store_limit_against_two() {
    model("store_limit_against_two", || {
        let store = store(2, 1);
        let other = store.clone();
        let thread = thread::spawn(move || alloc(&other, class(HALF)).is_some());
        let here = alloc(&store, class(WHOLE)).is_some();
        // `Upstream` checks that no more than the limit is committed at any time.
        assert!(here ^ thread.join().unwrap());
        assert_eq!(store.budget.reserved(), GRANULE);
    });
}

/// At the limit, one thread frees its only block while another needs its granule.
#[test]
fn store_limit_against_free() {
    model("store_limit_against_free", || {
        let store = store(2, 1);
        let block = alloc(&store, class(HALF)).unwrap();
        let other = store.clone();
        let thread = thread::spawn(move || free(&other, class(HALF), block));
        let early = alloc(&store, class(WHOLE));
        thread.join().unwrap();
        let block = early.or_else(|| alloc(&store, class(WHOLE))).unwrap();
        free(&store, class(WHOLE), block);
        assert_clean(&store);
    });
}

/// A large run is freed while a trim goes by and another thread wants a run as long.
#[test]
fn store_large_against_trim() {
    model("store_large_against_trim", || {
        let store = store(9, 9);
        let size = 9 * GRANULE;
        let large = store.acquire_large(size, 1, None, || false).unwrap().0;
        let other = store.clone();
        let thread = thread::spawn(move || trim(&other));
        store.free_large(large);
        let early = store.acquire_large(size, 1, None, || false);
        thread.join().unwrap();
        let large = early.or_else(|_| store.acquire_large(size, 1, None, || false)).unwrap().0;
        store.free_large(large);
        assert_clean(&store);
    });
}

/// A commit fails while another thread wants the granule: the other's turn is not spoilt.
#[test]
fn store_failed_growth_against_alloc() {
    model("store_failed_growth_against_alloc", || {
        let mut upstream = Upstream::new(1, 1);
        upstream.fails = 1;
        let store = store_on(upstream);
        let other = store.clone();
        let thread = thread::spawn(move || alloc(&other, class(HALF)));
        let here = alloc(&store, class(HALF));
        let there = thread.join().unwrap();
        assert!(here.is_none() ^ there.is_none(), "one commit failed");
        for block in here.into_iter().chain(there) {
            free(&store, class(HALF), block);
        }
        assert_clean(&store);
    });
}

/// Two classes want the first block: one commits a granule, and both find room in it.
#[test]
fn store_classes_share_a_granule() {
    model("store_classes_share_a_granule", || {
        let store = halves(1, 1);
        let other = store.clone();
        let thread = thread::spawn(move || alloc(&other, class(HALF)).unwrap());
        let here = alloc(&store, class(QUARTER)).unwrap();
        let there = thread.join().unwrap();
        assert_eq!(store.span.resource().commits.load(Relaxed), 1, "both committed");
        free(&store, class(QUARTER), here);
        free(&store, class(HALF), there);
        assert_clean(&store);
    });
}

/// The last slab of a granule becomes empty while a block as long as the granule is wanted.
#[test]
fn store_granule_is_made_whole() {
    model("store_granule_is_made_whole", || {
        let store = halves(1, 1);
        let blocks = [(); 2].map(|()| alloc(&store, class(HALF)).unwrap());
        free(&store, class(HALF), blocks[0]);
        let other = store.clone();
        let thread = thread::spawn(move || free(&other, class(HALF), blocks[1]));
        let early = alloc(&store, class(WHOLE));
        thread.join().unwrap();
        let block = early.or_else(|| alloc(&store, class(WHOLE))).unwrap();
        free(&store, class(WHOLE), block);
        assert_clean(&store);
    });
}

/// A granule of which all slices are free is released while one of them is wanted.
#[test]
fn store_granule_release_against_slice() {
    model("store_granule_release_against_slice", || {
        let store = halves(1, 2);
        let block = alloc(&store, class(HALF)).unwrap();
        free(&store, class(HALF), block);
        let other = store.clone();
        let thread = thread::spawn(move || trim(&other));
        if let Some(block) = alloc(&store, class(QUARTER)) {
            free(&store, class(QUARTER), block);
        }
        thread.join().unwrap();
        assert_clean(&store);
    });
}

/// Two trims release the two halves of a granule: one of them releases the granule.
#[test]
fn store_trim_against_trim() {
    model("store_trim_against_trim", || {
        let store = halves(1, 1);
        let blocks = [(); 2].map(|()| alloc(&store, class(HALF)).unwrap());
        blocks.into_iter().for_each(|block| free(&store, class(HALF), block));
        let other = store.clone();
        let thread = thread::spawn(move || trim(&other));
        let here = trim(&store);
        assert_eq!(here + thread.join().unwrap(), GRANULE, "a granule is lost to both");
        assert_clean(&store);
    });
}

/// An address is freed by two threads: one of them is told.
#[test]
fn store_raw_freed_twice() {
    model("store_raw_freed_twice", || {
        let store = store(1, 1);
        let address = alloc(&store, class(HALF)).unwrap();
        store.mark_raw(store.locate(address).unwrap());
        let dealloc = move |store: &Arc<_>| {
            let store: &crate::slab::store::Store<Upstream> = store;
            let freed = store.locate(address).is_some_and(|place| store.unmark_raw(place));
            if freed {
                free(store, class(HALF), address);
            }
            freed
        };
        let other = store.clone();
        let thread = thread::spawn(move || dealloc(&other));
        let here = dealloc(&store);
        assert!(here ^ thread.join().unwrap());
        assert_clean(&store);
    });
}

/// A run is on the list of emptied ones and in use again. It is freed while another thread looks
/// at the list, and found then or later.
#[test]
fn store_emptied_list_loses_nothing() {
    model("store_emptied_list_loses_nothing", || {
        let store = store(1, 1);
        let block = alloc(&store, class(WHOLE)).unwrap();
        free(&store, class(WHOLE), block);
        let block = store.collect_one(store.reserve(class(WHOLE), 1, None).unwrap());
        let other = store.clone();
        let thread = thread::spawn(move || trim(&other));
        free(&store, class(WHOLE), block);
        let early = thread.join().unwrap();
        assert_eq!(early + trim(&store), GRANULE, "a run is lost to the list");
        assert_clean(&store);
    });
}

/// A large block is retired by a stream while another thread frees what is complete: it is free
/// then, or the stream's, and never both.
#[test]
fn store_retired_against_complete() {
    model("store_retired_against_complete", || {
        let store = store(1, 1);
        let by = |ticket| Retirement { owner: 1, ticket };
        let (large, _) = store.acquire_large(GRANULE, 1, None, || false).unwrap();
        let other = store.clone();
        let thread = thread::spawn(move || {
            let freed = other.folded().unwrap().complete(by(1));
            (freed, other.acquire_large_committed(GRANULE, None).unwrap())
        });
        store.retire_large(large, by(1));
        let own = store.acquire_large_committed(GRANULE, Some(1)).unwrap();
        let (freed, foreign) = thread.join().unwrap();
        assert!(own.is_none() || foreign.is_none(), "one range is two blocks");
        assert!(foreign.is_none() || freed > 0, "taken while the stream may use it");
        // The stream knows what its new block has to come behind.
        assert!(own.is_none_or(|(_, ticket)| ticket == u64::from(freed == 0)));
    });
}

/// Two threads split one free range, and what they give back is one range again.
#[test]
fn store_split_against_join() {
    model("store_split_against_join", || {
        let store = halves(1, 1);
        let other = store.clone();
        let thread = thread::spawn(move || {
            let (half, _) = other.acquire_large(HALF, 1, None, || false).unwrap();
            other.free_large(half);
        });
        let (half, _) = store.acquire_large(HALF, 1, None, || false).unwrap();
        store.free_large(half);
        thread.join().unwrap();
        assert_eq!(store.span.resource().commits.load(Relaxed), 1);
        let (whole, _) = store.acquire_large_committed(GRANULE, None).unwrap().unwrap();
        store.free_large(whole);
        assert_clean(&store);
    });
}
