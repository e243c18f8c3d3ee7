//! Slabs: who owns which bytes of a span.

mod geometry;
mod size_class;

pub use self::size_class::SizeClass;
