//! Slots for what waits for the device: a value is one thread's at a time, and is done once.

use super::{Guarded, model};
use crate::tier::slots::Slots;
use loom::sync::Arc;
use loom::thread;

struct Rig {
    slots: Slots<usize>,
    /// What the values stand for.
    items: Guarded,
}

impl Rig {
    fn new(len: usize) -> Arc<Self> {
        Arc::new(Self { slots: Slots::new(len), items: Guarded::new(2) })
    }

    /// Lets an item of the caller's wait, if a slot is free.
    fn wait(&self, item: usize) -> bool {
        let Some(slot) = self.slots.reserve() else { return false };
        self.items.own(item);
        self.slots.fill(slot, item);
        true
    }

    /// Ends all waits that it finds; how many.
    fn drain(&self) -> usize {
        let is_done = |item: &usize| {
            self.items.share(*item);
            Ok::<_, ()>(true)
        };
        self.slots.drain(is_done, |item| self.items.own(item)).unwrap()
    }
}

/// Two threads end waits, of which one slot is filled once more: each is ended once, by a thread
/// that comes after the one that waited.
#[test]
fn tier_slot_is_drained_once() {
    model("tier_slot_is_drained_once", || {
        let rig = Rig::new(1);
        let other = rig.clone();
        assert!(rig.wait(0));
        let thread = thread::spawn(move || other.drain());
        let again = rig.wait(1);
        let here = rig.drain();
        let there = thread.join().unwrap();
        assert_eq!(here + there + rig.drain(), 1 + usize::from(again));
    });
}

/// A thread waits in the slots beside another that waits and ends waits.
#[test]
fn tier_slots_generic() {
    model("tier_slots_generic", || {
        let rig = Rig::new(2);
        let other = rig.clone();
        let thread = thread::spawn(move || {
            assert!(other.wait(0));
            other.drain()
        });
        assert!(rig.wait(1));
        let here = rig.drain();
        let there = thread.join().unwrap();
        assert_eq!(here + there + rig.drain(), 2);
    });
}
