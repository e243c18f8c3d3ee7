//! Slabs: who owns which bytes of a span.

mod budget;
mod error;
mod geometry;
mod growth;
mod size_class;
mod store;

pub use self::error::{AllocError, DeallocError, Exhaustion, PoolError};
pub use self::size_class::SizeClass;
