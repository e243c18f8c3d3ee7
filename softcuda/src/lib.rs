//! A software CUDA driver over host memory.
