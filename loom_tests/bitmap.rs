//! The two-level bitmap: exclusive indices, no lost hint, no unseen double free.

use super::{Guarded, model};
use crate::lockfree::bitmap::{Bitmaps, Bits};
use loom::sync::Arc;
use loom::thread;

/// Two threads take, use and give indices of two words.
#[test]
fn bitmap_generic() {
    model("bitmap_generic", || {
        let shared = Arc::new((Bitmaps::new(1, 65).unwrap(), Guarded::new(65)));
        let (maps, _) = &*shared;
        maps.get(0).give(Bits::one(63)).unwrap();
        maps.get(0).give(Bits::one(64)).unwrap();
        let work = |shared: &(Bitmaps, Guarded), rounds| {
            for _ in 0..rounds {
                let Some(bits) = shared.0.get(0).take(0, 1) else {
                    continue;
                };
                bits.indices().for_each(|index| shared.1.own(index));
                shared.0.get(0).give(bits).unwrap();
            }
        };
        let other = shared.clone();
        let thread = thread::spawn(move || work(&other, 2));
        work(&shared, 1);
        thread.join().unwrap();
        let free: u32 = (0..2).map(|word| shared.0.get(0).word(word).count_ones()).sum();
        assert_eq!(free, 2);
    });
}

/// A taker finds the word empty and clears its hint while an index comes back.
#[test]
fn bitmap_hint_is_never_lost() {
    model("bitmap_hint_is_never_lost", || {
        let maps = Arc::new(Bitmaps::new(1, 2).unwrap());
        maps.get(0).give(Bits::one(0)).unwrap();
        maps.get(0).take(0, 1).unwrap();
        let other = maps.clone();
        let giver = thread::spawn(move || other.get(0).give(Bits::one(0)).unwrap());
        let taken = maps.get(0).take(0, 1);
        giver.join().unwrap();
        assert!(taken.is_some() || maps.get(0).take(0, 1).is_some());
    });
}

/// Two threads free the same index: one of them is told.
#[test]
fn bitmap_double_give() {
    model("bitmap_double_give", || {
        let maps = Arc::new(Bitmaps::new(1, 1).unwrap());
        let other = maps.clone();
        let first = thread::spawn(move || other.get(0).give(Bits::one(0)).is_err());
        let second = maps.get(0).give(Bits::one(0)).is_err();
        assert!(first.join().unwrap() ^ second);
    });
}

/// The last index of a word goes to two takers, one after the other.
#[test]
fn bitmap_last_index() {
    model("bitmap_last_index", || {
        let shared = Arc::new((Bitmaps::new(1, 1).unwrap(), Guarded::new(1)));
        shared.0.get(0).give(Bits::one(0)).unwrap();
        let take = |shared: &(Bitmaps, Guarded)| {
            let bits = shared.0.get(0).take(0, 15);
            if let Some(bits) = bits {
                shared.1.own(0);
                shared.0.get(0).give(bits).unwrap();
            }
            bits.is_some()
        };
        let other = shared.clone();
        let first = thread::spawn(move || take(&other));
        let second = take(&shared);
        assert!(first.join().unwrap() || second);
    });
}

/// A taker with a reservation needs no hint: a giver may have set the bit and not yet the hint.
/// Not in the first word, where no hint is looked at.
#[test]
fn bitmap_reserved_needs_no_hint() {
    model("bitmap_reserved_needs_no_hint", || {
        let maps = Arc::new(Bitmaps::new(1, 66).unwrap());
        let other = maps.clone();
        // The bit is there before the reservation is counted; the hint may come any time.
        let giver = thread::spawn(move || other.get(0).give(Bits::one(65)).unwrap());
        let bit_is_set = maps.get(0).word(1) & 0b10 != 0;
        let taken = maps.get(0).take_reserved(1);
        assert!(taken.is_some() || !bit_is_set);
        giver.join().unwrap();
    });
}

/// A thread that looks through a set clears a hint that nothing stands behind, while an index comes
/// back there.
#[test]
fn bitmap_set_is_never_lost() {
    model("bitmap_set_is_never_lost", || {
        let maps = Arc::new(Bitmaps::new(1, 66).unwrap());
        // Leaves the hint of a word without an index.
        maps.get(0).insert(65);
        maps.get(0).remove(65);
        let other = maps.clone();
        let inserter = thread::spawn(move || other.get(0).insert(65));
        let early = maps.get(0).next(0);
        assert!(early.is_none_or(|index| index == 65));
        inserter.join().unwrap();
        assert_eq!(maps.get(0).next(0), Some(65));
    });
}
