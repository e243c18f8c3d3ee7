//! Steps and results that are awaited, and ring slots.

use std::future::Future;
use std::sync::Arc;

use super::buffers::InputBuffers;
use super::embedded::Embedded;
use super::embedded_outputs::EmbeddedOutputs;
use super::error::StageError;
use super::fetch::Fetch;
use super::outputs::OutputBuffers;
use super::pending::{Pending, Results};
use super::staged::Staged;
use super::step::Step;
use super::transfer::Transfer;
use crate::error::Error;
use crate::futures::{Awaited, Patience, Poller, Watch};

/// Complete when the device has read the step's ring slot.
impl<Tag> Awaited for &Staged<'_, Tag> {
    type Output = ();
    type Error = StageError;

    fn attempt(&mut self) -> Result<Option<()>, StageError> {
        Ok(self.is_complete()?.then_some(()))
    }

    fn watch(&self) -> Watch {
        let (shared, index, this) = (self.shared.share(), self.index, self.this);
        let is_done = move |transfer: &Transfer| -> Result<bool, Error> {
            Ok(transfer.is_done(index)? || !transfer.ring.is_in_flight(index, this))
        };
        watch(shared, |shared| shared, is_done)
    }
}

/// Complete when the results are there.
impl<'a, Tag> Awaited for &'a Pending<Tag> {
    type Output = Results<'a, Tag>;
    type Error = StageError;

    fn attempt(&mut self) -> Result<Option<Results<'a, Tag>>, StageError> {
        self.try_read()
    }

    fn watch(&self) -> Watch {
        let index = self.ring_slot();
        watch(self.share(), |shared| shared, move |transfer| transfer.host.is_done(index))
    }
}

impl<Tag> InputBuffers<Tag> {
    /// As [`begin`](Self::begin), as a future: it is ready when a ring slot is free. Which of
    /// several that wait for one comes first is not said.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin), without a deadline.
    pub fn begin_async<'a>(
        &'a self,
        tokens: usize,
        requests: usize,
        poller: &Poller,
    ) -> impl Future<Output = Result<Step<'a, Tag>, StageError>> + Send + Unpin + use<'a, Tag> {
        let kept = Arc::clone(&self.shared);
        let attempt = move || self.try_begin(tokens, requests);
        poller.wait(Beginning { kept, transfer: |kept| kept, attempt })
    }
}

impl<Tag> Embedded<Tag> {
    /// As [`begin`](Self::begin), as a future, see [`InputBuffers::begin_async`].
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin), without a deadline.
    pub fn begin_async<'a>(
        &'a self,
        tokens: usize,
        requests: usize,
        poller: &Poller,
    ) -> impl Future<Output = Result<Step<'a, Tag>, StageError>> + Send + Unpin + use<'a, Tag> {
        let kept = Arc::clone(&self.shared);
        let (shared, bucket) = (&self.shared, self.bucket);
        let attempt = move || Self::try_begin_in(shared, bucket, tokens, requests);
        poller.wait(Beginning { kept, transfer: |kept| kept, attempt })
    }
}

impl<Tag> OutputBuffers<Tag> {
    /// As [`begin`](Self::begin), as a future, see [`InputBuffers::begin_async`].
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin), without a deadline.
    pub fn begin_async<'a>(
        &'a self,
        tokens: usize,
        requests: usize,
        poller: &Poller,
    ) -> impl Future<Output = Result<Fetch<Tag>, StageError>> + Send + Unpin + use<'a, Tag> {
        let kept = Arc::clone(&self.shared);
        let attempt = move || self.try_begin(tokens, requests);
        poller.wait(Beginning { kept, transfer: |kept| kept, attempt })
    }
}

impl<Tag> EmbeddedOutputs<Tag> {
    /// As [`begin`](Self::begin), as a future, see [`InputBuffers::begin_async`].
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin), without a deadline.
    pub fn begin_async<'a>(
        &'a self,
        tokens: usize,
        requests: usize,
        poller: &Poller,
    ) -> impl Future<Output = Result<Fetch<Tag>, StageError>> + Send + Unpin + use<'a, Tag> {
        let kept = Arc::clone(&self.shared);
        let (shared, bucket) = (&self.shared, self.bucket);
        let attempt = move || Self::try_begin_in(shared, bucket, tokens, requests);
        poller.wait(Beginning { kept, transfer: |kept| kept, attempt })
    }
}

/// A step or a fetch that begins when a ring slot is free.
struct Beginning<T, A> {
    kept: T,
    transfer: fn(&T) -> &Transfer,
    attempt: A,
}

impl<S, T, A> Awaited for Beginning<T, A>
where
    T: Clone + Send + 'static,
    A: FnMut() -> Result<S, StageError>,
{
    type Output = S;
    type Error = StageError;

    fn attempt(&mut self) -> Result<Option<S>, StageError> {
        match (self.attempt)() {
            Ok(begun) => Ok(Some(begun)),
            Err(StageError::WouldBlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn watch(&self) -> Watch {
        watch(self.kept.clone(), self.transfer, |transfer| {
            transfer.ring.has_room(|index| transfer.is_done(index))
        })
    }
}

/// Asks `is_done` of a transfer that is kept, and now and then whether the context works.
fn watch<T: Send + 'static>(
    kept: T,
    transfer: fn(&T) -> &Transfer,
    is_done: impl Fn(&Transfer) -> Result<bool, Error> + Send + 'static,
) -> Watch {
    let mut patience = Patience::new();
    Watch::new(move || {
        let transfer = transfer(&kept);
        transfer.check_fork()?;
        Ok(is_done(transfer)? || patience.try_on(|| transfer.sentinel.probe())?)
    })
}
