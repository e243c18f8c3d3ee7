//! The registry: a slot is one pool's at a time, a cache one thread's.

use super::{Guarded, model};
use crate::slab::registry::Registry;
use loom::sync::Arc;
use loom::thread;

/// A pool ends while a thread still has a cache in its slot: the next pool gets the slot only
/// after that thread has left it.
#[test]
fn registry_slot_waits_for_threads() {
    model("registry_slot_waits_for_threads", || {
        let shared = Arc::new((Registry::new(), Guarded::new(1)));
        let first = shared.0.open(1 << 20, 1 << 20);
        let number = shared.0.attach(first, 1 << 20).unwrap().number;
        let other = shared.clone();
        let thread = thread::spawn(move || {
            // The thread's last use of the slot.
            other.1.own(0);
            other.0.detach(first, number);
        });
        shared.0.close(first);
        let second = shared.0.open(4 << 20, 1 << 20);
        assert_ne!(second.id, first.id);
        if second.slot == first.slot {
            shared.1.own(0);
        }
        thread.join().unwrap();
    });
}

/// The only cache goes from a thread that ends to one that begins.
#[test]
fn registry_cache_changes_owner() {
    model("registry_cache_changes_owner", || {
        let shared = Arc::new((Registry::new(), Guarded::new(1)));
        let seat = shared.0.open(1 << 20, 1 << 20);
        let work = move |shared: &(Registry, Guarded)| {
            let entry = shared.0.attach(seat, 1 << 20);
            if let Some(entry) = entry {
                shared.1.own(0);
                shared.0.detach(seat, entry.number);
            }
            entry.is_some()
        };
        let other = shared.clone();
        let thread = thread::spawn(move || work(&other));
        let here = work(&shared);
        assert!(thread.join().unwrap() || here);
    });
}
