//! Errors, both ways.

use cuda_core::DriverError;
use wharf::sys::bindings::CUresult;
use wharf::{CudaError, Error};

/// cuda-core's error as wharf's. cuda-core does not say which call it was.
pub fn from_cuda_core(error: DriverError) -> Error {
    // Success is no error, and so not in one.
    let code = CudaError::new(CUresult(error.0)).unwrap_or(CudaError::UNKNOWN);
    Error::Driver { call: "cuda-core", code }
}

/// wharf's error as cuda-core's: the driver's code, or the code that says most nearly the same.
pub fn to_cuda_core(error: &Error) -> DriverError {
    let code = match error {
        Error::Driver { code, .. } => *code,
        Error::Unsupported { .. } => CudaError::NOT_SUPPORTED,
        Error::TooManyStreams { .. } => CudaError::OUT_OF_MEMORY,
        _ if error.is_out_of_memory() => CudaError::OUT_OF_MEMORY,
        Error::System { .. } => CudaError::OPERATING_SYSTEM,
        Error::OtherThread | Error::StreamForgotten => CudaError::INVALID_HANDLE,
        Error::OtherDevice { .. } => CudaError::INVALID_CONTEXT,
        _ => CudaError::UNKNOWN,
    };
    DriverError(code.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_way_there_and_back() {
        for code in [1, 2, 100, 101, 201, 400, 600, 700, 719, 801, 900, 905, 908] {
            let code = CudaError::new(CUresult(code)).unwrap();
            let there = to_cuda_core(&Error::Driver { call: "cuX", code });
            assert_eq!(from_cuda_core(there), Error::Driver { call: "cuda-core", code });
        }
        let gone = to_cuda_core(&Error::StreamForgotten);
        assert_eq!(from_cuda_core(gone).code(), Some(CudaError::INVALID_HANDLE));
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
            let there = to_cuda_core(&error);
            assert_eq!(from_cuda_core(there).code(), Some(CudaError::OUT_OF_MEMORY), "{error}");
        }
    }
}
