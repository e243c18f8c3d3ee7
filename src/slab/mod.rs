//! Slabs: who owns which bytes of a span.

mod block;
mod budget;
#[cfg(not(all(test, loom)))]
mod bundle;
mod error;
mod geometry;
mod growth;
#[cfg(not(all(test, loom)))]
mod local_cache;
mod magazine;
#[cfg(not(all(test, loom)))]
mod options;
#[cfg(not(all(test, loom)))]
mod pool;
#[cfg(not(all(test, loom)))]
mod raw;
#[cfg(not(all(test, loom)))]
mod registry;
mod size_class;
mod span;
#[cfg(not(all(test, loom)))]
mod stats;
mod store;
#[cfg(not(all(test, loom)))]
mod thread_cache;
mod trim;

pub use self::block::{Block, WrongPool};
#[cfg(not(all(test, loom)))]
pub use self::bundle::Bundle;
pub use self::error::{AllocError, DeallocError, Exhaustion, PoolError};
#[cfg(not(all(test, loom)))]
pub use self::local_cache::LocalCache;
#[cfg(not(all(test, loom)))]
pub use self::options::PoolOptions;
#[cfg(not(all(test, loom)))]
pub use self::pool::SlabPool;
#[cfg(not(all(test, loom)))]
pub use self::raw::BlockInfo;
pub use self::size_class::SizeClass;
#[cfg(not(all(test, loom)))]
pub use self::stats::{ClassStats, PoolStats};
pub use self::trim::Trimmed;
