//! Accesses: which bytes of which memory race, and the text of a violation.

use std::ffi::c_void;

use softcuda::Schedule;
use wharf_sys::bindings::PFN_cuMemsetD2D8Async_v3020;

use super::{PER_THREAD, holds_with_the_edge_alone, races, rig};
use crate::graph_rig::htod;

#[test]
fn readers_do_not_race_with_each_other_and_a_writer_waits_for_all_of_them() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, writer) = (rig.stream(1), rig.stream(1), rig.stream(1));
        let (source, to) = (rig.device(8), rig.pinned(16));
        let to: *mut c_void = to.as_mut_ptr().cast();
        unsafe {
            rig.api.memcpy_dtoh_async.call(to, source, 8, one).unwrap();
            rig.api.memcpy_dtoh_async.call(to.byte_add(8), source, 8, two).unwrap();
        }
        for reader in [one, two].iter().skip(usize::from(!edge)) {
            let event = rig.event(2);
            rig.record(event, *reader);
            rig.wait(writer, event);
        }
        rig.fill(source + 4, 1, writer);
    });
}

#[test]
fn only_bytes_that_both_touch_count() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(64));
        unsafe {
            rig.api.memset_d8_async.call(at, 1, 32, one).unwrap();
            rig.api.memset_d8_async.call(at + 31 + u64::from(edge), 2, 32, two).unwrap();
        }
    });
    // Columns of a matrix lie between each other.
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(64));
        let fill = entry!("cuMemsetD2D8Async" 3020 PFN_cuMemsetD2D8Async_v3020);
        let column = at + if edge { 4 } else { 3 };
        unsafe {
            assert_eq!(fill(at, 8, 1, 4, 8, one).0, 0);
            assert_eq!(fill(column, 8, 2, 4, 8, two).0, 0);
        }
    });
}

#[test]
fn pinned_memory_is_watched_as_device_memory_is() {
    holds_with_the_edge_alone(|rig, edge| {
        let (one, two, at, host) = (rig.stream(1), rig.stream(1), rig.device(16), rig.pinned(16));
        let host: *mut c_void = host.as_mut_ptr().cast();
        unsafe {
            rig.api.memcpy_dtoh_async.call(host, at, 8, one).unwrap();
            rig.api.memcpy_htod_async.call(at + 8, host, 8, if edge { one } else { two }).unwrap();
        }
    });
}

#[test]
fn native_code_says_what_it_touches() {
    use crate::modules::{TEXT, function, launch, load};
    holds_with_the_edge_alone(|rig, edge| {
        rig.simulator
            .register_kernel("add", &[8], |arguments| arguments.writes(arguments.number(0), 4));
        let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(4));
        let kernel = function(load(TEXT.as_ptr().cast()).unwrap(), c"add").unwrap();
        rig.fill(at, 1, one);
        let mut pointer = at;
        let mut params: [*mut c_void; 1] = [(&raw mut pointer).cast()];
        assert_eq!(launch(kernel, 1, if edge { one } else { two }, &mut params).0, 0);
    });
}

#[test]
fn memory_that_was_freed_and_allocated_again_is_another_object() {
    let rig = rig(Schedule::Late);
    let (one, two, at) = (rig.stream(1), rig.stream(1), rig.device(4));
    rig.fill(at, 1, one);
    unsafe { rig.api.mem_free.call(at) }.unwrap();
    assert_eq!(rig.device(4), at);
    rig.fill(at, 2, two);
    assert_eq!(races(&rig), []);
}

#[test]
fn a_violation_names_both_calls_ranges_and_streams() {
    let rig = rig(Schedule::Late);
    let (one, host) = (rig.stream(1), rig.pinned(8));
    let (at, graph) = (rig.device(8), rig.graph());
    rig.add_copy(graph, &[], &htod(at, host.as_ptr(), 8));
    rig.launch(rig.instantiate(graph), one);
    rig.synchronize(one);
    rig.launch(rig.instantiate(graph), one);
    rig.fill(at + 4, 1, PER_THREAD);
    rig.synchronize(one);
    let found = races(&rig);
    let text = found[0].to_string();
    let range = |begin, end| format!("[{:#x}, {:#x})", at + begin, at + end);
    for part in [
        "race: cuMemsetD32Async: writes ".to_owned(),
        "on a per-thread default stream (id ".to_owned(),
        ", and nothing orders it with cuGraphLaunch on stream ".to_owned(),
        format!("stream {:#x} (id ", one.addr()),
        format!("which writes {}", range(0, 8)),
        range(4, 8),
    ] {
        assert!(text.contains(&part), "{text}: {part}");
    }
}
