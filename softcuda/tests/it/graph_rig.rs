//! Graphs for a test.

use std::ffi::c_void;
use std::ptr;

use softcuda::Schedule;
use wharf_sys::bindings::{
    CUDA_HOST_NODE_PARAMS_v1, CUDA_MEMCPY3D, CUDA_MEMSET_NODE_PARAMS_v1, CUevent, CUgraph,
    CUgraphExec, CUgraphNode, CUhostFn, CUmemorytype, CUstream, CUstreamCaptureMode,
    CUstreamCaptureStatus,
};

use crate::support::Rig;

pub(crate) const GLOBAL: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
pub(crate) const THREAD_LOCAL: CUstreamCaptureMode =
    CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
pub(crate) const RELAXED: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;

/// Every schedule.
pub(crate) const SCHEDULES: [Schedule; 4] =
    [Schedule::Async, Schedule::Eager, Schedule::Late, Schedule::Random(7)];

impl Rig {
    pub(crate) fn begin(&self, stream: CUstream, mode: CUstreamCaptureMode) {
        unsafe { self.api.stream_begin_capture.call(stream, mode) }.unwrap();
    }

    pub(crate) fn end(&self, stream: CUstream) -> Result<CUgraph, wharf_sys::Error> {
        let mut graph = ptr::null_mut();
        let result = unsafe { self.api.stream_end_capture.call(stream, &raw mut graph) };
        assert_eq!(result.is_err(), graph.is_null(), "a graph exactly where the capture succeeded");
        result.map(|()| graph)
    }

    pub(crate) fn status(&self, stream: CUstream) -> CUstreamCaptureStatus {
        let mut status = CUstreamCaptureStatus(9);
        unsafe { self.api.stream_is_capturing.call(stream, &raw mut status) }.unwrap();
        status
    }

    pub(crate) fn record(&self, event: CUevent, stream: CUstream) {
        unsafe { self.api.event_record.call(event, stream) }.unwrap();
    }

    pub(crate) fn wait(&self, stream: CUstream, event: CUevent) {
        unsafe { self.api.stream_wait_event.call(stream, event, 0) }.unwrap();
    }

    pub(crate) fn fill(&self, to: u64, value: u32, stream: CUstream) {
        unsafe { self.api.memset_d32_async.call(to, value, 1, stream) }.unwrap();
    }

    pub(crate) fn word(&self, at: u64) -> u32 {
        u32::from_ne_bytes(self.read(at, 4).try_into().unwrap())
    }

    pub(crate) fn graph(&self) -> CUgraph {
        let mut graph = ptr::null_mut();
        unsafe { self.api.graph_create.call(&raw mut graph, 0) }.unwrap();
        graph
    }

    pub(crate) fn instantiate(&self, graph: CUgraph) -> CUgraphExec {
        let mut exec = ptr::null_mut();
        unsafe { self.api.graph_instantiate_with_flags.call(&raw mut exec, graph, 0) }.unwrap();
        exec
    }

    pub(crate) fn launch(&self, exec: CUgraphExec, stream: CUstream) {
        unsafe { self.api.graph_launch.call(exec, stream) }.unwrap();
    }

    pub(crate) fn nodes(&self, graph: CUgraph) -> Vec<CUgraphNode> {
        let mut count = 0;
        unsafe { self.api.graph_get_nodes.call(graph, ptr::null_mut(), &raw mut count) }.unwrap();
        let mut nodes = vec![ptr::null_mut(); count];
        unsafe { self.api.graph_get_nodes.call(graph, nodes.as_mut_ptr(), &raw mut count) }
            .unwrap();
        nodes
    }

    pub(crate) fn edges(&self, graph: CUgraph) -> Vec<(CUgraphNode, CUgraphNode)> {
        let (mut count, null) = (0, ptr::null_mut());
        unsafe { self.api.graph_get_edges.call(graph, null, null, &raw mut count) }.unwrap();
        let (mut from, mut to) = (vec![null.cast(); count], vec![null.cast(); count]);
        unsafe {
            self.api.graph_get_edges.call(graph, from.as_mut_ptr(), to.as_mut_ptr(), &raw mut count)
        }
        .unwrap();
        from.into_iter().zip(to).collect()
    }

    pub(crate) fn add_empty(&self, graph: CUgraph, after: &[CUgraphNode]) -> CUgraphNode {
        let mut node = ptr::null_mut();
        unsafe {
            self.api.graph_add_empty_node.call(&raw mut node, graph, after.as_ptr(), after.len())
        }
        .unwrap();
        node
    }

    pub(crate) fn add_copy(
        &self,
        graph: CUgraph,
        after: &[CUgraphNode],
        copy: &CUDA_MEMCPY3D,
    ) -> CUgraphNode {
        let mut node = ptr::null_mut();
        let (after, count) = (after.as_ptr(), after.len());
        unsafe {
            self.api.graph_add_memcpy_node.call(
                &raw mut node,
                graph,
                after,
                count,
                copy,
                self.context,
            )
        }
        .unwrap();
        node
    }

    pub(crate) fn add_fill(
        &self,
        graph: CUgraph,
        after: &[CUgraphNode],
        to: u64,
        value: u32,
    ) -> CUgraphNode {
        let mut node = ptr::null_mut();
        let (after, count) = (after.as_ptr(), after.len());
        let fill = fill_params(to, value);
        unsafe {
            self.api.graph_add_memset_node.call(
                &raw mut node,
                graph,
                after,
                count,
                &raw const fill,
                self.context,
            )
        }
        .unwrap();
        node
    }

    pub(crate) fn add_host(
        &self,
        graph: CUgraph,
        after: &[CUgraphNode],
        function: CUhostFn,
        data: *mut c_void,
    ) -> CUgraphNode {
        let mut node = ptr::null_mut();
        let params = CUDA_HOST_NODE_PARAMS_v1 { fn_: function, userData: data };
        let (after, count) = (after.as_ptr(), after.len());
        unsafe {
            self.api.graph_add_host_node.call(&raw mut node, graph, after, count, &raw const params)
        }
        .unwrap();
        node
    }
}

/// A fill of one word.
pub(crate) fn fill_params(to: u64, value: u32) -> CUDA_MEMSET_NODE_PARAMS_v1 {
    CUDA_MEMSET_NODE_PARAMS_v1 { dst: to, pitch: 0, value, elementSize: 4, width: 1, height: 1 }
}

/// A copy of `size` bytes from host to device memory.
pub(crate) fn htod(to: u64, from: *const u8, size: usize) -> CUDA_MEMCPY3D {
    CUDA_MEMCPY3D {
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
        srcHost: from.cast(),
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstDevice: to,
        ..linear(size)
    }
}

/// A copy of `size` bytes between device memory.
pub(crate) fn dtod(to: u64, from: u64, size: usize) -> CUDA_MEMCPY3D {
    CUDA_MEMCPY3D {
        srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcDevice: from,
        dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstDevice: to,
        ..linear(size)
    }
}

fn linear(size: usize) -> CUDA_MEMCPY3D {
    let nothing: CUDA_MEMCPY3D = unsafe { std::mem::zeroed() };
    CUDA_MEMCPY3D { WidthInBytes: size, Height: 1, Depth: 1, ..nothing }
}

/// A host function that calls the closure behind `data` (`&F`, alive until it is called).
pub(crate) extern "C" fn call_closure<F: Fn() + Sync>(data: *mut c_void) {
    let closure: &F = unsafe { &*data.cast() };
    closure();
}

/// The arguments of a host function that calls `closure`.
pub(crate) fn host_call<F: Fn() + Sync>(closure: &F) -> (CUhostFn, *mut c_void) {
    (Some(call_closure::<F>), ptr::from_ref(closure).cast_mut().cast())
}
