//! The slice map: runs do not overlap, and a granule that is whole again has one owner.

use super::{Guarded, model};
use crate::lockfree::slice_map::SliceMap;
use loom::sync::Arc;
use loom::thread;

/// A granule.
const EACH: usize = 4;

struct Shared {
    map: SliceMap,
    slices: Guarded,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { map: SliceMap::new(1, EACH), slices: Guarded::new(EACH) })
    }

    /// Takes a run and uses it; its first slice.
    fn take(&self, len: usize) -> Option<usize> {
        let start = self.map.take(len)?;
        (start..start + len).for_each(|slice| self.slices.own(slice));
        Some(start)
    }

    /// Uses a run that is the caller's and gives it back. Returns whether its granule is whole
    /// then.
    fn give(&self, start: usize, len: usize) -> bool {
        (start..start + len).for_each(|slice| self.slices.own(slice));
        self.map.give(start, len).unwrap()
    }

    fn take_granule(&self) -> bool {
        let taken = self.map.take_granule(0);
        if taken {
            (0..EACH).for_each(|slice| self.slices.own(slice));
        }
        taken
    }
}

/// Two takers of overlapping runs: both fit, so both get one.
#[test]
fn slice_map_takers_collide() {
    model("slice_map_takers_collide", || {
        let shared = Shared::new();
        assert!(shared.give(0, EACH));
        let other = shared.clone();
        let thread = thread::spawn(move || other.take(2));
        let here = shared.take(1);
        let there = thread.join().unwrap();
        assert!(here.is_some() && there.is_some(), "{here:?} {there:?}");
    });
}

/// The two halves of a granule come back: at least one thread sees it whole, and one gets it.
#[test]
fn slice_map_halves_come_back() {
    model("slice_map_halves_come_back", || {
        let shared = Shared::new();
        let work = |shared: &Shared, start| shared.give(start, 2) && shared.take_granule();
        let other = shared.clone();
        let thread = thread::spawn(move || work(&other, 0));
        let here = work(&shared, 2);
        assert!(here ^ thread.join().unwrap(), "a whole granule has one owner");
    });
}

/// A granule that has just become whole is taken as one while a slice of it is taken.
#[test]
fn slice_map_granule_against_slice() {
    model("slice_map_granule_against_slice", || {
        let shared = Shared::new();
        shared.give(1, 3);
        let other = shared.clone();
        let thread = thread::spawn(move || other.take(1).map(|start| other.give(start, 1)));
        let whole = shared.give(0, 1) && shared.take_granule();
        let slice = thread.join().unwrap();
        // Either the slice came back and made it whole, or the granule went first.
        assert!(whole || shared.take_granule(), "{slice:?}");
    });
}
