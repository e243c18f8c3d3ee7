//! The report of a wait for a ring slot that timed out.

use std::fmt;
use std::time::Duration;

/// A ring slot that did not become free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The ring slot that is longest in flight.
    pub ring_slot: usize,
    /// The driver's handle of the stream that it was submitted to, as a number. It means nothing
    /// where the cause is [`StallCause::Filling`] or
    /// [`StallCause::Held`].
    pub stream: usize,
    /// How long it has been in flight.
    pub age: Duration,
    /// How many probes of the context were made meanwhile; all found it healthy.
    pub probes: u32,
    /// The reason.
    pub cause: StallCause,
}

/// Why a ring slot is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StallCause {
    /// The copy is not done.
    Copy,
    /// The engine did not say that the copy is done, which nothing else does:
    /// [`Completion::Neither`](super::Completion::Neither).
    NotSaid,
    /// A read of a zero-copy slot is not done.
    Read,
    /// A [`Reader`](super::Reader) of a zero-copy slot has not ended.
    ReaderOpen,
    /// It is the last step's, it has zero-copy slots, and no read of them was declared.
    ReaderUndeclared,
    /// No ring slot is in flight: all are being filled.
    Filling,
    /// No ring slot is in flight: all are held by a [`Pending`](super::Pending) or a
    /// [`Fetch`](super::Fetch).
    Held,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring_slot, stream, age, probes, cause } = self;
        match cause {
            StallCause::Filling => {
                return f.write_str(
                    "timed out: all ring slots are held by steps that were not submitted: submit \
                     or drop a step",
                );
            }
            StallCause::Held => {
                return f.write_str(
                    "timed out: all ring slots are held by results that were not dropped: drop a \
                     `Pending`, or use a deeper ring",
                );
            }
            _ => {}
        }
        write!(
            f,
            "timed out: ring slot {ring_slot} is in flight on stream {stream:#x} for {age:?}, "
        )?;
        match cause {
            StallCause::ReaderOpen => f.write_str(
                "and a reader of its zero-copy slots has not ended: drop it, or call \
                    `end`",
            ),
            StallCause::ReaderUndeclared => f.write_str(
                "and no read of its zero-copy slots was declared: call `consumed_by` or `reader`, \
                 or use a ring of two slots or more, where the next step ends the read",
            ),
            StallCause::NotSaid => f.write_str(
                "and the engine did not say that its copies are done: call `Staged::set_complete`",
            ),
            StallCause::Read => f.write_str(
                "and a read of its zero-copy slots is not done: check what that stream \
                    waits for",
            ),
            _ => write!(
                f,
                "and {probes} probes found the context healthy: check what the stream waits for. \
                 If the launch went into a capture, or was never made, call `release_lost`"
            ),
        }
    }
}
