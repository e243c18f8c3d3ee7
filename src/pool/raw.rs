//! Buffers as bare handles, for owners on the other side of a foreign interface.

use std::fmt;
use std::sync::Arc;

use super::buffer::Buffer;
use super::core::Core;
use super::error::RawError;
use super::info::BufferInfo;
use super::record::BufferRecord;
use crate::address::to_usize;
use crate::element::Element;
use crate::lockfree::buffer_state::{BufferWord, NotSo};
use crate::sync::atomic::Ordering::Relaxed;

/// A buffer as numbers, which keeps it allocated until a pool [takes](super::Pool::take_raw) it
/// back.
///
/// It may be copied: a copy that is taken back later is found to be stale, in constant time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawBuffer {
    pool: u64,
    address: u64,
    size: usize,
    index: u32,
    generation: u32,
}

impl RawBuffer {
    /// The address of the first byte, for the host where host and device differ.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The size, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The numbers, to be kept by foreign code.
    pub fn to_words(self) -> [u64; 4] {
        let life = u64::from(self.generation) << 32 | u64::from(self.index);
        [self.pool, self.address, self.size as u64, life]
    }

    /// The handle with these numbers. Any are allowed: what is no handle is found when it is taken
    /// back.
    pub fn from_words([pool, address, size, life]: [u64; 4]) -> Self {
        let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0);
        let size = to_usize(size);
        Self { pool, address, size, index: half(life), generation: half(life >> 32) }
    }

    /// The block, if this is a handle of the pool's and the block in the same life.
    pub(super) fn inspect(self, core: &Arc<Core>) -> Result<BufferInfo, RawError> {
        let address = self.address;
        let Some(record) = core.records.made(self.index).filter(|_| self.pool == core.id) else {
            return Err(RawError::WrongPool { address });
        };
        let (info, current) = (BufferInfo::of(core, self.index), record.state.load().generation());
        if current == self.generation && info.generation == current {
            return Ok(info);
        }
        Err(RawError::Stale { address, generation: self.generation, current })
    }

    /// The one handle of a record's life that has just begun, as a bare one.
    #[inline]
    pub(super) fn begin(core: &Core, index: u32, record: &BufferRecord, size: usize) -> Self {
        // A bare handle does not keep the pool.
        drop(record.unpark());
        let generation = record.state.begin_raw();
        let address = record.address.load(Relaxed);
        Self { pool: core.id, address, size, index, generation }
    }

    /// The bare handle of the block that a record holds, if that begins at `address`.
    pub(super) fn at(core: &Core, index: u32, address: u64) -> Option<Self> {
        let record = core.records.made(index)?;
        // Before the address: if the block changes in between, the generation is an old one, and
        // the handle is found to be stale when it is taken.
        let state = record.state.load();
        if !state.is_raw() || record.address.load(Relaxed) != address {
            return None;
        }
        let (pool, size) = (core.id, record.asked.load(Relaxed));
        Some(Self { pool, address, size, index, generation: state.generation() })
    }

    /// The buffer, if this is a handle of the pool's that was not taken back.
    pub(super) fn take(self, core: &Arc<Core>) -> Result<Buffer<u8>, RawError> {
        self.claim(core)?;
        Ok(self.buffer(core))
    }

    /// A buffer beside this handle, if it is one of the pool's that was not taken back.
    pub(super) fn share(self, core: &Arc<Core>) -> Result<Buffer<u8>, RawError> {
        self.change(core, |state| state.share_raw(self.generation))?;
        Ok(self.buffer(core))
    }

    /// Ends this handle where it is the block's only one: the record is the caller's.
    #[inline]
    pub(super) fn end(self, core: &Core) -> Option<&BufferRecord> {
        let record = core.records.seen(self.index).filter(|_| self.pool == core.id)?;
        (self.is_of(record) && record.state.end_raw(self.generation)).then_some(record)
    }

    /// Takes the handle of a block that was not taken back: it is the caller's, in the record that
    /// is returned with its number.
    pub(super) fn claim(self, core: &Core) -> Result<(u32, &BufferRecord), RawError> {
        let record = self.change(core, |state| state.take_raw(self.generation))?;
        Ok((self.index, record))
    }

    /// Changes the state of the block, if this is a handle of the pool's and `change` can.
    fn change(
        self,
        core: &Core,
        change: impl FnOnce(&BufferWord) -> Result<(), NotSo>,
    ) -> Result<&BufferRecord, RawError> {
        let address = self.address;
        let Some(record) = core.records.made(self.index).filter(|_| self.pool == core.id) else {
            return Err(RawError::WrongPool { address });
        };
        if !self.is_of(record) || change(&record.state).is_err() {
            let current = record.state.load().generation();
            return Err(RawError::Stale { address, generation: self.generation, current });
        }
        Ok(record)
    }

    /// Whether the bytes are some of a record's block.
    #[inline]
    fn is_of(self, record: &BufferRecord) -> bool {
        let offset = self.address.wrapping_sub(record.address.load(Relaxed));
        let end = offset.checked_add(self.size as u64);
        end.is_some_and(|end| end <= record.size() as u64)
    }

    /// The buffer of a handle that the caller has.
    fn buffer(self, core: &Arc<Core>) -> Buffer<u8> {
        let record = core.records.get(self.index);
        let offset = to_usize(self.address - record.address.load(Relaxed));
        Buffer::counted(core, record, offset, self.size)
    }
}

impl<T: Element> Buffer<T> {
    /// Gives the buffer up for a bare handle. The buffer comes back if there are other handles to
    /// its block.
    ///
    /// The pool's memory lives as long as the pool or one of its buffers; a bare handle does not
    /// count.
    ///
    /// # Errors
    ///
    /// The buffer.
    pub fn into_raw(self) -> Result<RawBuffer, Self> {
        let record = self.core().records.get(self.index());
        let Ok(generation) = record.state.make_raw() else { return Err(self) };
        let (pool, address, size) = (self.core().id, self.host_address(), self.size());
        let raw = RawBuffer { pool, address, size, index: self.index(), generation };
        // The handle is the bare one's now; only the reference to the pool ends here.
        drop(self.into_core());
        Ok(raw)
    }
}

impl fmt::Debug for RawBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawBuffer({} bytes at {:#x}, life {})", self.size, self.address, self.generation)
    }
}
