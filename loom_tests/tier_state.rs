//! Objects that move between tiers: nothing goes from under a pin, nothing stale becomes visible.

use super::{Guarded, model};
use crate::lockfree::tier_state::{Outcome, TierState, TierWord};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;

/// An object in tier 0 with two places. A place is read under a pin and by a copy, and written by
/// its owner; a number stands for the bytes.
struct Object {
    word: TierWord,
    bytes: [AtomicU32; 2],
    /// The two places, and the slot that the object is in.
    guarded: Guarded,
}

const SLOT: usize = 2;

impl Object {
    fn new() -> Arc<Self> {
        let bytes = [AtomicU32::new(1), AtomicU32::new(0)];
        let object = Self { word: TierWord::vacant(), bytes, guarded: Guarded::new(3) };
        object.word.occupy(0, true);
        Arc::new(object)
    }

    fn read(&self, state: TierState) -> u32 {
        self.guarded.share(state.place());
        self.bytes[state.place()].load(Relaxed)
    }

    fn write(&self, place: usize, bytes: u32) {
        self.guarded.own(place);
        self.bytes[place].store(bytes, Relaxed);
    }

    /// Frees the object, if that is the caller's to do: where it is, and its slot.
    fn settle(&self, outcome: Outcome) {
        if outcome == Outcome::Free {
            self.guarded.own(SLOT);
            self.write(self.word.load().place(), 0);
        }
    }

    /// A move: begun, copied, ended, and what is free then overwritten.
    fn shift(&self, to: usize) -> Option<Outcome> {
        let before = self.word.begin(to).ok()?;
        let (old, new) = (before.place(), 1 - before.place());
        let bytes = self.read(before);
        self.write(new, bytes);
        let outcome = self.word.end(true);
        self.write(if outcome == Outcome::Landed { old } else { new }, 0);
        self.settle(outcome);
        Some(outcome)
    }
}

/// A reader holds the object while another thread moves it away.
#[test]
fn tier_pin_against_demote() {
    model("tier_pin_against_demote", || {
        let object = Object::new();
        let other = object.clone();
        let mover = thread::spawn(move || other.shift(1));
        if let Ok(held) = object.word.pin(None, false) {
            assert_eq!(object.read(held), 1);
            thread::yield_now();
            assert_eq!((object.word.load().place(), object.read(held)), (held.place(), 1));
            assert_eq!(object.word.unpin(), Outcome::Kept);
        }
        mover.join().unwrap();
        let state = object.word.pin(None, false).unwrap();
        assert_eq!(object.read(state), 1);
    });
}

/// A reader reads the object where it has landed.
#[test]
fn tier_pin_after_landing() {
    model("tier_pin_after_landing", || {
        let object = Object::new();
        let other = object.clone();
        let mover = thread::spawn(move || other.shift(1));
        let state = loop {
            match object.word.pin(Some(1), false) {
                Ok(state) => break state,
                Err(_) => thread::yield_now(),
            }
        };
        assert_eq!(object.read(state), 1);
        mover.join().unwrap();
    });
}

/// The same, by a reader that gives up where the word changes.
#[test]
fn tier_try_pin_after_landing() {
    model("tier_try_pin_after_landing", || {
        let object = Object::new();
        let other = object.clone();
        let mover = thread::spawn(move || other.shift(1));
        let state = loop {
            match object.word.try_pin(1) {
                Some(state) => break state,
                None => thread::yield_now(),
            }
        };
        assert_eq!(object.read(state), 1);
        mover.join().unwrap();
    });
}

/// A writer changes the object that another thread copies: it waits for the copy, which never
/// becomes visible.
#[test]
fn tier_write_against_move() {
    model("tier_write_against_move", || {
        let object = Object::new();
        let other = object.clone();
        let before = object.word.begin(1).unwrap();
        let writer = thread::spawn(move || {
            let held = other.word.pin(None, true).unwrap();
            while other.word.is_moving() {
                thread::yield_now();
            }
            other.write(held.place(), 2);
            other.word.unpin();
        });
        object.read(before);
        let landed = object.word.end(true) == Outcome::Landed;
        writer.join().unwrap();
        let state = object.word.pin(None, false).unwrap();
        assert_eq!(landed, state.place() != before.place());
        assert_eq!(object.read(state), 2);
    });
}

/// What was written before a move begins is what arrives.
#[test]
fn tier_moved_after_a_write() {
    model("tier_moved_after_a_write", || {
        let object = Object::new();
        let other = object.clone();
        let writer = thread::spawn(move || {
            let held = other.word.pin(None, true).unwrap();
            other.write(held.place(), 2);
            other.word.unpin();
        });
        while object.word.load().is_clean() || object.word.load().pins() > 0 {
            thread::yield_now();
        }
        assert_eq!(object.shift(1), Some(Outcome::Landed));
        let state = object.word.pin(Some(1), false).unwrap();
        assert_eq!(object.read(state), 2);
        writer.join().unwrap();
    });
}

/// Two threads want the object in the same tier: one moves it, and its bytes arrive once.
#[test]
fn tier_promote_against_promote() {
    model("tier_promote_against_promote", || {
        let object = Object::new();
        let other = object.clone();
        let promoter = thread::spawn(move || other.shift(1) == Some(Outcome::Landed));
        let landed = object.shift(1) == Some(Outcome::Landed);
        assert!(promoter.join().unwrap() ^ landed);
        assert_eq!(object.word.load().tier(), 1);
        let state = object.word.pin(Some(1), false).unwrap();
        assert_eq!(object.read(state), 1);
    });
}

/// The object is dropped while a move and the device's last use of it are under way: the last
/// of them frees it, once.
#[test]
fn tier_drop_in_flight() {
    model("tier_drop_in_flight", || {
        let object = Object::new();
        object.word.pin(None, false).unwrap();
        let (user, mover) = (object.clone(), object.clone());
        let user = thread::spawn(move || {
            user.read(user.word.load());
            let last = user.word.unpin();
            user.settle(last);
            last == Outcome::Free
        });
        let mover = thread::spawn(move || mover.shift(1) == Some(Outcome::Free));
        let dropped = object.word.drop_object();
        object.settle(dropped);
        let freed = [dropped == Outcome::Free, user.join().unwrap(), mover.join().unwrap()];
        assert_eq!(freed.iter().filter(|freed| **freed).count(), 1, "{freed:?}");
    });
}
