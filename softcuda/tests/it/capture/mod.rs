//! Stream capture against its documentation: what becomes a graph.

mod refusals;

use std::ptr;

use softcuda::Schedule;
use wharf_sys::CudaError;
use wharf_sys::bindings::{CUstream, CUstreamCaptureStatus};

use crate::graph_rig::{GLOBAL, RELAXED, SCHEDULES, THREAD_LOCAL};
use crate::support::{Rig, code};

const NONE: CUstreamCaptureStatus = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
const ACTIVE: CUstreamCaptureStatus = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE;
const INVALIDATED: CUstreamCaptureStatus =
    CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED;

impl Rig {
    /// Device memory, also while a capture forbids to allocate it.
    fn device_unchecked(&self) -> u64 {
        let mut mode = RELAXED;
        unsafe { self.api.thread_exchange_stream_capture_mode.call(&raw mut mode) }.unwrap();
        let pointer = self.device(4);
        unsafe { self.api.thread_exchange_stream_capture_mode.call(&raw mut mode) }.unwrap();
        pointer
    }

    fn end_here(&self, stream: CUstream) -> Result<(), CudaError> {
        self.end(stream).map(|_| ()).map_err(|error| error.code().unwrap())
    }
}

#[test]
fn captured_work_runs_when_launched_and_not_before() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, device, source) = (rig.stream(1), rig.device(64), rig.pinned(64));
        unsafe { rig.api.memset_d8.call(device, 0, 64) }.unwrap();
        rig.begin(stream, THREAD_LOCAL);
        assert_eq!(rig.status(stream), ACTIVE);
        source.fill(1);
        unsafe { rig.api.memcpy_htod_async.call(device, source.as_ptr().cast(), 64, stream) }
            .unwrap();
        let graph = rig.end(stream).unwrap();
        assert_eq!(rig.status(stream), NONE);
        rig.synchronize(stream);
        assert_eq!(rig.read(device, 64), [0; 64], "capturing executes nothing");
        let exec = rig.instantiate(graph);
        for round in 2..5 {
            source.fill(round);
            rig.launch(exec, stream);
            rig.synchronize(stream);
            assert_eq!(rig.read(device, 64), [round; 64], "{schedule:?}");
        }
        assert_eq!(rig.simulator.violations(), []);
    }
}

#[test]
fn a_fork_and_its_join_are_edges() {
    let rig = Rig::new(Schedule::Async);
    let (a, b) = (rig.stream(1), rig.stream(1));
    let (fork, join) = (rig.event(2), rig.event(2));
    let to = rig.device(16);
    rig.begin(a, GLOBAL);
    rig.fill(to, 1, a);
    rig.record(fork, a);
    rig.wait(b, fork);
    assert_eq!(rig.status(b), ACTIVE);
    rig.fill(to + 4, 2, b);
    rig.fill(to + 8, 3, a);
    rig.record(join, b);
    rig.wait(a, join);
    rig.fill(to + 12, 4, a);
    let graph = rig.end(a).unwrap();
    assert_eq!(rig.status(b), NONE);
    let nodes = rig.nodes(graph);
    assert_eq!(nodes.len(), 4);
    let mut edges = rig.edges(graph);
    edges.sort_unstable();
    let mut expected = vec![
        (nodes[0], nodes[1]),
        (nodes[0], nodes[2]),
        (nodes[1], nodes[3]),
        (nodes[2], nodes[3]),
    ];
    expected.sort_unstable();
    assert_eq!(edges, expected);
}

#[test]
fn a_wait_for_a_streams_own_event_adds_nothing() {
    let rig = Rig::new(Schedule::Async);
    let (stream, event, to) = (rig.stream(1), rig.event(2), rig.device(8));
    rig.begin(stream, THREAD_LOCAL);
    rig.fill(to, 1, stream);
    rig.record(event, stream);
    rig.wait(stream, event);
    rig.fill(to + 4, 1, stream);
    let graph = rig.end(stream).unwrap();
    assert_eq!((rig.nodes(graph).len(), rig.edges(graph).len()), (2, 1));
}

#[test]
fn external_events_become_nodes_and_only_in_captures() {
    let rig = Rig::new(Schedule::Late);
    let (stream, other) = (rig.stream(1), rig.stream(1));
    let (event, to) = (rig.event(0), rig.device(8));
    unsafe {
        let outside = rig.api.event_record_with_flags.call(event, stream, 1);
        assert_eq!(code(outside), CudaError::INVALID_VALUE);
        assert_eq!(
            code(rig.api.stream_wait_event.call(stream, event, 1)),
            CudaError::INVALID_VALUE
        );
        rig.begin(stream, GLOBAL);
        rig.fill(to, 7, stream);
        rig.api.event_record_with_flags.call(event, stream, 1).unwrap();
    }
    let graph = rig.end(stream).unwrap();
    assert_eq!(rig.nodes(graph).len(), 2);
    unsafe { rig.api.event_query.call(event) }.unwrap();
    rig.launch(rig.instantiate(graph), stream);
    rig.wait(other, event);
    unsafe { rig.api.memcpy_dtod_async.call(to + 4, to, 4, other) }.unwrap();
    rig.synchronize(other);
    assert_eq!(rig.word(to + 4), 7, "the event marks the launch's own moment");
}

#[test]
fn capture_information_and_the_next_dependencies_can_be_read_and_set() {
    let rig = Rig::new(Schedule::Async);
    let (stream, to) = (rig.stream(1), rig.device(8));
    let info = || {
        let (mut status, mut id, mut graph) = (NONE, 0, ptr::null_mut());
        let (mut nodes, mut count) = (ptr::null(), 0);
        unsafe {
            let call = &rig.api.stream_get_capture_info;
            let (status, id, graph) = (&raw mut status, &raw mut id, &raw mut graph);
            call.call(stream, status, id, graph, &raw mut nodes, &raw mut count).unwrap();
        }
        let nodes =
            if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(nodes, count) } };
        (status, id, graph, nodes.to_vec())
    };
    let update = |nodes: &[_], flags| unsafe {
        let nodes: &[wharf_sys::bindings::CUgraphNode] = nodes;
        let call = &rig.api.stream_update_capture_dependencies;
        call.call(stream, nodes.as_ptr().cast_mut(), nodes.len(), flags)
    };
    assert_eq!(info().0, NONE);
    assert_eq!(code(update(&[], 0)), CudaError::ILLEGAL_STATE);
    rig.begin(stream, GLOBAL);
    rig.fill(to, 1, stream);
    let (status, id, graph, first) = info();
    assert_eq!((status, first.len()), (ACTIVE, 1));
    assert_ne!(id, 0);
    let own = rig.add_empty(graph, &first);
    update(&[own], 1).unwrap();
    assert_eq!(info().3, [own]);
    update(&first, 0).unwrap();
    assert_eq!(info().3, [own, first[0]]);
    update(&[], 1).unwrap();
    rig.fill(to + 4, 2, stream);
    assert_eq!(code(update(&[ptr::without_provenance_mut(64)], 0)), CudaError::INVALID_VALUE);
    assert_eq!(code(update(&[], 2)), CudaError::INVALID_VALUE);
    unsafe {
        assert_eq!(code(rig.api.graph_destroy.call(graph)), CudaError::INVALID_VALUE);
        assert_eq!(code(rig.api.graph_destroy_node.call(own)), CudaError::INVALID_VALUE);
    }
    let made = rig.end(stream).unwrap();
    assert_eq!(made, graph);
    assert_eq!(
        (rig.nodes(graph).len(), rig.edges(graph).len()),
        (3, 1),
        "what was let go is no fork"
    );
}

#[test]
fn a_capture_can_add_to_a_graph() {
    let rig = Rig::new(Schedule::Async);
    let (stream, graph, to) = (rig.stream(1), rig.graph(), rig.device(4));
    let root = rig.add_empty(graph, &[]);
    unsafe {
        let call = &rig.api.stream_begin_capture_to_graph;
        call.call(stream, graph, &raw const root, ptr::null(), 1, GLOBAL).unwrap();
    }
    rig.fill(to, 1, stream);
    let mut exec = ptr::null_mut();
    let early = unsafe { rig.api.graph_instantiate_with_flags.call(&raw mut exec, graph, 0) };
    assert_eq!(code(early), CudaError::INVALID_VALUE, "not before the capture's end");
    assert_eq!(rig.end(stream).unwrap(), graph);
    assert_eq!(rig.edges(graph).len(), 1);
    unsafe {
        let call = &rig.api.stream_begin_capture_to_graph;
        call.call(stream, graph, ptr::null(), ptr::null(), 0, GLOBAL).unwrap();
        assert!(rig.api.stream_query.call(stream).is_err());
    }
    assert!(rig.end(stream).is_err());
    assert_eq!(rig.nodes(graph).len(), 2, "the program's graph outlives a failed capture");
}

#[test]
fn a_launch_is_captured_as_a_child_graph() {
    let rig = Rig::new(Schedule::Async);
    let (stream, to) = (rig.stream(1), rig.device(4));
    rig.begin(stream, GLOBAL);
    rig.fill(to, 5, stream);
    let inner = rig.instantiate(rig.end(stream).unwrap());
    rig.begin(stream, GLOBAL);
    rig.launch(inner, stream);
    let outer = rig.end(stream).unwrap();
    unsafe { rig.api.graph_exec_destroy.call(inner) }.unwrap();
    let exec = rig.instantiate(outer);
    rig.fill(to, 1, stream);
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(to), 5);
}

#[test]
fn a_forked_stream_that_goes_does_not_invalidate_the_capture() {
    let rig = Rig::new(Schedule::Async);
    let (a, event, joined) = (rig.stream(1), rig.event(0), rig.event(0));
    let to = rig.device(4);
    for joins in [true, false] {
        let b = rig.stream(1);
        rig.begin(a, GLOBAL);
        rig.record(event, a);
        rig.wait(b, event);
        rig.fill(to, 7, b);
        if joins {
            rig.record(joined, b);
            rig.wait(a, joined);
        }
        unsafe { rig.api.stream_destroy.call(b) }.unwrap();
        assert_eq!(rig.status(a), ACTIVE);
        rig.fill(to, 8, a);
        let ended = rig.end(a);
        if joins {
            assert_eq!(rig.edges(ended.unwrap()).len(), 1, "the joined node stays");
        } else {
            assert_eq!(code(ended), CudaError::STREAM_CAPTURE_UNJOINED);
        }
    }
}

#[test]
fn a_stream_that_goes_takes_the_capture_that_began_on_it_along() {
    let rig = Rig::new(Schedule::Async);
    let (a, b, event) = (rig.stream(1), rig.stream(1), rig.event(0));
    rig.begin(a, GLOBAL);
    rig.record(event, a);
    rig.wait(b, event);
    unsafe { rig.api.stream_destroy.call(a) }.unwrap();
    assert_eq!(rig.status(b), NONE);
}
