//! The slab state word with its bitmap: reservations, the last free, claims and re-classing.

use super::{Guarded, model};
use crate::lockfree::bitmap::{Bitmaps, Bits};
use crate::lockfree::slab_state::SlabWord;
use loom::sync::Arc;
use loom::thread;

/// One run of up to two blocks; item 2 of the guarded data is the run's metadata.
struct Run {
    state: SlabWord,
    bits: Bitmaps,
    data: Guarded,
}

const META: usize = 2;
const CLASS: u8 = 4;
const OTHER: u8 = 9;

impl Run {
    fn open(capacity: u32) -> Arc<Self> {
        let run = Self {
            state: SlabWord::vacant(),
            bits: Bitmaps::new(1, 2).unwrap(),
            data: Guarded::new(3),
        };
        run.state.claim_vacant().unwrap();
        run.set_up(CLASS, capacity);
        Arc::new(run)
    }

    /// What a claimer does before it opens the run.
    fn set_up(&self, class: u8, capacity: u32) {
        self.data.own(META);
        self.bits.get(0).fill(capacity as usize);
        self.state.open(class, capacity, capacity).unwrap();
    }

    fn alloc(&self, class: u8) -> Option<Bits> {
        let count = self.state.reserve(class, 1).ok()?;
        assert_eq!(count, 1);
        loop {
            if let Some(bits) = self.bits.get(0).take_reserved(1) {
                bits.indices().for_each(|index| self.data.own(index));
                return Some(bits);
            }
            thread::yield_now();
        }
    }

    fn free(&self, bits: Bits) {
        bits.indices().for_each(|index| self.data.own(index));
        self.bits.get(0).give(bits).unwrap();
        self.state.put_back(bits.count()).unwrap();
    }

    /// Claims the run if it is empty and gives its metadata a new meaning.
    fn reclass(&self, class: u8, capacity: u32) -> bool {
        let claimed = self.state.claim_empty().is_ok();
        if claimed {
            // No block is held: all of the run is the claimer's.
            (0..META).for_each(|index| self.data.own(index));
            self.set_up(class, capacity);
        }
        claimed
    }
}

/// Two threads allocate and free in one slab.
#[test]
fn slab_alloc_against_alloc() {
    model("slab_alloc_against_alloc", || {
        let run = Run::open(2);
        let other = run.clone();
        let thread = thread::spawn(move || {
            let bits = other.alloc(CLASS).unwrap();
            other.free(bits);
        });
        let first = run.alloc(CLASS).unwrap();
        run.free(first);
        thread.join().unwrap();
        assert!(run.state.load().is_empty());
    });
}

/// A block is freed into a full slab while another thread wants one.
#[test]
fn slab_free_against_alloc() {
    model("slab_free_against_alloc", || {
        let run = Run::open(1);
        let bits = run.alloc(CLASS).unwrap();
        let other = run.clone();
        let thread = thread::spawn(move || other.alloc(CLASS).map(|bits| other.free(bits)));
        run.free(bits);
        thread.join().unwrap();
        assert!(run.state.load().is_empty());
        assert!(run.bits.get(0).word(0) & 1 != 0);
    });
}

/// The last block comes back while another thread tries to take the slab out of use.
#[test]
fn slab_last_free_against_release() {
    model("slab_last_free_against_release", || {
        let run = Run::open(2);
        let bits = run.alloc(CLASS).unwrap();
        let other = run.clone();
        let thread = thread::spawn(move || other.reclass(OTHER, 1));
        run.free(bits);
        let early = thread.join().unwrap();
        assert!(early || run.reclass(OTHER, 1));
        assert_eq!(run.state.load().class(), OTHER);
    });
}

/// A slab is re-classed while an allocator that knew it under its old class comes by.
#[test]
fn slab_reclass_against_alloc() {
    model("slab_reclass_against_alloc", || {
        let run = Run::open(2);
        let other = run.clone();
        let thread = thread::spawn(move || {
            if let Some(bits) = other.alloc(CLASS) {
                other.free(bits);
            }
        });
        if run.reclass(OTHER, 1) {
            let bits = run.alloc(OTHER).unwrap();
            run.free(bits);
        }
        thread.join().unwrap();
        assert!(run.state.load().is_empty());
    });
}

/// A slab is opened for a class while an allocator of that class comes by.
#[test]
fn slab_open_against_alloc() {
    model("slab_open_against_alloc", || {
        let run = Run::open(2);
        let other = run.clone();
        let thread = thread::spawn(move || {
            if let Some(bits) = other.alloc(OTHER) {
                other.free(bits);
            }
        });
        assert!(run.reclass(OTHER, 1));
        thread.join().unwrap();
        assert!(run.state.load().is_empty());
    });
}

/// Two threads claim one empty slab.
#[test]
fn slab_claim_against_claim() {
    model("slab_claim_against_claim", || {
        let run = Run::open(2);
        let claim = |run: &Run| {
            let claimed = run.state.claim_empty().is_ok();
            if claimed {
                run.data.own(META);
                run.state.vacate().unwrap();
                // Its granules may go to another thread, which claims the run anew.
                if run.state.claim_vacant().is_ok() {
                    run.data.own(META);
                    run.state.vacate().unwrap();
                }
            }
            claimed
        };
        let other = run.clone();
        let thread = thread::spawn(move || {
            let claimed = claim(&other);
            if other.state.claim_vacant().is_ok() {
                other.data.own(META);
                other.state.vacate().unwrap();
            }
            claimed
        });
        let here = claim(&run);
        assert!(here ^ thread.join().unwrap());
    });
}
