//! The structures by themselves, with more threads than the models have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{below, schedules};
use crate::lockfree::bitmap::{Bitmaps, Bits};
use shuttle::thread;

/// How many use each item now; more than one is a mistake.
struct Users(Vec<AtomicUsize>);

impl Users {
    fn new(len: usize) -> Self {
        Self((0..len).map(|_| AtomicUsize::new(0)).collect())
    }

    fn enter(&self, items: impl IntoIterator<Item = usize>) {
        items
            .into_iter()
            .for_each(|item| assert_eq!(self.0[item].fetch_add(1, Relaxed), 0, "{item}"));
        thread::yield_now();
    }

    fn leave(&self, items: impl IntoIterator<Item = usize>) {
        for item in items {
            self.0[item].fetch_sub(1, Relaxed);
        }
    }
}

/// Runs `work` in `threads` threads on what they share.
fn together<T: Send + Sync + 'static>(threads: usize, shared: T, work: fn(&T)) -> Arc<T> {
    let shared = Arc::new(shared);
    let spawn = |_| {
        let shared = shared.clone();
        thread::spawn(move || work(&shared))
    };
    let handles: Vec<_> = (0..threads).map(spawn).collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    shared
}

#[test]
fn bitmap_indices_have_one_owner() {
    const LEN: usize = 70;
    schedules("bitmap_indices_have_one_owner", || {
        let maps = Bitmaps::new(1, LEN).unwrap();
        // Few enough that threads meet, in both words.
        [0, 1, 2, 64, 65].into_iter().for_each(|index| maps.get(0).give(Bits::one(index)).unwrap());
        let shared = together(6, (maps, Users::new(LEN)), |(maps, users)| {
            for _ in 0..4 {
                if let Some(bits) =
                    maps.get(0).take(below(LEN), 1 + u32::try_from(below(3)).unwrap())
                {
                    users.enter(bits.indices());
                    users.leave(bits.indices());
                    maps.get(0).give(bits).unwrap();
                }
            }
        });
        // No hint is lost: all that was there is found.
        let found: u32 =
            std::iter::from_fn(|| shared.0.get(0).take(0, 64)).map(|bits| bits.count()).sum();
        assert_eq!(found, 5);
    });
}
