//! Stream capture: streams that describe a graph instead of running operations.
//!
//! ```text
//!   begin on stream A         A: dependencies {}
//!   copy on A                 A: {copy}            node copy
//!   record event on A         event: {copy}
//!   B waits for the event     A: {copy} B: {copy}  B is in the capture now: a fork
//!   memset on B               A: {copy} B: {fill}  node fill behind copy
//!   record on B, A waits      A: {copy, fill}      the join
//!   end on A                  a graph, if every node that nothing waits for is reached from A
//! ```
//!
//! A [`Capture`] holds, for each stream in it, the nodes that the stream's next node will
//! depend on. [`rules`] says what is refused meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_sys::CudaError;
use wharf_sys::bindings::{CUgraphEdgeData, CUstreamCaptureMode};

use super::Store;
use super::definition::Owner;
use super::node::{Action, Edge};
use crate::errors::Status;

/// Whether a capture can still succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    Active,
    /// Something was done that cannot be captured: only ending the capture is allowed.
    Invalidated,
}

/// One capture, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The graph that it makes or adds to.
    pub(crate) graph: u64,
    /// Whether the graph was the program's before.
    pub(crate) into_existing: bool,
    /// The stream that it began on, where it must end.
    pub(crate) origin: u64,
    /// The thread that began it.
    pub(crate) thread: u64,
    pub(crate) mode: CUstreamCaptureMode,
    validity: Validity,
    /// The streams in it.
    streams: BTreeMap<u64, Tail>,
    /// Captured nodes that no captured node waits for: each must be joined before the end.
    open: BTreeSet<u64>,
}

/// The dependencies of the next node of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) dependencies: Vec<Edge>,
    /// Lent to the program by `cuStreamGetCaptureInfo`: handles of nodes, and edge data.
    pub(crate) shown: (Vec<u64>, Vec<CUgraphEdgeData>),
}

/// The captures of one machine that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    last: u64,
    captures: BTreeMap<u64, Capture>,
}

impl Captures {
    pub(crate) fn is_empty(&self) -> bool {
        self.captures.is_empty()
    }

    pub(crate) fn get(&self, capture: u64) -> Option<&Capture> {
        self.captures.get(&capture)
    }

    /// The capture that `stream` is in.
    pub(crate) fn of_stream(&self, stream: u64) -> Option<u64> {
        self.captures
            .iter()
            .find(|(_, capture)| capture.streams.contains_key(&stream))
            .map(|(id, _)| *id)
    }

    /// The captures that can still succeed.
    pub(crate) fn active(&self) -> impl Iterator<Item = (u64, &Capture)> {
        let active =
            self.captures.iter().filter(|(_, capture)| capture.validity == Validity::Active);
        active.map(|(id, capture)| (*id, capture))
    }

    /// Every stream that is in a capture, and the capture.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (u64, u64)> {
        self.captures
            .iter()
            .flat_map(|(id, capture)| capture.streams.keys().map(|stream| (*stream, *id)))
    }

    /// A capture that is not there any more counts as invalid.
    pub(crate) fn validity(&self, capture: u64) -> Validity {
        self.captures.get(&capture).map_or(Validity::Invalidated, |capture| capture.validity)
    }

    pub(crate) fn invalidate(&mut self, capture: u64) {
        if let Some(capture) = self.captures.get_mut(&capture) {
            capture.validity = Validity::Invalidated;
        }
    }

    /// The dependencies of the next node of `stream` in `capture`.
    pub(crate) fn tail_mut(&mut self, capture: u64, stream: u64) -> Option<&mut Tail> {
        self.captures.get_mut(&capture)?.streams.get_mut(&stream)
    }

    /// Takes a node that the program has removed out of what must be joined.
    pub(crate) fn forget_node(&mut self, node: u64) {
        for capture in self.captures.values_mut() {
            capture.open.remove(&node);
        }
    }

    /// Whether the graph belongs to a capture in progress, its own or an existing one.
    pub(crate) fn is_target(&self, graph: u64) -> bool {
        self.captures.values().any(|capture| capture.graph == graph)
    }
}

/// The arguments with which a capture begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) stream: u64,
    pub(crate) thread: u64,
    pub(crate) mode: CUstreamCaptureMode,
    /// The graph to add to and what the first node depends on, instead of a new graph.
    pub(crate) into: Option<(u64, Vec<Edge>)>,
}

impl Store {
    /// Begins a capture on a stream that is in none.
    pub(crate) fn begin_capture(&mut self, beginning: Beginning) {
        let Beginning { stream, thread, mode, into } = beginning;
        let into_existing = into.is_some();
        let (graph, dependencies) =
            into.unwrap_or_else(|| (self.create_graph(Owner::Capture), Vec::new()));
        let tail = Tail { dependencies, ..Tail::default() };
        let captures = &mut self.captures;
        captures.last += 1;
        let capture = Capture {
            graph,
            into_existing,
            origin: stream,
            thread,
            mode,
            validity: Validity::Active,
            streams: BTreeMap::from([(stream, tail)]),
            open: BTreeSet::new(),
        };
        captures.captures.insert(captures.last, capture);
    }

    /// Ends a capture and returns its graph.
    ///
    /// # Errors
    ///
    /// The streams have left the capture and its graph is gone, if it was the capture's:
    ///
    /// * `STREAM_CAPTURE_INVALIDATED`: something before had invalidated it.
    /// * `STREAM_CAPTURE_UNJOINED`: a fork was not joined.
    pub(crate) fn end_capture(&mut self, capture: u64) -> Status<u64> {
        let Some(ended) = self.captures.captures.remove(&capture) else {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        };
        let result = self.check_end(&ended);
        match result {
            Ok(()) => {
                if let Some(graph) = self.graphs.get_mut(ended.graph)
                    && !ended.into_existing
                {
                    graph.owner = Owner::Program;
                }
            }
            // The program's own graph stays, with the nodes that were captured.
            Err(_) if ended.into_existing => {}
            Err(_) => {
                self.remove_graph(ended.graph);
            }
        }
        result.map(|()| ended.graph)
    }

    fn check_end(&self, capture: &Capture) -> Status {
        if capture.validity == Validity::Invalidated {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        }
        let joined: Vec<_> = capture
            .streams
            .get(&capture.origin)
            .map_or(Vec::new(), |tail| tail.dependencies.iter().map(|edge| edge.node).collect());
        let store = self;
        // A node that the program removed from the graph needs no join.
        let mut open = capture.open.iter().filter(|node| store.nodes.contains(**node));
        if open.all(|node| store.reaches(&joined, *node)) {
            Ok(())
        } else {
            Err(CudaError::STREAM_CAPTURE_UNJOINED)
        }
    }

    /// Takes a stream that is going out of its capture. Where the capture began on it, no call
    /// can end the capture any more: it is over. Elsewhere the stream only leaves it: what was
    /// joined stays in the graph, what was not is found at the end.
    pub(crate) fn abandon_capture(&mut self, stream: u64) {
        let Some(capture) = self.captures.of_stream(stream) else { return };
        let Some(known) = self.captures.captures.get_mut(&capture) else { return };
        if known.origin == stream {
            self.captures.invalidate(capture);
            // It is invalid, so this only takes it apart.
            let _ = self.end_capture(capture);
        } else {
            known.streams.remove(&stream);
        }
    }

    /// Adds a node at the end of `stream`.
    pub(crate) fn capture_node(
        &mut self,
        capture: u64,
        stream: u64,
        action: Action,
    ) -> Status<u64> {
        let known = self.captures.get(capture).ok_or(CudaError::STREAM_CAPTURE_INVALIDATED)?;
        let tail = known.streams.get(&stream).ok_or(CudaError::STREAM_CAPTURE_INVALIDATED)?;
        let (graph, dependencies) = (known.graph, tail.dependencies.clone());
        let node = self.add_node(graph, &dependencies, action)?;
        self.captures.follow(capture, stream, node);
        Ok(node)
    }
}

impl Store {
    /// Captures the launch of an executable graph: as a child graph node that does the same.
    pub(crate) fn capture_launch(&mut self, capture: u64, stream: u64, exec: u64) -> Status {
        let plan = Arc::clone(&self.exec(exec)?.plan);
        if plan.has_memory {
            // A child graph cannot allocate or free.
            self.captures.invalidate(capture);
            return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
        }
        let node = self.capture_node(capture, stream, Action::Empty)?;
        let child = self.graph_of_plan(&plan, Owner::Node(node))?;
        self.node_mut(node)?.action = Action::Child(child);
        Ok(())
    }
}

impl Captures {
    /// Makes `node`, which waits for what `stream` had, the end of it.
    fn follow(&mut self, capture: u64, stream: u64, node: u64) {
        let Some(capture) = self.captures.get_mut(&capture) else { return };
        let Some(tail) = capture.streams.get_mut(&stream) else { return };
        let before = std::mem::replace(&mut tail.dependencies, vec![Edge::on(node)]);
        for edge in before {
            capture.open.remove(&edge.node);
        }
        capture.open.insert(node);
    }

    /// Lets `stream` depend on `edges` too; it is in the capture from now on.
    pub(crate) fn join(&mut self, capture: u64, stream: u64, edges: &[Edge]) {
        let Some(capture) = self.captures.get_mut(&capture) else { return };
        let tail = capture.streams.entry(stream).or_default();
        for edge in edges {
            if !tail.dependencies.contains(edge) {
                tail.dependencies.push(*edge);
            }
        }
    }

    /// Adds to or replaces what the next node of `stream` will depend on. "Nodes that are
    /// removed from the dependency set via this API do not result in
    /// `CUDA_ERROR_STREAM_CAPTURE_UNJOINED`."
    pub(crate) fn update_dependencies(
        &mut self,
        capture: u64,
        stream: u64,
        edges: &[Edge],
        replace: bool,
    ) {
        if replace
            && let Some(capture) = self.captures.get_mut(&capture)
            && let Some(tail) = capture.streams.get_mut(&stream)
        {
            // Replaced nodes count as joined.
            for edge in tail.dependencies.drain(..) {
                capture.open.remove(&edge.node);
            }
        }
        self.join(capture, stream, edges);
    }
}
