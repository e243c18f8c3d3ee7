//! Elements: the types that buffers and slots hold, in Rust and by name.
//!
//! [`Element`] marks the Rust types of which every bit pattern is a value, so that the device may
//! write them; [`DType`] names the same types at run time, as tensors do.

mod dtype;
mod types;

pub use self::dtype::DType;
pub(crate) use self::types::bytes_of;
pub use self::types::{Bf16, Bool, Element, F8E4M3, F8E5M2, F16};
