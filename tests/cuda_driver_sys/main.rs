//! The feature `cuda-driver-sys`: both crates speak of the same driver in the same words.
//!
//! A binary of its own, since that crate links libcuda. It needs one with a device at run time:
//!
//! ```text
//! WHARF_LIBCUDA_DIR=FOLDER cargo test --features cuda-driver-sys --test cuda_driver_sys
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod layouts;
mod shared;
mod values;
