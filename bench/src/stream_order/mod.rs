//! Blocks that are given back while the device still uses them: what reuse in stream order costs.
//!
//! ```text
//!   one unit of work     allocate a block · let the stream write it · give it back at once
//! ```
//!
//! On softcuda, so what counts is the processor time of the calling thread, as a ratio within one
//! run, and the driver calls for a unit, which are the same on every driver. The write itself is
//! one of them and costs all schemes the same.

pub mod caching;
pub mod driver_pool;
mod machine;
pub mod ours;
mod run;

use wharf::sys::bindings::CUdeviceptr;
use wharf::{Error, Stream};

pub use machine::Machine;
pub use run::{Options, run};

/// Whatever stopped a run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A way to reuse device memory in stream order.
pub trait Scheme: Send + Sync {
    /// A block handed out.
    type Block;

    /// Allocates at least `size` bytes for work on `stream`.
    ///
    /// # Errors
    ///
    /// What the driver said.
    fn alloc(&self, size: usize, stream: &Stream) -> Result<Self::Block, Error>;

    /// The device address of a block.
    fn address(&self, block: &Self::Block) -> CUdeviceptr;

    /// Takes a block back that work already submitted to `stream` may still use.
    ///
    /// # Errors
    ///
    /// What the driver said.
    fn free(&self, block: Self::Block, stream: &Stream) -> Result<(), Error>;
}
