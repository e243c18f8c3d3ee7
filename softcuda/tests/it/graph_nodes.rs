//! Nodes by the generic calls, memory of graphs, kernel and conditional nodes.

use std::ptr;

use softcuda::{Check, Config, Schedule};
use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use crate::graph_rig::{GLOBAL, SCHEDULES, dtod, fill_params};
use crate::support::{Rig, code};

const OK: CUresult = CUresult::CUDA_SUCCESS;
const INVALID: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

fn alloc_params(size: usize) -> CUDA_MEM_ALLOC_NODE_PARAMS {
    let mut params: CUDA_MEM_ALLOC_NODE_PARAMS = unsafe { std::mem::zeroed() };
    params.poolProps.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    params.poolProps.location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    params.bytesize = size;
    params
}

impl Rig {
    fn add_alloc(&self, graph: CUgraph, after: &[CUgraphNode], size: usize) -> (CUgraphNode, u64) {
        let add = entry!("cuGraphAddMemAllocNode" 11040 PFN_cuGraphAddMemAllocNode_v11040);
        let (mut node, mut params) = (ptr::null_mut(), alloc_params(size));
        let added =
            unsafe { add(&raw mut node, graph, after.as_ptr(), after.len(), &raw mut params) };
        assert_eq!(added, OK);
        (node, params.dptr)
    }

    fn try_add_free(&self, graph: CUgraph, after: &[CUgraphNode], at: u64) -> CUresult {
        let add = entry!("cuGraphAddMemFreeNode" 11040 PFN_cuGraphAddMemFreeNode_v11040);
        let mut node = ptr::null_mut();
        unsafe { add(&raw mut node, graph, after.as_ptr(), after.len(), at) }
    }

    fn graph_memory(&self, attribute: u32) -> u64 {
        let get =
            entry!("cuDeviceGetGraphMemAttribute" 11040 PFN_cuDeviceGetGraphMemAttribute_v11040);
        let mut bytes = 0_u64;
        let got = unsafe { get(0, CUgraphMem_attribute(attribute), (&raw mut bytes).cast()) };
        assert_eq!(got, OK);
        bytes
    }

    fn try_instantiate(&self, graph: CUgraph, flags: u64) -> Result<CUgraphExec, wharf_sys::Error> {
        let mut exec = ptr::null_mut();
        let made =
            unsafe { self.api.graph_instantiate_with_flags.call(&raw mut exec, graph, flags) };
        made.map(|()| exec)
    }
}

#[test]
fn memory_of_a_graph_lives_from_its_allocation_to_its_free_in_every_launch() {
    for schedule in SCHEDULES {
        let rig = Rig::new(schedule);
        let (graph, stream, to) = (rig.graph(), rig.stream(1), rig.device(4));
        let (alloc, at) = rig.add_alloc(graph, &[], 100);
        let fill = rig.add_fill(graph, &[alloc], at, 6);
        let copy = rig.add_copy(graph, &[fill], &dtod(to, at, 4));
        assert_eq!(rig.try_add_free(graph, &[copy], at), OK);
        assert_eq!(rig.try_add_free(graph, &[copy], at), INVALID, "twice");
        assert_eq!(rig.try_add_free(graph, &[copy], to), INVALID, "no graph's");
        let exec = rig.instantiate(graph);
        assert_eq!(rig.graph_memory(0), 0, "counted at the launch");
        for _ in 0..3 {
            rig.fill(to, 0, stream);
            rig.launch(exec, stream);
            let bytes = rig.graph_memory(0);
            assert!(bytes >= 100);
            assert_eq!([1, 2, 3].map(|attribute| rig.graph_memory(attribute)), [bytes; 3]);
            rig.synchronize(stream);
            assert_eq!(rig.word(to), 6, "{schedule:?}");
        }
        assert_eq!(rig.simulator.violations(), [], "{schedule:?}");
        unsafe {
            rig.api.graph_exec_destroy.call(exec).unwrap();
            rig.api.graph_destroy.call(graph).unwrap();
        }
        let trim = entry!("cuDeviceGraphMemTrim" 11040 PFN_cuDeviceGraphMemTrim_v11040);
        assert_eq!(unsafe { trim(0) }, OK);
        assert_eq!((rig.graph_memory(0), rig.graph_memory(2)), (0, 0));
        assert!(!rig.simulator.leaks().iter().any(|line| line.starts_with("Graph")));
    }
}

#[test]
fn a_node_that_does_not_wait_for_the_allocation_is_reported() {
    let rig = Rig::new(Schedule::Async);
    let (graph, stream) = (rig.graph(), rig.stream(1));
    let (alloc, at) = rig.add_alloc(graph, &[], 16);
    assert_eq!(rig.try_add_free(graph, &[alloc], at), OK);
    rig.launch(rig.instantiate(graph), stream);
    rig.synchronize(stream);
    let late = rig.graph();
    let mut node = ptr::null_mut();
    let fill = fill_params(at, 1);
    unsafe {
        let add = &rig.api.graph_add_memset_node;
        add.call(&raw mut node, late, ptr::null(), 0, &raw const fill, rig.context).unwrap();
    }
    rig.launch(rig.instantiate(late), stream);
    rig.synchronize(stream);
    assert!(
        rig.simulator.violations().iter().any(|violation| violation.check == Check::UseAfterFree)
    );
}

#[test]
fn an_allocation_that_is_left_is_freed_before_the_next_launch_or_refuses_it() {
    let rig = Rig::new(Schedule::Async);
    let (stream, graph) = (rig.stream(1), rig.graph());
    let (alloc, at) = rig.add_alloc(graph, &[], 64);
    rig.add_fill(graph, &[alloc], at, 3);
    let exec = rig.instantiate(graph);
    let again = || unsafe { rig.api.graph_launch.call(exec, stream) };
    again().unwrap();
    assert_eq!(code(again()), CudaError::INVALID_VALUE, "it was not freed");
    rig.synchronize(stream);
    assert_eq!(rig.word(at), 3, "it may be used outside until it is freed");
    unsafe { rig.api.mem_free_async.call(at, stream) }.unwrap();
    assert_eq!(code(unsafe { rig.api.mem_free_async.call(at, stream) }), CudaError::INVALID_VALUE);
    again().unwrap();
    rig.synchronize(stream);
    unsafe { rig.api.mem_free.call(at) }.unwrap();
    unsafe { rig.api.graph_exec_destroy.call(exec) }.unwrap();
    let exec = rig.try_instantiate(graph, 1).unwrap();
    rig.launch(exec, stream);
    rig.launch(exec, stream);
    let freeing = rig.graph();
    assert_eq!(rig.try_add_free(freeing, &[], at), OK);
    let freeing = rig.instantiate(freeing);
    rig.launch(freeing, stream);
    let nothing_left = unsafe { rig.api.graph_launch.call(freeing, stream) };
    assert_eq!(code(nothing_left), CudaError::INVALID_VALUE);
    rig.synchronize(stream);
    assert_eq!(rig.simulator.violations(), []);
}

#[test]
fn a_graph_with_memory_keeps_its_shape_and_has_one_executable_graph() {
    let rig = Rig::new(Schedule::Async);
    let graph = rig.graph();
    let (alloc, _) = rig.add_alloc(graph, &[], 64);
    let empty = rig.add_empty(graph, &[alloc]);
    let mut other = ptr::null_mut();
    unsafe {
        assert_eq!(code(rig.api.graph_destroy_node.call(empty)), CudaError::INVALID_VALUE);
        let remove =
            rig.api.graph_remove_dependencies.call(graph, &raw const alloc, &raw const empty, 1);
        assert_eq!(code(remove), CudaError::INVALID_VALUE);
        assert_eq!(code(rig.api.graph_clone.call(&raw mut other, graph)), CudaError::INVALID_VALUE);
        let add = &rig.api.graph_add_child_graph_node;
        let mut node = ptr::null_mut();
        let child = add.call(&raw mut node, rig.graph(), ptr::null(), 0, graph);
        assert_eq!(code(child), CudaError::INVALID_VALUE);
    }
    let exec = rig.instantiate(graph);
    assert_eq!(code(rig.try_instantiate(graph, 0).map(|_| ())), CudaError::INVALID_VALUE);
    unsafe { rig.api.graph_exec_destroy.call(exec) }.unwrap();
    rig.instantiate(graph);
}

#[test]
fn captured_stream_ordered_memory_becomes_nodes() {
    let rig = Rig::new(Schedule::Late);
    let (stream, to) = (rig.stream(1), rig.device(4));
    let mut at = 0;
    rig.begin(stream, GLOBAL);
    unsafe { rig.api.mem_alloc_async.call(&raw mut at, 256, stream) }.unwrap();
    rig.fill(at, 9, stream);
    unsafe {
        rig.api.memcpy_dtod_async.call(to, at, 4, stream).unwrap();
        rig.api.mem_free_async.call(at, stream).unwrap();
    }
    let graph = rig.end(stream).unwrap();
    let kinds: Vec<_> = rig
        .nodes(graph)
        .into_iter()
        .map(|node| {
            let mut kind = CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
            unsafe { rig.api.graph_node_get_type.call(node, &raw mut kind) }.unwrap();
            kind.0
        })
        .collect();
    assert_eq!(kinds, [10, 2, 1, 11]);
    assert!(rig.try_instantiate(graph, 1 | 4).is_err(), "auto-free and device launch");
    let exec = rig.instantiate(graph);
    for _ in 0..2 {
        rig.launch(exec, stream);
    }
    rig.synchronize(stream);
    assert_eq!(rig.word(to), 9);
    assert_eq!(rig.simulator.violations(), []);
}

#[test]
fn the_generic_calls_make_set_and_read_nodes() {
    let rig = Rig::new(Schedule::Async);
    let (graph, stream, to) = (rig.graph(), rig.stream(1), rig.device(8));
    let params = |value| {
        let mut params: CUgraphNodeParams = unsafe { std::mem::zeroed() };
        params.type_ = CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMSET;
        params.__bindgen_anon_1.memset = CUDA_MEMSET_NODE_PARAMS_v2 {
            dst: to,
            pitch: 0,
            value,
            elementSize: 4,
            width: 1,
            height: 1,
            ctx: rig.context,
        };
        params
    };
    let (mut node, mut fill) = (ptr::null_mut(), params(1));
    unsafe {
        rig.api.graph_add_node.call(&raw mut node, graph, ptr::null(), 0, &raw mut fill).unwrap();
        rig.api.graph_node_set_params.call(node, &mut params(2)).unwrap();
    }
    let get = entry!("cuGraphNodeGetParams" 13020 PFN_cuGraphNodeGetParams_v13020);
    assert_eq!(unsafe { get(node, &raw mut fill) }, OK);
    assert_eq!(unsafe { fill.__bindgen_anon_1.memset.value }, 2);
    let exec = rig.instantiate(graph);
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(to), 2);
    unsafe { rig.api.graph_exec_node_set_params.call(exec, node, &mut params(11)) }.unwrap();
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(to), 11);
    let mut wrong = params(1);
    wrong.type_ = CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
    unsafe {
        assert_eq!(
            code(rig.api.graph_node_set_params.call(node, &raw mut wrong)),
            CudaError::INVALID_VALUE
        );
        let mut reserved = params(1);
        reserved.reserved2 = 1;
        let add = &rig.api.graph_add_node;
        let added = add.call(&raw mut node, graph, ptr::null(), 0, &raw mut reserved);
        assert_eq!(code(added), CudaError::INVALID_VALUE, "unused bytes must be zero");
    }
}

#[test]
fn a_batch_of_memory_operations_runs_at_each_launch_and_changes_within_its_operations() {
    let rig = Rig::new(Schedule::Late);
    let (graph, stream, word) = (rig.graph(), rig.stream(1), rig.device(8));
    unsafe { rig.api.memset_d8.call(word, 0, 8) }.unwrap();
    rig.synchronize(ptr::null_mut());
    let write = |value| {
        let mut op: CUstreamBatchMemOpParams = unsafe { std::mem::zeroed() };
        op.writeValue.operation = CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_32;
        op.writeValue.address = word;
        op.writeValue.__bindgen_anon_1.value64 = value;
        op
    };
    let batch = |ops: &mut [CUstreamBatchMemOpParams]| CUDA_BATCH_MEM_OP_NODE_PARAMS {
        ctx: rig.context,
        count: u32::try_from(ops.len()).unwrap(),
        paramArray: ops.as_mut_ptr(),
        flags: 0,
    };
    let mut node = ptr::null_mut();
    unsafe {
        let mut ops = [write(4)];
        let params = batch(&mut ops);
        let add = &rig.api.graph_add_batch_mem_op_node;
        add.call(&raw mut node, graph, ptr::null(), 0, &raw const params).unwrap();
    }
    let exec = rig.instantiate(graph);
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(word), 4);
    unsafe {
        let set = &rig.api.graph_exec_batch_mem_op_node_set_params;
        set.call(exec, node, &batch(&mut [write(5)])).unwrap();
        let two = set.call(exec, node, &batch(&mut [write(5), write(6)]));
        assert_eq!(code(two), CudaError::INVALID_VALUE, "the number of operations is fixed");
    }
    rig.launch(exec, stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(word), 5);
}

fn conditional_params(handle: u64, context: CUcontext) -> CUgraphNodeParams {
    let mut params: CUgraphNodeParams = unsafe { std::mem::zeroed() };
    params.type_ = CUgraphNodeType::CU_GRAPH_NODE_TYPE_CONDITIONAL;
    params.__bindgen_anon_1.conditional = CUDA_CONDITIONAL_NODE_PARAMS {
        handle,
        type_: CUgraphConditionalNodeType::CU_GRAPH_COND_TYPE_IF,
        size: 2,
        phGraph_out: ptr::null_mut(),
        ctx: context,
    };
    params
}

#[test]
fn a_conditional_handle_serves_one_node_of_its_graph_or_of_one_inside() {
    let rig = Rig::new(Schedule::Async);
    let (graph, other) = (rig.graph(), rig.graph());
    let create =
        entry!("cuGraphConditionalHandleCreate" 12030 PFN_cuGraphConditionalHandleCreate_v12030);
    let handle = || {
        let mut handle = 0;
        assert_eq!(unsafe { create(&raw mut handle, graph, rig.context, 1, 1) }, OK);
        handle
    };
    let add = |graph, handle| {
        let (mut node, mut params) = (ptr::null_mut(), conditional_params(handle, rig.context));
        let added = unsafe {
            rig.api.graph_add_node.call(&raw mut node, graph, ptr::null(), 0, &raw mut params)
        };
        added.map(|()| unsafe { *params.__bindgen_anon_1.conditional.phGraph_out })
    };
    let first = handle();
    assert_eq!(code(add(other, first)), CudaError::INVALID_VALUE, "another graph's");
    assert!(rig.nodes(other).is_empty());
    let body = add(graph, first).unwrap();
    assert_eq!(code(add(graph, first)), CudaError::INVALID_VALUE, "used twice");
    assert_eq!(rig.nodes(graph).len(), 1);
    add(body, handle()).unwrap();
}

#[test]
fn a_graph_allocates_managed_memory_where_the_device_has_it() {
    let rig = Rig::new(Schedule::Late);
    let (graph, stream) = (rig.graph(), rig.stream(1));
    let add = entry!("cuGraphAddMemAllocNode" 11040 PFN_cuGraphAddMemAllocNode_v11040);
    let get = entry!("cuGraphMemAllocNodeGetParams" 11040 PFN_cuGraphMemAllocNodeGetParams_v11040);
    let managed = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_MANAGED;
    let (mut node, mut params) = (ptr::null_mut(), alloc_params(64));
    params.poolProps.allocType = managed;
    assert_eq!(unsafe { add(&raw mut node, graph, ptr::null(), 0, &raw mut params) }, OK);
    let mut back = alloc_params(0);
    assert_eq!(unsafe { get(node, &raw mut back) }, OK);
    assert_eq!(back.poolProps.allocType, managed);
    let mut is_managed = 0_u32;
    let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED;
    let asked = unsafe {
        rig.api.pointer_get_attribute.call((&raw mut is_managed).cast(), attribute, params.dptr)
    };
    assert_eq!((asked, is_managed), (Ok(()), 1));
    rig.add_fill(graph, &[node], params.dptr, 3);
    rig.launch(rig.instantiate(graph), stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(params.dptr), 3);

    let lacks = (CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0);
    let rig = Rig::with(Config { attributes: vec![lacks], ..Rig::config() });
    let graph = rig.graph();
    let added = unsafe { add(&raw mut node, graph, ptr::null(), 0, &raw mut params) };
    assert_eq!(added, CUresult::CUDA_ERROR_NOT_SUPPORTED);
}

#[test]
fn conditional_nodes_give_graphs_to_fill_and_take_the_default_branch() {
    let rig = Rig::new(Schedule::Async);
    let (graph, stream, to) = (rig.graph(), rig.stream(1), rig.device(4));
    let create =
        entry!("cuGraphConditionalHandleCreate" 12030 PFN_cuGraphConditionalHandleCreate_v12030);
    let mut handle = 0;
    assert_eq!(unsafe { create(&raw mut handle, graph, rig.context, 1, 1) }, OK);
    let mut params = conditional_params(handle, rig.context);
    let mut node = ptr::null_mut();
    unsafe { rig.api.graph_add_node.call(&raw mut node, graph, ptr::null(), 0, &raw mut params) }
        .unwrap();
    let bodies =
        unsafe { std::slice::from_raw_parts(params.__bindgen_anon_1.conditional.phGraph_out, 2) };
    rig.add_fill(bodies[0], &[], to, 1);
    rig.add_fill(bodies[1], &[], to, 2);
    rig.launch(rig.instantiate(graph), stream);
    rig.synchronize(stream);
    assert_eq!(rig.word(to), 1);
}
