//! Timelines: how far a stream has come, known without asking the driver.
//!
//! Memory that a stream uses may be used otherwise when the stream has come past the use. A
//! [`Ticket`] names a place in a stream; issuing one is a load. Only when somebody wants to know
//! whether the stream is there, a marker is put into it, which serves all tickets so far:
//!
//! | the device | marker | asking |
//! |---|---|---|
//! | has 64-bit memory operations | it writes the marker's number to a word in pinned host memory | one load |
//! | has none | an event, from a pool | one query |
//!
//! ```text
//!   Stream ──> Timeline <── Ticket, Buffer             "──>" keeps alive
//!                 |
//!                 +── CompletionPage     the word
//!                 +── Pen                who holds it puts markers into the stream
//!                 +── Sentinel           asks the driver whether there is hope
//! ```
//!
//! The host polls words for what is complete already. Device work is never ordered by them, since the
//! driver does not see such an order (Driver API, cuStreamWaitValue64): that is what events are for.
//!
//! # Captures
//!
//! A marker in a stream that is being captured would become a node of the graph, and every replay
//! would claim that old work is done. So the stream is asked first. A call that gets the stream from
//! its caller can rely on the answer: the caller is who captures it or not. A call that does not,
//! because it wants memory last used on another stream, uses an event in any case: captured by
//! accident it leaves nothing in the graph, and looking again afterwards finds it out.
//!
//! # Ends
//!
//! When a [`Stream`](crate::Stream) object is dropped its timeline puts a last marker in and lets go
//! of the handle; tickets live on. What could not be marked, because the stream was being
//! captured, never completes, and its memory is leaked rather than reused.

mod page;
mod pen;
mod wait;

use std::fmt;
use std::process;
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use wharf_sys::bindings::CUstream;
use wharf_sys::constants::STREAM_PER_THREAD;

pub(crate) use self::page::CompletionPage;
use self::pen::{Means, Pen};
pub(crate) use self::wait::{GaveUp, Sentinel};
pub use self::wait::{Stalled, WaitError};
use crate::driver::{Context, Event};
use crate::error::{CudaError, Error};
use crate::lockfree::tickets::Tickets;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Release};

/// How far one stream has come.
///
/// Cheap to clone; the clones are one timeline. May be used from any thread, except that of a
/// per-thread default stream, which belongs to the thread that asked for it first.
#[derive(Clone)]
pub struct Timeline(Arc<Inner>);

struct Inner {
    tickets: Tickets,
    /// The word that the device writes, if it can, and one that is not 0 in this process.
    word: Option<CompletionPage>,
    pen: Pen,
    sentinel: Sentinel,
    context: Context,
    /// The stream's handle, as a number.
    name: usize,
    /// The thread that a per-thread default stream belongs to.
    thread: Option<ThreadId>,
    /// The process that has the driver.
    process: u32,
    is_closed: AtomicBool,
    /// Where pools have put this timeline, see [`Timeline::seat`].
    seats: [AtomicU64; 4],
}

/// A place in a stream: behind everything submitted to it before the ticket was issued.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # // SAFETY: softcuda returns functions with the signatures of the rows.
/// # let driver = unsafe { wharf::Driver::from_fns(|row| softcuda::entry_point(row.name, row.version)) }?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use std::time::Duration;
/// use wharf::Stream;
///
/// let stream = Stream::new(&context)?;
/// // Work is submitted here.
/// let ticket = stream.ticket()?;
/// ticket.wait(Duration::from_secs(1))?;
/// assert!(ticket.is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Ticket {
    timeline: Timeline,
    number: u64,
}

impl Timeline {
    /// The timeline of a stream, by the means that its device has.
    pub(crate) fn new(stream: CUstream, context: &Context) -> Result<Self, Error> {
        let supported = CompletionPage::is_supported(context)?;
        let word = supported.then(|| CompletionPage::new(context, 2)).transpose()?;
        if let Some(page) = &word {
            page.reset(1, 1);
        }
        let thread = (stream == STREAM_PER_THREAD).then(|| thread::current().id());
        Ok(Self(Arc::new(Inner {
            tickets: Tickets::new(),
            word,
            pen: Pen::new(stream, context),
            sentinel: Sentinel::new(context),
            context: context.clone(),
            name: stream.addr(),
            thread,
            process: process::id(),
            is_closed: AtomicBool::new(false),
            seats: std::array::from_fn(|_| AtomicU64::new(0)),
        })))
    }

    /// A ticket for everything submitted to the stream so far. No driver call.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] with [`CudaError::INVALID_HANDLE`]: this is the default stream of another
    /// thread.
    #[inline]
    pub fn ticket(&self) -> Result<Ticket, Error> {
        Ok(Ticket { number: self.issue()?, timeline: self.clone() })
    }

    /// The number of a ticket for everything submitted so far.
    #[inline]
    pub(crate) fn issue(&self) -> Result<u64, Error> {
        if self.0.thread.is_some() {
            self.0.check_thread()?;
        }
        Ok(self.0.tickets.issue())
    }

    /// Whether the stream is known to be behind a ticket. One load, or two.
    #[inline]
    pub(crate) fn is_complete(&self, number: u64) -> bool {
        let Inner { tickets, word, .. } = &*self.0;
        tickets.is_complete(number) || word.as_ref().is_some_and(|word| word.load(0) >= number)
    }

    /// Puts a marker into the stream, so that tickets issued so far complete without anybody asking
    /// for them. The caller has the stream from its own caller. Whether there is one now: not while
    /// the stream is captured, or while another thread is putting one in.
    pub(crate) fn mark(&self) -> Result<bool, Error> {
        self.0.mark(Means::Word)
    }

    /// Sees to it that a ticket completes some day: puts a marker into the stream if it has none for
    /// it, and asks the events that are out. `is_own` says that the caller has the stream from its
    /// own caller.
    pub(crate) fn advance(&self, number: u64, is_own: bool) -> Result<(), Error> {
        if !self.0.tickets.is_marked(number) {
            self.0.mark(if is_own { Means::Word } else { Means::Event })?;
        }
        self.0.pen.poll(&self.0.context, &self.0.tickets)
    }

    /// An event in the stream behind all tickets so far, for other streams to wait for on the device.
    /// `None` while the stream is captured, and when it is closed.
    pub(crate) fn event(&self) -> Result<Option<Event>, Error> {
        self.0.check_process()?;
        if !self.0.is_on_its_thread() {
            return Ok(None);
        }
        self.0.pen.event(&self.0.context)
    }

    /// A number that no other timeline has as long as this one is held.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        Arc::as_ptr(&self.0).addr() as u64
    }

    /// A word for a pool to note where it has put this timeline; it may be another pool's.
    #[inline]
    pub(crate) fn seat(&self, pool: u64) -> &AtomicU64 {
        &self.0.seats[(pool % 4) as usize]
    }

    /// Whether the stream is gone: no ticket will be issued any more.
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: pairs with the Release of `close`.
        self.0.is_closed.load(Acquire)
    }

    /// Whether this process is a fork of the one that has the driver.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        match &self.0.word {
            // The child's page is empty.
            Some(page) => page.load(1) == 0,
            None => self.0.check_process().is_err(),
        }
    }

    /// Waits until the stream is behind a ticket.
    pub(crate) fn wait(&self, number: u64, limit: Duration) -> Result<(), WaitError> {
        let inner = &*self.0;
        inner.check_process()?;
        let outcome = inner.sentinel.wait(limit, || {
            if self.is_complete(number) {
                return Ok(true);
            }
            self.advance(number, false)?;
            Ok(self.is_complete(number))
        });
        outcome.map_err(|gave_up| match gave_up {
            GaveUp::Driver(error) => WaitError::Driver(error),
            GaveUp::Deadline { age, probes } => WaitError::Deadline(Stalled {
                stream: inner.name,
                ticket: number,
                completed: inner.completed(),
                marked: inner.tickets.is_marked(number),
                age,
                probes,
            }),
        })
    }

    /// Puts a last marker in and lets go of the stream, which is about to go.
    pub(crate) fn close(&self) -> Result<(), Error> {
        // Nobody else has a ticket of it, or could get one.
        let is_of_interest = Arc::strong_count(&self.0) > 1;
        let outcome = if is_of_interest { self.0.mark_last() } else { Ok(()) };
        self.0.pen.close();
        // Release: pairs with the Acquire of `is_closed`.
        self.0.is_closed.store(true, Release);
        outcome
    }

    /// The stream's handle, as a number: it may be gone.
    pub fn stream(&self) -> usize {
        self.0.name
    }
}

impl Inner {
    fn mark(&self, means: Means) -> Result<bool, Error> {
        self.check_process()?;
        if !self.is_on_its_thread() {
            return Ok(false);
        }
        let word = self.word.as_ref().filter(|_| means == Means::Word);
        self.pen.mark(&self.context, &self.tickets, word)
    }

    /// As `mark`, and waits for the other threads that are putting markers in.
    fn mark_last(&self) -> Result<(), Error> {
        if !self.is_on_its_thread() || self.check_process().is_err() {
            return Ok(());
        }
        self.pen.mark_last(&self.context, &self.tickets, self.word.as_ref())
    }

    fn check_process(&self) -> Result<(), Error> {
        if self.process == process::id() { Ok(()) } else { Err(Error::Forked) }
    }

    /// The last ticket known to be complete.
    fn completed(&self) -> u64 {
        self.tickets.completed().max(self.word.as_ref().map_or(0, |word| word.load(0)))
    }

    fn is_on_its_thread(&self) -> bool {
        self.thread.is_none_or(|thread| thread == thread::current().id())
    }

    #[cold]
    fn check_thread(&self) -> Result<(), Error> {
        let call = self.context.driver().api().stream_write_value_64.name();
        let wrong = Error::Driver { call, code: CudaError::INVALID_HANDLE };
        if self.is_on_its_thread() { Ok(()) } else { Err(wrong) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The device may be about to write to the word: nobody waited for it.
        if let Some(word) = self.word.take()
            && word.load(0) < self.pen.last_word()
        {
            word.leak();
        }
    }
}

impl Ticket {
    /// Whether the work is known to be done. No driver call; it stays `false` until somebody
    /// [asks](Self::poll) or [waits](Self::wait), if nothing else makes the stream report.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.timeline.is_complete(self.number)
    }

    /// Whether the work is done; makes the stream report if need be, at most one marker.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver reports a failure, after which the work never completes.
    pub fn poll(&self) -> Result<bool, Error> {
        if !self.is_complete() {
            self.timeline.advance(self.number, false)?;
        }
        Ok(self.is_complete())
    }

    /// Waits until the work is done, for at most `limit`.
    ///
    /// # Errors
    ///
    /// * [`WaitError::Driver`]: the driver reports a failure, such as a fault of the device.
    /// * [`WaitError::Deadline`]: it takes longer; says which stream, what ticket, and how far it is.
    pub fn wait(&self, limit: Duration) -> Result<(), WaitError> {
        self.timeline.wait(self.number, limit)
    }

    /// The stream whose place it is.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The number: of two tickets of a timeline, the greater completes last.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Timeline");
        out.field("stream", &format_args!("{:#x}", self.0.name)).field("completed", &self.0.completed());
        out.finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} of stream {:#x})", self.number, self.timeline.stream())
    }
}
