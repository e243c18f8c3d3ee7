//! The list of deferred drops: every owner is dropped once, and after it was given up.

use super::{Guarded, model};
use crate::driver::deferred::{Deferred, Parcel};
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An owner whose content is used before it is given up and when it is dropped.
struct Owner {
    contents: Arc<Guarded>,
    index: usize,
    drops: Arc<AtomicUsize>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.contents.own(self.index);
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// A list, what its owners own, and how many of them were dropped.
#[derive(Clone)]
struct Scene {
    list: Arc<Deferred>,
    contents: Arc<Guarded>,
    drops: Arc<AtomicUsize>,
}

impl Scene {
    fn new() -> Self {
        Self { list: Arc::new(Deferred::new()), contents: Arc::new(Guarded::new(2)), drops: Arc::default() }
    }

    fn give_up(self, index: usize) {
        self.contents.own(index);
        let Self { list, contents, drops } = self;
        Parcel::new(Box::new(Owner { contents, index, drops }), &list).send();
    }
}

/// Two threads give owners up while a third drains.
#[test]
fn deferred_generic() {
    model("deferred_generic", || {
        let scene = Scene::new();
        let givers = [0, 1].map(|index| {
            let scene = scene.clone();
            thread::spawn(move || scene.give_up(index))
        });
        let early = scene.list.drain();
        for giver in givers {
            giver.join().unwrap();
        }
        assert_eq!(early + scene.list.drain(), 2);
        assert_eq!(scene.drops.load(Ordering::Relaxed), 2);
    });
}

/// An owner that is given up is whole when another thread drops it.
#[test]
fn deferred_dropped_elsewhere() {
    model("deferred_dropped_elsewhere", || {
        let scene = Scene::new();
        let giver = scene.clone();
        let thread = thread::spawn(move || giver.give_up(0));
        let early = scene.list.drain();
        thread.join().unwrap();
        assert_eq!(early + scene.list.drain(), 1);
    });
}
