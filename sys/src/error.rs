//! Errors of calls to the driver and to the system.
//!
//! Nothing here allocates, and nothing needs a loaded driver to be printed.

use core::fmt;

use crate::code::CudaError;

/// A call to the driver or the system that failed. The call had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The driver call `call` returned `code`.
    Driver {
        /// The entry point, as the driver API reference names it.
        call: &'static str,
        /// The result code.
        code: CudaError,
    },
    /// The loaded driver has no `call`.
    Unsupported {
        /// The entry point, as the driver API reference names it.
        call: &'static str,
        /// The CUDA version it came with, as 1000 * major + 10 * minor.
        introduced: u32,
    },
    /// The system call `call` failed.
    System {
        /// The system call.
        call: &'static str,
        /// The value of `errno`.
        errno: i32,
    },
    /// The process is a fork of the one that loaded the driver, and cannot use it.
    Forked,
    /// The stream is the per-thread default stream of another thread. Nothing was submitted.
    OtherThread,
    /// The stream was forgotten, or its owner has ended, while an object of it was kept. Nothing
    /// was submitted.
    StreamForgotten,
    /// A pool tracks as many streams as it supports: the device has not completed their work yet,
    /// or objects refer to them. Nothing was submitted.
    TooManyStreams {
        /// The number of streams that the pool supports.
        max: usize,
    },
    /// The host, or the control group of the process, has too little memory for a commit. The
    /// system would have ended the process.
    HostMemory {
        /// The size of the commit, in bytes.
        wanted: usize,
        /// The memory that is free, in bytes.
        free: usize,
        /// The memory of the host, or the limit of the group, in bytes.
        total: usize,
        /// Whether the limit is the group's.
        is_group: bool,
    },
    /// Pools, tiers and sets that share a budget would have committed more than it has. Nothing was
    /// committed.
    OverBudget {
        /// The size of the commit, in bytes.
        wanted: usize,
        /// The bytes that all of them had committed.
        used: usize,
        /// The limit of the budget, in bytes.
        limit: usize,
    },
    /// An operation would have used memory of one device on a stream of another. Nothing was
    /// submitted.
    OtherDevice {
        /// The ordinal of the stream's device.
        stream: i32,
        /// The ordinal of the device whose memory it is.
        memory: i32,
    },
    /// The pool sleeps, or is on its way there or back: its addresses have no memory behind them.
    /// Nothing was allocated or submitted.
    Asleep,
    /// A pool was dropped while its blocks were in use, by their owners or by the device. Their
    /// memory is leaked, since it must not be used again. Reported to the hook for errors in drops
    /// only.
    Leaked {
        /// The size of the leaked memory, in bytes.
        bytes: usize,
    },
    /// Leases hold a piece of memory that was to be decommitted. It is as it was.
    Leased,
    /// A transport refused to register memory, or to end a registration.
    Transport {
        /// The transport's function.
        call: &'static str,
        /// The transport's code.
        code: i32,
    },
}

impl Error {
    /// The entry point or the system call that failed; `"fork"` or `"stream"` where the library
    /// refused the call, `"sleep of a pool"` while a pool sleeps, `"end of a pool"` for a leak,
    /// `"lease"` where one holds memory.
    pub fn call(&self) -> &'static str {
        match self {
            Self::Driver { call, .. }
            | Self::Unsupported { call, .. }
            | Self::System { call, .. }
            | Self::Transport { call, .. } => call,
            Self::Leased => "lease",
            Self::Forked => "fork",
            Self::HostMemory { .. } => "commit of host memory",
            Self::Asleep => "sleep of a pool",
            Self::OverBudget { .. } => "commit within a budget",
            Self::Leaked { .. } => "end of a pool",
            Self::OtherThread
            | Self::StreamForgotten
            | Self::TooManyStreams { .. }
            | Self::OtherDevice { .. } => "stream",
        }
    }

    /// The driver's result code, if the driver returned the error.
    pub fn code(&self) -> Option<CudaError> {
        match self {
            Self::Driver { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Returns whether the device, the host, a file system or a budget had too little memory. The
    /// call may succeed when memory is freed, in this process or another.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Driver { code, .. } => *code == CudaError::OUT_OF_MEMORY,
            Self::System { errno, .. } => matches!(*errno, libc::ENOMEM | libc::ENOSPC),
            Self::HostMemory { .. } | Self::OverBudget { .. } => true,
            _ => false,
        }
    }
}

impl Error {
    /// The text of an error that the library decided by itself, and that has no figures.
    fn refusal(&self) -> &'static str {
        match self {
            Self::Forked => {
                "this process was forked from the one that loaded the driver, and cannot use it: \
                 call exec or exit"
            }
            Self::OtherThread => {
                "the stream is the per-thread default stream of another thread: use it on that \
                 thread, or create a stream"
            }
            Self::StreamForgotten => {
                "the stream was forgotten or destroyed while this object still refers to it: \
                 borrow the stream again if it still exists"
            }
            Self::Asleep => {
                "the pool sleeps, and its addresses have no memory behind them: wake the pool first"
            }
            Self::Leased => {
                "the memory is leased, so a transport or a peer may still use it: end all leases \
                 before the memory is given back"
            }
            _ => "",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver { call, code } => write!(f, "{call}: {code}"),
            Self::Unsupported { call, introduced } => {
                write!(f, "{call} is not in the loaded driver; it was introduced in CUDA ")?;
                version(f, *introduced)?;
                f.write_str(": update the driver")
            }
            Self::System { call, errno } => {
                write!(f, "{call}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::HostMemory { wanted, free, total, is_group } => {
                write!(
                    f,
                    "cannot commit {wanted} bytes of host memory: {free} bytes of {total} are free"
                )?;
                f.write_str(if *is_group {
                    " in the process's control group; raise its limit (memory.max) or commit less \
                     (max_bytes)"
                } else {
                    "; commit less (max_bytes) or free memory of other programs"
                })
            }
            Self::OverBudget { wanted, used, limit } => write!(
                f,
                "cannot commit {wanted} bytes: {used} of the {limit} bytes of the budget are \
                 committed; free or trim the pools that share it, or raise it"
            ),
            Self::TooManyStreams { max } => write!(
                f,
                "the pool already tracks {max} streams, the most it supports: drop streams and \
                 wait until their work is complete"
            ),
            Self::OtherDevice { stream, memory } => write!(
                f,
                "a stream of device {stream} cannot use memory of device {memory}: use a stream \
                 of device {memory} or memory of device {stream}"
            ),
            Self::Leaked { bytes } => write!(
                f,
                "{bytes} bytes leaked because blocks were in use when their pool was dropped: \
                 drop all blocks and wait for the device before dropping the pool"
            ),
            Self::Transport { call, code } => write!(
                f,
                "{call}: the transport returned {code}: see its log, and its limits of registered \
                 memory"
            ),
            Self::Forked
            | Self::OtherThread
            | Self::StreamForgotten
            | Self::Asleep
            | Self::Leased => f.write_str(self.refusal()),
        }
    }
}

impl core::error::Error for Error {}

/// Writes a CUDA version as people do: 12.3 for 12030.
pub(crate) fn version(f: &mut fmt::Formatter<'_>, version: u32) -> fmt::Result {
    write!(f, "{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_happened_and_what_to_do() {
        let driver = Error::Driver { call: "cuMemAlloc", code: CudaError::OUT_OF_MEMORY };
        assert_eq!(driver.to_string(), "cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2)");
        let absent = Error::Unsupported { call: "cuGraphAddNode", introduced: 12_020 };
        assert!(absent.to_string().contains("CUDA 12.2"), "{absent}");
    }
}
