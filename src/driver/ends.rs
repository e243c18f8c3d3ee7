//! Owners that graphs keep alive: counting, dropping, waiting for their end.

use std::fmt;
use std::time::{Duration, Instant};

use super::Driver;
use crate::error::Error;
use crate::profile::range;
use crate::sync::pause;

/// Why a wait for the owners that graphs keep alive has failed. Those that could be dropped were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeferredError {
    /// The driver refused to free the thread of other captures' restrictions; nothing was dropped.
    Driver(Error),
    /// The deadline has passed.
    Deadline {
        /// How many owners were not dropped, see [`Driver::deferred`].
        left: usize,
        /// How long the call has waited.
        age: Duration,
    },
}

impl Driver {
    /// The number of owners that graphs keep alive or have given up and that are not dropped yet.
    ///
    /// It counts the owners given to
    /// [`GraphDefinition::keep_alive`](crate::graph::GraphDefinition::keep_alive) and
    /// [`keep_alive_in_capture`](crate::graph::keep_alive_in_capture), host functions and events of
    /// nodes, and one for each [`GraphExec`](crate::graph::GraphExec).
    pub fn deferred(&self) -> usize {
        self.deferred_list().len()
    }

    /// Drops the owners that destroyed graphs kept alive, and returns their number.
    ///
    /// The driver reports the end of a graph on a thread that may not call it. So the owners wait
    /// for the next call that creates or drops a stream, a set, a pool, a context or a graph while
    /// nothing is captured, or for this one. A panic in an owner's drop ends there.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused to free the thread of other captures' restrictions;
    /// nothing was dropped.
    pub fn drop_deferred(&self) -> Result<usize, Error> {
        self.check_fork()?;
        if self.deferred_list().is_empty() {
            return Ok(0);
        }
        let _relaxed = self.relax_capture()?;
        Ok(self.deferred_list().drain())
    }

    /// Waits until every owner that graphs kept alive is dropped, for at most `limit`: the end of
    /// all graphs of this driver.
    ///
    /// The driver gives owners up on a thread of its own, some time after the last graph that has
    /// them is destroyed and its last launch is complete. While another graph is to stay, use
    /// [`wait_deferred_until`](Self::wait_deferred_until).
    ///
    /// # Errors
    ///
    /// * [`DeferredError::Deadline`]: a graph with owners was not destroyed, or is still running.
    /// * [`DeferredError::Driver`]: as [`drop_deferred`](Self::drop_deferred).
    ///
    /// # Examples
    ///
    /// See [Taking it down](Self#taking-it-down).
    pub fn wait_deferred(&self, limit: Duration) -> Result<(), DeferredError> {
        self.wait_deferred_until(limit, || self.deferred() == 0)
    }

    /// Drops owners that graphs give up until `is_done` returns `true`, for at most `limit`.
    ///
    /// `is_done` asks for the end of what was given to graphs, such as
    /// [`Weak::strong_count`](std::sync::Weak::strong_count) of an owner. It is called at least
    /// once.
    ///
    /// # Errors
    ///
    /// * [`DeferredError::Deadline`]: `is_done` still returns `false`.
    /// * [`DeferredError::Driver`]: as [`drop_deferred`](Self::drop_deferred).
    pub fn wait_deferred_until(
        &self,
        limit: Duration,
        mut is_done: impl FnMut() -> bool,
    ) -> Result<(), DeferredError> {
        let _range = range!("driver::wait_deferred");
        let start = Instant::now();
        for rounds in 0.. {
            self.drop_deferred()?;
            if is_done() {
                break;
            }
            let age = start.elapsed();
            if age >= limit {
                return Err(DeferredError::Deadline { left: self.deferred(), age });
            }
            pause(rounds, limit - age);
        }
        Ok(())
    }

    /// Drops what waits, in passing: for calls that have another purpose, at a point where they
    /// hold no lock. While something is captured here it can wait: what an owner's drop enqueues
    /// would be captured, too.
    pub(crate) fn sweep(&self) {
        if !self.deferred_list().is_empty() && !self.may_be_capturing() {
            // An error is that of a driver that is going away, or of a forked child.
            _ = self.drop_deferred();
        }
    }
}

impl From<Error> for DeferredError {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl fmt::Display for DeferredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => error.fmt(f),
            Self::Deadline { left, age } => write!(
                f,
                "timed out after {age:?}: graphs still keep {left} owners alive. Destroy these \
                 graphs, the engine's too, and wait for their launches"
            ),
        }
    }
}

impl std::error::Error for DeferredError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Driver(error) => Some(error),
            Self::Deadline { .. } => None,
        }
    }
}
