//! Errors of steps and slots.

use std::fmt;

use wharf_sys::constants::{STREAM_LEGACY, STREAM_PER_THREAD};

use super::len::Counts;
use super::shape_error::ShapeFault;
use super::stall::Stall;
use crate::error::Error;
use crate::graph::GraphError;
use crate::memory::MemoryKind;

/// A step could not be begun, written or submitted. Later steps are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StageError {
    /// Every ring slot is in use. Only `try_begin` returns it.
    WouldBlock,
    /// Every ring slot was in use until the deadline.
    Stalled(Stall),
    /// A ring of a number of slots that is not 1 to 64.
    RingDepth(usize),
    /// A ring slot that an [embedded](super::EmbeddedOutputs) set does not have.
    RingSlot {
        /// The one that was asked for.
        given: usize,
        /// How many there are.
        depth: usize,
    },
    /// A step of a set with [tables](super::InputBuffersBuilder::persistent) was submitted inside
    /// the [launch](super::Step::submit_with) of a step that patches them.
    InLaunch,
    /// The step is larger than the buffers.
    TooLarge {
        /// The number that exceeds its limit.
        what: Count,
        /// How many the step has.
        wanted: usize,
        /// How many a step can have.
        max: usize,
    },
    /// A slot was used wrongly.
    Slot {
        /// Its name, or its number if it belongs to another set.
        slot: Box<str>,
        /// The fault in its use.
        fault: SlotFault,
    },
    /// A count by name was used wrongly.
    Count {
        /// Its name, or its number if it belongs to another set.
        count: Box<str>,
        /// The fault in its use.
        fault: CountFault,
    },
    /// A later step was submitted, or is being submitted, and overwrites the inputs of this one.
    Superseded,
    /// A [`Reader`](super::Reader) of the last step has not ended.
    ReaderOpen {
        /// The driver's handle of its stream, as a number.
        stream: usize,
    },
    /// A stream that uses the last step is being captured, so that the next step cannot be ordered
    /// behind what it reads. The legacy default stream cannot be waited for while a blocking stream
    /// of its context is being captured, nor can the default stream of another thread.
    ReaderCaptured {
        /// The driver's handle of the stream, as a number.
        stream: usize,
    },
    /// The step in a [`PeerStep`](super::PeerStep) is not the one that was begun with it.
    Exchanged,
    /// Another number of streams than the set has devices.
    Streams {
        /// The devices.
        wanted: usize,
        /// The streams.
        given: usize,
    },
    /// A stream of another device than the set's.
    OtherDevice {
        /// The set's device, by its ordinal.
        wanted: i32,
        /// The stream's.
        given: i32,
    },
    /// The driver refused.
    Driver(Error),
    /// A graph could not be made or launched.
    Graph(GraphError),
}

/// A number of a step that has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Count {
    /// Tokens of a step.
    Tokens,
    /// Requests of a step.
    Requests,
}

/// How a count by name was used wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CountFault {
    /// It belongs to another set.
    Foreign,
    /// A step of this size does not have so many.
    TooLarge {
        /// How many were given.
        wanted: usize,
        /// The most that the step can have.
        max: usize,
    },
    /// A slot whose length it is was written before.
    Written,
}

/// How a slot was used wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlotFault {
    /// The step did not write it.
    Forgotten,
    /// It was given another number of elements than the step has.
    Length {
        /// How many the step has.
        wanted: usize,
        /// How many were given.
        given: usize,
    },
    /// Its length is by a count that the step had not set.
    CountNotSet,
    /// It was named twice in one call.
    Twice,
    /// It belongs to another set.
    Foreign,
    /// It is dynamic: it has no memory of its own to write.
    IsDynamic,
    /// It is not dynamic: its address is fixed.
    NotDynamic,
    /// The layout cannot take the bytes from elsewhere: only [`Layout::PerSlot`](super::Layout)
    /// can.
    NeedsPerSlot,
    /// The bytes are elsewhere in memory that is not pinned.
    NotPinned {
        /// The kind of the buffer's memory.
        kind: MemoryKind,
    },
    /// The results are in a buffer of other than device memory.
    NotDevice {
        /// The kind of the buffer's memory.
        kind: MemoryKind,
    },
    /// The bytes are elsewhere in memory that is pinned for another device, or another's own.
    OtherDevice {
        /// The set's device, by its ordinal.
        wanted: i32,
        /// The buffer's, where it has one.
        given: Option<i32>,
    },
    /// The buffer with the bytes has as many handles as can be.
    TooManyHandles,
    /// The step is one of an [`Embedded`](super::Embedded) graph, whose copies read the ring slot
    /// alone.
    Embedded,
    /// It is of another shape than the call is for, or has not what was asked for.
    Shape(ShapeFault),
}

impl From<Error> for StageError {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<GraphError> for StageError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Driver(error) => Self::Driver(error),
            error => Self::Graph(error),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens => "tokens",
            Self::Requests => "requests",
        })
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => {
                f.write_str("every ring slot is in use: wait, or use a deeper ring")
            }
            Self::Stalled(stall) => stall.fmt(f),
            Self::RingDepth(depth) => write!(f, "the ring depth is {depth}, and must be 1 to 64"),
            Self::RingSlot { given, depth } => {
                write!(f, "there is no ring slot {given}: the ring has {depth}, from 0 on")
            }
            Self::InLaunch => f.write_str(
                "a step was submitted inside the launch of another that patches the same tables: \
                 submit it before or behind that one",
            ),
            Self::TooLarge { what, wanted, max } => write!(
                f,
                "{wanted} {what} were asked for, and the set, or the bucket that was asked for, \
                 holds {max}: take a larger bucket, or raise the set's limit"
            ),
            Self::Slot { slot, fault } => fault.fmt_of(slot, f),
            Self::Count { count, fault } => fault.fmt_of(count, f),
            Self::Superseded => f.write_str(
                "a later step was submitted and overwrites this step's inputs: call `reader`, \
                 `wait_on` or `consumed_by` before the next step is submitted",
            ),
            Self::ReaderOpen { stream } => write!(
                f,
                "a reader of the last step on stream {stream:#x} has not ended: drop it, or call \
                 `end`, before the next step is submitted"
            ),
            Self::Exchanged => f.write_str(
                "the step for several devices was exchanged for another: submit it as it was begun",
            ),
            Self::Streams { wanted, given } => {
                write!(f, "{given} streams for a set on {wanted} devices: give one of each")
            }
            Self::OtherDevice { wanted, given } => write!(
                f,
                "the stream is on device {given}, and the buffers are on device {wanted}: use a \
                 stream of device {wanted}"
            ),
            Self::ReaderCaptured { stream } => {
                let captured = match std::ptr::without_provenance_mut(*stream) {
                    STREAM_PER_THREAD => "it or a blocking stream of its context",
                    raw if raw.is_null() || raw == STREAM_LEGACY => {
                        "a blocking stream of its context"
                    }
                    _ => "it",
                };
                write!(
                    f,
                    "stream {stream:#x} uses the last step, and {captured} is being captured, so \
                     the next step cannot wait for it: end the capture first, or declare the read \
                     before it by `reader` or `consumed_by`"
                )
            }
            Self::Driver(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
        }
    }
}

impl CountFault {
    /// The text for the count with a name.
    fn fmt_of(&self, count: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "count {count} belongs to another set of buffers"),
            Self::TooLarge { wanted, max } => {
                write!(
                    f,
                    "the step has {wanted} of count {count:?}, and at most {max} fit its size"
                )
            }
            Self::Written => write!(
                f,
                "count {count:?} was set after a slot of that length was written: set it first"
            ),
        }
    }
}

impl SlotFault {
    /// The text for the slot with a name.
    fn fmt_of(&self, slot: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forgotten => write!(
                f,
                "slot {slot:?} was not written: write it, or set a policy with `when_forgotten`"
            ),
            Self::Length { wanted, given } => {
                write!(
                    f,
                    "slot {slot:?} has {wanted} elements in this step, and {given} were given"
                )
            }
            Self::CountNotSet => write!(
                f,
                "slot {slot:?} has its length by a count that was not set: call `set_count` first"
            ),
            Self::Twice => write!(f, "slot {slot:?} was named twice in one call: name it once"),
            Self::Foreign => write!(f, "slot {slot} belongs to another set of buffers"),
            Self::IsDynamic => write!(
                f,
                "slot {slot:?} is dynamic and has no memory to write: call `pass` with an address"
            ),
            Self::Shape(fault) => fault.fmt_of(slot, f),
            Self::NotDynamic => {
                write!(f, "slot {slot:?} is not dynamic, its address is fixed: write it instead")
            }
            elsewhere => elsewhere.fmt_of_memory(slot, f),
        }
    }

    /// The texts about memory that is not the set's.
    fn fmt_of_memory(&self, slot: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPinned { kind } => write!(
                f,
                "slot {slot:?} can refer to pinned memory only, and the buffer is {kind:?} memory: \
                 copy it with `write_from`"
            ),
            Self::NotDevice { kind } => write!(
                f,
                "slot {slot:?} is fetched from device memory, and the buffer is {kind:?} memory: \
                 read it in place, or copy it to device memory"
            ),
            Self::OtherDevice { wanted, given } => {
                let given = given.map_or("none".into(), |given| given.to_string());
                write!(
                    f,
                    "slot {slot:?} is on device {wanted}, and the buffer is on device {given}: use \
                     a buffer of device {wanted}"
                )
            }
            Self::TooManyHandles => write!(
                f,
                "slot {slot:?}: the buffer has too many handles: drop some, or copy its elements \
                 (inputs: `write_from`)"
            ),
            Self::Embedded => write!(
                f,
                "slot {slot:?} is in an embedded graph, which copies the set's own memory alone: \
                 write it, or leave its source as it is"
            ),
            Self::NeedsPerSlot => write!(
                f,
                "slot {slot:?} cannot refer to other memory: only copied slots of \
                 `Layout::PerSlot` can"
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for StageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Driver(error) => Some(error),
            Self::Graph(error) => Some(error),
            _ => None,
        }
    }
}

impl StageError {
    /// The error of a step of `given`, where `max` is the limit.
    #[cold]
    pub(super) fn too_large(given: Counts, max: Counts) -> Self {
        let Counts { tokens, requests } = given;
        if tokens > max.tokens {
            Self::TooLarge { what: Count::Tokens, wanted: tokens, max: max.tokens }
        } else {
            Self::TooLarge { what: Count::Requests, wanted: requests, max: max.requests }
        }
    }
}
