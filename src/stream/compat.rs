//! A stream as the crate `cuda-driver-sys` names it.

use super::Stream;
use crate::driver::compat::Raw;

impl From<&Stream> for cuda_driver_sys::CUstream {
    fn from(stream: &Stream) -> Self {
        Raw(stream.as_raw()).into()
    }
}
