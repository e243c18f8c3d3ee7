//! Waiting for the device, with an end in every case.
//!
//! After a device fault nothing completes any more: a completion word stays as it is for ever. So
//! a waiting thread asks the driver now and then, on a stream that is never captured and never has
//! work, whether the context still works; and every wait has a deadline.

#![expect(unsafe_code, reason = "calls the driver; owns a handle")]

use core::ffi::c_uint;
use std::fmt;
use std::ptr;
use std::time::{Duration, Instant};

use wharf_sys::bindings::{CUstream, CUstream_flags};

use crate::driver::{Context, RawStream, ready};
use crate::error::Error;
use crate::profile::range;
use crate::sync::{OnceLock, pause};

/// Why a wait for the device has ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The driver reports a failure: what was waited for will never complete.
    Driver(Error),
    /// The deadline has passed. The work may still complete.
    Deadline(Stalled),
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stalled {
    /// The driver's handle of the stream, as a number.
    pub stream: usize,
    /// The ticket that is not complete.
    pub ticket: u64,
    /// The last ticket of the stream that is.
    pub completed: u64,
    /// Whether the stream has a marker behind the work; it has none while it is captured.
    pub marked: bool,
    /// How long was waited.
    pub age: Duration,
    /// How often the driver was asked meanwhile; each time it said that the context works.
    pub probes: u32,
}

impl From<Error> for WaitError {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(error) => write!(f, "the device will not come to it: {error}"),
            Self::Deadline(stalled) => stalled.fmt(f),
        }
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, ticket, completed, marked, age, probes } = self;
        write!(
            f,
            "stream {stream:#x} is not at ticket {ticket} after {age:?}: it is at {completed}"
        )?;
        if !marked {
            f.write_str(", has no marker for it (is it being captured?)")?;
        }
        write!(f, ", and the driver said {probes} times that the context works")
    }
}

impl std::error::Error for WaitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Driver(error) => Some(error),
            Self::Deadline(_) => None,
        }
    }
}

/// How a wait without success has ended, before it is known what it was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GaveUp {
    Driver(Error),
    Deadline { age: Duration, probes: u32 },
}

/// Asks whether a context still works, by a stream of its own.
#[derive(Debug)]
pub(crate) struct Sentinel {
    context: Context,
    stream: OnceLock<RawStream>,
}

impl Sentinel {
    /// Nothing is created before the first question.
    pub(crate) fn new(context: &Context) -> Self {
        Self { context: context.clone(), stream: OnceLock::new() }
    }

    /// Whether the context works.
    ///
    /// # Errors
    ///
    /// What the driver says of a context that is lost or destroyed.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        let _range = range!("timeline::probe");
        let _scope = self.context.make_current()?;
        let _relaxed = self.context.driver().relax_capture()?;
        let stream = self.stream()?;
        // SAFETY: a stream of ours, alive.
        ready(unsafe { self.context.driver().api().stream_query.call(stream) }).map(drop)
    }

    /// Waits until `is_ready`, for at most `limit`.
    pub(crate) fn wait(
        &self,
        limit: Duration,
        mut is_ready: impl FnMut() -> Result<bool, Error>,
    ) -> Result<(), GaveUp> {
        let _range = range!("timeline::wait");
        let start = Instant::now();
        let (mut rounds, mut probes) = (0_u32, 0);
        let mut next_probe = FIRST_PROBE;
        loop {
            if is_ready().map_err(GaveUp::Driver)? {
                return Ok(());
            }
            let age = start.elapsed();
            if age >= next_probe || age >= limit {
                self.probe().map_err(GaveUp::Driver)?;
                probes += 1;
                next_probe = age + (next_probe * 2).min(LONGEST_INTERVAL);
            }
            if age >= limit {
                return Err(GaveUp::Deadline { age, probes });
            }
            pause(rounds, limit - age);
            rounds = rounds.saturating_add(1);
        }
    }

    fn stream(&self) -> Result<CUstream, Error> {
        if let Some(stream) = self.stream.get() {
            return Ok(stream.0);
        }
        let api = self.context.driver().api();
        let (mut raw, flags): (CUstream, c_uint) =
            (ptr::null_mut(), CUstream_flags::CU_STREAM_NON_BLOCKING.0);
        // SAFETY: `raw` is valid for writes for the whole call, and the context is current.
        unsafe { api.stream_create.call(&raw mut raw, flags) }?;
        if self.stream.set(RawStream(raw)).is_err() {
            // Another thread was faster.
            // SAFETY: made above, and no other thread knows of it.
            unsafe { api.stream_destroy.call(raw) }?;
        }
        Ok(self.stream.get().map_or(raw, |stream| stream.0))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        let outcome = self.context.enter().and_then(|_scope| {
            // SAFETY: made by `stream`, destroyed once.
            unsafe { self.context.driver().api().stream_destroy.call(stream.0) }
        });
        self.context.release().note(self.context.driver(), outcome);
    }
}

/// Work that takes longer than this is worth a question.
const FIRST_PROBE: Duration = Duration::from_millis(5);
const LONGEST_INTERVAL: Duration = Duration::from_millis(200);
