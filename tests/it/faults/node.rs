#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! Graph nodes of each kind: added, read, changed.

use core::ffi::c_void;
use core::ptr;

use wharf::sys::bindings::{
    CUDA_BATCH_MEM_OP_NODE_PARAMS, CUDA_HOST_NODE_PARAMS_v1, CUDA_MEMCPY3D_v2,
    CUDA_MEMSET_NODE_PARAMS_v1, CUdeviceptr, CUevent, CUgraph, CUgraphNode, CUgraphNodeParams,
    CUgraphNodeType, CUmemorytype, CUstreamBatchMemOpParams, CUstreamBatchMemOpType,
};

use super::{Exercise, Guard, Outcome, World, call, zeroed};

pub(super) const EXERCISES: &[Exercise] = &[
    ("cuGraphAddEmptyNode", 10000, |w| {
        let graph = w.graph()?;
        w.empty_node(&graph).map(drop)
    }),
    ("cuGraphAddMemcpyNode", 10000, |w| with_memcpy(w, |_, _, _| Ok(()))),
    ("cuGraphMemcpyNodeGetParams", 10000, |w| {
        with_memcpy(w, |_, node, mut copy| {
            call!(w, graph_memcpy_node_get_params(node, &raw mut copy))
        })
    }),
    ("cuGraphMemcpyNodeSetParams", 10000, |w| {
        with_memcpy(w, |_, node, copy| {
            call!(w, graph_memcpy_node_set_params(node, &raw const copy))
        })
    }),
    ("cuGraphAddMemsetNode", 10000, |w| with_memset(w, |_, _, _| Ok(()))),
    ("cuGraphMemsetNodeGetParams", 10000, |w| {
        with_memset(w, |_, node, mut set| {
            call!(w, graph_memset_node_get_params(node, &raw mut set))
        })
    }),
    ("cuGraphMemsetNodeSetParams", 10000, |w| {
        with_memset(w, |_, node, set| call!(w, graph_memset_node_set_params(node, &raw const set)))
    }),
    ("cuGraphAddHostNode", 10000, |w| with_host(w, |_, _, _| Ok(()))),
    ("cuGraphHostNodeGetParams", 10000, |w| {
        with_host(w, |_, node, mut host| call!(w, graph_host_node_get_params(node, &raw mut host)))
    }),
    ("cuGraphHostNodeSetParams", 10000, |w| {
        with_host(w, |_, node, host| call!(w, graph_host_node_set_params(node, &raw const host)))
    }),
    ("cuGraphAddChildGraphNode", 10000, |w| with_child(w, |_, _, _| Ok(()))),
    ("cuGraphChildGraphNodeGetGraph", 10000, |w| {
        with_child(w, |_, node, _| {
            let mut embedded = ptr::null_mut();
            call!(w, graph_child_graph_node_get_graph(node, &raw mut embedded))
        })
    }),
    ("cuGraphAddEventRecordNode", 11010, |w| with_record(w, |_, _, _| Ok(()))),
    ("cuGraphEventRecordNodeGetEvent", 11010, |w| {
        with_record(w, |_, node, mut event| {
            call!(w, graph_event_record_node_get_event(node, &raw mut event))
        })
    }),
    ("cuGraphEventRecordNodeSetEvent", 11010, |w| {
        with_record(w, |_, node, event| call!(w, graph_event_record_node_set_event(node, event)))
    }),
    ("cuGraphAddEventWaitNode", 11010, |w| with_wait(w, |_, _, _| Ok(()))),
    ("cuGraphEventWaitNodeGetEvent", 11010, |w| {
        with_wait(w, |_, node, mut event| {
            call!(w, graph_event_wait_node_get_event(node, &raw mut event))
        })
    }),
    ("cuGraphEventWaitNodeSetEvent", 11010, |w| {
        with_wait(w, |_, node, event| call!(w, graph_event_wait_node_set_event(node, event)))
    }),
    ("cuGraphAddBatchMemOpNode", 11070, |w| with_mem_op(w, |_, _, _| Ok(()))),
    ("cuGraphBatchMemOpNodeGetParams", 11070, |w| {
        with_mem_op(w, |_, node, mut operations| {
            call!(w, graph_batch_mem_op_node_get_params(node, &raw mut operations))
        })
    }),
    ("cuGraphBatchMemOpNodeSetParams", 11070, |w| {
        with_mem_op(w, |_, node, operations| {
            call!(w, graph_batch_mem_op_node_set_params(node, &raw const operations))
        })
    }),
    ("cuGraphAddNode", 12020, |w| {
        let (graph, mut node, mut empty) = (w.graph()?, ptr::null_mut(), empty_params());
        call!(w, graph_add_node(&raw mut node, graph.get(), ptr::null(), 0, &raw mut empty))
    }),
    ("cuGraphAddNode", 12030, |w| {
        let (graph, mut node, mut empty) = (w.graph()?, ptr::null_mut(), empty_params());
        let (node, none, empty) = (&raw mut node, ptr::null(), &raw mut empty);
        call!(w, graph_add_node_v12030(node, graph.get(), none, ptr::null(), 0, empty))
    }),
    ("cuGraphNodeSetParams", 12020, |w| {
        with_record(w, |_, node, event| {
            let mut params = record_params(event);
            call!(w, graph_node_set_params(node, &raw mut params))
        })
    }),
];

/// Runs `body` with a graph that copies 64 bytes on the device, the node, and its parameters.
pub(super) fn with_memcpy(
    w: &World,
    body: impl FnOnce(&Guard<'_, CUgraph>, CUgraphNode, CUDA_MEMCPY3D_v2) -> Outcome,
) -> Outcome {
    let (to, from, graph) = (w.device_memory(64)?, w.device_memory(64)?, w.graph()?);
    let mut copy = zeroed!(CUDA_MEMCPY3D_v2);
    copy.srcMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
    copy.srcDevice = from.get();
    copy.dstMemoryType = CUmemorytype::CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = to.get();
    (copy.WidthInBytes, copy.Height, copy.Depth) = (64, 1, 1);
    let (mut node, context) = (ptr::null_mut(), w.context.as_raw());
    let (at, copied) = (&raw mut node, &raw const copy);
    call!(w, graph_add_memcpy_node(at, graph.get(), ptr::null(), 0, copied, context))?;
    body(&graph, node, copy)
}

/// Runs `body` with a graph that sets 64 bytes on the device, the node, and its parameters.
pub(super) fn with_memset(
    w: &World,
    body: impl FnOnce(&Guard<'_, CUgraph>, CUgraphNode, CUDA_MEMSET_NODE_PARAMS_v1) -> Outcome,
) -> Outcome {
    let (to, graph) = (w.device_memory(64)?, w.graph()?);
    let mut set = zeroed!(CUDA_MEMSET_NODE_PARAMS_v1);
    (set.dst, set.elementSize, set.width, set.height) = (to.get(), 1, 64, 1);
    let (mut node, context) = (ptr::null_mut(), w.context.as_raw());
    let (at, filled) = (&raw mut node, &raw const set);
    call!(w, graph_add_memset_node(at, graph.get(), ptr::null(), 0, filled, context))?;
    body(&graph, node, set)
}

/// Runs `body` with a graph that calls the host, the node, and its parameters.
pub(super) fn with_host(
    w: &World,
    body: impl FnOnce(&Guard<'_, CUgraph>, CUgraphNode, CUDA_HOST_NODE_PARAMS_v1) -> Outcome,
) -> Outcome {
    unsafe extern "C" fn nothing(_data: *mut c_void) {}
    let graph = w.graph()?;
    let host = CUDA_HOST_NODE_PARAMS_v1 { fn_: Some(nothing), userData: ptr::null_mut() };
    let mut node = ptr::null_mut();
    call!(w, graph_add_host_node(&raw mut node, graph.get(), ptr::null(), 0, &raw const host))?;
    body(&graph, node, host)
}

/// Runs `body` with a graph that embeds a graph of one node, the node, and the graph that was
/// embedded.
pub(super) fn with_child(
    w: &World,
    body: impl FnOnce(&Guard<'_, CUgraph>, CUgraphNode, CUgraph) -> Outcome,
) -> Outcome {
    let (graph, child) = (w.graph()?, w.graph()?);
    w.empty_node(&child)?;
    let mut node = ptr::null_mut();
    call!(w, graph_add_child_graph_node(&raw mut node, graph.get(), ptr::null(), 0, child.get()))?;
    body(&graph, node, child.get())
}

/// Runs `body` with a graph that records an event, the node, and the event.
pub(super) fn with_record(
    w: &World,
    body: impl FnOnce(&Guard<'_, CUgraph>, CUgraphNode, CUevent) -> Outcome,
) -> Outcome {
    let (event, graph) = (w.event()?, w.graph()?);
    let (mut node, raw) = (ptr::null_mut(), event.as_raw());
    call!(w, graph_add_event_record_node(&raw mut node, graph.get(), ptr::null(), 0, raw))?;
    body(&graph, node, raw)
}

/// Runs `body` with a graph that waits for an event, the node, and the event.
pub(super) fn with_wait(
    w: &World,
    body: impl FnOnce(&Guard<'_, CUgraph>, CUgraphNode, CUevent) -> Outcome,
) -> Outcome {
    let (event, graph) = (w.event()?, w.graph()?);
    let (mut node, raw) = (ptr::null_mut(), event.as_raw());
    call!(w, graph_add_event_wait_node(&raw mut node, graph.get(), ptr::null(), 0, raw))?;
    body(&graph, node, raw)
}

/// Runs `body` with a graph that writes a word, the node, and its parameters.
pub(super) fn with_mem_op(
    w: &World,
    body: impl FnOnce(&Guard<'_, CUgraph>, CUgraphNode, CUDA_BATCH_MEM_OP_NODE_PARAMS) -> Outcome,
) -> Outcome {
    let (word, graph) = (w.device_memory(8)?, w.graph()?);
    let mut operation = write_value(word.get());
    let (ctx, array) = (w.context.as_raw(), &raw mut operation);
    let operations = CUDA_BATCH_MEM_OP_NODE_PARAMS { ctx, count: 1, paramArray: array, flags: 0 };
    let (mut node, none) = (ptr::null_mut(), ptr::null());
    call!(
        w,
        graph_add_batch_mem_op_node(&raw mut node, graph.get(), none, 0, &raw const operations)
    )?;
    body(&graph, node, operations)
}

/// The operation that writes 1 to the word at `address`.
pub(super) fn write_value(address: CUdeviceptr) -> CUstreamBatchMemOpParams {
    let mut operation = zeroed!(CUstreamBatchMemOpParams);
    operation.writeValue.operation = CUstreamBatchMemOpType::CU_STREAM_MEM_OP_WRITE_VALUE_64;
    operation.writeValue.address = address;
    operation.writeValue.__bindgen_anon_1.value64 = 1;
    operation
}

/// The generic parameters of a node that records `event`.
pub(super) fn record_params(event: CUevent) -> CUgraphNodeParams {
    let mut params = zeroed!(CUgraphNodeParams);
    params.type_ = CUgraphNodeType::CU_GRAPH_NODE_TYPE_EVENT_RECORD;
    params.__bindgen_anon_1.eventRecord.event = event;
    params
}

fn empty_params() -> CUgraphNodeParams {
    let mut params = zeroed!(CUgraphNodeParams);
    params.type_ = CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
    params
}
