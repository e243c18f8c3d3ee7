//! Threads with caches of their own allocate, pass on, free, trim, run out and start over.

use std::sync::{Arc, Mutex};

use super::upstream::{Upstream, assert_clean, own, store, trim};
use super::{below, schedules};
use crate::slab::SizeClass;
use crate::slab::cache::Cache;
use crate::slab::store::Store;
use shuttle::thread;

/// Blocks that wait for any thread to free them. Never held across a switch, so `std`'s.
type Mail = Arc<Mutex<Vec<(u64, SizeClass)>>>;

/// One thread's work: `steps` times something at random.
fn work(store: &Store<Upstream>, mail: &Mail, steps: usize) {
    let cache = Cache::new(0);
    cache.configure(1 << 16);
    let mut held = Vec::new();
    for _ in 0..steps {
        match below(8) {
            0..4 => held.extend(alloc(&cache, store, SIZES[below(SIZES.len())])),
            4..6 => {
                if let Some((address, class)) = held.pop() {
                    free(&cache, store, class, address);
                }
            }
            6 => {
                mail.lock().unwrap().extend(held.pop());
                let other = mail.lock().unwrap().pop();
                if let Some((address, class)) = other {
                    free(&cache, store, class, address);
                }
            }
            _ => {
                trim(store);
            }
        }
    }
    held.into_iter().for_each(|(address, class)| free(&cache, store, class, address));
    cache.flush(store);
}

/// A quarter of a granule, a half, a whole one and one and a half.
const SIZES: [usize; 4] = [1024, 2048, 4096, 6144];

fn alloc(cache: &Cache, store: &Store<Upstream>, size: usize) -> Option<(u64, SizeClass)> {
    let class = SizeClass::of(size).unwrap();
    let cached = cache.magazines.get(class.index()).and_then(|magazine| magazine.pop());
    let (address, class) = match cached {
        Some(address) => (address, class),
        None => match cache.refill_near(store, class) {
            Some(fresh) => fresh,
            None => cache.refill(store, class).ok()?,
        },
    };
    own(store, class, address);
    Some((address, class))
}

fn free(cache: &Cache, store: &Store<Upstream>, class: SizeClass, address: u64) {
    own(store, class, address);
    if !cache.magazines.get(class.index()).is_some_and(|magazine| magazine.push(address)) {
        cache.spill(store, class, address);
    }
}

/// `threads` threads on a store whose limit they meet all the time.
fn crowd(threads: usize, steps: usize, fail_one_in: usize) {
    let store = store(12, 6, fail_one_in);
    let mail = Mail::default();
    let handles: Vec<_> = (0..threads)
        .map(|_| {
            let (store, mail) = (store.clone(), mail.clone());
            thread::spawn(move || work(&store, &mail, steps))
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    let cache = Cache::new(0);
    for (address, class) in mail.lock().unwrap().drain(..) {
        free(&cache, &store, class, address);
    }
    assert_clean(&store);
}

#[test]
fn four_threads() {
    schedules("four_threads", || crowd(4, 12, 0));
}

#[test]
fn eight_threads() {
    schedules("eight_threads", || crowd(8, 6, 0));
}

#[test]
fn six_threads_while_commits_fail() {
    schedules("six_threads_while_commits_fail", || crowd(6, 8, 3));
}
