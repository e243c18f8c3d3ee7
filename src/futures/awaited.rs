//! What can be awaited.

use std::fmt;

use super::patience::Patience;
use crate::error::Error;
use crate::timeline::Ticket;

/// Work of the device that can be awaited, by [`Poller::wait`](super::Poller::wait): a reference to
/// a [`Ticket`], to a step that was [submitted](crate::staging::Staged), or to
/// [results](crate::staging::Pending).
pub trait Awaited {
    /// What there is when it is complete.
    type Output;
    /// The error of a device that does not come to it.
    type Error: From<Error>;

    /// The outcome, if it is complete. To be called again if it is not.
    #[doc(hidden)]
    fn attempt(&mut self) -> Result<Option<Self::Output>, Self::Error>;

    /// The question whether another attempt is worth while, for the poller.
    #[doc(hidden)]
    fn watch(&self) -> Watch;
}

/// The question whether work is complete, without a borrow.
#[doc(hidden)]
pub struct Watch(Box<dyn FnMut() -> Result<bool, Error> + Send>);

impl Watch {
    pub(crate) fn new(ask: impl FnMut() -> Result<bool, Error> + Send + 'static) -> Self {
        Self(Box::new(ask))
    }

    pub(super) fn ask(&mut self) -> Result<bool, Error> {
        (self.0)()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// Complete when the stream is at the ticket; puts a marker into the stream if it has none.
impl Awaited for &Ticket {
    type Output = ();
    type Error = Error;

    fn attempt(&mut self) -> Result<Option<()>, Error> {
        Ok(self.poll()?.then_some(()))
    }

    fn watch(&self) -> Watch {
        let (ticket, mut patience) = ((*self).clone(), Patience::new());
        Watch::new(move || Ok(ticket.poll()? || patience.try_on(|| ticket.timeline().probe())?))
    }
}
