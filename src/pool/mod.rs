//! Blocks with the tickets of their last uses.

mod dtype;
mod element;

pub use self::dtype::DType;
pub use self::element::{Bf16, Bool, Element, F8E4M3, F8E5M2, F16};
