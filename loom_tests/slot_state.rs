//! The staging slot: one filler at a time, and a completion belongs to one use.

use super::{Guarded, model};
use crate::lockfree::slot_state::SlotWord;
use loom::sync::Arc;
use loom::thread;

/// Two threads fill one slot; one gives up, one submits and fills it again.
#[test]
fn slot_generic() {
    model("slot_generic", || {
        let shared = Arc::new((SlotWord::free(), Guarded::new(1)));
        let work = |shared: &(SlotWord, Guarded), cancel| {
            let Ok(this) = shared.0.begin() else { return };
            shared.1.own(0);
            if cancel {
                shared.0.cancel(this).unwrap();
            } else {
                shared.0.submit(this);
                let again = shared.0.refill(this).unwrap();
                shared.1.own(0);
                shared.0.cancel(again).unwrap();
            }
        };
        let other = shared.clone();
        let thread = thread::spawn(move || work(&other, true));
        work(&shared, false);
        thread.join().unwrap();
        shared.0.begin().unwrap();
        shared.1.own(0);
    });
}

/// The thread that fills a slot again sees what was submitted in it.
#[test]
fn slot_refilled_elsewhere() {
    model("slot_refilled_elsewhere", || {
        let shared = Arc::new((SlotWord::free(), Guarded::new(1)));
        let this = shared.0.begin().unwrap();
        let other = shared.clone();
        let filler = thread::spawn(move || {
            if other.0.refill(this).is_ok() {
                other.1.own(0);
            }
        });
        shared.1.own(0);
        shared.0.submit(this);
        filler.join().unwrap();
    });
}

/// A thread that takes a slot that was given up writes after the thread that gave it up.
#[test]
fn slot_given_up() {
    model("slot_given_up", || {
        let shared = Arc::new((SlotWord::free(), Guarded::new(1)));
        let this = shared.0.begin().unwrap();
        let other = shared.clone();
        let filler = thread::spawn(move || {
            other.1.own(0);
            other.0.cancel(this).unwrap();
        });
        while shared.0.begin().is_err() {
            thread::yield_now();
        }
        shared.1.own(0);
        filler.join().unwrap();
    });
}

/// Two threads have seen one use complete: one fills the slot again, and the other does not take
/// that use's completion for the next one's.
#[test]
fn slot_late_completion() {
    model("slot_late_completion", || {
        let slot = Arc::new(SlotWord::free());
        let first = slot.begin().unwrap();
        slot.submit(first);
        let other = slot.clone();
        let late = thread::spawn(move || other.refill(first).is_ok());
        let second = slot.refill(first).ok();
        if let Some(second) = second {
            slot.submit(second);
        }
        assert!(late.join().unwrap() ^ second.is_some());
        if let Some(second) = second {
            slot.refill(second).unwrap();
        }
    });
}
