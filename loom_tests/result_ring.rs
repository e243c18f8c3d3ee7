//! The ring of results: the device writes a slot, the host reads it as long as it holds it, and
//! only then the slot is another's.

use super::{Guarded, model};
use crate::staging::ring::{Hold, Ring};
use crate::sync::atomic::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

/// A ring, the memory of its slots, and the words that the device writes.
struct Scene {
    ring: Ring<()>,
    memory: Guarded,
    words: Vec<AtomicU64>,
}

impl Scene {
    fn new(depth: usize) -> Self {
        let words = (0..depth).map(|_| AtomicU64::new(0)).collect();
        let ring = Ring::new((0..depth).map(|_| ()), |()| ());
        Self { ring, memory: Guarded::new(depth), words }
    }

    /// A fetch, up to its launch; `None` if every ring slot is in use.
    fn fetch(&self) -> Option<Hold<'_, ()>> {
        let claim = self.ring.claim(|slot| Ok::<_, ()>(self.is_done(slot))).unwrap()?;
        self.words[claim.index()].store(0, Ordering::Release);
        Some(claim.hold())
    }

    /// The device writes a slot, then its word.
    fn copy(&self, slot: usize) {
        self.memory.own(slot);
        // Release: pairs with the Acquire of `is_done`.
        self.words[slot].store(1, Ordering::Release);
    }

    fn is_done(&self, slot: usize) -> bool {
        // Acquire: pairs with the Release of `copy`.
        self.words[slot].load(Ordering::Acquire) != 0
    }

    /// Reads the results if they are there.
    fn try_read(&self, hold: &Hold<'_, ()>) -> bool {
        let there = self.is_done(hold.index());
        if there {
            self.memory.share(hold.index());
        }
        there
    }
}

/// A reader, the device, and another fetch, on one slot: it comes behind the reader.
#[test]
fn results_are_read_before_the_next() {
    model("results_are_read_before_the_next", || {
        let scene = Arc::new(Scene::new(1));
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || {
            if let Some(hold) = other.fetch() {
                other.copy(hold.index());
                assert!(other.try_read(&hold));
            }
        });
        if let Some(hold) = scene.fetch() {
            scene.copy(hold.index());
            assert!(scene.try_read(&hold));
        }
        thread.join().unwrap();
        // Both have let go.
        assert!(scene.fetch().is_some());
    });
}

/// The device is still writing what the host has given up: another fetch comes behind that.
#[test]
fn results_given_up_in_flight() {
    model("results_given_up_in_flight", || {
        let scene = Arc::new(Scene::new(1));
        let hold = scene.fetch().unwrap();
        let slot = hold.index();
        let device = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.copy(slot))
        };
        drop(hold);
        if let Some(hold) = scene.fetch() {
            // The next copy, on another stream.
            scene.copy(hold.index());
            assert!(scene.try_read(&hold));
        }
        device.join().unwrap();
    });
}

/// Two slots: one is held while the other goes round.
#[test]
fn results_held_while_the_ring_goes_round() {
    model("results_held_while_the_ring_goes_round", || {
        let scene = Arc::new(Scene::new(2));
        let held = scene.fetch().unwrap();
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || {
            for _ in 0..2 {
                let hold = other.fetch().unwrap();
                other.copy(hold.index());
                assert!(other.try_read(&hold));
            }
        });
        assert!(!scene.try_read(&held));
        scene.copy(held.index());
        assert!(scene.try_read(&held));
        thread.join().unwrap();
        assert!(scene.try_read(&held));
    });
}
