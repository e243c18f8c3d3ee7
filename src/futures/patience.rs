//! When to doubt that work will complete.

use std::time::{Duration, Instant};

use crate::error::Error;

/// Lets a question that is asked often lead to a rarer one, of the driver.
#[derive(Debug)]
pub(crate) struct Patience {
    next: Instant,
    interval: Duration,
}

impl Patience {
    /// Begins to wait.
    pub(crate) fn new() -> Self {
        Self { next: Instant::now() + FIRST, interval: FIRST }
    }

    /// Calls `probe` if it is time to, which returns the error of a context that does not work.
    /// `Ok(false)`, for work that is not complete.
    pub(crate) fn try_on(
        &mut self,
        probe: impl FnOnce() -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let now = Instant::now();
        if now >= self.next {
            probe()?;
            self.interval = (self.interval * 2).min(LONGEST);
            self.next = now + self.interval;
        }
        Ok(false)
    }
}

/// As threads that wait for a stream do.
const FIRST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(200);
