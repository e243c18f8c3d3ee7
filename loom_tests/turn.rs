//! The turn: what one thread does to a list in its turn, the next sees whole.

use super::model;
use crate::lockfree::index_stack::{IndexStack, NONE};
use crate::lockfree::turn::Turns;
use crate::sync::atomic::AtomicU32;
use loom::sync::Arc;
use loom::thread;

/// A thread takes a list apart and puts it back; the next that has the turn finds all of it.
#[test]
fn turn_hands_a_list_over() {
    model("turn_hands_a_list_over", || {
        let shared = Arc::new((Turns::new(), IndexStack::new(), AtomicU32::new(NONE)));
        let (turns, list, link) = &*shared;
        list.push(0, |_| link);
        let other = shared.clone();
        let looker = thread::spawn(move || {
            let (turns, list, link) = &*other;
            if let Some(_turn) = turns.take() {
                list.sort(|_| link, |_| false);
            }
        });
        let turn = loop {
            match turns.take() {
                Some(turn) => break turn,
                None => thread::yield_now(),
            }
        };
        assert_eq!(list.pop(|_| link), Some(0), "the list is empty in another thread's turn");
        drop(turn);
        looker.join().unwrap();
    });
}
