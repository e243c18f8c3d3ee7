//! The run map: runs do not overlap, and a collision loses no granule.

use super::{Guarded, model};
use crate::lockfree::run_map::RunMap;
use loom::sync::Arc;
use loom::thread;

/// 66 granules are two words: a run of 3 may lie across both.
const GRANULES: usize = 66;

/// Two takers of overlapping runs: both fit, so both get one.
#[test]
fn run_map_takers_collide() {
    model("run_map_takers_collide", || {
        let shared = Arc::new((RunMap::new(GRANULES), Guarded::new(GRANULES)));
        shared.0.take(61, 1).unwrap();
        let work = |shared: &(RunMap, Guarded), len| {
            let run = shared.0.take(len, 1)?;
            (run.start..run.start + run.len).for_each(|granule| shared.1.own(granule));
            Some(run)
        };
        let other = shared.clone();
        let thread = thread::spawn(move || work(&other, 3));
        let here = work(&shared, 2);
        let there = thread.join().unwrap();
        assert!(here.is_some() && there.is_some(), "{here:?} {there:?}");
    });
}

/// A run is given back while another that covers it is taken.
#[test]
fn run_map_generic() {
    model("run_map_generic", || {
        let shared = Arc::new((RunMap::new(GRANULES), Guarded::new(GRANULES)));
        shared.0.take(62, 1).unwrap();
        let low = shared.0.take(2, 1).unwrap();
        let other = shared.clone();
        let thread = thread::spawn(move || {
            other.1.own(low.start);
            other.0.give(low).unwrap();
        });
        if let Some(run) = shared.0.take(3, 1) {
            // The lowest run, or the next one if its first granule came back too late.
            assert!(run.start == 62 || run.start == 63, "{run:?}");
            (run.start..run.start + run.len).for_each(|granule| shared.1.own(granule));
            shared.0.give(run).unwrap();
        }
        thread.join().unwrap();
        assert_eq!(shared.0.longest(), 4);
    });
}

/// Two takers of one run across two words: the second takes nothing.
#[test]
fn run_map_one_run_for_two() {
    model("run_map_one_run_for_two", || {
        let map = Arc::new(RunMap::new(GRANULES));
        map.take(62, 1).unwrap();
        let other = map.clone();
        let thread = thread::spawn(move || other.take(4, 1).is_some());
        let here = map.take(4, 1).is_some();
        assert!(here ^ thread.join().unwrap());
        assert_eq!(map.longest(), 0);
    });
}
