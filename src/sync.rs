//! The one door to atomics, cells and threads: `std`, or `loom` when the models run.
//!
//! Every other module names these primitives through here, so a structure that compiles
//! is a structure that `loom` can check. Nondeterminism (thread numbers, random seeds) goes
//! through the same door.

#[cfg(not(all(test, loom)))]
pub(crate) use std::sync::atomic;

#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic;
