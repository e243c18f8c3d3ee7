//! The index stack: an index has one owner, and what was done with it is seen by the next.

use super::{Guarded, model};
use crate::lockfree::index_stack::{IndexStack, NONE};
use crate::sync::atomic::AtomicU32;
use loom::sync::Arc;
use loom::thread;

struct Rig {
    stack: IndexStack,
    links: Vec<AtomicU32>,
    items: Guarded,
}

impl Rig {
    /// All of `len` indices are on the stack, the last on top.
    fn full(len: u32) -> Arc<Self> {
        let links = (0..len).map(|_| AtomicU32::new(NONE)).collect();
        let rig = Self { stack: IndexStack::new(), links, items: Guarded::new(len as usize) };
        (0..len).for_each(|index| rig.push(index));
        Arc::new(rig)
    }

    fn push(&self, index: u32) {
        self.stack.push(index, |index| &self.links[index as usize]);
    }

    fn pop(&self) -> Option<u32> {
        let index = self.stack.pop(|index| &self.links[index as usize])?;
        self.items.own(index as usize);
        Some(index)
    }

    /// Keeps everything, and counts it.
    fn count(&self) -> usize {
        let mut count = 0;
        let links = |index: u32| &self.links[index as usize];
        self.stack.sort(links, |index| {
            self.items.own(index as usize);
            count += 1;
            false
        });
        count
    }
}

/// The top goes and comes back, while what was below it is taken.
#[test]
fn index_stack_top_comes_back() {
    model("index_stack_top_comes_back", || {
        let rig = Rig::full(3);
        let other = rig.clone();
        let thread = thread::spawn(move || {
            let first = other.pop();
            let second = other.pop();
            if let Some(index) = first {
                other.push(index);
            }
            second
        });
        let mut taken: Vec<_> = [rig.pop(), rig.pop()].into_iter().flatten().collect();
        taken.extend(thread.join().unwrap());
        while let Some(index) = rig.pop() {
            taken.push(index);
        }
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 2], "each index has one owner");
    });
}

/// One takes the whole stack apart and puts it back, another takes and puts.
#[test]
fn index_stack_generic() {
    model("index_stack_generic", || {
        let rig = Rig::full(2);
        let other = rig.clone();
        let thread = thread::spawn(move || other.count());
        if let Some(index) = rig.pop() {
            rig.push(index);
        }
        assert!(thread.join().unwrap() <= 2);
        assert_eq!(rig.count(), 2, "nothing is lost");
    });
}

/// A stack is closed beside a push of an index with something that the pusher keeps if the stack is
/// closed: one of the two has it, and comes after what the other did.
#[test]
fn index_stack_closes_beside_a_push() {
    model("index_stack_closes_beside_a_push", || {
        let rig = Rig::full(1);
        let index = rig.pop().unwrap();
        let other = rig.clone();
        let thread = thread::spawn(move || {
            other.items.own(index as usize);
            let is_pushed = other.stack.push_open(index, &other.links[index as usize]);
            if !is_pushed {
                other.items.own(index as usize);
                other.push(index);
            }
            is_pushed
        });
        let taken = rig.stack.close();
        if let Some(index) = taken {
            rig.items.own(index as usize);
            rig.push(index);
        }
        assert_eq!(taken.is_some(), thread.join().unwrap(), "one of them has it");
        assert_eq!(rig.pop(), Some(index), "a closed stack keeps what is pushed");
    });
}
