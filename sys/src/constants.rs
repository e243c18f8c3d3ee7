//! Constants that the header spells as casts, which bindgen passes over.
//!
//! # References
//!
//! [Data types used by CUDA
//! driver](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html)

use core::ptr;

use crate::bindings::{CUdevice, CUstream};

/// The legacy default stream, which synchronises with the context's blocking streams.
#[doc(alias = "CU_STREAM_LEGACY")]
pub const STREAM_LEGACY: CUstream = ptr::without_provenance_mut(1);

/// The calling thread's own default stream.
#[doc(alias = "CU_STREAM_PER_THREAD")]
pub const STREAM_PER_THREAD: CUstream = ptr::without_provenance_mut(2);

/// The number that stands for the host where a device is asked for.
#[doc(alias = "CU_DEVICE_CPU")]
pub const DEVICE_CPU: CUdevice = -1;

/// The number that stands for no device.
#[doc(alias = "CU_DEVICE_INVALID")]
pub const DEVICE_INVALID: CUdevice = -2;
