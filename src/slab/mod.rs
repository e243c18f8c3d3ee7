//! Slabs: who owns which bytes of a span.

mod block;
mod budget;
mod error;
mod geometry;
mod growth;
mod magazine;
mod size_class;
mod span;
mod store;
mod trim;

pub use self::error::{AllocError, DeallocError, Exhaustion, PoolError};
pub use self::size_class::SizeClass;
