//! Events in captures: forks and joins, and the events that become nodes.

use wharf_sys::CudaError;

use crate::call::Call;
use crate::errors::Status;
use crate::event::EventState;
use crate::graph::capture::Validity;
use crate::graph::node::{Action, Edge};
use crate::graph::operand::{check_copy, locate_fill};
use crate::machine::State;
use crate::stream::Role;
use crate::task::Task;

impl Call<'_> {
    /// Adds a node that does `task`, as the stream would.
    pub(crate) fn capture(
        self,
        state: &mut State,
        capture: u64,
        stream: u64,
        task: &Task,
    ) -> Status {
        // A node is checked when it is captured: the graph may be launched much later.
        match task {
            Task::Copy(copy) => check_copy(&state.memory, copy)?,
            Task::Fill(fill) => locate_fill(&state.memory, fill).map(|_| ())?,
            _ => {}
        }
        let context = state.streams.get(stream).map_or(0, |stream| stream.context);
        state.graphs.capture_node(capture, stream, Action::captured(task, context)?).map(|_| ())
    }

    /// Records `event` on `stream` if the stream is capturing, and says whether it is.
    ///
    /// An external record becomes a node; any other only marks the moment, for streams that
    /// wait for it to join the capture there.
    pub(crate) fn capture_record(
        self,
        state: &mut State,
        event: u64,
        stream: u64,
        external: bool,
    ) -> Status<bool> {
        let Some(capture) = state.capture_of(stream)? else { return Ok(false) };
        if external {
            let event = state.events.name(event).ok_or(CudaError::INVALID_HANDLE)?;
            state.graphs.capture_node(capture, stream, Action::Record(event))?;
            return Ok(true);
        }
        // No node: the event only remembers the nodes that a waiting stream will depend on.
        let tail = state.graphs.captures.tail_mut(capture, stream);
        let nodes = tail
            .map_or(Vec::new(), |tail| tail.dependencies.iter().map(|edge| edge.node).collect());
        if let Some(event) = state.events.get_mut(event) {
            event.state = EventState::Captured { capture, nodes };
        }
        Ok(true)
    }

    /// Lets `stream` wait for `event` if the stream is capturing or the event is of a capture,
    /// and says whether that is so.
    pub(crate) fn capture_wait(
        self,
        state: &mut State,
        event: u64,
        stream: u64,
        external: bool,
    ) -> Status<bool> {
        let waiter = state.capture_of(stream)?;
        if external {
            let Some(capture) = waiter else { return Ok(false) };
            let event = state.events.name(event).ok_or(CudaError::INVALID_HANDLE)?;
            state.graphs.capture_node(capture, stream, Action::Wait(event))?;
            return Ok(true);
        }
        let recorded = state.events.get(event).map(|event| event.state.clone());
        match (waiter, recorded) {
            (None, Some(EventState::Captured { capture, nodes })) => {
                state.fork(capture, stream, &nodes)?;
            }
            (Some(waiter), Some(EventState::Captured { capture, nodes })) => {
                state.merge(waiter, capture, stream, &nodes)?;
            }
            (Some(waiter), Some(EventState::Recorded { .. })) => {
                state.graphs.captures.invalidate(waiter);
                return Err(CudaError::STREAM_CAPTURE_ISOLATION);
            }
            // "Before the first call to cuEventRecord, an event represents an empty set of work."
            (Some(_), Some(EventState::Unrecorded) | None) => {}
            (None, _) => return Ok(false),
        }
        Ok(true)
    }
}

impl State {
    /// Brings a stream that is in no capture into one, behind `nodes`.
    fn fork(&mut self, capture: u64, stream: u64, nodes: &[u64]) -> Status {
        if self.graphs.captures.get(capture).is_none() {
            return Err(CudaError::CAPTURED_EVENT);
        }
        if self.graphs.captures.validity(capture) == Validity::Invalidated {
            return Err(CudaError::STREAM_CAPTURE_INVALIDATED);
        }
        // The legacy stream "is not supported for stream capture".
        if self.streams.get(stream).is_none_or(|stream| stream.role == Role::Legacy) {
            self.graphs.captures.invalidate(capture);
            return Err(CudaError::STREAM_CAPTURE_UNSUPPORTED);
        }
        self.graphs.captures.join(capture, stream, &edges(nodes));
        Ok(())
    }

    /// Adds `nodes` of capture `other` to what a stream of capture `waiter` waits for.
    fn merge(&mut self, waiter: u64, other: u64, stream: u64, nodes: &[u64]) -> Status {
        if waiter == other {
            self.graphs.captures.join(waiter, stream, &edges(nodes));
            return Ok(());
        }
        self.graphs.captures.invalidate(waiter);
        if self.graphs.captures.get(other).is_none() {
            return Err(CudaError::CAPTURED_EVENT);
        }
        self.graphs.captures.invalidate(other);
        Err(CudaError::STREAM_CAPTURE_MERGE)
    }
}

fn edges(nodes: &[u64]) -> Vec<Edge> {
    nodes.iter().copied().map(Edge::on).collect()
}
