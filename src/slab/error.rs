//! What can go wrong with a pool, by what the caller can do about it.

use std::fmt;

use crate::error::Error;
use crate::memory::PhysicalMemory;

/// An allocation failed.
///
/// Nothing was allocated. Memory that was committed on the way stays with the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// No block is free, and the pool cannot grow: the limit or the span leaves no room, or the
    /// driver or the system has no memory, which is the [cause](Exhaustion::cause) then. Freeing
    /// helps, unless the [size](Exhaustion::size) is above the [limit](Exhaustion::limit).
    Exhausted(Exhaustion),
    /// The size exceeds the span: freeing does not help.
    TooLarge {
        /// The requested size, in bytes.
        size: usize,
        /// The largest possible size, in bytes: the lesser of the span and the limit.
        max: usize,
    },
    /// The alignment exceeds that of the span, or is not a power of two.
    Unaligned {
        /// The requested alignment, in bytes.
        align: usize,
        /// The largest possible alignment, in bytes.
        max: usize,
    },
    /// The pool has as many blocks as it can track; freeing helps.
    TooMany {
        /// How many it can track.
        max: u64,
    },
    /// The pool sleeps: [`Pool::wake`](crate::pool::Pool::wake) it first.
    Asleep,
    /// The resource failed to commit memory, for another reason than a lack of it.
    Upstream(Error),
}

/// The state of a pool when an allocation found no room. All sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exhaustion {
    /// The requested size.
    pub size: usize,
    /// The most that the pool may commit.
    pub limit: usize,
    /// What it has committed.
    pub reserved: usize,
    /// Blocks handed out.
    pub live: usize,
    /// Blocks in threads' caches.
    pub cached: usize,
    /// Blocks that were dropped and that a device may still use; 0 for a [`SlabPool`], which does
    /// not track devices.
    ///
    /// [`SlabPool`]: super::SlabPool
    pub retired: usize,
    /// The longest range of the span that is not committed.
    pub largest_free: usize,
    /// The error of the driver or the system when it had no memory; `None` if the limit or the span
    /// left no room.
    pub cause: Option<Error>,
    /// The free and total physical memory, if there is a cause and they are known.
    pub physical: Option<PhysicalMemory>,
}

/// An address could not be freed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeallocError {
    /// The address is in no pool of this process.
    Foreign {
        /// The address.
        address: u64,
    },
    /// The address belongs to another pool.
    WrongPool {
        /// The address.
        address: u64,
    },
    /// No slab is at the address: the one that was there has been released.
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
    /// The block is not allocated as a bare address: it was freed already, or is held as a
    /// [`Block`](super::Block).
    NotLive {
        /// The address.
        address: u64,
        /// The size of the block, in bytes.
        size: usize,
    },
}

/// A pool could not be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// The granule is not a power of two from 4 KiB to 4 MiB, or smaller than the resource's
    /// granularity.
    Granule {
        /// The requested granule, in bytes.
        granule: usize,
        /// The resource's granularity, in bytes.
        granularity: usize,
    },
    /// The limit is less than a granule, the least that a pool commits.
    Limit {
        /// The requested limit, in bytes.
        limit: usize,
        /// The granule, in bytes.
        granule: usize,
    },
    /// The resource's span does not start at a multiple of the granule, is shorter than one, or is
    /// longer than a pool can address.
    Span {
        /// The start of the span.
        base: u64,
        /// Its length, in bytes.
        size: usize,
    },
    /// The system has no memory for the tables of so long a span, though it is used only where the
    /// span is.
    Tables {
        /// The length of the span, in bytes.
        size: usize,
    },
    /// There are not so many addresses, or the driver refused to reserve them.
    Addresses {
        /// The requested limit, in bytes: at least as many addresses are needed.
        size: usize,
        /// The error of the driver or the system.
        cause: Error,
    },
    /// The span is one allocation, as on devices without virtual memory management, and that
    /// allocation failed. A lower limit or a smaller span needs less.
    Upstream {
        /// The size of the allocation, which is the pool's limit, in bytes.
        size: usize,
        /// The error of the driver or the system.
        cause: Error,
        /// The free and total physical memory, if there was too little and they are known.
        physical: Option<PhysicalMemory>,
    },
}

impl From<Error> for AllocError {
    fn from(error: Error) -> Self {
        match error {
            Error::Asleep => Self::Asleep,
            error => Self::Upstream(error),
        }
    }
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted(state) => state.fmt(f),
            Self::TooLarge { size, max } => {
                write!(f, "requested {size} bytes; the largest possible block has {max}")
            }
            Self::Unaligned { align, max } => {
                write!(
                    f,
                    "requested an alignment of {align} bytes; the pool supports powers of two up \
                     to {max}"
                )
            }
            Self::TooMany { max } => write!(
                f,
                "the pool has {max} blocks, the most that it can track: free blocks first"
            ),
            Self::Asleep => Error::Asleep.fmt(f),
            Self::Upstream(error) => write!(f, "the pool failed to grow: {error}"),
        }
    }
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, limit, reserved, live, cached, retired, largest_free, cause, physical } =
            self;
        write!(
            f,
            "out of memory: requested {size} bytes; limit {limit}, reserved {reserved}, live \
             {live}, cached {cached}, retired {retired}, largest free run {largest_free}"
        )?;
        if let Some(PhysicalMemory { free, total, .. }) = physical {
            write!(f, ", {free} of {total} bytes of physical memory free")?;
        }
        cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

impl fmt::Display for DeallocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { address } => write!(f, "{address:#x} is not in any pool"),
            Self::WrongPool { address } => write!(f, "{address:#x} belongs to another pool"),
            Self::Stale { address } => {
                write!(f, "{address:#x} was freed before: its slab has been released")
            }
            Self::Interior { address, block, size } => {
                write!(
                    f,
                    "{address:#x} is inside the block of {size} bytes at {block:#x}, not its start"
                )
            }
            Self::NotLive { address, size } => {
                write!(
                    f,
                    "the block of {size} bytes at {address:#x} is not allocated as an address: \
                     double free?"
                )
            }
        }
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granule { granule, granularity } => {
                write!(
                    f,
                    "invalid granule of {granule} bytes: it has to be a power of two from 4 KiB to \
                     4 MiB, and at least the resource's granularity of {granularity} bytes"
                )
            }
            Self::Limit { limit, granule } => write!(
                f,
                "max_bytes is {limit}, less than a granule of {granule} bytes, the least that the \
                 pool can commit: raise max_bytes"
            ),
            Self::Span { base, size } => {
                write!(
                    f,
                    "the span of {size} bytes at {base:#x} cannot be cut into granules: it is too \
                     short, too long or misaligned"
                )
            }
            Self::Tables { size } => {
                write!(
                    f,
                    "the system has no memory for the tables of a span of {size} bytes: make the \
                     span smaller"
                )
            }
            Self::Addresses { size, cause } => {
                write!(f, "cannot reserve {size} bytes of addresses for the pool: {cause}")
            }
            Self::Upstream { size, cause, physical } => {
                write!(
                    f,
                    "the pool needs one allocation of {size} bytes on this device, which failed: \
                     {cause}"
                )?;
                if let Some(PhysicalMemory { free, total, .. }) = physical {
                    write!(f, "; {free} of {total} bytes of physical memory free")?;
                }
                f.write_str(if cause.is_out_of_memory() {
                    ": set max_bytes, or make the span smaller"
                } else {
                    ""
                })
            }
        }
    }
}

impl std::error::Error for AllocError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Upstream(error) | Self::Exhausted(Exhaustion { cause: Some(error), .. }) => {
                Some(error)
            }
            _ => None,
        }
    }
}

impl std::error::Error for DeallocError {}

impl std::error::Error for PoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Upstream { cause, .. } | Self::Addresses { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
