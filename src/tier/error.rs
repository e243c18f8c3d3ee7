//! What can go wrong with tiers.

use std::fmt;
use std::time::Duration;

use super::Tier;
use crate::error::Error;
use crate::slab::{AllocError, Exhaustion, PoolError};

/// Why an object was not made, held or moved. It is where it was, with its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TierError {
    /// Something stood in the way for as long as the caller would wait.
    Busy {
        /// What it was at last.
        blocked: Blocked,
        /// How long was waited; zero where the call does not wait.
        age: Duration,
    },
    /// The pool has no such tier.
    Absent(Tier),
    /// The object does not fit into the tier, whatever leaves it.
    TooLarge {
        /// The tier.
        tier: Tier,
        /// The size of the object, in bytes.
        size: usize,
        /// The size of the tier, in bytes.
        max: usize,
    },
    /// There are as many objects as there may be.
    TooManyObjects {
        /// How many there may be.
        max: usize,
    },
    /// The range is not within the file.
    OutOfFile {
        /// Where the range ends, in bytes.
        end: usize,
        /// The length of the file, in bytes.
        len: usize,
    },
    /// Slices of one length only can be copied to and from an object.
    Length {
        /// The length of the slice, in bytes.
        slice: usize,
        /// The size of the object, in bytes.
        object: usize,
    },
    /// A part of a mapped file is not written in the file; in another tier it may be.
    ReadOnly,
    /// A tier's pool could not be made of its memory.
    Pool(PoolError),
    /// The driver or the system refused.
    Driver(Error),
}

/// What a call on a tier may have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blocked {
    /// A copy of the object, or of one that makes room, is under way.
    Copying,
    /// The object is held elsewhere, or for writing, or is to be written while it is held: by a
    /// guard or the device.
    Held,
    /// All of the tier is held.
    Full(Tier),
    /// As many copies as allowed are under way.
    InFlight,
    /// As many bytes as allowed were copied a moment ago.
    RateLimit,
    /// As many holds as allowed are out.
    Pins,
}

impl From<Error> for TierError {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<PoolError> for TierError {
    fn from(error: PoolError) -> Self {
        Self::Pool(error)
    }
}

impl TierError {
    /// What a tier's slabs said, other than that they are full.
    pub(super) fn of_slab(error: AllocError, tier: Tier, size: usize) -> Self {
        match error {
            AllocError::Upstream(error) => Self::Driver(error),
            AllocError::Exhausted(Exhaustion { cause: Some(error), .. }) => Self::Driver(error),
            AllocError::TooLarge { max, .. } => Self::TooLarge { tier, size, max },
            _ => Self::Busy { blocked: Blocked::Full(tier), age: Duration::ZERO },
        }
    }
}

impl fmt::Display for TierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { blocked, age } => write!(f, "{blocked}, for {age:?}"),
            Self::Absent(tier) => write!(f, "the pool has no tier of {tier} memory"),
            Self::TooLarge { tier, size, max } => {
                write!(f, "an object of {size} bytes in a tier of {max} bytes of {tier} memory")
            }
            Self::TooManyObjects { max } => {
                write!(f, "there are {max} objects, and no more may be")
            }
            Self::OutOfFile { end, len } => {
                write!(f, "a range to byte {end} of a file of {len} bytes")
            }
            Self::Length { slice, object } => {
                write!(f, "a slice of {slice} bytes for an object of {object} bytes")
            }
            Self::ReadOnly => {
                f.write_str("the object is a part of a file that is mapped for reading")
            }
            Self::Pool(error) => error.fmt(f),
            Self::Driver(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copying => f.write_str("a copy is under way"),
            Self::Held => f.write_str("the object is held"),
            Self::Full(tier) => write!(f, "all objects in {tier} memory are held"),
            Self::InFlight => f.write_str("as many copies as allowed are under way"),
            Self::RateLimit => f.write_str("as many bytes as allowed were copied just now"),
            Self::Pins => f.write_str("as many holds as allowed are out"),
        }
    }
}

impl std::error::Error for TierError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pool(error) => Some(error),
            Self::Driver(error) => Some(error),
            _ => None,
        }
    }
}
