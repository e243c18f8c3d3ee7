//! The ring: a slot is filled by one at a time, and never while the device reads it.

use super::{Guarded, model};
use crate::staging::ring::Ring;
use crate::sync::atomic::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

/// A ring, the memory of its slots, and the words that the device writes.
struct Scene {
    ring: Ring<usize>,
    memory: Guarded,
    words: Vec<AtomicU64>,
}

impl Scene {
    fn new(depth: usize) -> Self {
        let words = (0..depth).map(|_| AtomicU64::new(0)).collect();
        Self { ring: Ring::new(0..depth, |_| ()), memory: Guarded::new(depth), words }
    }

    /// Fills a slot and hands it to the device; which. `None` if there is none.
    fn submit(&self) -> Option<usize> {
        // Acquire: pairs with the Release of `copy`.
        let is_done = |slot: usize| Ok::<_, ()>(self.words[slot].load(Ordering::Acquire) != 0);
        let claim = self.ring.claim(is_done).unwrap()?;
        let slot = *claim;
        assert_eq!(slot, claim.index());
        self.memory.own(slot);
        self.words[slot].store(0, Ordering::Release);
        claim.submit();
        Some(slot)
    }

    /// The device reads a slot, then writes its word.
    fn copy(&self, slot: usize) {
        self.memory.own(slot);
        // Release: pairs with the Acquire of `submit`.
        self.words[slot].store(1, Ordering::Release);
    }
}

/// A producer, the device, and a second producer, on one slot.
#[test]
fn ring_producers_and_device() {
    model("ring_producers_and_device", || {
        let scene = Arc::new(Scene::new(1));
        let slot = scene.submit().unwrap();
        let device = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.copy(slot))
        };
        let producer = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.submit())
        };
        let own = scene.submit();
        device.join().unwrap();
        let other = producer.join().unwrap();
        // The device has read what was submitted first, and nothing else.
        assert!(own.is_none() || other.is_none());
    });
}

/// A completion of the use before is not taken for that of the use that is in flight.
#[test]
fn ring_stale_completion() {
    model("ring_stale_completion", || {
        let scene = Arc::new(Scene::new(1));
        let slot = scene.submit().unwrap();
        scene.copy(slot);
        let producer = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.submit())
        };
        let own = scene.submit();
        let other = producer.join().unwrap();
        // The device has not read what one of the two submitted.
        assert!(own.is_some() ^ other.is_some());
    });
}

/// Two slots: two producers never fill one at the same time, and each is refilled after its copy.
#[test]
fn ring_two_slots() {
    model("ring_two_slots", || {
        let scene = Arc::new(Scene::new(2));
        let work = |scene: &Scene| {
            for _ in 0..2 {
                if let Some(slot) = scene.submit() {
                    scene.copy(slot);
                }
            }
        };
        let other = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || work(&scene))
        };
        work(&scene);
        other.join().unwrap();
        assert!(scene.submit().is_some());
    });
}

/// A step that is given up is no use of the slot, and its filler's writes are over.
#[test]
fn ring_cancelled() {
    model("ring_cancelled", || {
        let scene = Arc::new(Scene::new(1));
        let other = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                let claim = scene.ring.claim_at(0, |_| Ok::<_, ()>(false)).unwrap();
                if claim.is_some() {
                    scene.memory.own(0);
                }
                drop(claim);
            })
        };
        let own = scene.submit();
        other.join().unwrap();
        assert!(own.is_some() || scene.submit().is_some());
    });
}

/// What a holder that gives up leaves to be done is done before the slot is another's.
#[test]
fn ring_state_is_its_holders() {
    model("ring_state_is_its_holders", || {
        // The state counts its uses; the ring's cell fails the model when two holders use it.
        let ring = Arc::new(Ring::new([0_u32], |uses| *uses += 1));
        let other = Arc::clone(&ring);
        let thread = thread::spawn(move || drop(other.claim_at(0, |_| Ok::<_, ()>(false))));
        let own = ring.claim_at(0, |_| Ok::<_, ()>(false)).unwrap();
        let early = own.is_some();
        drop(own);
        thread.join().unwrap();
        let last = ring.claim_at(0, |_| Ok::<_, ()>(false)).unwrap().unwrap();
        assert!(*last >= u32::from(early));
    });
}
