//! Integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a failed test panics")]

mod layering;
mod slab;
