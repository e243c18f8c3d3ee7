//! A transfer's handle.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::exchange::Exchange;
use crate::state::Stage;

/// Blocks on their way to or from a peer.
///
/// The local blocks are kept until the transfer is over, and are their owners' again then, whether
/// or not the handle still exists. A transfer that has not ended goes on when its handle is
/// dropped, if the transport has begun with it, and is cancelled if not.
#[must_use = "dropped at once, the transfer is cancelled if it has not begun"]
pub struct Transfer {
    exchange: Arc<Exchange>,
    id: u64,
    peer: String,
    outcome: Option<Result<(), Error>>,
}

impl Transfer {
    pub(crate) fn new(exchange: Arc<Exchange>, id: u64, peer: &str) -> Self {
        Self { exchange, id, peer: peer.to_owned(), outcome: None }
    }

    /// Returns whether all bytes have been moved. Does not wait.
    ///
    /// # Errors
    ///
    /// * [`Error::Refused`]: the peer did not admit a block. Nothing was moved.
    /// * [`Error::Failed`]: the blocks are leaked.
    /// * [`Error::Forked`]: this is a forked child.
    /// * [`Error::UnknownPeer`]: the peer was forgotten before the transfer began.
    /// * [`Error::Nixl`]: NIXL refused a call, of this transfer before it began or of another.
    pub fn poll(&mut self) -> Result<bool, Error> {
        if self.outcome.is_none() {
            self.exchange.progress()?;
            self.outcome = self.exchange.state().ended.remove(&self.id);
        }
        self.outcome.clone().map_or(Ok(false), |outcome| outcome.map(|()| true))
    }

    /// Waits until all bytes have been moved, for at most `limit`.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll), and [`Error::TimedOut`]: the transfer goes on, and can be waited
    /// for again.
    pub fn wait(&mut self, limit: Duration) -> Result<(), Error> {
        let start = Instant::now();
        let mut turns = 0_u32;
        loop {
            if self.poll()? {
                return Ok(());
            }
            if start.elapsed() >= limit {
                let state = self.exchange.state();
                let stage = state.transfers.get(&self.id).map(|it| &it.stage);
                let admitted = !matches!(stage, Some(Stage::Asked));
                return Err(Error::TimedOut { peer: self.peer.clone(), limit, admitted });
            }
            turns += 1;
            pause(turns);
        }
    }

    /// Cancels the transfer if it has not begun. Returns whether no byte was moved, and none will
    /// be.
    ///
    /// Else it goes on, and keeps its blocks until it is over.
    pub fn cancel(mut self) -> bool {
        self.withdraw()
    }

    fn withdraw(&mut self) -> bool {
        if self.exchange.check().is_err() {
            return false;
        }
        let mut state = self.exchange.state();
        match state.transfers.get_mut(&self.id) {
            Some(it) if matches!(it.stage, Stage::Posted(_)) => {
                it.is_awaited = false;
                false
            }
            Some(it) => {
                it.is_awaited = false;
                let peer = self.peer.clone();
                self.exchange.cancel(&mut state, self.id, Error::UnknownPeer { peer });
                true
            }
            None => {
                let ended = state.ended.remove(&self.id).or_else(|| self.outcome.clone());
                !matches!(ended, Some(Ok(()) | Err(Error::Failed { .. })))
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transfer({} with {:?})", self.id, self.peer)
    }
}

/// Lets others go on between two looks: at first the threads that are ready, later all.
pub(crate) fn pause(turns: u32) {
    if turns < SPINS {
        thread::yield_now();
    } else {
        // allow-sleep: NIXL tells of completions and messages only where it is asked.
        thread::sleep(NAP);
    }
}

const SPINS: u32 = 32;
const NAP: Duration = Duration::from_micros(50);
