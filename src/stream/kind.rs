#![expect(unsafe_code, reason = "calls the driver with a handle")]
//! Kinds and priorities of streams.

use core::ffi::{c_int, c_uint};

use wharf_sys::bindings::CUstream_flags;

use super::Stream;
use crate::error::Error;

/// How a stream stands to the context's legacy default stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Independent of it.
    #[default]
    NonBlocking,
    /// Its work and the legacy stream's wait for each other.
    Blocking,
}

impl StreamKind {
    pub(super) fn flags(self) -> c_uint {
        match self {
            Self::NonBlocking => CUstream_flags::CU_STREAM_NON_BLOCKING.0,
            Self::Blocking => CUstream_flags::CU_STREAM_DEFAULT.0,
        }
    }
}

impl Stream {
    /// How the stream stands to the legacy default stream.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamGetFlags")]
    pub fn kind(&self) -> Result<StreamKind, Error> {
        let mut flags: c_uint = 0;
        self.submit(|api, stream| {
            // SAFETY: the stream is alive and `flags` is valid for writes for the whole call.
            unsafe { api.stream_get_flags.call(stream, &raw mut flags) }
        })?;
        let independent = flags & StreamKind::NonBlocking.flags() != 0;
        Ok(if independent { StreamKind::NonBlocking } else { StreamKind::Blocking })
    }

    /// The priority; a lower number is served first.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`]: the driver refused.
    ///
    /// # References
    ///
    /// [Stream management](https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__STREAM.html)
    #[doc(alias = "cuStreamGetPriority")]
    pub fn priority(&self) -> Result<i32, Error> {
        let mut priority: c_int = 0;
        self.submit(|api, stream| {
            // SAFETY: the stream is alive and `priority` is valid for writes for the whole call.
            unsafe { api.stream_get_priority.call(stream, &raw mut priority) }
        })?;
        Ok(priority)
    }
}
