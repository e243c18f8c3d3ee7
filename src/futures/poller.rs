//! What wakes futures.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use super::awaited::Awaited;
use super::waiters::Waiters;
use super::waiting::Waiting;

/// A list of futures that wait for the device, and are woken when the caller
/// [polls](Self::poll) it.
///
/// The clones are one poller. An engine has one, or one for each runtime; any thread may poll, also
/// several at once.
///
/// # Examples
///
/// See the [module](super).
#[derive(Clone, Debug, Default)]
pub struct Poller {
    waiters: Arc<Waiters>,
}

impl Poller {
    /// A poller for which nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// A future that is ready when `work` is complete, or the device has failed. It costs a load of
    /// the completion word if the work is complete already; else it allocates, and enters the list
    /// until it is woken or dropped.
    ///
    /// | `work` | what it returns |
    /// |---|---|
    /// | `&Ticket` | nothing; makes two driver calls if the stream has no marker for it |
    /// | `&Staged` | nothing: the device has read the step's ring slot |
    /// | `&Pending` | the [`Results`](crate::staging::Results) |
    ///
    /// A ticket for what a stream was given so far is [`Stream::ticket`](crate::Stream::ticket).
    /// There is no deadline: the runtime's timeout may drop the future.
    pub fn wait<W: Awaited>(&self, work: W) -> Waiting<W> {
        Waiting::new(Arc::clone(&self.waiters), work)
    }

    /// Wakes each future whose work is complete or has failed, and returns how many wait still.
    ///
    /// A load of a completion word for each that waits. Where the device cannot write words, three
    /// driver calls; so not from a host function. It does not wait for the device.
    pub fn poll(&self) -> usize {
        self.waiters.poll()
    }

    /// How many futures wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// A future that is ready when there is something to [poll](Self::poll) for.
    pub fn awaited(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        let waiters = Arc::clone(&self.waiters);
        poll_fn(
            move |context| {
                if waiters.is_awaited(context.waker()) { Poll::Ready(()) } else { Poll::Pending }
            },
        )
    }
}
