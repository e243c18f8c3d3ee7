//! The list of deferred drops: every owner is dropped once, after it was given up, by one thread.

use super::{Guarded, model};
use crate::driver::deferred::{Deferred, Parcel};
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// An owner whose content is used before it is given up and when it is dropped. The list keeps a
/// panic of its drop to itself, so models look at the count, too.
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
    /// The threads that were started to look after the list.
    lookers: Arc<Mutex<Vec<thread::JoinHandle<()>>>>,
}

impl Scene {
    fn new() -> Self {
        let (list, contents) = (Arc::new(Deferred::new()), Arc::new(Guarded::new(2)));
        Self { list, contents, drops: Arc::default(), lookers: Arc::default() }
    }

    fn parcel(&self, index: usize) -> Box<Parcel> {
        self.contents.own(index);
        let (contents, drops) = (self.contents.clone(), self.drops.clone());
        Parcel::new(Box::new(Owner { contents, index, drops }), &self.list)
    }

    fn give_up(self, index: usize) {
        self.parcel(index).send();
    }

    /// As `Parcel::send` where the driver is alive.
    fn send(&self, parcel: Box<Parcel>) {
        if self.list.push(parcel) {
            self.list.attend(|list| {
                let looker = thread::spawn(move || list.look());
                self.lookers.lock().unwrap().push(looker);
                true
            });
        }
    }

    /// As the drop of a `Driver`.
    fn leave(&self) {
        if self.list.leave() && !self.list.is_empty() {
            self.list.drain();
        }
    }

    /// Waits for the threads that were started.
    fn settle(&self) {
        let lookers = std::mem::take(&mut *self.lookers.lock().unwrap());
        lookers.into_iter().for_each(|looker| looker.join().unwrap());
    }

    fn dropped(&self) -> usize {
        self.drops.load(Ordering::Relaxed)
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
        assert_eq!(scene.dropped(), 2);
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
        assert_eq!(scene.dropped(), 1);
    });
}

/// A thread that finds that no owner is left sees what the drop of the last has done.
#[test]
fn deferred_none_left() {
    model("deferred_none_left", || {
        let scene = Scene::new();
        let parcel = scene.parcel(0);
        let other = scene.clone();
        let thread = thread::spawn(move || {
            parcel.send();
            other.list.drain();
        });
        if scene.list.len() == 0 {
            scene.contents.own(0);
        }
        thread.join().unwrap();
        assert_eq!((scene.list.len(), scene.dropped()), (0, 1));
    });
}

/// The last user goes while an owner comes: one of the two drops it.
#[test]
fn deferred_last_user() {
    model("deferred_last_user", || {
        let scene = Scene::new();
        let (giver, parcel) = (scene.clone(), scene.parcel(0));
        let thread = thread::spawn(move || giver.send(parcel));
        scene.leave();
        thread.join().unwrap();
        scene.settle();
        assert_eq!(scene.dropped(), 1);
    });
}

/// Two owners come when no user is left: the threads that they start drop both.
#[test]
fn deferred_unattended() {
    model("deferred_unattended", || {
        let scene = Scene::new();
        scene.leave();
        let (giver, parcel) = (scene.clone(), scene.parcel(1));
        let thread = thread::spawn(move || giver.send(parcel));
        let own = scene.parcel(0);
        scene.send(own);
        thread.join().unwrap();
        scene.settle();
        assert_eq!(scene.dropped(), 2);
    });
}
