//! Calls that captures forbid.
//!
//! "When an invalid operation is attempted during stream capture, any associated capture graphs
//! are invalidated" (CUDA C++ Programming Guide): every refusal here that has to do with a
//! capture's contents invalidates it. Ending a capture from the wrong thread or stream is
//! refused and changes nothing.

use wharf_sys::CudaError;
use wharf_sys::bindings::CUstreamCaptureMode;

use crate::call::Call;
use crate::errors::Status;
use crate::event::EventState;
use crate::graph::capture::Validity;
use crate::machine::State;
use crate::stream::Role;

const GLOBAL: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
const RELAXED: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;

impl State {
    /// The capture that `stream` takes part in, if any, before the stream is used.
    ///
    /// # Errors
    ///
    /// * `STREAM_CAPTURE_INVALIDATED`: it was invalidated and not ended yet.
    /// * `STREAM_CAPTURE_IMPLICIT`: this is the legacy stream, which would wait for a stream
    ///   that is capturing. That capture is invalid now.
    pub(crate) fn capture_of(&mut self, stream: u64) -> Status<Option<u64>> {
        if let Some(capture) = self.graphs.captures.of_stream(stream) {
            return match self.graphs.captures.validity(capture) {
                Validity::Active => Ok(Some(capture)),
                Validity::Invalidated => Err(CudaError::STREAM_CAPTURE_INVALIDATED),
            };
        }
        // A stream outside all captures can still disturb one: the legacy stream waits for blocking
        // streams.
        let implicit = self.implicit_captures(stream);
        if implicit.is_empty() {
            return Ok(None);
        }
        for capture in implicit {
            self.graphs.captures.invalidate(capture);
        }
        Err(CudaError::STREAM_CAPTURE_IMPLICIT)
    }

    /// The captures that `stream` would have to wait for, being the legacy stream.
    pub(crate) fn implicit_captures(&self, stream: u64) -> Vec<u64> {
        let captures = &self.graphs.captures;
        let legacy = self.streams.get(stream).filter(|stream| stream.role == Role::Legacy);
        let Some(legacy) = legacy.filter(|_| !captures.is_empty()) else { return Vec::new() };
        // Only blocking streams of the same context are ordered with the legacy stream.
        let blocks = |stream: u64| {
            self.streams
                .get(stream)
                .is_some_and(|stream| stream.context == legacy.context && stream.is_blocking())
        };
        captures
            .streams()
            .filter(|(stream, _)| blocks(*stream))
            .map(|(_, capture)| capture)
            .collect()
    }
}

impl Call<'_> {
    /// Refuses what cannot be captured on a stream that captures: a question about its
    /// progress, a wait for it, a callback.
    pub(crate) fn forbid_on_capturing(self, state: &mut State, stream: u64) -> Status {
        match state.capture_of(stream)? {
            None => Ok(()),
            Some(capture) => {
                state.graphs.captures.invalidate(capture);
                Err(CudaError::STREAM_CAPTURE_UNSUPPORTED)
            }
        }
    }

    /// Refuses a call that a capture in progress forbids: one that is not a stream operation
    /// and whose effect a replay would miss. `context` is what it would wait for, if anything.
    pub(crate) fn forbid_while_capturing(self, state: &mut State, context: Option<u64>) -> Status {
        if state.graphs.captures.is_empty() {
            return Ok(());
        }
        // The mode of this thread decides about all captures, the context about those of its own
        // streams.
        let mut forbidding = self.captures_in_the_way(state);
        if let Some(context) = context {
            forbidding.extend(state.captures_of_context(context));
        }
        if forbidding.is_empty() {
            return Ok(());
        }
        for capture in forbidding {
            state.graphs.captures.invalidate(capture);
        }
        Err(CudaError::STREAM_CAPTURE_UNSUPPORTED)
    }

    /// The captures that prohibit "potentially unsafe API calls" on this thread, by the
    /// thread's mode and theirs (`cuThreadExchangeStreamCaptureMode`).
    fn captures_in_the_way(self, state: &State) -> Vec<u64> {
        let mode = self.thread.capture_mode.get();
        if mode == RELAXED {
            return Vec::new();
        }
        let captures = state.graphs.captures.active();
        let prohibits = captures.filter(|(_, capture)| {
            let is_own = capture.thread == self.thread.id && capture.mode != RELAXED;
            is_own || mode == GLOBAL && capture.mode == GLOBAL
        });
        prohibits.map(|(id, _)| id).collect()
    }

    /// Refuses a copy or memset without a stream while a capture in progress forbids it: it
    /// goes to the default stream and waits there.
    pub(crate) fn forbid_synchronous(self) -> Status {
        let mut state = self.lock();
        if state.graphs.captures.is_empty() {
            return Ok(());
        }
        let stream = self.stream(&mut state, core::ptr::null_mut())?;
        self.forbid_on_capturing(&mut state, stream)?;
        self.forbid_while_capturing(&mut state, None)
    }

    /// Refuses a question about an event that was last recorded in a capture.
    pub(crate) fn captured_event(self, state: &mut State, event: u64) -> Status {
        if let Some(EventState::Captured { capture, .. }) =
            state.events.get(event).map(|event| &event.state)
        {
            state.graphs.captures.invalidate(*capture);
        }
        Err(CudaError::CAPTURED_EVENT)
    }
}

impl State {
    /// The captures that a stream of `context` takes part in.
    fn captures_of_context(&self, context: u64) -> Vec<u64> {
        let is_in =
            |stream: u64| self.streams.get(stream).is_some_and(|stream| stream.context == context);
        let captures = self.graphs.captures.streams().filter(|(stream, _)| is_in(*stream));
        captures.map(|(_, capture)| capture).collect()
    }
}
