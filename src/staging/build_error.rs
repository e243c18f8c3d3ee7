//! Errors of building a set.

use std::fmt;

use super::error::{Count, StageError};
use super::len::Counts;
use super::shape_error::ViewFault;
use crate::error::Error;
use crate::graph::GraphError;

/// A set of buffers cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// No slot has bytes to stage.
    NoSlots,
    /// A call that is about the slot added last, before any slot:
    /// [`when_forgotten`](super::InputBuffersBuilder::when_forgotten) or
    /// [`source`](super::OutputBuffersBuilder::source).
    NoSlotBefore(&'static str),
    /// More slots than a set can have.
    TooManySlots {
        /// How many were given.
        given: usize,
        /// How many a set can have.
        max: usize,
        /// How many of them can be dynamic.
        max_dynamic: usize,
    },
    /// A slot's length is by a count that the set was not
    /// [given](super::InputBuffersBuilder::count).
    UnknownCount(Box<str>),
    /// A name that two counts have.
    DuplicateCount(Box<str>),
    /// The most that a step has of a count is said by another count.
    CountOfCount(Box<str>),
    /// More counts by name than a set can have.
    TooManyCounts {
        /// How many were given.
        given: usize,
        /// How many a set can have.
        max: usize,
    },
    /// A name that two slots have.
    DuplicateSlot(Box<str>),
    /// A bucket of 0 tokens, or one that was given twice.
    Bucket(usize),
    /// A bucket of 0 tokens or requests, or one that was given twice, by
    /// [`buckets_of`](super::InputBuffersBuilder::buckets_of).
    BucketOf(Counts),
    /// A number of ring slots that is not 1 to 64.
    RingDepth(usize),
    /// A limit below what the buckets or the steps need.
    Limit {
        /// The number that is limited.
        what: Count,
        /// The limit.
        limit: usize,
        /// The least value that the buckets and steps need.
        needed: usize,
    },
    /// The slots together are larger than the address space.
    TooLarge,
    /// [`Forgotten::Keep`](super::Forgotten::Keep) in a packed layout, where all slots are one
    /// copy.
    KeepNeedsPerSlot(Box<str>),
    /// A [source](super::OutputBuffersBuilder::source) of its own in a packed layout, where all
    /// slots are one copy.
    SourceNeedsPerSlot(Box<str>),
    /// [`Completion::Neither`](super::Completion::Neither) for results, which are read when
    /// something says that they are complete.
    ResultsNeedCompletion,
    /// [`read_events`](super::InputBuffersBuilder::read_events) of a set with zero-copy slots,
    /// whose readers have to be declared.
    ReadEventsInPlace,
    /// [`read_events`](super::InputBuffersBuilder::read_events) of a
    /// [view](super::InputBuffers::view) that are not those of its set: wanted where the set has
    /// none, or left out where it has some.
    ReadEventsOfView,
    /// [`read_events`](super::InputBuffersBuilder::read_events) of a set on
    /// [several devices](super::InputBuffersBuilder::build_on), each of which has readers of its
    /// own.
    ReadEventsOfPeers,
    /// A slot that cannot be on [several devices](super::InputBuffersBuilder::build_on): zero-copy,
    /// dynamic, a persistent table, or a view's.
    PeerSlot(Box<str>),
    /// A slot that cannot be in a [view](super::InputBuffers::view).
    View {
        /// Its name.
        slot: Box<str>,
        /// Why.
        fault: ViewFault,
    },
    /// The driver refused.
    Driver(Error),
    /// A staging graph could not be made.
    Graph(GraphError),
}

impl From<StageError> for BuildError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Graph(error) => Self::Graph(error),
            StageError::Driver(error) => Self::Driver(error),
            // Nothing else can happen to a set that is not in use yet.
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

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlots => {
                f.write_str("no slot has memory to copy from: add a slot that is not dynamic")
            }
            Self::NoSlotBefore(call) => write!(
                f,
                "`{call}` was called before any slot was added: call it after the slot that it is \
                 for"
            ),
            Self::TooManySlots { given, max, max_dynamic } => {
                write!(
                    f,
                    "{given} slots were added: a set has at most {max}, {max_dynamic} of \
                    them dynamic"
                )
            }
            Self::DuplicateSlot(name) => write!(f, "two slots have the name {name:?}"),
            Self::Bucket(size) => {
                write!(
                    f,
                    "a bucket of {size} tokens is 0 or given twice: each bucket is given \
                    once, and has 1 token or more"
                )
            }
            Self::RingDepth(depth) => write!(f, "the ring depth is {depth}, and must be 1 to 64"),
            Self::Limit { what: Count::Tokens, limit: 0, needed: 1 } => f.write_str(
                "the set has no bucket, and no limit of tokens: call `buckets`, or `max_tokens` \
                 for steps without graphs",
            ),
            Self::Limit { what, limit, needed } => {
                write!(
                    f,
                    "the limit of {limit} {what} is below {needed}, which the buckets need: \
                    raise it"
                )
            }
            Self::TooLarge => f.write_str(
                "the slots together are larger than the address space: \
                shorten them",
            ),
            Self::KeepNeedsPerSlot(name) => {
                write!(
                    f,
                    "slot {name:?} keeps its contents when it is not written, which the packed \
                     layout cannot do: use `Layout::PerSlot`"
                )
            }
            Self::SourceNeedsPerSlot(name) => {
                write!(
                    f,
                    "slot {name:?} has a source of its own, which the packed layout cannot copy: \
                     use `Layout::PerSlot`"
                )
            }
            Self::Driver(error) => error.fmt(f),
            Self::Graph(error) => error.fmt(f),
            rarer => rarer.fmt_of_rarer(f),
        }
    }
}

impl BuildError {
    /// The texts about counts by name, buckets of several counts, completion and events, and slots
    /// of several sets.
    fn fmt_of_rarer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BucketOf(Counts { tokens, requests }) => write!(
                f,
                "a bucket of {tokens} tokens and {requests} requests is empty or given twice: each \
                 bucket is given once, and has 1 of both or more"
            ),
            Self::UnknownCount(name) => write!(
                f,
                "a slot's length is by the count {name:?}, which the set does not have: call \
                 `count`"
            ),
            Self::DuplicateCount(name) => write!(f, "two counts have the name {name:?}"),
            Self::CountOfCount(name) => write!(
                f,
                "the most that a step has of the count {name:?} is said by another count: say it \
                 by tokens, requests or a number"
            ),
            Self::TooManyCounts { given, max } => {
                write!(f, "{given} counts were added: a set has at most {max}")
            }
            Self::ResultsNeedCompletion => f.write_str(
                "results with `Completion::Neither` would never be complete: use \
                 `Completion::Word` or `Completion::Event`",
            ),
            Self::ReadEventsInPlace => f.write_str(
                "reads of zero-copy slots are declared by `Staged::reader`: leave `read_events` \
                 out, or use slots that are copied",
            ),
            Self::ReadEventsOfView => f.write_str(
                "a view has the read events of the set whose memory it overwrites, and no others: \
                 call `read_events` for the set alone",
            ),
            Self::ReadEventsOfPeers => f.write_str(
                "a set on several devices has no read events: leave `read_events` out, and declare \
                 reads by `Staged::reader`",
            ),
            Self::PeerSlot(name) => write!(
                f,
                "slot {name:?} is zero-copy, dynamic, a persistent table or a view's, which cannot \
                 be on several devices: make a set for each device"
            ),
            Self::View { slot, fault } => fault.fmt_of(slot, f),
            _ => Ok(()),
        }
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
