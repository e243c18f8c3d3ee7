//! The cache of graphs: its bound holds under any interleaving, and a graph is used by one at a
//! time.

use super::{Guarded, model};
use crate::staging::cache::{Account, Cache, make_room};
use crate::staging::ring::Ring;
use loom::sync::Arc;
use loom::thread;

/// Graphs are numbers; each guards an item of its own.
struct Scene {
    ring: Ring<Cache<usize>>,
    account: Account,
    graphs: Guarded,
}

impl Scene {
    fn new(depth: usize, max_count: usize) -> Self {
        let ring = Ring::new((0..depth).map(|_| Cache::new(2)), |_| ());
        Self { ring, account: Account::new(max_count, 100), graphs: Guarded::new(4) }
    }

    /// Begins a step in a slot that no other thread fills, makes or finds its graph, uses it, and
    /// submits. Returns whether there was room. The device is always done.
    fn step(&self, slot: usize, bucket: usize) -> Option<bool> {
        let mut claim = self.ring.claim_at(slot, |_| Ok::<_, ()>(true)).unwrap()?;
        if !claim.has(bucket) {
            if !make_room(&self.account, 10, &mut claim, &self.ring, |_| true, |cache| cache) {
                return Some(false);
            }
            claim.put(bucket, 2 * slot + bucket, 10);
        }
        let (count, bytes) = self.account.used();
        assert!(count <= 1 && bytes == 10 * count, "{count} graphs of {bytes} bytes");
        if let Some(graph) = claim.get(bucket) {
            self.graphs.own(*graph);
        }
        claim.submit();
        Some(true)
    }
}

/// Two slots want a graph each, and there may be one.
#[test]
fn cache_bound_holds() {
    model("cache_bound_holds", || {
        let scene = Arc::new(Scene::new(2, 1));
        let other = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.step(1, 0))
        };
        let own = scene.step(0, 0);
        let other = other.join().unwrap();
        // One of the threads had room.
        assert!(own == Some(true) || other == Some(true));
        assert_eq!(scene.account.used(), (1, 10));
    });
}

/// Two threads use one slot's graph, one after the other, while its eviction is wanted from
/// elsewhere.
#[test]
fn cache_graph_is_used_by_one() {
    model("cache_graph_is_used_by_one", || {
        let scene = Arc::new(Scene::new(2, 1));
        scene.step(0, 0);
        let other = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                scene.step(0, 0);
            })
        };
        scene.step(1, 1);
        scene.step(0, 0);
        other.join().unwrap();
        assert_eq!(scene.account.used(), (1, 10));
        // No slot is in use, so there is room by an eviction.
        assert_eq!((scene.step(1, 1), scene.step(0, 0)), (Some(true), Some(true)));
    });
}
