//! Kinds of errors, which cross languages.

use core::fmt;

use crate::code::CudaError;
use crate::error::Error;
use crate::load_error::LoadError;

/// What a caller can do about an error, as a number that never changes its meaning.
///
/// Every error type of the library has a `kind`. An error's text says what happened; code that has
/// to decide, or that is on the other side of a foreign interface, looks at the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// An argument is wrong, or an object is used in a way that it does not allow. Trying again
    /// fails again.
    Invalid = 1,
    /// The handle or the address names nothing that exists: it was given back before.
    Stale = 2,
    /// The object belongs to another pool, set, context or device.
    WrongOwner = 3,
    /// A limit, the device, the host or a file system has no room. Trying again when memory has
    /// been freed may succeed.
    OutOfMemory = 4,
    /// Something is in use for the moment. Trying again later may succeed.
    WouldBlock = 5,
    /// The device did not get there before the deadline.
    TimedOut = 6,
    /// A stream is being captured, and the call is not for captures, or the capture failed.
    Capturing = 7,
    /// The driver or the device lacks what the call needs.
    Unsupported = 8,
    /// There is no CUDA driver, or no device.
    NoDriver = 9,
    /// The driver returned an error that no other kind names.
    Driver = 10,
    /// The context is lost after a fault of the device: nothing in it can be used any more.
    ContextLost = 11,
    /// The operating system refused.
    System = 12,
    /// The process is a fork of the one that loaded the driver.
    Forked = 13,
}

impl ErrorKind {
    /// The number, which is never 0: foreign interfaces use that for success.
    #[must_use]
    pub fn code(self) -> i32 {
        self as i32
    }
}

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Driver { code, .. } => code.kind(),
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::System { .. } if self.is_out_of_memory() => ErrorKind::OutOfMemory,
            Self::System { .. } => ErrorKind::System,
            Self::Forked => ErrorKind::Forked,
            Self::OtherThread | Self::OtherDevice { .. } => ErrorKind::WrongOwner,
            Self::StreamForgotten => ErrorKind::Stale,
            Self::TooManyStreams { .. } | Self::Asleep | Self::Leaked { .. } | Self::Leased => {
                ErrorKind::WouldBlock
            }
            Self::Transport { .. } => ErrorKind::System,
            Self::HostMemory { .. } | Self::OverBudget { .. } => ErrorKind::OutOfMemory,
        }
    }
}

impl CudaError {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::OUT_OF_MEMORY => ErrorKind::OutOfMemory,
            Self::NOT_READY => ErrorKind::WouldBlock,
            Self::NOT_SUPPORTED => ErrorKind::Unsupported,
            Self::NO_DEVICE => ErrorKind::NoDriver,
            Self::INVALID_VALUE | Self::INVALID_DEVICE => ErrorKind::Invalid,
            Self::INVALID_HANDLE | Self::INVALID_CONTEXT | Self::CONTEXT_IS_DESTROYED => {
                ErrorKind::Stale
            }
            code if CAPTURE.contains(&code.code()) => ErrorKind::Capturing,
            code if code.is_sticky() => ErrorKind::ContextLost,
            _ => ErrorKind::Driver,
        }
    }
}

impl LoadError {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Library { .. } | Self::NotCuda { .. } | Self::NoDevice => ErrorKind::NoDriver,
            Self::TooOld { .. } | Self::Missing { .. } => ErrorKind::Unsupported,
            Self::Init(error) => error.kind(),
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid use",
            Self::Stale => "stale handle",
            Self::WrongOwner => "belongs to another object",
            Self::OutOfMemory => "out of memory",
            Self::WouldBlock => "in use",
            Self::TimedOut => "timed out",
            Self::Capturing => "stream capture",
            Self::Unsupported => "not supported",
            Self::NoDriver => "no driver or device",
            Self::Driver => "error of the driver",
            Self::ContextLost => "context lost",
            Self::System => "error of the system",
            Self::Forked => "forked process",
        })
    }
}

/// What calls return that a capture does not allow, and captures that failed.
const CAPTURE: core::ops::RangeInclusive<u32> = 900..=908;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_were_published() {
        let all = [
            ErrorKind::Invalid,
            ErrorKind::Stale,
            ErrorKind::WrongOwner,
            ErrorKind::OutOfMemory,
            ErrorKind::WouldBlock,
            ErrorKind::TimedOut,
            ErrorKind::Capturing,
            ErrorKind::Unsupported,
            ErrorKind::NoDriver,
            ErrorKind::Driver,
            ErrorKind::ContextLost,
            ErrorKind::System,
            ErrorKind::Forked,
        ];
        assert!(all.iter().map(|kind| kind.code()).eq(1..=13));
    }

    #[test]
    fn codes_of_the_driver_have_the_kind_that_says_what_to_do() {
        let driver = |code| Error::Driver { call: "cuMemAlloc", code }.kind();
        assert_eq!(driver(CudaError::OUT_OF_MEMORY), ErrorKind::OutOfMemory);
        assert_eq!(driver(CudaError::STREAM_CAPTURE_ISOLATION), ErrorKind::Capturing);
        assert_eq!(driver(CudaError::ILLEGAL_ADDRESS), ErrorKind::ContextLost);
        assert_eq!(driver(CudaError::UNKNOWN), ErrorKind::Driver);
        assert_eq!(
            Error::System { call: "mmap", errno: libc::ENOMEM }.kind(),
            ErrorKind::OutOfMemory
        );
        assert_eq!(LoadError::NoDevice.kind(), ErrorKind::NoDriver);
    }
}
