//! The retire list: an index comes out once, and only when its own ticket is complete.

use super::{Guarded, model};
use crate::lockfree::retire_list::RetireList;
use loom::sync::Arc;
use loom::thread;

/// An index is reclaimed, used and retired again under the eyes of a second reclaimer.
#[test]
fn retire_list_ticket_changes() {
    model("retire_list_ticket_changes", || {
        let list = Arc::new(RetireList::new(1));
        list.retire(0, 1).unwrap();
        let other = list.clone();
        let reuser = thread::spawn(move || {
            let got = other.reclaim(|ticket| ticket <= 1);
            if got.is_some() {
                // Ticket 2 is not complete in this model.
                other.retire(0, 2).unwrap();
            }
            got.is_some()
        });
        let got = list.reclaim(|ticket| ticket <= 1).is_some();
        let other_got = reuser.join().unwrap();
        assert!(!(got && other_got), "an index came out before its ticket was complete");
        assert!(got || other_got, "a complete ticket was missed by both");
    });
}

/// Two threads reclaim what one of them retires, and use it.
#[test]
fn retire_list_generic() {
    model("retire_list_generic", || {
        let shared = Arc::new((RetireList::new(2), Guarded::new(2)));
        shared.0.retire(0, 1).unwrap();
        let work = |shared: &(RetireList, Guarded)| {
            if let Some(index) = shared.0.reclaim(|ticket| ticket <= 1) {
                shared.1.own(index);
                shared.0.retire(index, 1).unwrap();
            }
        };
        let other = shared.clone();
        let thread = thread::spawn(move || work(&other));
        shared.1.own(1);
        shared.0.retire(1, 1).unwrap();
        work(&shared);
        thread.join().unwrap();
        assert_eq!(shared.0.len(), 2);
    });
}
