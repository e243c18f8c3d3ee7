//! Errors, both ways.

use cudarc::driver::{DriverError, sys::CUresult as Theirs};
use wharf::graph::GraphError;
use wharf::sys::bindings::CUresult;
use wharf::{CudaError, Error};

/// cudarc's error as wharf's. cudarc does not say which call it was.
pub fn from_cudarc(error: DriverError) -> Error {
    // Success is no error, and so not in one.
    let code = CudaError::new(CUresult(error.0 as u32)).unwrap_or(CudaError::UNKNOWN);
    Error::Driver { call: "cudarc", code }
}

/// wharf's error as cudarc's, for functions that return that: the driver's code, if it is one that
/// every version of cudarc knows, or the code that says most nearly the same.
pub fn to_cudarc(error: &Error) -> DriverError {
    let code = match error {
        Error::Driver { code, .. } => return DriverError(theirs(*code)),
        Error::Unsupported { .. } => Theirs::CUDA_ERROR_NOT_SUPPORTED,
        Error::TooManyStreams { .. } => Theirs::CUDA_ERROR_OUT_OF_MEMORY,
        _ if error.is_out_of_memory() => Theirs::CUDA_ERROR_OUT_OF_MEMORY,
        Error::System { .. } => Theirs::CUDA_ERROR_OPERATING_SYSTEM,
        Error::OtherThread | Error::StreamForgotten => Theirs::CUDA_ERROR_INVALID_HANDLE,
        Error::OtherDevice { .. } => Theirs::CUDA_ERROR_INVALID_CONTEXT,
        _ => Theirs::CUDA_ERROR_UNKNOWN,
    };
    DriverError(code)
}

/// What a capture makes of keeping something alive.
pub(crate) fn of_graph(error: GraphError) -> Error {
    match error {
        GraphError::Driver(error) | GraphError::Capture { error, .. } => error,
        _ => Error::Driver { call: CAPTURE, code: CudaError::STREAM_CAPTURE_INVALIDATED },
    }
}

/// The error of a capture that cannot have what it is given.
pub(crate) const fn not_in_a_capture(call: &'static str) -> Error {
    Error::Driver { call, code: CudaError::STREAM_CAPTURE_UNSUPPORTED }
}

const CAPTURE: &str = "keeping memory alive in a capture";

/// cudarc's code is an enumeration, which has no other values.
fn theirs(code: CudaError) -> Theirs {
    const CODES: &[(CudaError, Theirs)] = &[
        (CudaError::INVALID_VALUE, Theirs::CUDA_ERROR_INVALID_VALUE),
        (CudaError::OUT_OF_MEMORY, Theirs::CUDA_ERROR_OUT_OF_MEMORY),
        (CudaError::NOT_INITIALIZED, Theirs::CUDA_ERROR_NOT_INITIALIZED),
        (CudaError::DEINITIALIZED, Theirs::CUDA_ERROR_DEINITIALIZED),
        (CudaError::NO_DEVICE, Theirs::CUDA_ERROR_NO_DEVICE),
        (CudaError::INVALID_DEVICE, Theirs::CUDA_ERROR_INVALID_DEVICE),
        (CudaError::INVALID_CONTEXT, Theirs::CUDA_ERROR_INVALID_CONTEXT),
        (CudaError::ECC_UNCORRECTABLE, Theirs::CUDA_ERROR_ECC_UNCORRECTABLE),
        (CudaError::OPERATING_SYSTEM, Theirs::CUDA_ERROR_OPERATING_SYSTEM),
        (CudaError::INVALID_HANDLE, Theirs::CUDA_ERROR_INVALID_HANDLE),
        (CudaError::ILLEGAL_STATE, Theirs::CUDA_ERROR_ILLEGAL_STATE),
        (CudaError::NOT_FOUND, Theirs::CUDA_ERROR_NOT_FOUND),
        (CudaError::NOT_READY, Theirs::CUDA_ERROR_NOT_READY),
        (CudaError::ILLEGAL_ADDRESS, Theirs::CUDA_ERROR_ILLEGAL_ADDRESS),
        (CudaError::LAUNCH_TIMEOUT, Theirs::CUDA_ERROR_LAUNCH_TIMEOUT),
        (CudaError::CONTEXT_IS_DESTROYED, Theirs::CUDA_ERROR_CONTEXT_IS_DESTROYED),
        (CudaError::ASSERT, Theirs::CUDA_ERROR_ASSERT),
        (CudaError::LAUNCH_FAILED, Theirs::CUDA_ERROR_LAUNCH_FAILED),
        (CudaError::NOT_PERMITTED, Theirs::CUDA_ERROR_NOT_PERMITTED),
        (CudaError::NOT_SUPPORTED, Theirs::CUDA_ERROR_NOT_SUPPORTED),
        (CudaError::STREAM_CAPTURE_UNSUPPORTED, Theirs::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
        (CudaError::STREAM_CAPTURE_INVALIDATED, Theirs::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
        (CudaError::STREAM_CAPTURE_UNJOINED, Theirs::CUDA_ERROR_STREAM_CAPTURE_UNJOINED),
        (CudaError::STREAM_CAPTURE_ISOLATION, Theirs::CUDA_ERROR_STREAM_CAPTURE_ISOLATION),
        (CudaError::STREAM_CAPTURE_IMPLICIT, Theirs::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
        (CudaError::STREAM_CAPTURE_WRONG_THREAD, Theirs::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD),
    ];
    let known = CODES.iter().find(|(ours, _)| *ours == code);
    known.map_or(Theirs::CUDA_ERROR_UNKNOWN, |(_, theirs)| *theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_way_there_and_back() {
        for code in [1, 2, 100, 101, 201, 400, 600, 700, 719, 801, 900, 905, 908] {
            let code = CudaError::new(CUresult(code)).unwrap();
            let there = to_cudarc(&Error::Driver { call: "cuX", code });
            assert_eq!(from_cudarc(there), Error::Driver { call: "cudarc", code });
        }
        let newer = Error::Driver { call: "cuX", code: CudaError::KEY_ROTATION };
        assert_eq!(to_cudarc(&newer).0, Theirs::CUDA_ERROR_UNKNOWN);
        assert_eq!(to_cudarc(&Error::StreamForgotten).0, Theirs::CUDA_ERROR_INVALID_HANDLE);
    }

    #[test]
    fn what_is_out_of_memory_stays_so() {
        let (wanted, used, limit, free, total, is_group) = (2, 1, 2, 1, 4, false);
        for error in [
            Error::OverBudget { wanted, used, limit },
            Error::HostMemory { wanted, free, total, is_group },
            Error::System { call: "mmap", errno: 12 },
        ] {
            assert!(error.is_out_of_memory());
            assert_eq!(to_cudarc(&error).0, Theirs::CUDA_ERROR_OUT_OF_MEMORY, "{error}");
        }
    }
}
