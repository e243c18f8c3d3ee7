#![expect(unsafe_code, reason = "calls the driver's functions with raw handles")]
//! Executable graphs: made, launched, changed.

use core::ptr;

use wharf::Error;
use wharf::sys::bindings::{
    CUDA_GRAPH_INSTANTIATE_PARAMS, CUgraph, CUgraphExec, CUgraphExecUpdateResult,
    CUgraphExecUpdateResultInfo,
};

use super::node::{
    record_params, with_child, with_host, with_mem_op, with_memcpy, with_memset, with_record,
    with_wait,
};
use super::{Exercise, Guard, World, call, zeroed};

pub(super) const EXERCISES: &[Exercise] = &[
    ("cuGraphInstantiateWithFlags", 11040, |w| {
        let graph = w.graph()?;
        instantiated(w, &graph).map(drop)
    }),
    ("cuGraphExecDestroy", 10000, |w| {
        let graph = w.graph()?;
        instantiated(w, &graph)?.close()
    }),
    ("cuGraphUpload", 11010, |w| {
        let (graph, stream) = (w.graph()?, w.stream()?);
        let exec = instantiated(w, &graph)?;
        call!(w, graph_upload(exec.get(), stream.as_raw()))?;
        stream.synchronize()
    }),
    ("cuGraphLaunch", 10000, |w| {
        let (graph, stream) = (w.graph()?, w.stream()?);
        w.empty_node(&graph)?;
        let exec = instantiated(w, &graph)?;
        call!(w, graph_launch(exec.get(), stream.as_raw()))?;
        stream.synchronize()
    }),
    ("cuGraphExecUpdate", 10020, |w| {
        let graph = w.graph()?;
        let exec = instantiated(w, &graph)?;
        let (mut node, mut result) = (ptr::null_mut(), CUgraphExecUpdateResult(0));
        call!(w, graph_exec_update(exec.get(), graph.get(), &raw mut node, &raw mut result))
    }),
    ("cuGraphExecMemcpyNodeSetParams", 10020, |w| {
        with_memcpy(w, |graph, node, copy| {
            let exec = instantiated(w, graph)?;
            let context = w.context.as_raw();
            call!(w, graph_exec_memcpy_node_set_params(exec.get(), node, &raw const copy, context))
        })
    }),
    ("cuGraphExecMemsetNodeSetParams", 10020, |w| {
        with_memset(w, |graph, node, set| {
            let exec = instantiated(w, graph)?;
            let context = w.context.as_raw();
            call!(w, graph_exec_memset_node_set_params(exec.get(), node, &raw const set, context))
        })
    }),
    ("cuGraphExecHostNodeSetParams", 10020, |w| {
        with_host(w, |graph, node, host| {
            let exec = instantiated(w, graph)?;
            call!(w, graph_exec_host_node_set_params(exec.get(), node, &raw const host))
        })
    }),
    ("cuGraphExecChildGraphNodeSetParams", 11010, |w| {
        with_child(w, |graph, node, child| {
            let exec = instantiated(w, graph)?;
            call!(w, graph_exec_child_graph_node_set_params(exec.get(), node, child))
        })
    }),
    ("cuGraphExecEventRecordNodeSetEvent", 11010, |w| {
        with_record(w, |graph, node, event| {
            let exec = instantiated(w, graph)?;
            call!(w, graph_exec_event_record_node_set_event(exec.get(), node, event))
        })
    }),
    ("cuGraphExecEventWaitNodeSetEvent", 11010, |w| {
        with_wait(w, |graph, node, event| {
            let exec = instantiated(w, graph)?;
            call!(w, graph_exec_event_wait_node_set_event(exec.get(), node, event))
        })
    }),
    ("cuGraphInstantiateWithParams", 12000, |w| {
        let graph = w.graph()?;
        let mut params = zeroed!(CUDA_GRAPH_INSTANTIATE_PARAMS);
        let mut exec = ptr::null_mut();
        call!(w, graph_instantiate_with_params(&raw mut exec, graph.get(), &raw mut params))?;
        call!(w, graph_exec_destroy(exec))
    }),
    ("cuGraphExecGetFlags", 12000, |w| {
        let graph = w.graph()?;
        let exec = instantiated(w, &graph)?;
        let mut flags = 0;
        call!(w, graph_exec_get_flags(exec.get(), &raw mut flags))
    }),
    ("cuGraphExecUpdate", 12000, |w| {
        let graph = w.graph()?;
        let exec = instantiated(w, &graph)?;
        let mut info = zeroed!(CUgraphExecUpdateResultInfo);
        call!(w, graph_exec_update_v12000(exec.get(), graph.get(), &raw mut info))
    }),
    ("cuGraphExecBatchMemOpNodeSetParams", 11070, |w| {
        with_mem_op(w, |graph, node, operations| {
            let exec = instantiated(w, graph)?;
            call!(
                w,
                graph_exec_batch_mem_op_node_set_params(exec.get(), node, &raw const operations)
            )
        })
    }),
    ("cuGraphExecNodeSetParams", 12020, |w| {
        with_record(w, |graph, node, event| {
            let exec = instantiated(w, graph)?;
            let mut params = record_params(event);
            call!(w, graph_exec_node_set_params(exec.get(), node, &raw mut params))
        })
    }),
    ("cuGraphNodeSetEnabled", 11060, |w| {
        with_memset(w, |graph, node, _| {
            let exec = instantiated(w, graph)?;
            call!(w, graph_node_set_enabled(exec.get(), node, 0))
        })
    }),
    ("cuGraphNodeGetEnabled", 11060, |w| {
        with_memset(w, |graph, node, _| {
            let exec = instantiated(w, graph)?;
            let mut enabled = 0;
            call!(w, graph_node_get_enabled(exec.get(), node, &raw mut enabled))
        })
    }),
];

/// Makes an executable graph of `graph`.
fn instantiated<'w>(
    w: &'w World,
    graph: &Guard<'_, CUgraph>,
) -> Result<Guard<'w, CUgraphExec>, Error> {
    let mut exec = ptr::null_mut();
    call!(w, graph_instantiate_with_flags(&raw mut exec, graph.get(), 0))?;
    Ok(w.guard(exec, |w, exec| call!(w, graph_exec_destroy(exec))))
}
