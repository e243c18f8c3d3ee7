//! Persistent tables: what the device has of a table is what steps have noted, whichever thread
//! sent them, and whatever failed.

use super::{Guarded, model};
use crate::staging::patches::{Patches, Piece};
use crate::staging::ring::Ring;
use crate::staging::tables::Tables;
use loom::sync::Arc;
use loom::thread;
use std::sync::Mutex;

/// A ring of two slots with the patches of their steps, and the device's table of four bytes.
struct Scene {
    ring: Ring<Area>,
    tables: Tables,
    /// The table on the device: the copies of one step at a time write it.
    order: Guarded,
    /// No primitive of the model's: the order of its uses is what `order` checks.
    device: Mutex<[u8; 4]>,
}

/// A ring slot: the list and the bytes.
#[derive(Default)]
struct Area {
    patches: Patches,
    bytes: [u8; 4],
}

impl Scene {
    fn new() -> Self {
        let areas = [(); 2].map(|()| Area::default());
        Self {
            ring: Ring::new(areas, |area| area.patches.clear()),
            tables: Tables::new([4]),
            order: Guarded::new(1),
            device: Mutex::new([0; 4]),
        }
    }

    /// A step that patches two bytes, as `Step::patch` and `Step::submit` do, and whose launch
    /// fails or not.
    fn step(&self, start: usize, value: u8, fails: bool) {
        let Some(mut claim) = self.ring.claim(|_| Ok::<_, ()>(true)).unwrap() else { return };
        let Area { patches, bytes } = &mut *claim;
        patches.clear();
        let put = |Piece { at, size, .. }: Piece| bytes[at..at + size].fill(value);
        patches.put(start, 2, 4, put).unwrap();
        let mut held = self.tables.hold().unwrap();
        self.copy(&held.torn(0).map(|(at, bytes)| (at, bytes.to_vec())).collect::<Vec<_>>());
        let sent = claim
            .patches
            .list()
            .iter()
            .map(|patch| (patch.start, claim.bytes[patch.at..][..patch.size].to_vec()));
        self.copy(&sent.collect::<Vec<_>>());
        if fails {
            held.tear(0, claim.patches.list().iter().map(|patch| (patch.start, patch.end())));
            return;
        }
        held.mend(0);
        for patch in claim.patches.list() {
            held.note(0, patch, &claim.bytes[patch.at..][..patch.size]);
        }
        drop(held);
        claim.submit();
    }

    /// A step that patches nothing, and mends what is torn.
    fn mend(&self) {
        if self.tables.is_torn() {
            let mut held = self.tables.hold().unwrap();
            self.copy(&held.torn(0).map(|(at, bytes)| (at, bytes.to_vec())).collect::<Vec<_>>());
            held.mend(0);
        }
    }

    fn copy(&self, copies: &[(usize, Vec<u8>)]) {
        self.order.own(0);
        let mut device = self.device.lock().unwrap();
        for (start, bytes) in copies {
            device[*start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The device's table, when all is sent.
    fn read(&self) -> [u8; 4] {
        *self.device.lock().unwrap()
    }
}

/// One thread's steps succeed, the other's fails: the next step, whichever it is, leaves nothing of
/// it.
#[test]
fn patches_of_a_failed_step_are_taken_back() {
    model("patches_of_a_failed_step_are_taken_back", || {
        let scene = Arc::new(Scene::new());
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || other.step(1, 9, true));
        scene.step(0, 1, false);
        thread.join().unwrap();
        scene.mend();
        assert_eq!(scene.read(), [1, 1, 0, 0]);
        assert!(!scene.tables.is_torn());
    });
}

/// Two threads patch the same bytes: the device has what was noted last, so that mending it later
/// changes nothing.
#[test]
fn patches_of_two_threads_are_one_behind_the_other() {
    model("patches_of_two_threads_are_one_behind_the_other", || {
        let scene = Arc::new(Scene::new());
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || other.step(1, 9, false));
        scene.step(0, 1, false);
        thread.join().unwrap();
        let table = scene.read();
        assert!([[1, 1, 9, 0], [1, 9, 9, 0]].contains(&table), "{table:?}");
        scene.tables.hold().unwrap().tear_all(0);
        scene.mend();
        assert_eq!(scene.read(), table);
    });
}

/// A ring slot that a dropped step has patched says nothing of it to the next step.
#[test]
fn patches_of_a_dropped_step_are_forgotten() {
    model("patches_of_a_dropped_step_are_forgotten", || {
        let scene = Arc::new(Scene::new());
        let other = Arc::clone(&scene);
        let thread = thread::spawn(move || {
            let mut claim = other.ring.claim_at(0, |_| Ok::<_, ()>(true)).unwrap();
            if let Some(claim) = &mut claim {
                claim.patches.put(2, 2, 4, |_| ()).unwrap();
            }
        });
        if let Some(claim) = scene.ring.claim_at(0, |_| Ok::<_, ()>(true)).unwrap() {
            assert_eq!(claim.patches.list(), []);
        }
        thread.join().unwrap();
    });
}
