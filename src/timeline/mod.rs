//! Timelines: how far a stream is, known without a call to the driver.
//!
//! [`Ticket`], from [`Stream::ticket`](crate::Stream::ticket), is what an engine uses.
//!
//! Memory that a stream uses may be reused when the stream is past the use. A [`Ticket`] names a
//! place in a stream; issuing one is a load. A marker is put into the stream only when a ticket is
//! asked about, and serves all tickets so far:
//!
//! * A device with 64-bit memory operations writes the marker's number to a word in pinned host
//!   memory: a poll is one load.
//! * For others a marker is an event, from a pool: a poll is one query.
//!
//! ```text
//!   Stream ──> Timeline <── Ticket, pool               "──>" keeps alive
//!                 |  ^······ Context, by the handle    "··>" weak
//!                 |
//!                 +── Word               of a page of the context's
//!                 +── Pen                its holder puts markers into the stream
//!                 +── Sentinel           asks the driver whether there is hope
//! ```
//!
//! The host polls words for what is complete already. Device work is never ordered by them, since
//! the driver does not see such an order (Driver API, cuStreamWaitValue64): that is what events are
//! for.
//!
//! # Captures
//!
//! A marker in a stream that is being captured would become a node of the graph, and every replay
//! would claim that old work is done. So the stream is asked first. A call that gets the stream
//! from its caller can rely on the answer: only the caller can be capturing it. A call that does
//! not, because it wants memory last used on another stream, uses an event in any case: captured by
//! accident it leaves nothing in the graph, and looking again afterwards finds it out.
//!
//! # Ends
//!
//! A timeline is one stream's, however many objects borrow it, and lives as long as anything refers
//! to it. The end of an owned
//! [`Stream`](crate::Stream), and [`Context::forget_stream`](crate::Context::forget_stream), close
//! it: it puts a last marker in and lets go of the handle; tickets live on. What could not be
//! marked, because the stream was being captured, never completes, and its memory is leaked rather
//! than reused.

mod page;
mod pen;
mod progress;
mod tail;
mod ticket;
mod wait;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wharf_sys::bindings::CUstream;

pub(crate) use self::page::CompletionPage;
use self::pen::Means;
use self::progress::{Inner, READY};
pub(crate) use self::tail::Tail;
pub use self::ticket::{Ticket, TicketRef};
pub(crate) use self::wait::{GaveUp, Sentinel};
pub use self::wait::{Stalled, WaitError};
use crate::driver::{Context, Event, StreamId, StreamKey};
use crate::error::Error;
use crate::sync::YIELDS;
use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};

/// How far one stream has come.
///
/// Cheap to clone; the clones are one timeline. May be used from any thread, except that tickets of
/// a per-thread default stream are issued on its own thread.
#[derive(Clone)]
pub struct Timeline(Arc<Inner>);

impl Timeline {
    /// The timeline of the stream that a handle names: the one that is known, or a new one. With an
    /// `owner`, the stream lives as long as that.
    pub(crate) fn of(raw: CUstream, context: &Context, owner: Option<Owner>) -> Self {
        let key = StreamKey::of(raw);
        let found = context.streams().find_or(key, Inner::adopt, || Inner::new(raw, key, context));
        if let Some(owner) = owner {
            found.pen.keep(owner);
        }
        Self(found)
    }

    /// The timeline of a stream that was just created. One that had its handle was destroyed
    /// without being forgotten: its tickets never complete.
    pub(crate) fn of_new(raw: CUstream, context: &Context) -> Self {
        let key = StreamKey::of(raw);
        let new = Inner::new(raw, key, context);
        if let Some(old) = context.streams().insert(key, &new) {
            old.abandon();
        }
        Self(new)
    }

    /// The timeline of the stream that a handle names, if it is known.
    pub(crate) fn known(raw: CUstream, context: &Context) -> Option<Self> {
        context.streams().find(StreamKey::of(raw)).map(Self)
    }

    /// The context of the stream.
    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    /// The number of the stream.
    pub(crate) fn stream_id(&self) -> StreamId {
        self.0.id
    }

    /// Whether a ticket can be issued without further ado: the stream is open and bound to no
    /// thread, and has had a ticket.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        // Acquire: pairs with the Release of `equip`.
        self.0.stage.load(Acquire) == READY && !self.0.home.is_forked()
    }

    /// Whether any thread may use the stream.
    #[inline]
    fn is_open(&self) -> bool {
        // Relaxed: an object's calls come before its end.
        self.0.stage.load(Relaxed) <= READY
    }

    /// Refuses a stream that the calling thread must not use, before anything is submitted.
    ///
    /// # Errors
    ///
    /// * [`Error::OtherThread`]: it is the default stream of another thread.
    /// * [`Error::StreamForgotten`]: it was closed.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_open() { Ok(()) } else { self.0.check() }
    }

    /// Has what tickets need, from the first one on.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), and [`Error::Driver`]: a page could not be pinned.
    #[cold]
    pub(crate) fn equip(&self) -> Result<(), Error> {
        self.0.check()?;
        self.0.equip()
    }

    /// A ticket for everything submitted to the stream so far. No driver call but for the first
    /// one.
    ///
    /// # Errors
    ///
    /// * [`Error::OtherThread`]: this is the default stream of another thread.
    /// * [`Error::StreamForgotten`]: the stream was closed.
    /// * [`Error::Driver`]: a page for the first ticket could not be pinned.
    #[inline]
    pub fn ticket(&self) -> Result<Ticket, Error> {
        Ok(self.ticket_ref()?.to_ticket())
    }

    /// As [`ticket`](Self::ticket), borrowed: it costs no more than a few loads.
    ///
    /// # Errors
    ///
    /// As [`ticket`](Self::ticket).
    #[inline]
    pub fn ticket_ref(&self) -> Result<TicketRef<'_>, Error> {
        if self.is_ready() { Ok(self.ticket_now()) } else { self.first_ticket() }
    }

    #[cold]
    #[inline(never)]
    fn first_ticket(&self) -> Result<TicketRef<'_>, Error> {
        self.equip()?;
        Ok(self.ticket_now())
    }

    /// A ticket of a timeline that [is ready](Self::is_ready).
    #[inline]
    pub(crate) fn ticket_now(&self) -> TicketRef<'_> {
        TicketRef { number: self.issue(), timeline: self }
    }

    /// The number of a ticket for everything submitted so far, by a caller that has
    /// [checked](Self::check) the stream.
    #[inline]
    pub(crate) fn issue(&self) -> u64 {
        self.0.tickets.issue()
    }

    /// Whether the stream is known to be behind a ticket. One load, or two.
    #[inline]
    pub(crate) fn is_complete(&self, number: u64) -> bool {
        let tickets = &self.0.tickets;
        tickets.is_complete(number) || self.0.word().is_some_and(|word| word.load() >= number)
    }

    /// The last ticket known to be complete.
    pub(crate) fn completed(&self) -> u64 {
        self.0.completed()
    }

    /// Puts a marker into the stream, so that tickets issued so far complete without anybody asking
    /// for them. The caller has the stream from its own caller. Whether there is one now: not while
    /// the stream is captured, or while another thread is putting one in.
    pub(crate) fn mark(&self) -> Result<bool, Error> {
        self.0.mark(Means::Word)
    }

    /// Sees to it that a ticket completes some day: puts a marker into the stream if it has none
    /// for it, and asks the events that are out. `is_own` says that the caller has the stream from
    /// its own caller.
    pub(crate) fn advance(&self, number: u64, is_own: bool) -> Result<(), Error> {
        if !self.0.tickets.is_marked(number) {
            self.0.mark(if is_own { Means::Word } else { Means::Event })?;
        }
        self.0.pen.poll(&self.0.context, &self.0.tickets)
    }

    /// Whether a ticket is to be expected to complete while nothing but this waits for it: it has a
    /// marker, or can be given one. Not where the driver refuses to say, as in a callback of a
    /// stream.
    pub(crate) fn can_complete(&self, number: u64) -> bool {
        let inner = &*self.0;
        let can_mark = inner.pen.can_mark(&inner.context);
        can_mark
            .is_ok_and(|can| inner.tickets.is_marked(number) || (can && inner.is_on_its_thread()))
    }

    /// An event in the stream behind all tickets so far, for other streams to wait for on the
    /// device. `None` while the stream is captured, and when it is closed.
    pub(crate) fn event(&self) -> Result<Option<Event>, Error> {
        self.0.check_process()?;
        if !self.0.is_on_its_thread() {
            return Ok(None);
        }
        self.0.pen.event(&self.0.context)
    }

    /// A number that no other timeline ever has.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.0.id.get()
    }

    /// The number to [prove](Self::prove) when everything that is in the stream now is done.
    pub(crate) fn begin_proof(&self) -> u64 {
        self.0.tickets.begin_marker()
    }

    /// Notes that everything that was in the stream at [`begin_proof`](Self::begin_proof) is done.
    pub(crate) fn prove(&self, number: u64) {
        self.0.tickets.end_marker(number);
        self.0.tickets.observe(number);
    }

    /// A word for a pool to note where it has put this timeline; it may be another pool's.
    #[inline]
    pub(crate) fn seat(&self, pool: u64) -> &AtomicU64 {
        &self.0.seats[(pool % 4) as usize]
    }

    /// Whether the stream is gone, and the device past its last ticket.
    pub(crate) fn is_over(&self) -> bool {
        let is_closed = self.0.is_closed();
        let last = self.0.last.load(Relaxed);
        is_closed && last != 0 && self.is_complete(last)
    }

    /// The last ticket of a timeline that is over.
    pub(crate) fn last_ticket(&self) -> u64 {
        self.0.last.load(Relaxed)
    }

    /// The last ticket of a stream that is closed and has one; else a new one.
    pub(crate) fn last_or_issue(&self) -> u64 {
        let last = if self.0.is_closed() { self.last_ticket() } else { 0 };
        if last > 0 { last } else { self.issue() }
    }

    /// Waits until the stream is behind a ticket.
    pub(crate) fn wait(&self, number: u64, limit: Duration) -> Result<(), WaitError> {
        let inner = &*self.0;
        inner.check_process()?;
        let mut round = 0_u32;
        let outcome = inner.sentinel.wait(limit, || {
            if self.is_complete(number) {
                return Ok(true);
            }
            round = round.saturating_add(1);
            // Events cost calls: while nothing sleeps in between, they are asked ever more rarely.
            if round < YIELDS && !round.is_power_of_two() {
                return Ok(false);
            }
            self.advance(number, false)?;
            Ok(self.is_complete(number))
        });
        let (age, probes) = match outcome {
            Ok(()) => return Ok(()),
            Err(GaveUp::Driver(error)) => return Err(error.into()),
            Err(GaveUp::Deadline { age, probes }) => (age, probes),
        };
        self.advance(number, false)?;
        if self.is_complete(number) {
            return Ok(());
        }
        Err(WaitError::Deadline(Stalled {
            stream: inner.name,
            ticket: number,
            completed: inner.completed(),
            marked: inner.tickets.is_marked(number),
            age,
            probes,
        }))
    }

    /// Puts a last marker in and lets go of the stream, which is about to go.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let inner = &*self.0;
        let is_first = inner.context.streams().remove(inner.key, inner, || true);
        let mut outcome = Ok(());
        if is_first {
            let last = inner.last_marker(Arc::strong_count(&self.0) > 1);
            inner.seal(last.ok().flatten());
            outcome = last.map(drop).and(inner.keep_end());
        }
        // Waits for a thread that is in a call with the handle.
        drop(inner.pen.close());
        outcome
    }

    /// Closes a timeline that no [`Stream`](crate::Stream) object refers to, if it can put a last
    /// marker in. Returns whether it did.
    pub(crate) fn close_if_unheld(&self) -> bool {
        let (inner, mut outcome, mut owner) = (&*self.0, Ok(()), None);
        let finish = || {
            if inner.objects.load(Relaxed) > 0 {
                return false;
            }
            let last = inner.last_marker(true);
            let can_close = last.is_ok_and(|last| last.is_some());
            outcome = last.map(drop);
            if can_close {
                outcome = inner.keep_end();
                inner.seal(last.ok().flatten());
                owner = inner.pen.close();
            }
            can_close
        };
        let is_closed = inner.context.streams().remove(inner.key, inner, finish);
        // Hooks and owners are others' code, and run without the lock.
        inner.context.release().note(inner.context.driver(), outcome);
        drop(owner);
        is_closed
    }

    /// Notes that an object of the stream has ended.
    pub(crate) fn leave(&self) {
        let inner = &*self.0;
        let is_last = inner.objects.fetch_sub(1, Relaxed) == 1;
        if !is_last || inner.key.thread().is_none() || inner.is_closed() {
            return;
        }
        // The thread may end, and then no other can put a marker in.
        inner.context.release().note(inner.context.driver(), inner.keep_end());
        if Arc::strong_count(&self.0) > 1 && inner.word.get().is_some() {
            let outcome = inner.mark_last();
            if let Ok(Some(last)) = outcome {
                inner.last.store(last, Relaxed);
            }
            inner.context.release().note(inner.context.driver(), outcome.map(drop));
        }
    }

    /// Whether the context works.
    #[cfg(any(feature = "futures", all(test, loom)))]
    pub(crate) fn probe(&self) -> Result<(), Error> {
        self.0.sentinel.probe()
    }

    /// The stream's handle, as a number: it may be gone.
    pub fn stream(&self) -> usize {
        self.0.name
    }
}

/// What keeps a borrowed stream alive.
pub(crate) type Owner = Arc<dyn Any + Send + Sync>;

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Timeline");
        out.field("stream", &format_args!("{:#x}", self.0.name))
            .field("completed", &self.0.completed());
        out.finish_non_exhaustive()
    }
}
