//! Caches: blocks go from one owner's magazines to another's through the store.

use super::model;
use super::upstream::{Upstream, assert_clean, class, own, store};
use crate::slab::cache::Cache;
use crate::slab::store::Store;
use loom::sync::Arc;
use loom::thread;

/// Four blocks a granule, two a magazine, large in the models: of these a cache keeps the lowest.
const QUARTER: usize = 1024;

/// Eight blocks a granule, three a magazine, small: of these a cache keeps the newest.
const EIGHTH: usize = 512;

fn cache() -> Cache {
    let cache = Cache::new();
    cache.configure(6 << 10);
    cache
}

fn alloc(cache: &Cache, store: &Store<Upstream>, size: usize) -> Option<u64> {
    let class = class(size);
    let address = match cache.pop(class.index()) {
        Some(address) => address,
        None => cache.refill(store, class).ok()?.0,
    };
    own(store, class, address);
    Some(address)
}

fn free(cache: &Cache, store: &Store<Upstream>, size: usize, address: u64) {
    let class = class(size);
    own(store, class, address);
    if !cache.push(class.index(), address) {
        cache.spill(store, class, address);
    }
}

/// One thread's magazine overflows while another's is filled. If a batch lies in its place
/// already, what overflows goes to the slab.
fn spill_against_refill(size: usize, blocks: usize, transfer: bool) {
    let store = store(1, 1);
    let mine = cache();
    let mut blocks: Vec<_> = (0..blocks).map(|_| alloc(&mine, &store, size).unwrap()).collect();
    if transfer {
        let block = blocks.pop().unwrap();
        assert!(store.transfer_cache.put(class(size).index(), &[block]));
    }
    let other = store.clone();
    let thread = thread::spawn(move || {
        let theirs = cache();
        if let Some(block) = alloc(&theirs, &other, size) {
            free(&theirs, &other, size, block);
        }
        theirs.flush(&other);
    });
    blocks.into_iter().for_each(|block| free(&mine, &store, size, block));
    mine.flush(&store);
    thread.join().unwrap();
    assert_clean(&store);
}

#[test]
fn cache_spill_against_refill() {
    model("cache_spill_against_refill", || spill_against_refill(QUARTER, 4, true));
}

#[test]
fn cache_transfer_against_refill() {
    model("cache_transfer_against_refill", || spill_against_refill(QUARTER, 3, false));
}

#[test]
fn cache_spill_of_small_blocks() {
    model("cache_spill_of_small_blocks", || spill_against_refill(EIGHTH, 5, true));
}

/// A thread that ends gives its blocks back while another wants one.
#[test]
fn cache_exit_against_alloc() {
    model("cache_exit_against_alloc", || {
        let store = store(1, 1);
        let other = store.clone();
        let thread = thread::spawn(move || {
            let theirs = cache();
            let blocks = [(); 2].map(|()| alloc(&theirs, &other, QUARTER));
            blocks.into_iter().flatten().for_each(|block| free(&theirs, &other, QUARTER, block));
            theirs.flush(&other);
        });
        let mine = cache();
        let block = alloc(&mine, &store, QUARTER).unwrap();
        free(&mine, &store, QUARTER, block);
        mine.flush(&store);
        thread.join().unwrap();
        assert_clean(&store);
    });
}

/// A thread uses its cache while another takes what is in it: each block is one's.
fn taken_while_used(size: usize, blocks: usize) {
    let store = store(2, 2);
    let theirs = Arc::new(cache());
    let held: Vec<_> = (0..blocks).map(|_| alloc(&theirs, &store, size).unwrap()).collect();
    held.into_iter().for_each(|block| free(&theirs, &store, size, block));
    let (other, cache) = (store.clone(), theirs.clone());
    let thread = thread::spawn(move || {
        let block = alloc(&cache, &other, size).unwrap();
        free(&cache, &other, size, block);
    });
    store.take_idle(&[&*theirs], |_| true);
    let fresh = store.reserve(class(size), 1, None).map(|reserved| store.collect_one(reserved));
    if let Some(block) = fresh {
        own(&store, class(size), block);
        store.free_batch(class(size), &mut [block]);
    }
    thread.join().unwrap();
    // An owner that was seen at its magazines has kept them; now it is idle.
    store.take_idle(&[&*theirs], |_| true);
    assert_eq!(theirs.bytes(), 0, "an idle cache keeps blocks");
    assert_clean(&store);
}

#[test]
fn cache_taking_against_pop() {
    model("cache_taking_against_pop", || taken_while_used(QUARTER, 2));
}

/// The owner finds its magazine empty, or locked, and fills it.
#[test]
fn cache_taking_against_refill() {
    model("cache_taking_against_refill", || taken_while_used(QUARTER, 0));
}
