//! The check `value-order`: waits for values that other streams write.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use softcuda::{Check, Checks, Config, Schedule, Violation};
use wharf_sys::bindings::CUstream;

use super::races;
use crate::graph_rig::SCHEDULES;
use crate::support::Rig;

/// What the check `value-order` alone finds where `program` waits for a value.
fn unseen_orders(schedule: Schedule, program: fn(&Rig, CUstream, CUstream, u64)) -> Vec<Violation> {
    let mut checks = Checks::default();
    checks.value_order = true;
    let rig = Rig::with(Config { schedule, checks, ..Rig::config() });
    let (one, two, word) = (rig.stream(1), rig.stream(1), rig.device(8));
    rig.fill(word, 0, one);
    rig.synchronize(one);
    program(&rig, one, two, word);
    races(&rig)
}

#[test]
fn a_wait_for_a_value_of_another_stream_without_an_event_between_them_may_deadlock() {
    for schedule in SCHEDULES {
        let found = unseen_orders(schedule, |rig, one, two, word| unsafe {
            rig.api.stream_wait_value_32.call(two, word, 1, 0).unwrap();
            rig.api.stream_write_value_32.call(one, word, 1, 0).unwrap();
        });
        assert_eq!(found.len(), 1, "{schedule:?}: {found:?}");
        let unseen = &found[0];
        assert_eq!((unseen.check, unseen.call), (Check::ValueOrder, "cuStreamWaitValue32"));
        assert!(unseen.what.contains("cuStreamWriteValue32"), "{}", unseen.what);
        // A copy that is waited for counts as a word.
        let found = unseen_orders(schedule, |rig, one, two, word| {
            unsafe { rig.api.stream_wait_value_32.call(two, word, 7, 0) }.unwrap();
            rig.fill(word, 7, one);
        });
        assert_eq!(found.len(), 1, "{schedule:?}: {found:?}");
    }
}

#[test]
fn a_wait_for_a_value_that_an_event_the_stream_or_the_host_orders_is_not_reported() {
    for schedule in SCHEDULES {
        let by_event = unseen_orders(schedule, |rig, one, two, word| unsafe {
            let event = rig.event(2);
            rig.api.stream_write_value_32.call(one, word, 1, 0).unwrap();
            rig.record(event, one);
            rig.wait(two, event);
            rig.api.stream_wait_value_32.call(two, word, 1, 0).unwrap();
        });
        assert_eq!(by_event, [], "{schedule:?}");
        let by_stream = unseen_orders(schedule, |rig, one, _, word| unsafe {
            rig.api.stream_write_value_32.call(one, word, 1, 0).unwrap();
            rig.api.stream_wait_value_32.call(one, word, 1, 0).unwrap();
        });
        assert_eq!(by_stream, [], "{schedule:?}");
        let by_host = unseen_orders(schedule, |rig, one, two, word| unsafe {
            rig.api.stream_write_value_32.call(one, word, 1, 0).unwrap();
            rig.synchronize(one);
            rig.api.stream_wait_value_32.call(two, word, 1, 0).unwrap();
        });
        assert_eq!(by_host, [], "{schedule:?}");
    }
}

/// The other stream has written the word last that the driver knows of, but not what was waited
/// for.
#[test]
fn a_wait_for_a_value_that_the_host_writes_is_not_reported() {
    for schedule in SCHEDULES {
        let found = unseen_orders(schedule, |rig, one, two, _| {
            let word: &AtomicU64 = unsafe { &*rig.pinned(8).as_ptr().cast() };
            let at = ptr::from_ref(word).expose_provenance() as u64;
            word.store(0, Ordering::Release);
            unsafe {
                rig.api.stream_wait_value_64.call(two, at, 3, 0).unwrap();
                rig.api.stream_write_value_64.call(one, at, 1, 0).unwrap();
            }
            rig.synchronize(one);
            word.store(3, Ordering::Release);
            rig.synchronize(two);
        });
        assert_eq!(found, [], "{schedule:?}");
    }
}
