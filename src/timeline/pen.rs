//! The one who puts markers into a stream.
//!
//! Markers enter the stream in the order of their numbers, so one thread at a time holds the pen.
//! Who wants a marker does not wait for it. Who needs an event waits, for no longer than a driver
//! call takes; and so does the drop of the stream, which must know that no other thread is in a call
//! with its handle.

#![expect(unsafe_code, reason = "calls the driver with a handle that it may still use")]

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use wharf_sys::bindings::{CUstream, CUstreamCaptureStatus};

use super::page::CompletionPage;
use super::wait::RawStream;
use crate::driver::{Context, Event, EventKind, EventPool};
use crate::error::{CudaError, Error};
use crate::lockfree::tickets::Tickets;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// How many events are out: nobody looks at them where there are none.
    out: AtomicU64,
    /// The last number that the device was told to write.
    last_word: AtomicU64,
}

struct State {
    /// `None` when the stream is closed.
    stream: Option<RawStream>,
    /// Events in the stream, each with its marker's number.
    out: VecDeque<(u64, Event)>,
}

impl Pen {
    pub(super) fn new(stream: CUstream, context: &Context) -> Self {
        let state = State { stream: Some(RawStream(stream)), out: VecDeque::with_capacity(MOST_OUT) };
        Self {
            state: Mutex::new(state),
            events: EventPool::new(context, EventKind::Ordering, MOST_OUT),
            out: AtomicU64::new(0),
            last_word: AtomicU64::new(0),
        }
    }

    /// Puts a marker in, by `word` or else by an event; whether it did.
    pub(super) fn mark(
        &self,
        context: &Context,
        tickets: &Tickets,
        word: Option<&CompletionPage>,
    ) -> Result<bool, Error> {
        let Some(mut state) = self.try_hold() else { return Ok(false) };
        self.mark_held(&mut state, context, tickets, word)
    }

    /// As [`mark`](Self::mark), but waits for its turn.
    pub(super) fn mark_last(
        &self,
        context: &Context,
        tickets: &Tickets,
        word: Option<&CompletionPage>,
    ) -> Result<(), Error> {
        self.mark_held(&mut self.hold(), context, tickets, word).map(drop)
    }

    /// An event at the end of the stream, if the stream can have one now. Waits for its turn.
    pub(super) fn event(&self, context: &Context) -> Result<Option<Event>, Error> {
        let state = self.hold();
        let Some(RawStream(stream)) = state.stream else { return Ok(None) };
        let _scope = context.enter()?;
        self.record(context, stream)
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
            && event.query()?
        {
            tickets.observe(*number);
            state.out.pop_front();
            self.out.fetch_sub(1, Relaxed);
        }
        Ok(())
    }

    /// Lets go of the handle.
    pub(super) fn close(&self) {
        self.hold().stream = None;
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
        word: Option<&CompletionPage>,
    ) -> Result<bool, Error> {
        let Some(RawStream(stream)) = state.stream else { return Ok(false) };
        if word.is_none() && state.out.len() == MOST_OUT {
            return Ok(false);
        }
        let _scope = context.enter()?;
        let Some(word) = word else {
            // The number before the event: who submits in between has a higher one.
            let number = tickets.begin_marker();
            let Some(event) = self.record(context, stream)? else { return Ok(false) };
            state.out.push_back((number, event));
            self.out.fetch_add(1, Relaxed);
            tickets.end_marker(number);
            return Ok(true);
        };
        if is_capturing(context, stream)? {
            return Ok(false);
        }
        let number = tickets.begin_marker();
        self.last_word.store(number, Relaxed);
        // SAFETY: not closed, so the stream is alive, and its context is current; the timeline
        // leaks a page that was not seen written.
        unsafe { word.write(0, number, stream) }?;
        tickets.end_marker(number);
        Ok(true)
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
        // Somebody may have begun a capture in between. The event is in no graph then, but it is not
        // to be asked, which would spoil the capture.
        Ok(if is_capturing(context, stream)? { None } else { Some(event) })
    }

    /// The pen, if nobody holds it.
    fn try_hold(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        }
    }

    fn hold(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pen").field("out", &self.out).finish_non_exhaustive()
    }
}

/// Whether a marker has no place in the stream now.
fn is_capturing(context: &Context, stream: CUstream) -> Result<bool, Error> {
    let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    let entry = &context.driver().api().stream_is_capturing;
    // SAFETY: the stream is alive and `status` is valid for writes for the whole call.
    match unsafe { entry.call(stream, &raw mut status) } {
        Ok(()) => Ok(status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE),
        // The legacy stream beside a blocking stream that is captured.
        Err(error) if error.code() == Some(CudaError::STREAM_CAPTURE_IMPLICIT) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Events in a stream at a time: a marker more would tell nothing that these do not.
const MOST_OUT: usize = 8;
