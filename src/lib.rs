//! Lock-free staging memory for CUDA engines, on the raw driver API.

mod sync;
