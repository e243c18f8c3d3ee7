//! What can go wrong with a pool, by what the caller can do about it.

use std::fmt;

use crate::error::Error;

/// Why a pool gave no block.
///
/// Nothing was allocated. Memory that was committed on the way stays with the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// No free block, and the limit or the span leaves no room for more; freeing helps.
    Exhausted(Exhaustion),
    /// No block of this pool can be so large, whatever is freed.
    TooLarge {
        /// The size asked for, in bytes.
        size: usize,
        /// The largest possible size, in bytes.
        max: usize,
    },
    /// No block of this pool can be aligned so, or the alignment is not a power of two.
    Unaligned {
        /// The alignment asked for, in bytes.
        align: usize,
        /// The largest possible alignment, in bytes.
        max: usize,
    },
    /// There are as many blocks as there may be; freeing helps.
    TooMany {
        /// How many there may be.
        max: u64,
    },
    /// The resource could not commit memory.
    Upstream(Error),
}

/// The state of a pool that had no room, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exhaustion {
    /// What was asked for.
    pub size: usize,
    /// What the pool may commit.
    pub limit: usize,
    /// What it has committed.
    pub reserved: usize,
    /// Blocks handed out.
    pub live: usize,
    /// Blocks in caches of threads.
    pub cached: usize,
    /// Blocks that nobody holds and that a device may still use; 0 where nothing knows of devices.
    pub retired: usize,
    /// The longest piece of the span that is not in use.
    pub largest_free: usize,
}

/// Why an address was not freed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeallocError {
    /// No pool of this process has that address.
    Foreign {
        /// The address.
        address: u64,
    },
    /// The address is another pool's.
    WrongPool {
        /// The address.
        address: u64,
    },
    /// No slab is at that address; the one that was there has been released.
    Stale {
        /// The address.
        address: u64,
    },
    /// The address is not the start of a block.
    Interior {
        /// The address.
        address: u64,
        /// The start of the block that it lies in.
        block: u64,
        /// The size of that block, in bytes.
        size: usize,
    },
    /// The block is not handed out as an address: freed already, or never.
    NotLive {
        /// The address.
        address: u64,
        /// The size of the block, in bytes.
        size: usize,
    },
}

/// Why a pool was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// The granule is not a power of two from 4 KiB to 4 MiB, or smaller than the resource's
    /// granularity.
    Granule {
        /// The granule asked for, in bytes.
        granule: usize,
        /// The resource's granularity, in bytes.
        granularity: usize,
    },
    /// The resource's span does not start at a multiple of the granule, holds not even one, or
    /// more than can be numbered.
    Span {
        /// The start of the span.
        base: u64,
        /// Its length, in bytes.
        size: usize,
    },
}

impl From<Error> for AllocError {
    fn from(error: Error) -> Self {
        Self::Upstream(error)
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted(state) => state.fmt(f),
            Self::TooLarge { size, max } => write!(f, "{size} bytes asked for, at most {max} possible"),
            Self::Unaligned { align, max } => {
                write!(f, "alignment {align} asked for, powers of two up to {max} possible")
            }
            Self::TooMany { max } => write!(f, "there are {max} blocks, and no more may be"),
            Self::Upstream(error) => write!(f, "the pool could not grow: {error}"),
        }
    }
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, limit, reserved, live, cached, retired, largest_free } = self;
        write!(
            f,
            "no room for {size} bytes: limit {limit}, reserved {reserved}, live {live}, \
             cached {cached}, retired {retired}, largest free run {largest_free}"
        )
    }
}

impl fmt::Display for DeallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { address } => write!(f, "{address:#x} is no pool's address"),
            Self::WrongPool { address } => write!(f, "{address:#x} is another pool's address"),
            Self::Stale { address } => write!(f, "{address:#x} was freed long ago: its slab is gone"),
            Self::Interior { address, block, size } => {
                write!(f, "{address:#x} is inside the block of {size} bytes at {block:#x}")
            }
            Self::NotLive { address, size } => {
                write!(f, "the block of {size} bytes at {address:#x} is not handed out: freed twice?")
            }
        }
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granule { granule, granularity } => {
                write!(f, "granule of {granule} bytes on a resource of granularity {granularity}")
            }
            Self::Span { base, size } => write!(f, "no pool fits a span of {size} bytes at {base:#x}"),
        }
    }
}

impl std::error::Error for AllocError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Upstream(error) => Some(error),
            _ => None,
        }
    }
}

impl std::error::Error for DeallocError {}

impl std::error::Error for PoolError {}
