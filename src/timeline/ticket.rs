//! A ticket: a place in a stream.

use std::fmt;
use std::time::Duration;

use super::{Timeline, WaitError};
use crate::error::Error;

/// A place in a stream: behind everything submitted to it before the ticket was issued.
///
/// It completes with the first marker behind it, and a marker that a poll or a wait inserts stands
/// behind all work submitted until then. So call [`Stream::mark`](crate::Stream::mark) right after
/// work whose end will be waited for while later work is queued, as a copy of results; without it
/// the ticket completes with the later work. Copies from and to host memory, whose end is waited
/// for, mark by themselves, and [`Stream::synchronize`](crate::Stream::synchronize) completes all
/// tickets issued before.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
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
    pub(super) timeline: Timeline,
    pub(super) number: u64,
}

impl Ticket {
    /// The same place, borrowed.
    #[inline]
    pub fn borrow(&self) -> TicketRef<'_> {
        TicketRef { timeline: &self.timeline, number: self.number }
    }

    /// As [`TicketRef::is_complete`].
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.borrow().is_complete()
    }

    /// As [`TicketRef::poll`].
    ///
    /// # Errors
    ///
    /// As [`TicketRef::poll`].
    pub fn poll(&self) -> Result<bool, Error> {
        self.borrow().poll()
    }

    /// As [`TicketRef::wait`].
    ///
    /// # Errors
    ///
    /// As [`TicketRef::wait`].
    pub fn wait(&self, limit: Duration) -> Result<(), WaitError> {
        self.borrow().wait(limit)
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

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

/// A [`Ticket`] that borrows the stream's timeline, for a place that is asked about while the
/// stream is at hand: it counts no reference, so issuing and dropping one is a few loads.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// use std::time::Duration;
/// use wharf::Stream;
///
/// let stream = Stream::new(&context)?;
/// // Work is submitted here.
/// let behind = stream.ticket_ref()?;
/// behind.wait(Duration::from_secs(1))?;
/// assert!(behind.is_complete());
/// // To be kept without the stream.
/// let kept = behind.to_ticket();
/// assert_eq!(kept.number(), behind.number());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct TicketRef<'a> {
    pub(super) timeline: &'a Timeline,
    pub(super) number: u64,
}

impl TicketRef<'_> {
    /// Whether the work is known to be done. No driver call; it may stay `false` until the next
    /// [`poll`](Self::poll) or [`wait`](Self::wait).
    #[inline]
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.timeline.is_complete(self.number)
    }

    /// Whether the work is done; makes the stream report if need be, at most one marker.
    ///
    /// # Errors
    ///
    /// * [`Error::Driver`]: the driver reports a failure, after which the work never completes.
    /// * [`Error::Forked`]: this process is a forked child, also for work that was done before the
    ///   fork, as from [`wait`](Self::wait).
    pub fn poll(self) -> Result<bool, Error> {
        // A marker that is in already makes no call that would find out.
        self.timeline.0.check_process()?;
        if !self.is_complete() {
            self.timeline.advance(self.number, false)?;
        }
        Ok(self.is_complete())
    }

    /// Waits until the work is done, for at most `limit`.
    ///
    /// # Errors
    ///
    /// * [`WaitError::Driver`]: the driver reports a failure, such as a fault of the device, or,
    ///   with [`Error::Forked`], this process is a forked child.
    /// * [`WaitError::Deadline`]: it takes longer; says which stream, what ticket, and how far it
    ///   is.
    pub fn wait(self, limit: Duration) -> Result<(), WaitError> {
        self.timeline.wait(self.number, limit)
    }

    /// The number, see [`Ticket::number`].
    #[must_use]
    pub fn number(self) -> u64 {
        self.number
    }

    /// A ticket of the same place that keeps the timeline.
    #[inline]
    #[must_use]
    pub fn to_ticket(self) -> Ticket {
        Ticket { timeline: self.timeline.clone(), number: self.number }
    }
}

impl fmt::Debug for TicketRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} of stream {:#x})", self.number, self.timeline.stream())
    }
}
