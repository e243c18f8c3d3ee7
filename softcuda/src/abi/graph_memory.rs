#![expect(unsafe_code, reason = "exports C functions")]
//! Allocation and free nodes, and the memory that graphs hold on a device.

use core::ffi::c_void;
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::input;
use super::graph_edges::edges_of;
use super::graph_node::{Place, get};
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::node::{Action, Edge};
use crate::handle::{number, to_pointer};
use crate::location::Location;
use crate::machine::{State, Work};
use crate::memory::{Block, Kind};

exports! {
    Normal PFN_cuGraphAddMemAllocNode_v11040: cuGraphAddMemAllocNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
    ) => add_alloc;
    Normal PFN_cuGraphMemAllocNodeGetParams_v11040: cuGraphMemAllocNodeGetParams(
        node: CUgraphNode, params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
    ) => get_alloc;
    Normal PFN_cuGraphAddMemFreeNode_v11040: cuGraphAddMemFreeNode(
        node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, count: usize,
        pointer: CUdeviceptr,
    ) => add_free;
    Normal PFN_cuGraphMemFreeNodeGetParams_v11040: cuGraphMemFreeNodeGetParams(
        node: CUgraphNode, pointer: *mut CUdeviceptr,
    ) => get_free;
    Normal PFN_cuDeviceGraphMemTrim_v11040: cuDeviceGraphMemTrim(device: CUdevice) => trim;
    Normal PFN_cuDeviceGetGraphMemAttribute_v11040: cuDeviceGetGraphMemAttribute(
        device: CUdevice, attribute: CUgraphMem_attribute, value: *mut c_void,
    ) => get_attribute;
    Normal PFN_cuDeviceSetGraphMemAttribute_v11040: cuDeviceSetGraphMemAttribute(
        device: CUdevice, attribute: CUgraphMem_attribute, value: *mut c_void,
    ) => set_attribute;
}

/// Adds an allocation node and returns the address of its memory.
pub(crate) fn alloc_node(
    call: Call,
    place: Place,
    props: &CUmemPoolProps,
    size: usize,
) -> Status<u64> {
    call.require_pools()?;
    let location = call.location(&props.location)?;
    let managed = props.allocType == CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_MANAGED;
    if managed {
        call.require_anywhere(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS)?;
    }
    let is_known = managed || props.allocType == CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    let exports = props.handleTypes != CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE;
    if location.is_host() || !is_known || exports || size == 0 || !valid(place.node) {
        return Err(CudaError::INVALID_VALUE);
    }
    // The node is added last: a call that fails must leave no node and no memory.
    let mut state = call.lock();
    let graph = number(place.graph);
    state.graphs.graph(graph)?;
    let edges = edges_of(place.dependencies, place.data, place.count)?;
    let (node, block) = state.add_alloc_node(graph, &edges, size, (location.ordinal(), managed))?;
    out(place.node, to_pointer(node))?;
    Ok(block.device)
}

/// Adds a node that frees the memory of an allocation node.
pub(crate) fn free_node(call: Call, place: Place, pointer: CUdeviceptr) -> Status {
    call.require_pools()?;
    if !valid(place.node) {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let graph = number(place.graph);
    state.graphs.graph(graph)?;
    let edges = edges_of(place.dependencies, place.data, place.count)?;
    let node = state.add_free_node(graph, &edges, pointer)?;
    out(place.node, to_pointer(node))
}

impl State {
    /// Reserves addresses for an allocation node of `graph`.
    fn place_graph_memory(
        &mut self,
        graph: u64,
        size: usize,
        ordinal: i32,
        managed: bool,
    ) -> Status<Arc<Block>> {
        // Unused memory is released first, to make room.
        self.collect_graph_memory();
        self.graphs.place_memory(&mut self.memory, graph, size, ordinal, managed)
    }

    fn add_alloc_node(
        &mut self,
        graph: u64,
        edges: &[Edge],
        size: usize,
        (ordinal, managed): (i32, bool),
    ) -> Status<(u64, Arc<Block>)> {
        self.graphs.check_members(graph, edges)?;
        let block = self.place_graph_memory(graph, size, ordinal, managed)?;
        let node = self.graphs.add_node(graph, edges, Action::Alloc(Arc::clone(&block)))?;
        Ok((node, block))
    }

    fn add_free_node(&mut self, graph: u64, edges: &[Edge], pointer: u64) -> Status<u64> {
        let block = self.graphs.freeable(pointer)?;
        let node = self.graphs.add_node(graph, edges, Action::Free(block))?;
        self.graphs.set_freed_by(pointer, graph);
        Ok(node)
    }
}

impl Call<'_> {
    /// Captures a stream-ordered allocation: "the allocation is owned by the graph instead of
    /// the memory pool".
    pub(super) fn capture_alloc(
        self,
        state: &mut State,
        capture: u64,
        stream: u64,
        size: usize,
        managed: bool,
    ) -> Status<Arc<Block>> {
        let graph = state.graphs.captures.get(capture).map_or(0, |capture| capture.graph);
        let context = state.streams.get(stream).map_or(0, |stream| stream.context);
        let ordinal = state.contexts.get(context).map_or(0, |context| context.ordinal);
        let block = state.place_graph_memory(graph, size, ordinal, managed)?;
        state.graphs.capture_node(capture, stream, Action::Alloc(Arc::clone(&block)))?;
        Ok(block)
    }

    /// Captures a stream-ordered free, which "must be passed the address of a graph allocation".
    pub(super) fn capture_free(
        self,
        state: &mut State,
        capture: u64,
        stream: u64,
        pointer: CUdeviceptr,
    ) -> Status {
        let graph = state.graphs.captures.get(capture).map_or(0, |capture| capture.graph);
        let block = state.graphs.freeable(pointer)?;
        state.graphs.capture_node(capture, stream, Action::Free(block))?;
        state.graphs.set_freed_by(pointer, graph);
        Ok(())
    }

    /// Frees what a graph allocated and did not free, by `work` in the order of `stream`.
    pub(super) fn free_of_graph(self, block: &Block, stream: CUstream, work: Work) -> Status {
        let mut state = self.lock();
        let stream = self.stream(&mut state, stream)?;
        state.graphs.free_memory(block)?;
        self.enqueue(state, stream, work, &[]).map(|_| ())
    }
}

fn add_alloc(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    params: *mut CUDA_MEM_ALLOC_NODE_PARAMS,
) -> Status {
    let given = input(params)?;
    let place = Place::new(node, graph, dependencies, count);
    let dptr = alloc_node(call, place, &given.poolProps, given.bytesize)?;
    out(params, CUDA_MEM_ALLOC_NODE_PARAMS { dptr, ..given })
}

/// The parameters of the allocation node of `block`.
pub(crate) fn alloc_params(block: &Block) -> CUDA_MEM_ALLOC_NODE_PARAMS {
    let kind = match block.kind {
        Kind::Graph { managed: true } => CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_MANAGED,
        _ => CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
    };
    CUDA_MEM_ALLOC_NODE_PARAMS {
        poolProps: CUmemPoolProps {
            allocType: kind,
            handleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
            location: Location::Device(block.ordinal).as_raw(),
            win32SecurityAttributes: core::ptr::null_mut(),
            maxSize: 0,
            usage: 0,
            reserved: [0; 54],
        },
        accessDescs: core::ptr::null(),
        accessDescCount: 0,
        bytesize: block.size,
        dptr: block.device,
    }
}

fn get_alloc(call: Call, node: CUgraphNode, params: *mut CUDA_MEM_ALLOC_NODE_PARAMS) -> Status {
    get(call, node, params, |action| match action {
        Action::Alloc(block) => Some(alloc_params(block)),
        _ => None,
    })
}

fn add_free(
    call: Call,
    node: *mut CUgraphNode,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    count: usize,
    pointer: CUdeviceptr,
) -> Status {
    free_node(call, Place::new(node, graph, dependencies, count), pointer)
}

fn get_free(call: Call, node: CUgraphNode, pointer: *mut CUdeviceptr) -> Status {
    get(call, node, pointer, |action| match action {
        Action::Free(block) => Some(block.device),
        _ => None,
    })
}

fn trim(call: Call, device: CUdevice) -> Status {
    call.device(device)?;
    let mut state = call.lock();
    state.collect_graph_memory();
    let State { graphs, memory, .. } = &mut *state;
    graphs.trim_memory(memory, device);
    Ok(())
}

fn get_attribute(
    call: Call,
    device: CUdevice,
    attribute: CUgraphMem_attribute,
    value: *mut c_void,
) -> Status {
    call.device(device)?;
    let mut state = call.lock();
    let (used, reserved) = *state.graphs.memory.levels(device);
    let bytes = match attribute {
        CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT => used.now,
        CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH => used.high,
        CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT => reserved.now,
        CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH => reserved.high,
        _ => return Err(CudaError::INVALID_VALUE),
    };
    out(value.cast::<u64>(), bytes)
}

/// "High watermark can only be reset to zero."
fn set_attribute(
    call: Call,
    device: CUdevice,
    attribute: CUgraphMem_attribute,
    value: *mut c_void,
) -> Status {
    call.device(device)?;
    if input(value.cast::<u64>())? != 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let (used, reserved) = state.graphs.memory.levels(device);
    match attribute {
        CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH => used.reset(),
        CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH => reserved.reset(),
        _ => return Err(CudaError::INVALID_VALUE),
    }
    Ok(())
}
