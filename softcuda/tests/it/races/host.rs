//! Edges of the host: waits, queries, words and host functions.

use std::sync::atomic::{AtomicU64, Ordering};

use softcuda::Schedule;
use wharf_sys::bindings::CUstream;

use super::{holds_with_the_edge_alone, polled_rig, races, rig};
use crate::graph_rig::{SCHEDULES, host_call};
use crate::support::{Rig, code};

#[test]
fn the_host_orders_what_it_has_waited_for() {
    let waits: [fn(&Rig, CUstream, bool); 4] = [
        |rig, stream, _| rig.synchronize(stream),
        |rig, _, _| unsafe { rig.api.ctx_synchronize.call() }.unwrap(),
        |rig, stream, _| {
            let event = rig.event(2);
            rig.record(event, stream);
            unsafe { rig.api.event_synchronize.call(event) }.unwrap();
        },
        |rig, stream, _| while unsafe { rig.api.stream_query.call(stream) }.is_err() {},
    ];
    for wait in waits {
        for schedule in SCHEDULES {
            let rig = rig(schedule);
            let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(4));
            rig.fill(at, 1, one);
            wait(&rig, one, true);
            rig.fill(at, 2, two);
            assert_eq!(races(&rig), [], "{schedule:?}");
        }
    }
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(4));
        rig.fill(at, 1, one);
        rig.synchronize(if edge { one } else { two });
        rig.fill(at, 2, two);
    });
}

#[test]
fn a_true_query_of_an_event_orders_and_a_false_one_does_not() {
    let rig = rig(Schedule::Late);
    let (one, two, at, event) = (rig.stream(1), rig.stream(1), rig.device(4), rig.event(2));
    rig.fill(at, 1, one);
    rig.record(event, one);
    while unsafe { rig.api.event_query.call(event) }.is_err() {}
    rig.fill(at, 2, two);
    assert_eq!(races(&rig), []);
    rig.fill(at, 1, one);
    rig.record(event, one);
    // The fill runs, and the event is not complete yet: the host was not told.
    code(unsafe { rig.api.event_query.call(event) });
    rig.fill(at, 2, two);
    assert_eq!(races(&rig).len(), 1);
}

#[test]
fn a_word_that_was_written_tells_the_host_and_one_that_is_pending_does_not() {
    let program = |rig: &Rig, polls: bool| {
        let (one, two, at, words) = (rig.stream(1), rig.stream(1), rig.device(4), rig.pinned(8));
        words.fill(0);
        let address = words.as_ptr().expose_provenance() as u64;
        let word: &AtomicU64 = unsafe { &*words.as_ptr().cast() };
        rig.fill(at, 1, one);
        unsafe { rig.api.stream_write_value_64.call(one, address, 1, 0) }.unwrap();
        // The host looks at memory and calls no driver.
        while polls && word.load(Ordering::Acquire) != 1 {
            std::hint::spin_loop();
        }
        rig.fill(at, 2, two);
    };
    for schedule in SCHEDULES {
        let rig = polled_rig(schedule);
        program(&rig, true);
        assert_eq!(races(&rig), [], "{schedule:?}");
    }
    let rig = rig(Schedule::Late);
    program(&rig, false);
    assert_eq!(races(&rig).len(), 1);
}

#[test]
fn a_wait_for_a_value_comes_behind_what_wrote_it_in_either_order_of_submission() {
    for schedule in SCHEDULES {
        let rig = rig(schedule);
        let (one, two, at, word) = (rig.stream(1), rig.stream(1), rig.device(4), rig.device(8));
        rig.fill(word, 0, one);
        rig.synchronize(one);
        unsafe {
            rig.api.stream_wait_value_32.call(two, word, 1, 0).unwrap();
            rig.fill(at, 2, two);
            rig.fill(at, 1, one);
            rig.api.stream_write_value_32.call(one, word, 1, 0).unwrap();
        }
        assert_eq!(races(&rig), [], "{schedule:?}");
    }
}

#[test]
fn a_host_function_tells_the_host() {
    for schedule in SCHEDULES {
        let rig = polled_rig(schedule);
        let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(4));
        let called = AtomicU64::new(0);
        let count = || {
            called.fetch_add(1, Ordering::Release);
        };
        let (function, data) = host_call(&count);
        rig.fill(at, 1, one);
        unsafe { rig.api.launch_host_func.call(one, function, data) }.unwrap();
        while called.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
        rig.fill(at, 2, two);
        assert_eq!(races(&rig), [], "{schedule:?}");
    }
}

#[test]
fn a_long_program_that_the_host_follows_has_no_race() {
    let rig = rig(Schedule::Eager);
    let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(1 << 20));
    let event = rig.event(2);
    for index in 0..20_000 {
        let offset = index * 40 % (1 << 20);
        rig.fill(at + offset, 1, one);
        if index % 1000 == 999 {
            rig.record(event, one);
            rig.wait(two, event);
            rig.fill(at + offset, 2, two);
            rig.synchronize(two);
        }
    }
    assert_eq!(races(&rig), []);
}
