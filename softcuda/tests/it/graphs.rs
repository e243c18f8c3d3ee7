//! Graphs against their documentation: structure, copies, launches and their order.

use std::ffi::CString;
use std::ptr;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use softcuda::{Check, Schedule};
use wharf_sys::CudaError;
use wharf_sys::bindings::{
    CUDA_GRAPH_INSTANTIATE_PARAMS, CUDA_MEMCPY3D, CUgraph, CUgraphNode, CUgraphNodeType,
};

use crate::graph_rig::{SCHEDULES, dtod, host_call, htod};
use crate::support::{Rig, code};

impl Rig {
    fn link(
        &self,
        graph: CUgraph,
        from: CUgraphNode,
        to: CUgraphNode,
    ) -> Result<(), wharf_sys::Error> {
        unsafe { self.api.graph_add_dependencies.call(graph, &raw const from, &raw const to, 1) }
    }

    fn unlink(
        &self,
        graph: CUgraph,
        from: CUgraphNode,
        to: CUgraphNode,
    ) -> Result<(), wharf_sys::Error> {
        unsafe { self.api.graph_remove_dependencies.call(graph, &raw const from, &raw const to, 1) }
    }

    fn child_of(&self, node: CUgraphNode) -> CUgraph {
        let mut graph = ptr::null_mut();
        unsafe { self.api.graph_child_graph_node_get_graph.call(node, &raw mut graph) }.unwrap();
        graph
    }

    fn add_child(&self, graph: CUgraph, after: &[CUgraphNode], child: CUgraph) -> CUgraphNode {
        let mut node = ptr::null_mut();
        let (after, count) = (after.as_ptr(), after.len());
        unsafe {
            self.api.graph_add_child_graph_node.call(&raw mut node, graph, after, count, child)
        }
        .unwrap();
        node
    }
}

/// Several branches whose host functions note what ran, with a node before and one behind.
#[test]
fn nodes_run_behind_what_they_depend_on_and_branches_in_any_order() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (graph, stream) = (rig.graph(), rig.stream(1));
        let seen = Mutex::new(Vec::new());
        let notes: Vec<_> = (0..6)
            .map(|note| {
                let seen = &seen;
                move || seen.lock().unwrap().push(note)
            })
            .collect();
        let note = |index: usize, after: &[CUgraphNode]| {
            let (function, data) = host_call(&notes[index]);
            rig.add_host(graph, after, function, data)
        };
        let first = note(0, &[]);
        let branches: Vec<_> = (1..5).map(|index| note(index, &[first])).collect();
        note(5, &branches);
        let exec = rig.instantiate(graph);
        for _ in 0..3 {
            rig.launch(exec, stream);
        }
        rig.synchronize(stream);
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), 18);
        for round in seen.chunks(6) {
            assert_eq!((round[0], round[5]), (0, 5), "{schedule:?}: {round:?}");
            let mut branches = round[1..5].to_vec();
            branches.sort_unstable();
            assert_eq!(branches, [1, 2, 3, 4]);
        }
    }
}

#[test]
fn copies_memsets_and_child_graphs_replay_the_same_under_every_schedule() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, source) = (rig.stream(1), rig.pinned(16));
        let (a, b) = (rig.device(16), rig.device(32));
        let inner = rig.graph();
        let copied = rig.add_copy(inner, &[], &dtod(b, a, 16));
        rig.add_copy(inner, &[copied], &dtod(b + 16, b, 16));
        let graph = rig.graph();
        let upload = rig.add_copy(graph, &[], &htod(a, source.as_ptr(), 16));
        let mark = rig.add_fill(graph, &[upload], a + 4, 0xffff_ffff);
        let child = rig.add_child(graph, &[mark], inner);
        rig.add_fill(graph, &[child], b, 7);
        unsafe { rig.api.graph_destroy.call(inner) }.unwrap();
        let exec = rig.instantiate(graph);
        unsafe { rig.api.graph_destroy.call(graph) }.unwrap();
        for round in 1..4_u8 {
            source.fill(round);
            rig.launch(exec, stream);
            rig.synchronize(stream);
            let mut expected = [round; 32];
            expected[4..8].fill(0xff);
            expected[20..24].fill(0xff);
            expected[..4].copy_from_slice(&7_u32.to_ne_bytes());
            assert_eq!(rig.read(b, 32), expected, "{schedule:?}");
        }
    }
}

#[test]
fn a_copy_of_rows_and_layers_goes_where_the_structure_says() {
    let rig = Rig::new(Schedule::Async);
    let (stream, graph) = (rig.stream(1), rig.graph());
    let device = rig.device(256);
    unsafe { rig.api.memset_d8.call(device, 0, 256) }.unwrap();
    rig.synchronize(ptr::null_mut());
    let source: Vec<u8> = (0..=255).collect();
    // Two layers of two rows of three bytes, from (1, 1, 0) to (2, 0, 1).
    let copy = CUDA_MEMCPY3D {
        srcXInBytes: 1,
        srcY: 1,
        srcPitch: 8,
        srcHeight: 4,
        dstXInBytes: 2,
        dstZ: 1,
        dstPitch: 16,
        dstHeight: 2,
        WidthInBytes: 3,
        Height: 2,
        Depth: 2,
        ..htod(device, source.as_ptr(), 3)
    };
    let node = rig.add_copy(graph, &[], &copy);
    let mut known = htod(0, ptr::null(), 0);
    unsafe { rig.api.graph_memcpy_node_get_params.call(node, &raw mut known) }.unwrap();
    assert_eq!((known.srcXInBytes, known.dstZ, known.dstDevice), (1, 1, device));
    rig.launch(rig.instantiate(graph), stream);
    rig.synchronize(stream);
    let bytes = rig.read(device, 256);
    for (layer, row) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (from, to) = (1 + (1 + row) * 8 + layer * 32, 2 + row * 16 + (1 + layer) * 32);
        assert_eq!(bytes[to..to + 3], source[from..from + 3]);
    }
    let narrow = CUDA_MEMCPY3D { dstPitch: 4, ..copy };
    let mut other = ptr::null_mut();
    let refused = unsafe {
        let add = &rig.api.graph_add_memcpy_node;
        add.call(&raw mut other, graph, ptr::null(), 0, &raw const narrow, rig.context)
    };
    assert_eq!(code(refused), CudaError::INVALID_VALUE);
}

#[test]
fn launches_of_one_executable_graph_are_ordered_across_streams() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (first, second, graph) = (rig.stream(1), rig.stream(1), rig.graph());
        let (gate, opened) = channel::<()>();
        let (note, noted) = channel();
        let opened = Mutex::new(opened);
        let block = || opened.lock().unwrap().recv().unwrap();
        let tell = || note.send(()).unwrap();
        let (function, data) = host_call(&tell);
        rig.add_host(graph, &[], function, data);
        let exec = rig.instantiate(graph);
        let (function, data) = host_call(&block);
        unsafe { rig.api.launch_host_func.call(first, function, data) }.unwrap();
        rig.launch(exec, first);
        rig.launch(exec, second);
        assert_eq!(code(unsafe { rig.api.stream_query.call(second) }), CudaError::NOT_READY);
        assert!(
            noted.try_recv().is_err(),
            "the second launch waits for the first, which is blocked"
        );
        // Both are in flight: neither handle is needed any more.
        unsafe {
            rig.api.graph_exec_destroy.call(exec).unwrap();
            rig.api.graph_destroy.call(graph).unwrap();
        }
        gate.send(()).unwrap();
        rig.synchronize(second);
        assert_eq!(noted.try_iter().count(), 2, "{schedule:?}");
    }
}

#[test]
fn events_in_graphs_record_and_wait_at_each_launch() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (stream, other) = (rig.stream(1), rig.stream(1));
        let (event, to) = (rig.event(0), rig.device(12));
        let mut node = ptr::null_mut();
        let produce = rig.graph();
        let fill = rig.add_fill(produce, &[], to, 3);
        unsafe {
            rig.api
                .graph_add_event_record_node
                .call(&raw mut node, produce, &raw const fill, 1, event)
                .unwrap();
            let mut known = ptr::null_mut();
            rig.api.graph_event_record_node_get_event.call(node, &raw mut known).unwrap();
            assert_eq!(known, event);
        }
        let consume = rig.graph();
        unsafe {
            rig.api
                .graph_add_event_wait_node
                .call(&raw mut node, consume, ptr::null(), 0, event)
                .unwrap();
        }
        rig.add_copy(consume, &[node], &dtod(to + 4, to, 4));
        let (produce, consume) = (rig.instantiate(produce), rig.instantiate(consume));
        for _ in 0..2 {
            rig.fill(to, 0, stream);
            rig.launch(produce, stream);
            rig.launch(consume, other);
            rig.synchronize(other);
            assert_eq!(rig.word(to + 4), 3, "{schedule:?}");
            unsafe { rig.api.event_synchronize.call(event) }.unwrap();
        }
    }
}

#[test]
fn a_launch_of_memory_that_is_gone_loses_the_context() {
    let rig = Rig::new(Schedule::Async);
    let (stream, graph, to) = (rig.stream(1), rig.graph(), rig.device(16));
    rig.add_fill(graph, &[], to, 1);
    let exec = rig.instantiate(graph);
    unsafe { rig.api.mem_free.call(to) }.unwrap();
    rig.launch(exec, stream);
    let waited = unsafe { rig.api.stream_synchronize.call(stream) };
    assert_eq!(code(waited), CudaError::ILLEGAL_ADDRESS);
}

#[test]
fn a_source_that_changes_behind_a_launch_is_reported() {
    let rig = Rig::new(Schedule::Late);
    let (stream, graph, source) = (rig.stream(1), rig.graph(), rig.pinned(16));
    rig.add_copy(graph, &[], &htod(rig.device(16), source.as_ptr(), 16));
    let exec = rig.instantiate(graph);
    source.fill(1);
    rig.launch(exec, stream);
    source.fill(2);
    rig.synchronize(stream);
    let violations = rig.simulator.violations();
    assert_eq!(violations.len(), 1);
    assert_eq!((violations[0].check, violations[0].call), (Check::SourceStable, "cuGraphLaunch"));
}

#[test]
fn structure_is_what_was_asked_for() {
    let rig = Rig::new(Schedule::Async);
    let graph = rig.graph();
    let a = rig.add_empty(graph, &[]);
    let b = rig.add_empty(graph, &[a]);
    let c = rig.add_empty(graph, &[]);
    rig.link(graph, b, c).unwrap();
    assert_eq!(code(rig.link(graph, b, c)), CudaError::INVALID_VALUE, "an edge exists once");
    assert_eq!(rig.nodes(graph), [a, b, c]);
    assert_eq!(rig.edges(graph), [(a, b), (b, c)]);
    let (mut roots, mut count) = ([ptr::null_mut(); 3], 3);
    unsafe { rig.api.graph_get_root_nodes.call(graph, roots.as_mut_ptr(), &raw mut count) }
        .unwrap();
    assert_eq!((count, roots), (1, [a, ptr::null_mut(), ptr::null_mut()]), "the rest is null");
    let (mut nodes, mut count) = ([ptr::null_mut()], 1);
    unsafe { rig.api.graph_node_get_dependencies.call(c, nodes.as_mut_ptr(), &raw mut count) }
        .unwrap();
    assert_eq!((count, nodes), (1, [b]));
    unsafe { rig.api.graph_node_get_dependent_nodes.call(a, nodes.as_mut_ptr(), &raw mut count) }
        .unwrap();
    assert_eq!((count, nodes), (1, [b]));
    rig.unlink(graph, a, b).unwrap();
    assert_eq!(code(rig.unlink(graph, a, b)), CudaError::INVALID_VALUE);
    unsafe { rig.api.graph_destroy_node.call(b) }.unwrap();
    assert_eq!(rig.nodes(graph), [a, c]);
    assert_eq!(rig.edges(graph), []);
    let foreign = rig.add_empty(rig.graph(), &[]);
    assert_eq!(code(rig.link(graph, a, foreign)), CudaError::INVALID_VALUE);
    let mut node = ptr::null_mut();
    let twice = [a, a];
    let added =
        unsafe { rig.api.graph_add_empty_node.call(&raw mut node, graph, twice.as_ptr(), 2) };
    assert_eq!(code(added), CudaError::INVALID_VALUE, "dependencies have no duplicates");
    let mut kind = CUgraphNodeType::CU_GRAPH_NODE_TYPE_KERNEL;
    unsafe { rig.api.graph_node_get_type.call(a, &raw mut kind) }.unwrap();
    assert_eq!(kind, CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY);
}

#[test]
fn a_circle_is_found_at_instantiation() {
    let rig = Rig::new(Schedule::Async);
    let graph = rig.graph();
    let a = rig.add_empty(graph, &[]);
    let b = rig.add_empty(graph, &[a]);
    rig.link(graph, b, a).unwrap();
    let mut exec = ptr::null_mut();
    let mut params: CUDA_GRAPH_INSTANTIATE_PARAMS = unsafe { std::mem::zeroed() };
    let made = unsafe {
        rig.api.graph_instantiate_with_params.call(&raw mut exec, graph, &raw mut params)
    };
    assert_eq!(code(made), CudaError::INVALID_VALUE);
    assert_eq!(params.result_out.0, 2, "CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE");
    assert!([a, b].contains(&params.hErrNode_out));
}

#[test]
fn instantiation_flags_keep_to_their_rules() {
    let rig = Rig::new(Schedule::Async);
    let graph = rig.graph();
    let mut exec = ptr::null_mut();
    let mut instantiate =
        |flags| unsafe { rig.api.graph_instantiate_with_flags.call(&raw mut exec, graph, flags) };
    assert_eq!(code(instantiate(16)), CudaError::INVALID_VALUE, "no such flag");
    assert_eq!(code(instantiate(1 | 4)), CudaError::INVALID_VALUE, "auto-free with device launch");
    assert_eq!(code(instantiate(4)), CudaError::INVALID_VALUE, "device launch of an empty graph");
    instantiate(8).unwrap();
    let mut flags = 0;
    unsafe { rig.api.graph_exec_get_flags.call(exec, &raw mut flags) }.unwrap();
    assert_eq!(flags, 8);
}

#[test]
fn a_clone_knows_its_originals_and_nothing_else_changes_it() {
    let rig = Rig::new(Schedule::Async);
    let (graph, inner, to) = (rig.graph(), rig.graph(), rig.device(8));
    let deep = rig.add_fill(inner, &[], to, 1);
    let fill = rig.add_fill(graph, &[], to + 4, 2);
    let child = rig.add_child(graph, &[fill], inner);
    let inner_node = rig.nodes(rig.child_of(child))[0];
    assert_ne!(inner_node, deep, "a child graph is a copy");
    let mut clone = ptr::null_mut();
    unsafe { rig.api.graph_clone.call(&raw mut clone, graph) }.unwrap();
    let find = |node| {
        let mut found = ptr::null_mut();
        unsafe { rig.api.graph_node_find_in_clone.call(&raw mut found, node, clone) }
            .map(|()| found)
    };
    let copies = rig.nodes(clone);
    assert_eq!(find(fill).unwrap(), copies[0]);
    assert_eq!(find(inner_node).unwrap(), rig.nodes(rig.child_of(copies[1]))[0]);
    assert_eq!(code(find(copies[0]).map(|_| ())), CudaError::INVALID_VALUE);
    unsafe {
        rig.api.graph_destroy_node.call(fill).unwrap();
        assert_eq!(code(rig.api.graph_destroy.call(rig.child_of(child))), CudaError::INVALID_VALUE);
        rig.api.graph_destroy.call(graph).unwrap();
        assert_eq!(code(rig.api.graph_destroy.call(graph)), CudaError::INVALID_VALUE);
    }
    assert_eq!(rig.edges(clone), [(copies[0], copies[1])]);
    let stream = rig.stream(1);
    rig.launch(rig.instantiate(clone), stream);
    rig.synchronize(stream);
    assert_eq!((rig.word(to), rig.word(to + 4)), (1, 2));
}

#[test]
fn the_dot_file_shows_nodes_edges_and_what_the_flags_ask_for() {
    let rig = Rig::new(Schedule::Async);
    let (graph, inner, to) = (rig.graph(), rig.graph(), rig.device(8));
    rig.add_empty(inner, &[]);
    let fill = rig.add_fill(graph, &[], to, 0x55);
    let copy = rig.add_copy(graph, &[fill], &dtod(to + 4, to, 4));
    rig.add_child(graph, &[copy], inner);
    let path = std::env::temp_dir().join(format!("softcuda-{}.dot", std::process::id()));
    let name = CString::new(path.to_str().unwrap()).unwrap();
    let print = |flags| {
        unsafe { rig.api.graph_debug_dot_print.call(graph, name.as_ptr(), flags) }.unwrap();
        std::fs::read_to_string(&path).unwrap()
    };
    let (plain, verbose) = (print(0), print(1));
    std::fs::remove_file(&path).unwrap();
    for text in [&plain, &verbose] {
        assert!(text.starts_with("digraph dot {"), "{text}");
        assert!(
            text.contains("MEMSET") && text.contains("MEMCPY\\nDtoD") && text.contains("EMPTY"),
            "{text}"
        );
        assert_eq!(text.matches(" -> ").count(), 2, "{text}");
        assert_eq!(text.matches("subgraph cluster_").count(), 2, "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
    assert!(!plain.contains("0x55") && verbose.contains("0x55"), "{verbose}");
    assert!(verbose.contains(&format!("{to:#x}")));
    let nowhere = CString::new("/no/such/folder/graph.dot").unwrap();
    let refused = unsafe { rig.api.graph_debug_dot_print.call(graph, nowhere.as_ptr(), 0) };
    assert_eq!(code(refused), CudaError::OPERATING_SYSTEM);
}

#[test]
fn what_is_not_destroyed_is_listed() {
    let rig = Rig::new(Schedule::Async);
    let graph = rig.graph();
    rig.add_child(graph, &[], rig.graph());
    rig.instantiate(graph);
    let leaks = rig.simulator.leaks();
    let count = |what: &str| leaks.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("graph"), count("executable graph")), (2, 1), "{leaks:?}");
}
