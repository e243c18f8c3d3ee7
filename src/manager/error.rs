//! What can go wrong with inputs by name.

use std::fmt;

use super::buffer_pool::AllocateError;
use super::spec::SpecError;
use crate::element::DType;
use crate::error::Error;
use crate::slab::PoolError;
use crate::staging::{BuildError, StageError};
use crate::tier::TierError;

/// A manager was not made, or a step not staged. Nothing has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManagerError {
    /// The input buffers cannot be made so.
    Build(BuildError),
    /// A slot's spec is no tensor.
    Spec {
        /// The slot.
        slot: Box<str>,
        /// The fault in it.
        error: SpecError,
    },
    /// The pool of other inputs cannot be made.
    Pool(PoolError),
    /// The tiers of other inputs cannot be made, or an object cannot be held.
    Tier(TierError),
    /// There is no memory for an input.
    Allocate(AllocateError),
    /// An input is not what its slot takes.
    Input {
        /// The input.
        name: Box<str>,
        /// The fault in it.
        fault: InputFault,
    },
    /// The step could not be staged.
    Stage(StageError),
    /// The driver refused.
    Driver(Error),
}

/// How an input does not fit its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputFault {
    /// Its elements are of another type.
    Type {
        /// The slot's.
        wanted: DType,
        /// The input's.
        given: DType,
    },
    /// It has fewer elements than the step.
    Short {
        /// How many the step has.
        wanted: usize,
        /// How many were given.
        given: usize,
    },
    /// The step has more tokens than the slot was registered for.
    Capacity {
        /// The slot's.
        tokens: usize,
        /// The step's.
        given: usize,
    },
    /// The step has more requests than the slot was registered for.
    Requests {
        /// The slot's.
        requests: usize,
        /// The step's.
        given: usize,
    },
    /// Its slot has elements a request, and the step was staged by its tokens alone.
    NoRequests,
    /// A static slot takes elements in host memory.
    NotOnHost,
    /// The name was given twice.
    Twice,
}

macro_rules! from {
    ($($error:ty: $variant:ident,)+) => {
        $(impl From<$error> for ManagerError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })+
    };
}

from! {
    BuildError: Build,
    PoolError: Pool,
    TierError: Tier,
    AllocateError: Allocate,
    StageError: Stage,
    Error: Driver,
}

impl fmt::Display for ManagerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(error) => error.fmt(f),
            Self::Spec { slot, error } => write!(f, "slot {slot}: {error}"),
            Self::Pool(error) => error.fmt(f),
            Self::Tier(error) => error.fmt(f),
            Self::Allocate(error) => error.fmt(f),
            Self::Input { name, fault } => write!(f, "input {name}: {fault}"),
            Self::Stage(error) => error.fmt(f),
            Self::Driver(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for InputFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type { wanted, given } => {
                write!(f, "elements of {given}, the slot's are {wanted}")
            }
            Self::Short { wanted, given } => write!(f, "{given} elements, the step has {wanted}"),
            Self::Capacity { tokens, given } => {
                write!(f, "a step of {given} tokens, the slot is registered for {tokens}")
            }
            Self::Requests { requests, given } => {
                write!(f, "a step of {given} requests, the slot is registered for {requests}")
            }
            Self::NoRequests => f.write_str(
                "the slot has elements a request, and the step says no requests: call `stage_step`",
            ),
            Self::NotOnHost => f.write_str("a static slot takes elements in host memory"),
            Self::Twice => f.write_str("given twice"),
        }
    }
}

impl std::error::Error for ManagerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Build(error) => Some(error),
            Self::Spec { error, .. } => Some(error),
            Self::Pool(error) => Some(error),
            Self::Tier(error) => Some(error),
            Self::Allocate(error) => Some(error),
            Self::Input { .. } => None,
            Self::Stage(error) => Some(error),
            Self::Driver(error) => Some(error),
        }
    }
}
