#![expect(unsafe_code, reason = "calls the driver")]
//! Stream capture: work enqueued on a stream becomes a graph.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use wharf_sys::bindings::{
    CUgraph, CUgraphNode, CUgraphNodeType, CUstreamCaptureMode, CUstreamCaptureStatus,
    CUstreamUpdateCaptureDependencies_flags,
};

use super::definition::GraphDefinition;
use super::error::{CaptureFault, GraphError};
use super::keep_alive::retain;
use super::node::NodeKind;
use super::record::{NodeRecord, RawNode};
use crate::driver::Context;
use crate::error::Error;
use crate::stream::Stream;

/// Which calls a capture forbids, and on which threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CaptureMode {
    /// Calls that may synchronise, on every thread of the process.
    Global,
    /// The same, on the capturing thread alone.
    #[default]
    ThreadLocal,
    /// None.
    Relaxed,
}

impl CaptureMode {
    fn raw(self) -> CUstreamCaptureMode {
        match self {
            Self::Global => CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL,
            Self::ThreadLocal => CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            Self::Relaxed => CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
        }
    }
}

/// A stream that is capturing, until this is [ended](Self::end) or dropped.
///
/// Dropped, also by a panic, it ends the capture and discards the graph. It stays on its thread.
/// The promises of captured calls about addresses hold for every launch;
/// [`keep_alive`](Self::keep_alive) can keep memory for so long.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use wharf::Stream;
/// use wharf::graph::{CaptureMode, CaptureScope, NodeKind};
///
/// let stream = Stream::new(&context)?;
/// let graph = CaptureScope::capture(&stream, CaptureMode::default(), |stream| {
///     stream.launch_host_func(&|| println!("launched"))
/// })?;
/// assert!(graph.nodes().all(|node| node.kind == NodeKind::Host));
/// graph.instantiate()?.launch(&stream)?;
/// # stream.synchronize()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # References
///
/// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
#[must_use = "a scope that is dropped discards its graph"]
pub struct CaptureScope<'a> {
    stream: &'a Stream,
    ended: bool,
    thread_bound: PhantomData<*const ()>,
}

impl<'a> CaptureScope<'a> {
    /// Begins a capture of `stream`.
    ///
    /// # Errors
    ///
    /// [`GraphError::Capture`] with [`CaptureFault::Begin`]: the stream cannot capture.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamBeginCapture")]
    pub fn begin(stream: &'a Stream, mode: CaptureMode) -> Result<Self, GraphError> {
        let _scope = stream.enter()?;
        let begin = &stream.context().driver().api().stream_begin_capture;
        stream.context().driver().begin_capture();
        // SAFETY: the stream is alive.
        unsafe { begin.call(stream.as_raw(), mode.raw()) }.map_err(|error| {
            stream.context().driver().end_capture();
            GraphError::Capture { fault: CaptureFault::Begin, error }
        })?;
        Ok(Self { stream, ended: false, thread_bound: PhantomData })
    }

    /// Captures what `body` enqueues on `stream`, and on streams that join it and are joined back.
    ///
    /// # Errors
    ///
    /// * [`GraphError::Capture`]: `body` failed, or made a call that captures forbid. The error
    ///   names which, and holds the driver's first error.
    /// * [`GraphError::MemoryNode`]: `body` allocated or freed in the capture.
    pub fn capture(
        stream: &'a Stream,
        mode: CaptureMode,
        body: impl FnOnce(&Stream) -> Result<(), Error>,
    ) -> Result<GraphDefinition, GraphError> {
        let scope = Self::begin(stream, mode)?;
        match body(stream) {
            Ok(()) => scope.end(),
            Err(error) => Err(GraphError::Capture { fault: CaptureFault::of(error), error }),
        }
    }

    /// Gives the graph that is being captured a share of `owner`.
    ///
    /// # Errors
    ///
    /// As [`keep_alive_in_capture`].
    pub fn keep_alive(&self, owner: impl Send + 'static) -> Result<(), GraphError> {
        keep_alive_in_capture(self.stream, owner)
    }

    /// Ends the capture and returns what was captured.
    ///
    /// # Errors
    ///
    /// * [`GraphError::Capture`]: the capture was invalidated, or a stream was not joined back.
    ///   Nothing is left of it, and the stream can be used again.
    /// * [`GraphError::MemoryNode`]: memory was allocated or freed in it.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamEndCapture")]
    pub fn end(mut self) -> Result<GraphDefinition, GraphError> {
        let context = self.stream.context();
        let _scope = context.enter()?;
        let raw = self
            .finish()
            .map_err(|error| GraphError::Capture { fault: CaptureFault::of(error), error })?;
        let mut graph = GraphDefinition::with(raw, context, Vec::new());
        graph.nodes = known_nodes(raw, context)?;
        refuse_memory(raw, context)?;
        Ok(graph)
    }

    fn finish(&mut self) -> Result<CUgraph, Error> {
        self.ended = true;
        let mut raw: CUgraph = ptr::null_mut();
        let end = &self.stream.context().driver().api().stream_end_capture;
        // SAFETY: the stream is alive and `raw` is valid for writes.
        let ended = unsafe { end.call(self.stream.as_raw(), &raw mut raw) };
        self.stream.context().driver().end_capture();
        self.stream.context().driver().sweep();
        ended.map(|()| raw)
    }
}

impl fmt::Debug for CaptureScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureScope").field("stream", self.stream).finish_non_exhaustive()
    }
}

impl Drop for CaptureScope<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let context = self.stream.context();
        let Ok(_scope) = context.enter() else { return };
        // An error says that the capture was invalidated, by the code that drops it or before.
        if let Ok(raw) = self.finish() {
            drop(GraphDefinition::with(raw, context, Vec::new()));
        }
    }
}

/// Gives the graph that `stream` is capturing a share of `owner`, also if the capture was begun by
/// other code: the graph, its clones, its executable graphs and their launches in flight keep it
/// alive.
///
/// # Errors
///
/// * [`GraphError::NotCapturing`]: the stream is not capturing, or its capture is invalid.
/// * [`GraphError::Driver`]: the driver refused; `owner` is dropped.
#[doc(alias = "cuGraphRetainUserObject")]
pub fn keep_alive_in_capture(
    stream: &Stream,
    owner: impl Send + 'static,
) -> Result<(), GraphError> {
    let context = stream.context();
    let _scope = stream.enter()?;
    let capturing = Capturing::of(stream)?;
    Ok(retain(capturing.graph, Box::new(owner), context)?)
}

impl GraphDefinition {
    /// Appends a copy of this graph to what `stream` is capturing, also if the capture was begun by
    /// other code.
    ///
    /// # Errors
    ///
    /// * [`GraphError::NotCapturing`]: the stream is not capturing, or its capture is invalid.
    /// * [`GraphError::Driver`]: the driver refused; the capture is as before.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamUpdateCaptureDependencies")]
    pub fn append_to_capture(&self, stream: &Stream) -> Result<(), GraphError> {
        const SET: u32 =
            CUstreamUpdateCaptureDependencies_flags::CU_STREAM_SET_CAPTURE_DEPENDENCIES.0;
        let context = stream.context();
        let _scope = stream.enter()?;
        let Capturing { graph, after } = Capturing::of(stream)?;
        let api = context.driver().api();
        let mut node: CUgraphNode = ptr::null_mut();
        let (at, len, child) = (after.as_ptr(), after.len(), self.as_raw());
        // SAFETY: the captured graph is alive while its stream captures; the child is alive and
        // copied.
        unsafe { api.graph_add_child_graph_node.call(&raw mut node, graph, at, len, child) }?;
        // Work that the stream captures next must wait for the child.
        let update = &api.stream_update_capture_dependencies;
        // SAFETY: the node was added to the captured graph above.
        let moved = unsafe { update.call(stream.as_raw(), &raw mut node, 1, SET) };
        moved.map_err(|error| {
            // SAFETY: as above; nothing waits for it yet.
            let undone = unsafe { api.graph_destroy_node.call(node) };
            context.release().note(context.driver(), undone);
            error.into()
        })
    }
}

/// The graph that a stream is capturing, and the nodes that its next node would wait for.
struct Capturing {
    graph: CUgraph,
    after: Vec<CUgraphNode>,
}

impl Capturing {
    /// Asks the driver.
    fn of(stream: &Stream) -> Result<Self, GraphError> {
        let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let (mut id, mut graph, mut after, mut count) = (0, ptr::null_mut(), ptr::null(), 0);
        let info = &stream.context().driver().api().stream_get_capture_info;
        let (status_at, id_at, graph_at) = (&raw mut status, &raw mut id, &raw mut graph);
        let (after_at, count_at) = (&raw mut after, &raw mut count);
        // SAFETY: the stream is alive; all five are valid for writes.
        unsafe { info.call(stream.as_raw(), status_at, id_at, graph_at, after_at, count_at) }?;
        if status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE {
            return Err(GraphError::NotCapturing);
        }
        let after = if count == 0 {
            Vec::new()
        } else {
            // SAFETY: the array is the driver's, valid until the next call on this stream (Driver
            // API, cuStreamGetCaptureInfo), and copied before that.
            unsafe { core::slice::from_raw_parts(after, count) }.to_vec()
        };
        Ok(Self { graph, after })
    }
}

/// The nodes of a captured graph and their edges, in the driver's order.
fn known_nodes(graph: CUgraph, context: &Context) -> Result<Vec<NodeRecord>, GraphError> {
    let nodes = raw_nodes(graph, context)?;
    let mut records = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let kind = NodeKind::of(node_type(*node, context)?);
        let before = dependencies(*node, context)?;
        let place =
            |raw: &CUgraphNode| u32::try_from(nodes.iter().position(|node| node == raw)?).ok();
        let after = before.iter().filter_map(place).collect();
        records.push(NodeRecord { raw: RawNode(*node), kind, work: None, after, label: None });
    }
    Ok(records)
}

/// Finds nodes that allocate or free, in child graphs too.
fn refuse_memory(graph: CUgraph, context: &Context) -> Result<(), GraphError> {
    // A child's nodes are as little known to the pools' accounts as the graph's own.
    for node in raw_nodes(graph, context)? {
        match node_type(node, context)? {
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_ALLOC => {
                return Err(GraphError::MemoryNode { allocates: true });
            }
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEM_FREE => {
                return Err(GraphError::MemoryNode { allocates: false });
            }
            CUgraphNodeType::CU_GRAPH_NODE_TYPE_GRAPH => {
                let mut child: CUgraph = ptr::null_mut();
                let of = &context.driver().api().graph_child_graph_node_get_graph;
                // SAFETY: the node is alive and `child` is valid for writes.
                unsafe { of.call(node, &raw mut child) }?;
                refuse_memory(child, context)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn raw_nodes(graph: CUgraph, context: &Context) -> Result<Vec<CUgraphNode>, Error> {
    let nodes = &context.driver().api().graph_get_nodes;
    // SAFETY: the graph is alive; null or an array of `count` places.
    counted(|array, count| unsafe { nodes.call(graph, array, count) })
}

fn dependencies(node: CUgraphNode, context: &Context) -> Result<Vec<CUgraphNode>, Error> {
    let dependencies = &context.driver().api().graph_node_get_dependencies;
    // SAFETY: the node is alive; null or an array of `count` places.
    counted(|array, count| unsafe { dependencies.call(node, array, count) })
}

fn node_type(node: CUgraphNode, context: &Context) -> Result<CUgraphNodeType, Error> {
    let mut kind = CUgraphNodeType(0);
    // SAFETY: the node is alive and `kind` is valid for writes.
    unsafe { context.driver().api().graph_node_get_type.call(node, &raw mut kind) }?;
    Ok(kind)
}

/// Calls twice, as the driver's lists want it: for the count, then for the nodes.
fn counted(
    call: impl Fn(*mut CUgraphNode, *mut usize) -> Result<(), Error>,
) -> Result<Vec<CUgraphNode>, Error> {
    let mut count = 0;
    call(ptr::null_mut(), &raw mut count)?;
    let mut nodes = vec![ptr::null_mut(); count];
    if count > 0 {
        call(nodes.as_mut_ptr(), &raw mut count)?;
    }
    Ok(nodes)
}
