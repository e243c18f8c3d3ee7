#![expect(unsafe_code, reason = "exports C functions")]
//! Stream capture.

use core::ffi::c_uint;
use core::ptr;

use wharf_sys::CudaError;
use wharf_sys::bindings::*;

use super::arguments::{input, out_if_any};
use super::graph_edges::edges_of;
use super::{exports, out, valid};
use crate::call::Call;
use crate::errors::Status;
use crate::graph::capture::{Beginning, Validity};
use crate::graph::node::Edge;
use crate::handle::{number, to_pointer};
use crate::machine::State;
use crate::stream::Role;

/// `cuStreamBeginCapture` before there were modes.
#[expect(non_camel_case_types, reason = "named as NVIDIA's header names them")]
type PFN_cuStreamBeginCapture_v10000 = Option<unsafe extern "C" fn(CUstream) -> CUresult>;

exports! {
    Normal PFN_cuStreamBeginCapture_v10000: cuStreamBeginCapture(
        stream: CUstream,
    ) | cuStreamBeginCapture_ptsz => begin_global;
    Normal PFN_cuStreamBeginCapture_v10010: cuStreamBeginCapture_v2(
        stream: CUstream, mode: CUstreamCaptureMode,
    ) | cuStreamBeginCapture_v2_ptsz => begin;
    Normal PFN_cuStreamBeginCaptureToGraph_v12030: cuStreamBeginCaptureToGraph(
        stream: CUstream, graph: CUgraph, dependencies: *const CUgraphNode,
        data: *const CUgraphEdgeData, count: usize, mode: CUstreamCaptureMode,
    ) | cuStreamBeginCaptureToGraph_ptsz => begin_to_graph;
    Normal PFN_cuStreamEndCapture_v10000: cuStreamEndCapture(
        stream: CUstream, graph: *mut CUgraph,
    ) | cuStreamEndCapture_ptsz => end;
    Normal PFN_cuStreamIsCapturing_v10000: cuStreamIsCapturing(
        stream: CUstream, status: *mut CUstreamCaptureStatus,
    ) | cuStreamIsCapturing_ptsz => is_capturing;
    Normal PFN_cuStreamGetCaptureInfo_v10010: cuStreamGetCaptureInfo(
        stream: CUstream, status: *mut CUstreamCaptureStatus, id: *mut cuuint64_t,
    ) | cuStreamGetCaptureInfo_ptsz => get_info;
    Normal PFN_cuStreamGetCaptureInfo_v11030: cuStreamGetCaptureInfo_v2(
        stream: CUstream, status: *mut CUstreamCaptureStatus, id: *mut cuuint64_t,
        graph: *mut CUgraph, dependencies: *mut *const CUgraphNode, count: *mut usize,
    ) | cuStreamGetCaptureInfo_v2_ptsz => get_info_v2;
    Normal PFN_cuStreamGetCaptureInfo_v12030: cuStreamGetCaptureInfo_v3(
        stream: CUstream, status: *mut CUstreamCaptureStatus, id: *mut cuuint64_t,
        graph: *mut CUgraph, dependencies: *mut *const CUgraphNode,
        data: *mut *const CUgraphEdgeData, count: *mut usize,
    ) | cuStreamGetCaptureInfo_v3_ptsz => get_info_v3;
    Normal PFN_cuStreamUpdateCaptureDependencies_v11030: cuStreamUpdateCaptureDependencies(
        stream: CUstream, dependencies: *mut CUgraphNode, count: usize, flags: c_uint,
    ) | cuStreamUpdateCaptureDependencies_ptsz => update_dependencies;
    Normal PFN_cuStreamUpdateCaptureDependencies_v12030: cuStreamUpdateCaptureDependencies_v2(
        stream: CUstream, dependencies: *mut CUgraphNode, data: *const CUgraphEdgeData,
        count: usize, flags: c_uint,
    ) | cuStreamUpdateCaptureDependencies_v2_ptsz => update_dependencies_v2;
    Normal PFN_cuThreadExchangeStreamCaptureMode_v10010: cuThreadExchangeStreamCaptureMode(
        mode: *mut CUstreamCaptureMode,
    ) => exchange_mode;
}

/// `CU_STREAM_SET_CAPTURE_DEPENDENCIES`
const SET_DEPENDENCIES: c_uint = 1;

fn check_mode(mode: CUstreamCaptureMode) -> Status {
    if mode.0 > CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED.0 {
        return Err(CudaError::INVALID_VALUE);
    }
    Ok(())
}

fn begin_global(call: Call, stream: CUstream) -> Status {
    begin(call, stream, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
}

fn begin(call: Call, stream: CUstream, mode: CUstreamCaptureMode) -> Status {
    begin_on(call, stream, mode, None)
}

fn begin_to_graph(
    call: Call,
    stream: CUstream,
    graph: CUgraph,
    dependencies: *const CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
    mode: CUstreamCaptureMode,
) -> Status {
    call.lock().graphs.graph(number(graph))?;
    let edges = edges_of(dependencies, data, count)?;
    begin_on(call, stream, mode, Some((number(graph), edges)))
}

fn begin_on(
    call: Call,
    stream: CUstream,
    mode: CUstreamCaptureMode,
    into: Option<(u64, Vec<Edge>)>,
) -> Status {
    check_mode(mode)?;
    let mut state = call.lock();
    let stream = call.stream(&mut state, stream)?;
    // "Capture may not be initiated if stream is CU_STREAM_LEGACY."
    if state.streams.get(stream).is_none_or(|stream| stream.role == Role::Legacy) {
        return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
    }
    // "It may only be initiated if the stream is not already in capture mode."
    if state.graphs.captures.of_stream(stream).is_some() {
        return Err(CudaError::ILLEGAL_STATE);
    }
    if let Some((graph, edges)) = &into {
        state.graphs.check_members(*graph, edges)?;
        if state.graphs.captures.is_target(*graph) {
            return Err(CudaError::ILLEGAL_STATE);
        }
    }
    state.graphs.begin_capture(Beginning { stream, thread: call.thread.id, mode, into });
    Ok(())
}

fn end(call: Call, stream: CUstream, graph: *mut CUgraph) -> Status {
    out(graph, ptr::null_mut())?;
    let mut state = call.lock();
    let stream = call.stream(&mut state, stream)?;
    let capture = state.graphs.captures.of_stream(stream).ok_or(CudaError::ILLEGAL_STATE)?;
    let known = state.graphs.captures.get(capture).ok_or(CudaError::ILLEGAL_STATE)?;
    if known.origin != stream {
        return Err(CudaError::STREAM_CAPTURE_UNMATCHED);
    }
    // A relaxed capture may end on any thread.
    let is_relaxed = known.mode == CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    if !is_relaxed && known.thread != call.thread.id {
        return Err(CudaError::STREAM_CAPTURE_WRONG_THREAD);
    }
    let made = state.graphs.end_capture(capture)?;
    out(graph, to_pointer(made))
}

/// The capture of `stream` and its status, asked without harm to any capture.
fn asked(call: Call, state: &mut State, stream: CUstream) -> Status<Option<(u64, u64, Validity)>> {
    let stream = call.stream(state, stream)?;
    // "The blocking stream capture is not invalidated."
    if !state.implicit_captures(stream).is_empty() {
        return Err(CudaError::STREAM_CAPTURE_IMPLICIT);
    }
    let capture = state.graphs.captures.of_stream(stream);
    Ok(capture.map(|capture| (stream, capture, state.graphs.captures.validity(capture))))
}

fn raw_status(status: Option<Validity>) -> CUstreamCaptureStatus {
    match status {
        None => CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE,
        Some(Validity::Active) => CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE,
        Some(Validity::Invalidated) => CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED,
    }
}

fn is_capturing(call: Call, stream: CUstream, status: *mut CUstreamCaptureStatus) -> Status {
    get_info(call, stream, status, ptr::null_mut())
}

fn get_info(
    call: Call,
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
) -> Status {
    let null = ptr::null_mut();
    get_info_v2(call, stream, status, id, null, ptr::null_mut(), ptr::null_mut())
}

fn get_info_v2(
    call: Call,
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    count: *mut usize,
) -> Status {
    get_info_v3(call, stream, status, id, graph, dependencies, ptr::null_mut(), count)
}

#[expect(clippy::too_many_arguments, reason = "the driver API's arguments")]
fn get_info_v3(
    call: Call,
    stream: CUstream,
    status: *mut CUstreamCaptureStatus,
    id: *mut cuuint64_t,
    graph: *mut CUgraph,
    dependencies: *mut *const CUgraphNode,
    data: *mut *const CUgraphEdgeData,
    count: *mut usize,
) -> Status {
    // "If edgeData_out is non-NULL then dependencies_out must be as well."
    if !valid(status) || !data.is_null() && dependencies.is_null() {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let known = asked(call, &mut state, stream)?;
    let Some((stream, capture, Validity::Active)) = known else {
        return out(status, raw_status(known.map(|(_, _, status)| status)));
    };
    let target = state.graphs.captures.get(capture).map_or(0, |capture| capture.graph);
    let Some(tail) = state.graphs.captures.tail_mut(capture, stream) else {
        return Err(CudaError::ILLEGAL_STATE);
    };
    let is_lossy = tail.dependencies.iter().any(|edge| !edge.data.is_default());
    if is_lossy && !dependencies.is_null() && data.is_null() {
        return Err(CudaError::LOSSY_QUERY);
    }
    tail.shown.0 = tail.dependencies.iter().map(|edge| edge.node).collect();
    tail.shown.1 = tail.dependencies.iter().map(|edge| edge.data.to_raw()).collect();
    // A node's handle is a pointer of the same size as its number.
    out_if_any(dependencies, tail.shown.0.as_ptr().cast())?;
    out_if_any(data, tail.shown.1.as_ptr())?;
    out_if_any(count, tail.dependencies.len())?;
    out_if_any(id, capture)?;
    out_if_any(graph, to_pointer(target))?;
    out(status, CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE)
}

fn update_dependencies(
    call: Call,
    stream: CUstream,
    dependencies: *mut CUgraphNode,
    count: usize,
    flags: c_uint,
) -> Status {
    update_dependencies_v2(call, stream, dependencies, ptr::null(), count, flags)
}

fn update_dependencies_v2(
    call: Call,
    stream: CUstream,
    dependencies: *mut CUgraphNode,
    data: *const CUgraphEdgeData,
    count: usize,
    flags: c_uint,
) -> Status {
    if flags > SET_DEPENDENCIES {
        return Err(CudaError::INVALID_VALUE);
    }
    let mut state = call.lock();
    let stream = call.stream(&mut state, stream)?;
    // "Returns CUDA_ERROR_ILLEGAL_STATE if the stream is not capturing."
    let capture = state.capture_of(stream)?.ok_or(CudaError::ILLEGAL_STATE)?;
    let graph = state.graphs.captures.get(capture).map_or(0, |capture| capture.graph);
    let edges = edges_of(dependencies, data, count)?;
    state.graphs.check_members(graph, &edges)?;
    state.graphs.captures.update_dependencies(capture, stream, &edges, flags == SET_DEPENDENCIES);
    Ok(())
}

fn exchange_mode(call: Call, mode: *mut CUstreamCaptureMode) -> Status {
    let new = input(mode)?;
    check_mode(new)?;
    let old = call.thread.capture_mode.replace(new);
    out(mode, old)
}
