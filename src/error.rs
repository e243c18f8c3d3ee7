//! What can go wrong: one small type a situation.
//!
//! A call that fails has created nothing. The types live in `wharf-sys`, next to the table
//! that makes them, so that every layer speaks of the driver's errors in the same words.

pub use wharf_sys::{CudaError, Error, ErrorKind, LoadError};
