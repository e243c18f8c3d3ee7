//! The staging slot: one filler at a time, and a completion belongs to one use.

use super::{Guarded, model};
use crate::lockfree::slot_state::SlotWord;
use loom::sync::Arc;
use loom::thread;

/// Two threads fill, submit and complete one slot.
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
                shared.0.submit(this).unwrap();
                shared.0.complete(this).unwrap();
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

/// The completion of a slot is seen by another thread, which uses what was filled.
#[test]
fn slot_completed_elsewhere() {
    model("slot_completed_elsewhere", || {
        let shared = Arc::new((SlotWord::free(), Guarded::new(1)));
        let this = shared.0.begin().unwrap();
        let other = shared.clone();
        let completer = thread::spawn(move || {
            if other.0.complete(this).is_ok() {
                other.1.own(0);
            }
        });
        shared.1.own(0);
        shared.0.submit(this).unwrap();
        completer.join().unwrap();
    });
}

/// Who completes a slot has read it before; the next filler writes it after.
#[test]
fn slot_refilled_after_the_copy() {
    model("slot_refilled_after_the_copy", || {
        let shared = Arc::new((SlotWord::free(), Guarded::new(1)));
        let this = shared.0.begin().unwrap();
        shared.0.submit(this).unwrap();
        let other = shared.clone();
        let completer = thread::spawn(move || {
            other.1.own(0);
            other.0.complete(this).unwrap();
        });
        while shared.0.begin().is_err() {
            thread::yield_now();
        }
        shared.1.own(0);
        completer.join().unwrap();
    });
}

/// A completion that comes twice does not end the next use.
#[test]
fn slot_late_completion() {
    model("slot_late_completion", || {
        let slot = Arc::new(SlotWord::free());
        let first = slot.begin().unwrap();
        slot.submit(first).unwrap();
        let other = slot.clone();
        let late = thread::spawn(move || other.complete(first).is_ok());
        let on_time = slot.complete(first).is_ok();
        let second = if on_time { slot.begin().ok() } else { None };
        if let Some(second) = second {
            slot.submit(second).unwrap();
        }
        assert!(late.join().unwrap() ^ on_time);
        if let Some(second) = second {
            slot.complete(second).unwrap();
        }
    });
}
