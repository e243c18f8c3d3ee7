//! Edges of streams: their order, events, default streams.

use softcuda::Schedule;
use wharf_sys::bindings::{PFN_cuCtxRecordEvent_v12050, PFN_cuCtxWaitEvent_v12050};

use super::{LEGACY, PER_THREAD, holds_with_the_edge_alone, races, rig};

#[test]
fn operations_of_one_stream_are_ordered() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(4));
        rig.fill(at, 1, one);
        rig.fill(at, 2, if edge { one } else { two });
    });
}

#[test]
fn an_event_orders_the_stream_that_waits_for_it() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(4));
        let (before, after) = (rig.event(2), rig.event(2));
        rig.record(before, one);
        rig.fill(at, 1, one);
        rig.record(after, one);
        rig.wait(two, if edge { after } else { before });
        rig.fill(at, 2, two);
    });
}

#[test]
fn order_goes_through_a_stream_that_touches_nothing() {
    holds_with_the_edge_alone(|rig, edge| {
        let streams = [rig.stream(1), rig.stream(1), rig.stream(1)];
        let at = rig.device(4);
        rig.fill(at, 1, streams[0]);
        for pair in streams.windows(2).skip(usize::from(!edge)) {
            let event = rig.event(2);
            rig.record(event, pair[0]);
            rig.wait(pair[1], event);
        }
        rig.fill(at, 2, streams[2]);
    });
}

#[test]
fn a_blocking_stream_is_ordered_with_the_legacy_one_and_a_non_blocking_stream_is_not() {
    holds_with_the_edge_alone(|rig, edge| {
        let (stream, at) = (rig.stream(u32::from(!edge)), rig.device(4));
        rig.fill(at, 1, stream);
        rig.fill(at, 2, LEGACY);
    });
    holds_with_the_edge_alone(|rig, edge| {
        let (stream, at) = (rig.stream(u32::from(!edge)), rig.device(4));
        rig.fill(at, 1, LEGACY);
        rig.fill(at, 2, stream);
    });
    // Two blocking streams are ordered by what the legacy one does between them.
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at) = (rig.stream(0), rig.stream(0), rig.device(8));
        rig.fill(at, 1, one);
        if edge {
            rig.fill(at + 4, 2, LEGACY);
        }
        rig.fill(at, 3, two);
    });
}

#[test]
fn each_thread_has_a_default_stream_of_its_own() {
    holds_with_the_edge_alone(|rig, edge| {
        let at = rig.device(4);
        rig.fill(at, 1, PER_THREAD);
        if edge {
            rig.fill(at, 2, PER_THREAD);
        } else {
            rig.elsewhere(|| rig.fill(at, 2, PER_THREAD));
        }
    });
}

#[test]
fn all_work_of_a_context_can_be_recorded_and_waited_for() {
    holds_with_the_edge_alone(|rig, edge| {
        let record = entry!("cuCtxRecordEvent" 12050 PFN_cuCtxRecordEvent_v12050);
        let wait = entry!("cuCtxWaitEvent" 12050 PFN_cuCtxWaitEvent_v12050);
        let (one, two, at, event) = (rig.stream(1), rig.stream(1), rig.device(4), rig.event(2));
        rig.fill(at, 1, one);
        if edge {
            unsafe {
                assert_eq!(record(rig.context, event).0, 0);
                assert_eq!(wait(rig.context, event).0, 0);
            }
        }
        rig.fill(at, 2, two);
    });
}

#[test]
fn a_synchronous_copy_is_ordered_by_its_default_stream_alone() {
    holds_with_the_edge_alone(|rig, edge| {
        let (stream, at) = (rig.stream(u32::from(!edge)), rig.device(4));
        rig.fill(at, 1, stream);
        let mut bytes = [0_u8; 4];
        unsafe { rig.api.memcpy_dtoh.call(bytes.as_mut_ptr().cast(), at, 4) }.unwrap();
    });
}

#[test]
fn a_stream_with_a_handle_that_came_back_is_not_ordered_with_the_one_before() {
    for schedule in [Schedule::Late, Schedule::Random(1)] {
        let rig = rig(schedule);
        let at = rig.device(4);
        let old = rig.stream(1);
        rig.fill(at, 1, old);
        unsafe { rig.api.stream_destroy.call(old) }.unwrap();
        let new = rig.stream(1);
        assert_eq!(new, old);
        rig.fill(at, 2, new);
        let found = races(&rig);
        assert_eq!(found.len(), 1, "{found:?}");
        let ids = found[0].what.matches("(id ").count();
        assert_eq!(ids, 2, "what has one handle has two numbers: {}", found[0].what);
    }
}

#[test]
fn an_allocation_of_a_stream_begins_and_ends_in_its_order() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two) = (rig.stream(1), rig.stream(1));
        let (mut at, event) = (0, rig.event(2));
        unsafe { rig.api.mem_alloc_async.call(&raw mut at, 64, one) }.unwrap();
        if edge {
            rig.record(event, one);
            rig.wait(two, event);
        }
        rig.fill(at, 1, two);
    });
}
