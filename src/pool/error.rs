//! What can go wrong with buffers.

use std::fmt;

use super::info::BufferInfo;
use crate::error::Error;
use crate::memory::MemoryKind;
use crate::timeline::WaitError;

/// Why the host cannot have a buffer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostError {
    /// The host does not reach this kind of memory, or not for reading.
    Kind(MemoryKind),
    /// Other handles to the block could give it to the device meanwhile.
    Shared,
    /// The device is not past its uses.
    Busy(WaitError),
}

/// Why a bare handle was not taken back. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawError {
    /// It is another pool's, or no pool's.
    WrongPool {
        /// The handle's address.
        address: u64,
    },
    /// It was taken back already: freed twice, or used after it was freed.
    Stale {
        /// The handle's address.
        address: u64,
        /// The life of the block that the handle is of.
        generation: u32,
        /// The life that the block is in now.
        current: u32,
    },
    /// No block is handed out at this address: it was freed before, or is not where a block starts.
    NotLive {
        /// The address.
        address: u64,
    },
}

/// What a pool could not give back at its end: buffers that are alive, and memory in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeakReport {
    /// The buffers.
    pub buffers: Vec<BufferInfo>,
    /// Bytes of blocks that no buffer holds, and that the device may still use. They are leaked if
    /// they are in use when the pool goes.
    pub in_use: usize,
}

/// A block could not be freed by its handle or address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeError {
    /// The handle or the address is not that of a block that is handed out.
    Handle(RawError),
    /// The stream cannot have used the block.
    Stream(Error),
}

impl From<RawError> for FreeError {
    fn from(error: RawError) -> Self {
        Self::Handle(error)
    }
}

impl From<Error> for FreeError {
    fn from(error: Error) -> Self {
        Self::Stream(error)
    }
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(error) => error.fmt(f),
            Self::Stream(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FreeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match self {
            Self::Handle(error) => error,
            Self::Stream(error) => error,
        })
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "the host does not read {kind:?} memory"),
            Self::Shared => f.write_str("there are other handles to the block: drop them first"),
            Self::Busy(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for RawError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongPool { address } => {
                write!(f, "the handle of {address:#x} is not this pool's")
            }
            Self::Stale { address, generation, current } => write!(
                f,
                "the handle of {address:#x} is of life {generation} and the block in life \
                 {current}, or its handle is taken back: freed twice?"
            ),
            Self::NotLive { address } => write!(
                f,
                "no block of this pool is handed out at {address:#x}: freed twice, or not the \
                 address that was allocated?"
            ),
        }
    }
}

impl fmt::Display for LeakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.in_use > 0 {
            write!(
                f,
                "the device may still use {} bytes of dropped buffers, which are leaked unless it \
                 is done when the pool is dropped",
                self.in_use
            )?;
        }
        if self.buffers.is_empty() {
            return Ok(());
        }
        let bytes: usize = self.buffers.iter().map(|buffer| buffer.asked).sum();
        let and = if self.in_use > 0 { "; " } else { "" };
        write!(f, "{and}{} buffers of {bytes} bytes are alive", self.buffers.len())?;
        self.buffers.iter().try_for_each(|buffer| write!(f, "\n  {buffer}"))
    }
}

impl std::error::Error for HostError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Busy(error) => Some(error),
            Self::Kind(_) | Self::Shared => None,
        }
    }
}

impl std::error::Error for RawError {}

impl std::error::Error for LeakReport {}
