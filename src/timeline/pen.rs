//! Puts markers into a stream, one thread at a time.
//!
//! Markers enter the stream in the order of their numbers, so one thread at a time holds the pen.
//! A thread that wants a marker does not wait for the pen. One that needs an event waits, for no
//! longer than a driver call takes; and so does the drop of the stream, which must know that no
//! other thread is in a call with its handle.

#![expect(unsafe_code, reason = "calls the driver with a handle that it may still use")]

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use wharf_sys::bindings::{CUevent_wait_flags, CUstream};
use wharf_sys::constants::STREAM_LEGACY;

use super::Owner;
use crate::driver::{
    CaptureStatus, Context, ContextScope, Event, EventKind, EventPool, RawStream, StreamKey, Word,
    capture_status,
};
use crate::error::{CudaError, Error};
use crate::lockfree::tickets::Tickets;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// By what a marker makes itself known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// The completion word, where there is one.
    Word,
    /// An event.
    Event,
}

/// A stream's handle as long as it may be used, and the markers in it that are events.
pub(super) struct Pen {
    state: Mutex<State>,
    events: EventPool,
    /// How many events are out: where there are none, the lock is not taken for them.
    out: AtomicU64,
    /// The last number that the device was told to write.
    last_word: AtomicU64,
    /// Whether it is one of the default streams, whose handles are constants.
    is_default: bool,
}

struct State {
    /// `None` when the stream is closed.
    stream: Option<RawStream>,
    /// Where the work of a stream ended that is closed, or whose thread may have ended.
    end: Option<Arc<Event>>,
    /// What keeps the stream alive, if it is borrowed with an owner.
    owner: Option<Owner>,
    /// Events in the stream, each with its marker's number.
    out: VecDeque<(u64, Event)>,
}

impl Pen {
    pub(super) fn new(stream: CUstream, context: &Context) -> Self {
        let state =
            State { stream: Some(RawStream(stream)), end: None, owner: None, out: VecDeque::new() };
        Self {
            state: Mutex::new(state),
            events: EventPool::new(context, EventKind::Ordering, MOST_OUT),
            out: AtomicU64::new(0),
            last_word: AtomicU64::new(0),
            is_default: StreamKey::of(stream).is_default(),
        }
    }

    /// Keeps `owner` as long as the handle may be used, unless another is kept.
    pub(super) fn keep(&self, owner: Owner) {
        let mut state = self.hold();
        let surplus = match state.stream {
            Some(_) if state.owner.is_none() => state.owner.replace(owner),
            _ => Some(owner),
        };
        // Its end may call the driver, and this.
        drop(state);
        drop(surplus);
    }

    /// Puts a marker in, by `word` or else by an event; its number, if it did.
    pub(super) fn mark(
        &self,
        context: &Context,
        tickets: &Tickets,
        word: Option<&Word>,
    ) -> Result<Option<u64>, Error> {
        let Some(mut state) = self.try_hold() else { return Ok(None) };
        self.mark_held(&mut state, context, tickets, word)
    }

    /// As [`mark`](Self::mark), but waits for its turn.
    pub(super) fn mark_last(
        &self,
        context: &Context,
        tickets: &Tickets,
        word: Option<&Word>,
    ) -> Result<Option<u64>, Error> {
        self.mark_held(&mut self.hold(), context, tickets, word)
    }

    /// An event at the end of the stream, if the stream can have one now. Waits for its turn.
    pub(super) fn event(&self, context: &Context) -> Result<Option<Event>, Error> {
        let state = self.hold();
        let Some(RawStream(stream)) = state.stream else { return Ok(None) };
        let _scope = self.enter(context)?;
        self.record(context, stream)
    }

    /// Has an event at the end of the stream that stays when the stream goes.
    pub(super) fn keep_end(&self, context: &Context) -> Result<(), Error> {
        let mut state = self.hold();
        let Some(RawStream(stream)) = state.stream else { return Ok(()) };
        let _scope = self.enter(context)?;
        state.end = self.record(context, stream)?.map(Arc::new);
        Ok(())
    }

    /// An event behind all work of the stream, also of one that is gone. `None` while it is
    /// captured.
    pub(super) fn end(
        &self,
        is_on_its_thread: bool,
        context: &Context,
    ) -> Result<Option<Arc<Event>>, Error> {
        let state = self.hold();
        let _scope = self.enter(context)?;
        match (&state.stream, &state.end) {
            (Some(RawStream(stream)), _) if is_on_its_thread => {
                Ok(self.record(context, *stream)?.map(Arc::new))
            }
            (Some(_), end) => self.end_from_elsewhere(end.as_deref(), context),
            (None, Some(end)) => Ok(Some(Arc::clone(end))),
            (None, None) => {
                // Nothing is left to name the stream by: wait for all work that it can have had.
                context.synchronize()?;
                Ok(Some(Arc::new(self.events.event()?)))
            }
        }
    }

    /// As `end`, for the default stream of another thread, which no call here can name: the legacy
    /// stream is behind the work of all of them (CUDA Driver API, "Stream synchronization
    /// behavior"). `end` is of a thread that may have ended.
    fn end_from_elsewhere(
        &self,
        end: Option<&Event>,
        context: &Context,
    ) -> Result<Option<Arc<Event>>, Error> {
        if is_capturing(context, STREAM_LEGACY)? {
            return Ok(None);
        }
        if let Some(end) = end {
            let flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT.0;
            let entry = &context.driver().api().stream_wait_event;
            // SAFETY: the event is alive, and the legacy stream of the current context always is.
            unsafe { entry.call(STREAM_LEGACY, end.as_raw(), flags) }?;
        }
        Ok(self.record(context, STREAM_LEGACY)?.map(Arc::new))
    }

    /// Whether the stream can have a marker now: it is there, and not captured.
    pub(super) fn can_mark(&self, context: &Context) -> Result<bool, Error> {
        let state = self.hold();
        let Some(RawStream(stream)) = state.stream else { return Ok(false) };
        let _scope = self.enter(context)?;
        Ok(!is_capturing(context, stream)?)
    }

    /// Takes note of the events that are complete.
    pub(super) fn poll(&self, context: &Context, tickets: &Tickets) -> Result<(), Error> {
        if self.out.load(Relaxed) == 0 {
            return Ok(());
        }
        let Some(mut state) = self.try_hold() else { return Ok(()) };
        // Asking an event is forbidden beside others' captures, though it disturbs none.
        let _relaxed = context.driver().relax_capture()?;
        while let Some((number, event)) = state.out.front()
            && event.query_relaxed()?
        {
            tickets.observe(*number);
            state.out.pop_front();
            self.out.fetch_sub(1, Relaxed);
        }
        Ok(())
    }

    /// Makes the stream's context current. A default stream's handle would mean another stream in
    /// another context, so there the driver is asked.
    fn enter<'a>(&self, context: &'a Context) -> Result<ContextScope<'a>, Error> {
        if self.is_default { context.make_current() } else { context.enter() }
    }

    /// Lets go of the handle, and gives back what kept the stream alive.
    pub(super) fn close(&self) -> Option<Owner> {
        let mut state = self.hold();
        state.stream = None;
        state.owner.take()
    }

    /// The last number that the device was told to write.
    pub(super) fn last_word(&self) -> u64 {
        self.last_word.load(Relaxed)
    }

    fn mark_held(
        &self,
        state: &mut State,
        context: &Context,
        tickets: &Tickets,
        word: Option<&Word>,
    ) -> Result<Option<u64>, Error> {
        let Some(RawStream(stream)) = state.stream else { return Ok(None) };
        if word.is_none() && state.out.len() == MOST_OUT {
            return Ok(None);
        }
        let _scope = self.enter(context)?;
        let Some(word) = word else {
            // The number before the event: work that is submitted in between has a higher one.
            let number = tickets.begin_marker();
            let Some(event) = self.record(context, stream)? else { return Ok(None) };
            state.out.push_back((number, event));
            self.out.fetch_add(1, Relaxed);
            tickets.end_marker(number);
            return Ok(Some(number));
        };
        if is_capturing(context, stream)? {
            return Ok(None);
        }
        let number = tickets.begin_marker();
        self.last_word.store(number, Relaxed);
        // SAFETY: not closed, so the stream is alive, and its context is current; the timeline
        // gives the word back with `last_word`.
        unsafe { word.write(number, stream, context.driver()) }?;
        tickets.end_marker(number);
        Ok(Some(number))
    }

    /// Records an event, unless the stream is captured.
    fn record(&self, context: &Context, stream: CUstream) -> Result<Option<Event>, Error> {
        if is_capturing(context, stream)? {
            return Ok(None);
        }
        let event = self.events.event()?;
        let api = context.driver().api();
        // SAFETY: the event is alive, and the stream is: it is not closed.
        unsafe { api.event_record.call(event.as_raw(), stream) }?;
        // Another thread may have begun a capture in between. The event is in no graph then, but
        // a query would spoil the capture.
        Ok(if is_capturing(context, stream)? { None } else { Some(event) })
    }

    /// The pen, if no other thread holds it.
    fn try_hold(&self) -> Option<MutexGuard<'_, State>> {
        self.state.try_lock()
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pen").field("out", &self.out).finish_non_exhaustive()
    }
}

/// Whether a marker has no place in the stream now.
fn is_capturing(context: &Context, stream: CUstream) -> Result<bool, Error> {
    // SAFETY: the stream is not closed, so it is alive, and its context was entered.
    match unsafe { capture_status(stream, context) } {
        Ok(status) => Ok(status != CaptureStatus::Inactive),
        // The legacy stream beside a blocking stream that is captured.
        Err(error) if error.code() == Some(CudaError::STREAM_CAPTURE_IMPLICIT) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Events in a stream at a time: a marker more would tell nothing that these do not.
const MOST_OUT: usize = 8;
