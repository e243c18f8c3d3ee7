//! Changes of executable graphs against their documentation.

use std::ptr;

use softcuda::Schedule;
use wharf_sys::bindings::{
    CUDA_HOST_NODE_PARAMS_v1, CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS_v1, CUgraph, CUgraphExec,
    CUgraphExecUpdateResult, CUgraphExecUpdateResultInfo, CUgraphNode,
};
use wharf_sys::{CudaError, Error};

use crate::graph_rig::{SCHEDULES, dtod, fill_params, host_call, htod};
use crate::support::{Rig, code};

impl Rig {
    fn set_copy(
        &self,
        exec: CUgraphExec,
        node: CUgraphNode,
        copy: &CUDA_MEMCPY3D,
    ) -> Result<(), Error> {
        unsafe { self.api.graph_exec_memcpy_node_set_params.call(exec, node, copy, self.context) }
    }

    fn set_fill(
        &self,
        exec: CUgraphExec,
        node: CUgraphNode,
        fill: &CUDA_MEMSET_NODE_PARAMS_v1,
    ) -> Result<(), Error> {
        unsafe { self.api.graph_exec_memset_node_set_params.call(exec, node, fill, self.context) }
    }

    fn update(
        &self,
        exec: CUgraphExec,
        graph: CUgraph,
    ) -> (Option<CudaError>, CUgraphExecUpdateResultInfo) {
        let mut info = CUgraphExecUpdateResultInfo {
            result: CUgraphExecUpdateResult(99),
            errorNode: ptr::without_provenance_mut(1),
            errorFromNode: ptr::without_provenance_mut(1),
        };
        let updated = unsafe { self.api.graph_exec_update_v12000.call(exec, graph, &raw mut info) };
        let (mut node, mut result) = (ptr::null_mut(), CUgraphExecUpdateResult(99));
        let again =
            unsafe { self.api.graph_exec_update.call(exec, graph, &raw mut node, &raw mut result) };
        assert_eq!((again.is_ok(), node, result), (updated.is_ok(), info.errorNode, info.result));
        (updated.err().map(|error| error.code().unwrap()), info)
    }
}

fn assert_refused(result: Result<(), Error>) {
    assert_eq!(code(result), CudaError::INVALID_VALUE);
}

#[test]
fn an_update_changes_later_launches_and_no_earlier_one() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, graph, to) = (rig.stream(1), rig.graph(), rig.device(8));
        let node = rig.add_fill(graph, &[], to, 1);
        let exec = rig.instantiate(graph);
        rig.launch(exec, stream);
        rig.set_fill(exec, node, &fill_params(to + 4, 2)).unwrap();
        rig.launch(exec, stream);
        rig.synchronize(stream);
        assert_eq!((rig.word(to), rig.word(to + 4)), (1, 2), "{schedule:?}");
        let mut known = fill_params(0, 0);
        unsafe { rig.api.graph_memset_node_get_params.call(node, &raw mut known) }.unwrap();
        assert_eq!((known.dst, known.value), (to, 1), "the node itself is not modified");
    }
}

#[test]
fn a_copy_may_change_within_its_kind_of_memory() {
    let rig = Rig::new(Schedule::Async);
    let (stream, graph) = (rig.stream(1), rig.graph());
    let (a, b, pinned, other) = (rig.device(16), rig.device(16), rig.pinned(16), rig.pinned(16));
    let pageable = [9_u8; 16];
    let node = rig.add_copy(graph, &[], &htod(a, pinned.as_ptr(), 16));
    let exec = rig.instantiate(graph);
    other.fill(5);
    rig.set_copy(exec, node, &htod(b, other.as_ptr(), 8)).unwrap();
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.read(b, 8), [5; 8]);
    assert_refused(rig.set_copy(exec, node, &htod(b, pageable.as_ptr(), 8)));
    assert_refused(rig.set_copy(exec, node, &dtod(b, a, 8)));
    assert_refused(rig.set_copy(exec, node, &htod(b, other.as_ptr(), 0)));
    let rows = CUDA_MEMCPY3D {
        Height: 2,
        srcPitch: 4,
        dstPitch: 4,
        WidthInBytes: 4,
        ..htod(b, other.as_ptr(), 4)
    };
    assert_refused(rig.set_copy(exec, node, &rows));
    let shaped = rig.add_copy(graph, &[], &rows);
    assert_refused(rig.set_copy(exec, shaped, &htod(b, other.as_ptr(), 8)));
    let exec = rig.instantiate(graph);
    assert_refused(rig.set_copy(exec, shaped, &htod(b, other.as_ptr(), 8)));
    unsafe { rig.api.graph_destroy_node.call(node) }.unwrap();
    assert_refused(rig.set_copy(exec, node, &htod(b, other.as_ptr(), 8)));
}

#[test]
fn a_memset_keeps_its_rows_and_its_memory() {
    let rig = Rig::new(Schedule::Async);
    let graph = rig.graph();
    let (device, pinned) = (rig.device(64), rig.pinned(64));
    let line = rig.add_fill(graph, &[], device, 1);
    let rows = CUDA_MEMSET_NODE_PARAMS_v1 { height: 2, pitch: 16, ..fill_params(device, 1) };
    let mut square = ptr::null_mut();
    unsafe {
        let add = &rig.api.graph_add_memset_node;
        add.call(&raw mut square, graph, ptr::null(), 0, &raw const rows, rig.context).unwrap();
    }
    let exec = rig.instantiate(graph);
    rig.set_fill(exec, line, &CUDA_MEMSET_NODE_PARAMS_v1 { width: 3, ..fill_params(device, 9) })
        .unwrap();
    assert_refused(rig.set_fill(exec, line, &rows));
    assert_refused(rig.set_fill(exec, line, &fill_params(pinned.as_ptr().addr() as u64, 1)));
    assert_refused(rig.set_fill(
        exec,
        line,
        &CUDA_MEMSET_NODE_PARAMS_v1 { width: 0, ..fill_params(device, 1) },
    ));
    rig.set_fill(exec, square, &CUDA_MEMSET_NODE_PARAMS_v1 { dst: device + 4, value: 3, ..rows })
        .unwrap();
    assert_refused(rig.set_fill(exec, square, &CUDA_MEMSET_NODE_PARAMS_v1 { width: 2, ..rows }));
    assert_refused(rig.set_fill(exec, square, &fill_params(device, 1)));
}

#[test]
fn host_and_event_nodes_may_change_freely() {
    let rig = Rig::new(Schedule::Late);
    let (stream, other, graph) = (rig.stream(1), rig.stream(1), rig.graph());
    let (first, second) = (rig.event(0), rig.event(0));
    let count = std::sync::atomic::AtomicU32::new(0);
    let add = |number| count.fetch_add(number, std::sync::atomic::Ordering::Relaxed);
    let one = || assert_eq!(add(1), 0);
    let ten = || assert_eq!(add(10), 0);
    let (function, data) = host_call(&one);
    let host = rig.add_host(graph, &[], function, data);
    let mut record = ptr::null_mut();
    unsafe {
        rig.api.graph_add_event_record_node.call(&raw mut record, graph, &raw const host, 1, first)
    }
    .unwrap();
    let exec = rig.instantiate(graph);
    let (function, data) = host_call(&ten);
    let params = CUDA_HOST_NODE_PARAMS_v1 { fn_: function, userData: data };
    unsafe {
        rig.api.graph_exec_host_node_set_params.call(exec, host, &raw const params).unwrap();
        rig.api.graph_exec_event_record_node_set_event.call(exec, record, second).unwrap();
        assert_refused(rig.api.graph_exec_event_wait_node_set_event.call(exec, record, second));
    }
    rig.launch(exec, stream);
    unsafe { rig.api.event_query.call(first) }.unwrap();
    rig.wait(other, second);
    rig.synchronize(other);
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 10);
}

#[test]
fn a_disabled_node_does_nothing_and_is_still_waited_for() {
    let rig = Rig::new(Schedule::Async);
    let (stream, graph, to) = (rig.stream(1), rig.graph(), rig.device(4));
    let node = rig.add_fill(graph, &[], to, 5);
    let empty = rig.add_empty(graph, &[node]);
    let exec = rig.instantiate(graph);
    let mut enabled = 9;
    unsafe {
        assert_refused(rig.api.graph_node_set_enabled.call(exec, empty, 0));
        assert_refused(rig.api.graph_node_get_enabled.call(exec, empty, &raw mut enabled));
        for (flag, expected) in [(0, 1), (7, 5)] {
            rig.api.graph_node_set_enabled.call(exec, node, flag).unwrap();
            rig.api.graph_node_get_enabled.call(exec, node, &raw mut enabled).unwrap();
            assert_eq!(enabled, u32::from(flag != 0));
            rig.fill(to, 1, stream);
            rig.launch(exec, stream);
            rig.synchronize(stream);
            assert_eq!(rig.word(to), expected);
        }
    }
}

#[test]
fn a_whole_graph_of_the_same_shape_replaces_the_parameters() {
    let rig = Rig::new(Schedule::Random(3));
    let (stream, to) = (rig.stream(1), rig.device(16));
    let build = |value: u32, reversed: bool| {
        let (graph, inner) = (rig.graph(), rig.graph());
        rig.add_fill(inner, &[], to, value);
        let mut child = ptr::null_mut();
        unsafe {
            rig.api.graph_add_child_graph_node.call(&raw mut child, graph, ptr::null(), 0, inner)
        }
        .unwrap();
        let (first, second) = (to + 4, to + 8);
        let a = rig.add_fill(graph, &[child], if reversed { second } else { first }, value + 1);
        rig.add_copy(graph, &[a], &dtod(to + 12, to, 4));
        graph
    };
    let exec = rig.instantiate(build(10, false));
    let (failed, info) = rig.update(exec, build(20, true));
    assert_eq!(
        (failed, info.result),
        (None, CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_SUCCESS)
    );
    assert!(info.errorNode.is_null() && info.errorFromNode.is_null());
    unsafe { rig.api.memset_d8.call(to, 0, 16) }.unwrap();
    rig.synchronize(ptr::null_mut());
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!([0, 4, 8, 12].map(|offset| rig.word(to + offset)), [20, 0, 21, 20]);
}

#[test]
fn a_child_graph_takes_the_parameters_of_another_of_its_shape() {
    let rig = Rig::new(Schedule::Async);
    let (stream, to, graph) = (rig.stream(1), rig.device(4), rig.graph());
    let inner = |value| {
        let graph = rig.graph();
        rig.add_fill(graph, &[], to, value);
        graph
    };
    let mut child = ptr::null_mut();
    unsafe {
        rig.api.graph_add_child_graph_node.call(&raw mut child, graph, ptr::null(), 0, inner(1))
    }
    .unwrap();
    let exec = rig.instantiate(graph);
    let set =
        |graph| unsafe { rig.api.graph_exec_child_graph_node_set_params.call(exec, child, graph) };
    set(inner(2)).unwrap();
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(to), 2);
    assert_refused(set(rig.graph()));
    let mut embedded = ptr::null_mut();
    unsafe { rig.api.graph_child_graph_node_get_graph.call(child, &raw mut embedded) }.unwrap();
    rig.set_fill(exec, rig.nodes(embedded)[0], &fill_params(to, 3)).unwrap();
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(to), 3);
}

#[test]
fn a_graph_of_another_shape_is_910_with_the_reason() {
    let rig = Rig::new(Schedule::Async);
    let (to, pinned) = (rig.device(64), rig.pinned(4));
    let failure = Some(CudaError::GRAPH_EXEC_UPDATE_FAILURE);
    let base = rig.graph();
    let a = rig.add_fill(base, &[], to, 1);
    let b = rig.add_fill(base, &[a], to + 4, 1);
    rig.add_fill(base, &[a, b], to + 8, 1);
    let exec = rig.instantiate(base);
    let topology = CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;

    let fewer = rig.graph();
    rig.add_fill(fewer, &[], to, 1);
    let (failed, info) = rig.update(exec, fewer);
    assert_eq!((failed, info.result, info.errorNode), (failure, topology, ptr::null_mut()));

    let more_exits = rig.graph();
    let a = rig.add_fill(more_exits, &[], to, 1);
    let exits = [rig.add_fill(more_exits, &[a], to, 1), rig.add_fill(more_exits, &[a], to, 1)];
    let (failed, info) = rig.update(exec, more_exits);
    assert_eq!((failed, info.result), (failure, topology));
    assert!(exits.contains(&info.errorNode));

    let fewer_edges = rig.graph();
    let a = rig.add_fill(fewer_edges, &[], to, 1);
    let b = rig.add_fill(fewer_edges, &[a], to, 1);
    let c = rig.add_fill(fewer_edges, &[b], to, 1);
    let (failed, info) = rig.update(exec, fewer_edges);
    assert_eq!((failed, info.result, info.errorNode), (failure, topology, c));

    let crossed = rig.graph();
    let a = rig.add_fill(crossed, &[], to, 1);
    let b = rig.add_fill(crossed, &[a], to, 1);
    rig.add_fill(crossed, &[b, a], to, 1);
    let (failed, info) = rig.update(exec, crossed);
    assert_eq!((failed, info.result), (failure, topology), "edges are paired in their order");

    let other_type = rig.graph();
    let a = rig.add_fill(other_type, &[], to, 1);
    let b = rig.add_empty(other_type, &[a]);
    rig.add_fill(other_type, &[a, b], to, 1);
    let (failed, info) = rig.update(exec, other_type);
    let kind = CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    assert_eq!((failed, info.result, info.errorNode), (failure, kind, b));

    let other_memory = rig.graph();
    let a = rig.add_fill(other_memory, &[], to, 1);
    let b = rig.add_fill(other_memory, &[a], pinned.as_ptr().addr() as u64, 1);
    rig.add_fill(other_memory, &[a, b], to, 1);
    let (failed, info) = rig.update(exec, other_memory);
    let params = CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    assert_eq!((failed, info.result, info.errorNode), (failure, params, b));

    let (failed, info) = rig.update(exec, ptr::null_mut());
    let error = CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR;
    assert_eq!((failed, info.result), (Some(CudaError::INVALID_VALUE), error));
}
