//! What can be seen of a buffer.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::core::Core;
use super::record::BufferRecord;
use crate::lockfree::buffer_state::Phase;
use crate::sync::atomic::Ordering::Relaxed;

/// Where a block is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BufferState {
    /// No handle; its memory is back in the slabs.
    #[doc(alias = "FREE")]
    Free,
    /// It has a handle, and was not used by the device yet.
    #[doc(alias = "ALLOCATED")]
    Allocated,
    /// It has a handle, and was used by the device.
    #[doc(alias = "IN_USE")]
    InUse,
    /// No handle; free for the stream that used it last, and for others when the device is past
    /// that.
    Retired,
}

/// A block at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(alias = "BufferEntry")]
pub struct BufferInfo {
    /// The address of its first byte, for the host where host and device differ.
    pub address: u64,
    /// The block's size, in bytes.
    pub size: usize,
    /// What was asked for, in bytes.
    pub asked: usize,
    /// Where it is in its life.
    pub state: BufferState,
    /// How many lives it has had.
    pub generation: u32,
    /// How many buffers hold pieces of it.
    pub handles: u32,
    /// How often work was noted to use it in this life.
    pub use_count: u32,
    /// The last use by each stream that used it.
    pub uses: Vec<StreamUse>,
    /// How long ago it was allocated, where the pool keeps track.
    pub age: Option<Duration>,
    /// Where in the program it was allocated, where the pool keeps track.
    pub site: Option<&'static Location<'static>>,
}

/// The last use of a block by a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StreamUse {
    /// The stream's handle, as a number.
    pub stream: usize,
    /// The number of the use among the stream's tickets in this pool.
    pub ticket: u64,
    /// Whether the device is past it.
    pub complete: bool,
}

impl BufferInfo {
    /// The block of a record.
    pub(super) fn of(core: &Core, index: u32) -> Self {
        let record: &BufferRecord = core.records.get(index);
        let (state, use_count) = (record.state.load(), record.used.load(Relaxed));
        let uses = record.uses().filter_map(|of| {
            let stream = core.slots.get(of.slot).handle()?;
            Some(StreamUse { stream, ticket: of.ticket, complete: core.slots.is_complete(of) })
        });
        let origin = core.track.as_ref().and_then(|track| track.origin(index));
        Self {
            address: record.address.load(Relaxed),
            size: record.size(),
            asked: record.asked.load(Relaxed),
            state: match state.phase() {
                Phase::Free => BufferState::Free,
                Phase::Allocated if use_count == 0 => BufferState::Allocated,
                Phase::Allocated => BufferState::InUse,
                Phase::Retired => BufferState::Retired,
            },
            generation: state.generation(),
            handles: state.handles(),
            use_count,
            uses: uses.collect(),
            age: origin.map(|origin| origin.age()),
            site: origin.map(|origin| origin.site),
        }
    }
}

impl fmt::Display for BufferInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} bytes at {:#x}, {:?}",
            self.asked, self.size, self.address, self.state
        )?;
        if let Some(site) = self.site {
            write!(f, ", from {site}")?;
        }
        self.age.map_or(Ok(()), |age| write!(f, ", {age:?} ago"))
    }
}
