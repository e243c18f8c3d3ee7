//! Caches: blocks go from one owner's magazines to another's through the store.

use super::model;
use super::upstream::{Upstream, assert_clean, class, own, store};
use crate::slab::cache::Cache;
use crate::slab::store::Store;
use loom::thread;

/// Four blocks a granule, two a magazine, large in the models: of these a cache keeps the lowest.
const QUARTER: usize = 1024;

/// Eight blocks a granule, three a magazine, small: of these a cache keeps the newest.
const EIGHTH: usize = 512;

fn cache() -> Cache {
    let cache = Cache::new(0);
    cache.configure(6 << 10);
    cache
}

fn alloc(cache: &Cache, store: &Store<Upstream>, size: usize) -> Option<u64> {
    let class = class(size);
    let address = match cache.magazines[class.index()].pop() {
        Some(address) => address,
        None => match cache.refill_near(store, class) {
            Some(fresh) => fresh.0,
            None => cache.refill(store, class).ok()?.0,
        },
    };
    own(store, class, address);
    Some(address)
}

fn free(cache: &Cache, store: &Store<Upstream>, size: usize, address: u64) {
    let class = class(size);
    own(store, class, address);
    if !cache.magazines[class.index()].push(address) {
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
        assert!(store.transfer_cache.put(class(size).index(), 0, &[block]));
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
