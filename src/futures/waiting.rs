//! One future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::awaited::Awaited;
use super::waiters::Waiters;

/// A future of device work, from [`Poller::wait`](super::Poller::wait). Dropped, it waits no longer
/// and has changed nothing.
#[must_use = "futures do nothing unless polled"]
pub struct Waiting<W: Awaited> {
    waiters: Arc<Waiters>,
    /// Its number in the list.
    place: Option<u64>,
    // Behind the list: it leaves that before its work may go.
    work: W,
}

impl<W: Awaited> Waiting<W> {
    pub(super) fn new(waiters: Arc<Waiters>, work: W) -> Self {
        Self { waiters, place: None, work }
    }

    /// The outcome, if there is one now. Then it has left the list.
    fn attempt(&mut self) -> Option<Result<W::Output, W::Error>> {
        let outcome = self.work.attempt().transpose();
        if outcome.is_some() {
            self.leave();
        }
        outcome
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            self.waiters.leave(place);
        }
    }
}

impl<W: Awaited> Future for Waiting<W> {
    type Output = Result<W::Output, W::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(outcome) = this.attempt() {
            return Poll::Ready(outcome);
        }
        let place = this.place.take();
        match this.waiters.enlist(place, context.waker(), || this.work.watch()) {
            Ok(place) => this.place = Some(place),
            Err(error) => return Poll::Ready(Err(error.into())),
        }
        // What completed meanwhile may have been polled for before this was in the list.
        this.attempt().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The work is used where the future is, and not pinned.
impl<W: Awaited> Unpin for Waiting<W> {}

impl<W: Awaited> Drop for Waiting<W> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<W: Awaited> fmt::Debug for Waiting<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("place", &self.place).finish_non_exhaustive()
    }
}
