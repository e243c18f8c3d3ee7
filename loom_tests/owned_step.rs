//! Steps that own a share of their set: they go to other threads, where each slot is one step's at
//! a time, and the set's memory goes when the last share does.

#![expect(unsafe_code, reason = "keeps a claim beside the ring that it is of")]

use super::{Guarded, model};
use crate::staging::ring::{Claim, Ring};
use crate::sync::atomic::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

/// A ring, the memory of its slots, and the words that the device writes.
struct Set {
    ring: Ring<()>,
    memory: Guarded,
    words: Vec<AtomicU64>,
}

/// The memory goes: nothing may use it beside that.
impl Drop for Set {
    fn drop(&mut self) {
        (0..self.ring.len()).for_each(|slot| self.memory.own(slot));
    }
}

/// As `Step::into_owned` puts it together.
struct Owned {
    claim: Claim<'static, ()>,
    // Last: fields are dropped in their order.
    set: Arc<Set>,
}

impl Set {
    fn new(depth: usize) -> Arc<Self> {
        let words = (0..depth).map(|_| AtomicU64::new(0)).collect();
        let ring = Ring::new((0..depth).map(|_| ()), |()| ());
        Arc::new(Self { ring, memory: Guarded::new(depth), words })
    }

    fn is_done(&self, slot: usize) -> bool {
        // Acquire: pairs with the Release of `submit`.
        self.words[slot].load(Ordering::Acquire) != 0
    }
}

impl Owned {
    fn begin(set: &Arc<Set>) -> Option<Self> {
        let claim = set.ring.claim(|slot| Ok::<_, ()>(set.is_done(slot))).unwrap()?;
        // SAFETY: the ring is the set's, which is kept beside the claim.
        let claim = unsafe { claim.outlive() };
        Some(Self { claim, set: Arc::clone(set) })
    }

    fn write(&self) {
        self.set.memory.own(self.claim.index());
    }

    /// Hands the slot to a device that copies it at once.
    fn submit(self) {
        let Self { claim, set } = self;
        let slot = claim.index();
        set.words[slot].store(0, Ordering::Release);
        claim.submit();
        set.memory.own(slot);
        // Release: pairs with the Acquire of `is_done`.
        set.words[slot].store(1, Ordering::Release);
    }
}

/// A step is submitted by a thread, another one is begun meanwhile, and the set is let go of.
#[test]
fn owned_step_is_submitted_elsewhere() {
    model("owned_step_is_submitted_elsewhere", || {
        let set = Set::new(1);
        let step = Owned::begin(&set).unwrap();
        let thread = thread::spawn(move || {
            step.write();
            step.submit();
        });
        if let Some(step) = Owned::begin(&set) {
            step.write();
        }
        drop(set);
        thread.join().unwrap();
    });
}

/// A step is dropped by a thread while the set is let go of by two.
#[test]
fn owned_step_is_dropped_elsewhere() {
    model("owned_step_is_dropped_elsewhere", || {
        let set = Set::new(1);
        let step = Owned::begin(&set).unwrap();
        let thread = thread::spawn(move || {
            step.write();
            drop(step);
        });
        let next = Owned::begin(&set);
        drop(set);
        if let Some(step) = next {
            step.write();
            step.submit();
        }
        thread.join().unwrap();
    });
}
