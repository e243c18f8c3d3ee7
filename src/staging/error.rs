//! What can go wrong with a step, and with making a set of buffers.

use std::fmt;
use std::time::Duration;

use super::len::Counts;
use crate::error::Error;
use crate::graph::GraphError;
use crate::memory::MemoryKind;
use crate::pool::DType;

/// A set of input buffers cannot be made so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// No slot has bytes to stage.
    NoSlots,
    /// More slots than a set can have.
    TooManySlots {
        /// How many were given.
        given: usize,
        /// How many there can be, of them so many dynamic ones.
        max: (usize, usize),
    },
    /// A name that two slots have.
    DuplicateSlot(Box<str>),
    /// A bucket of no tokens, or one that is there twice.
    Bucket(usize),
    /// A number of ring slots that is not 1 to 64.
    RingDepth(usize),
    /// A limit below what the buckets or the steps need.
    Limit {
        /// What is limited.
        what: Count,
        /// The limit.
        limit: usize,
        /// What it must at least be.
        needed: usize,
    },
    /// Slots too long to be addressed.
    TooLarge,
    /// [`Forgotten::Keep`](super::Forgotten::Keep) in a packed layout, where all slots are one copy.
    KeepNeedsPerSlot(Box<str>),
    /// The driver refused.
    Driver(Error),
    /// A staging graph could not be made.
    Graph(GraphError),
}

/// A slot that is not there, or is not of that type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotError {
    /// No slot has the name.
    Unknown(Box<str>),
    /// Its elements are of another type.
    Type {
        /// The slot.
        slot: Box<str>,
        /// Its type.
        wanted: DType,
        /// The type asked for.
        given: DType,
    },
}

/// A step could not be begun, written or submitted. The next one can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StageError {
    /// Every ring slot is in use; only `try_begin` says so.
    WouldBlock,
    /// Every ring slot was in use until the deadline.
    Stalled(Stall),
    /// A step of more than the buffers were made for.
    TooLarge {
        /// What there is too much of.
        what: Count,
        /// How much of it the step has.
        wanted: usize,
        /// How much there may be.
        max: usize,
    },
    /// A slot was used wrongly.
    Slot {
        /// Its name; of a slot of other buffers, its number.
        slot: Box<str>,
        /// What is wrong.
        fault: SlotFault,
    },
    /// The driver refused.
    Driver(Error),
    /// A graph could not be made or launched.
    Graph(GraphError),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Count {
    /// Tokens of a step.
    Tokens,
    /// Requests of a step.
    Requests,
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
    /// It belongs to other buffers.
    Foreign,
    /// It is dynamic: it has no memory of its own to write.
    IsDynamic,
    /// It is not dynamic: its address is fixed.
    NotDynamic,
    /// The layout cannot take the bytes from elsewhere: only [`Layout::PerSlot`](super::Layout) can.
    NeedsPerSlot,
    /// The bytes are elsewhere in memory that is not pinned.
    NotPinned {
        /// What it is.
        kind: MemoryKind,
    },
    /// The buffer with the bytes has as many handles as can be.
    TooManyHandles,
    /// The step is one of an [`Embedded`](super::Embedded) graph, whose copies read the ring slot alone.
    Embedded,
}

/// A ring slot that did not become free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stall {
    /// The ring slot that is longest in flight.
    pub ring_slot: usize,
    /// The driver's handle of the stream that it was submitted to, as a number; 0 if no slot is in
    /// flight and all are being filled.
    pub stream: usize,
    /// For how long it has been in flight.
    pub age: Duration,
    /// How often the driver was asked meanwhile; each time it said that the context works.
    pub probes: u32,
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

impl From<StageError> for BuildError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Graph(error) => Self::Graph(error),
            StageError::Driver(error) => Self::Driver(error),
            // Nothing else can happen to a set that nobody uses yet.
            _ => Self::TooLarge,
        }
    }
}

impl From<Error> for BuildError {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<GraphError> for BuildError {
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

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlots => f.write_str("input buffers need a slot that is staged"),
            Self::TooManySlots { given, max: (all, dynamic) } => {
                write!(f, "{given} slots; there can be {all}, of them {dynamic} dynamic")
            }
            Self::DuplicateSlot(name) => write!(f, "two slots are called {name:?}"),
            Self::Bucket(size) => {
                write!(f, "a bucket of {size} tokens: buckets are not 0, and each is given once")
            }
            Self::RingDepth(depth) => write!(f, "a ring of {depth} slots; it has 1 to 64"),
            Self::Limit { what, limit, needed } => {
                write!(f, "a limit of {limit} {what}, and {needed} are needed")
            }
            Self::TooLarge => f.write_str("the slots are too long to be addressed"),
            Self::KeepNeedsPerSlot(name) => {
                write!(
                    f,
                    "slot {name:?} is kept when forgotten, which one copy of all slots cannot: use the layout per slot"
                )
            }
            Self::Driver(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "no slot is called {name:?}"),
            Self::Type { slot, wanted, given } => {
                write!(f, "slot {slot:?} has elements of type {wanted}, not {given}")
            }
        }
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str("every ring slot is in use"),
            Self::Stalled(stall) => stall.fmt(f),
            Self::TooLarge { what, wanted, max } => {
                write!(f, "a step of {wanted} {what}; the buffers were made for {max}")
            }
            Self::Slot { slot, fault } => match fault {
                SlotFault::Forgotten => write!(f, "slot {slot:?} was not written"),
                SlotFault::Length { wanted, given } => {
                    write!(f, "slot {slot:?} has {wanted} elements in this step, {given} were given")
                }
                SlotFault::Foreign => write!(f, "slot {slot} belongs to other buffers"),
                SlotFault::IsDynamic => write!(f, "slot {slot:?} is dynamic: pass an address"),
                SlotFault::NotDynamic => write!(f, "slot {slot:?} has a fixed address: write it"),
                SlotFault::NotPinned { kind } => write!(
                    f,
                    "slot {slot:?} can be read elsewhere in pinned memory only, not in {kind:?}: copy it with `write_from`"
                ),
                SlotFault::TooManyHandles => {
                    write!(
                        f,
                        "slot {slot:?}: the buffer has too many handles; drop some, or copy it with `write_from`"
                    )
                }
                SlotFault::Embedded => {
                    write!(f, "slot {slot:?} of an embedded graph cannot be read elsewhere: write it")
                }
                SlotFault::NeedsPerSlot => write!(
                    f,
                    "slot {slot:?} cannot be copied from elsewhere in a packed layout: use the layout per slot"
                ),
            },
            Self::Driver(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring_slot, stream, age, probes } = self;
        if *stream == 0 {
            return write!(f, "all ring slots are being filled, none was submitted");
        }
        write!(
            f,
            "ring slot {ring_slot} is in flight on stream {stream:#x} for {age:?}, and the driver said {probes} \
             times that the context works: does the stream wait for something?"
        )
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Driver(error) => Some(error),
            Self::Graph(error) => Some(error),
            _ => None,
        }
    }
}

impl std::error::Error for SlotError {}

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
    /// More than there may be of something.
    pub(super) fn too_large(given: Counts, max: Counts) -> Self {
        let Counts { tokens, requests } = given;
        if tokens > max.tokens {
            Self::TooLarge { what: Count::Tokens, wanted: tokens, max: max.tokens }
        } else {
            Self::TooLarge { what: Count::Requests, wanted: requests, max: max.requests }
        }
    }
}
