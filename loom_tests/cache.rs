//! Caches: blocks go from one owner's magazines to another's through the store.

use super::model;
use super::upstream::{Upstream, assert_clean, class, own, store};
use crate::slab::magazine::Cache;
use crate::slab::store::Store;
use loom::thread;

/// Four blocks a granule; cached in the models, two a magazine.
const QUARTER: usize = 1024;

fn cache() -> Cache {
    let cache = Cache::new();
    cache.configure(1 << 20);
    cache
}

fn alloc(cache: &Cache, store: &Store<Upstream>) -> Option<u64> {
    let class = class(QUARTER);
    let address = match cache.magazines[class.index()].pop() {
        Some(address) => address,
        None => cache.refill(store, class).ok()?.0,
    };
    own(store, class, usize::try_from(address).unwrap());
    Some(address)
}

fn free(cache: &Cache, store: &Store<Upstream>, address: u64) {
    let class = class(QUARTER);
    own(store, class, usize::try_from(address).unwrap());
    if !cache.magazines[class.index()].push(address) {
        cache.spill(store, class, address);
    }
}

/// One thread's magazine overflows while another's is filled.
#[test]
fn cache_spill_against_refill() {
    model("cache_spill_against_refill", || {
        let store = store(1, 1);
        let mine = cache();
        let blocks = [(); 4].map(|()| alloc(&mine, &store).unwrap());
        let other = store.clone();
        let thread = thread::spawn(move || {
            let theirs = cache();
            if let Some(block) = alloc(&theirs, &other) {
                free(&theirs, &other, block);
            }
            theirs.drain(&other);
        });
        blocks.into_iter().for_each(|block| free(&mine, &store, block));
        mine.drain(&store);
        thread.join().unwrap();
        assert_clean(&store);
    });
}

/// A thread that ends gives its blocks back while another wants one.
#[test]
fn cache_exit_against_alloc() {
    model("cache_exit_against_alloc", || {
        let store = store(1, 1);
        let other = store.clone();
        let thread = thread::spawn(move || {
            let theirs = cache();
            let blocks = [(); 2].map(|()| alloc(&theirs, &other));
            blocks.into_iter().flatten().for_each(|block| free(&theirs, &other, block));
            theirs.drain(&other);
        });
        let mine = cache();
        let block = alloc(&mine, &store).unwrap();
        free(&mine, &store, block);
        mine.drain(&store);
        thread.join().unwrap();
        assert_clean(&store);
    });
}
