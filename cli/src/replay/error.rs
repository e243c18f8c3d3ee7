//! Why a replay ends early.

use wharf::Error;
use wharf::staging::{BuildError, SlotError, StageError};

use crate::trace::TraceError;

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The driver refused.
    #[error(transparent)]
    Driver(#[from] Error),
    /// The input buffers cannot be made so.
    #[error("making the input buffers: {0}")]
    Build(#[from] BuildError),
    /// Their slots are not as expected.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// A step could not be staged.
    #[error("staging a step: {0}")]
    Stage(#[from] StageError),
    /// A pool could not be made.
    #[error("making a pool: {0}")]
    Pool(#[from] wharf::slab::PoolError),
    /// The host may not have a buffer.
    #[error(transparent)]
    Host(#[from] wharf::pool::HostError),
    /// A step's buffers could not be had.
    #[error("allocating a step's buffers: {0}")]
    Alloc(#[from] wharf::slab::AllocError),
    /// An adapter could not be had.
    #[error("moving an adapter: {0}")]
    Tier(#[from] wharf::tier::TierError),
    /// The result could not be written.
    #[error("writing the result: {0}")]
    Output(#[from] std::io::Error),
}
