//! Where the elements of a buffer are, for the host and for the device.

use std::ops::Range;

use super::buffer::Buffer;
use crate::element::Element;
use crate::error::{CudaError, Error};
use crate::memory::MemoryKind;
use crate::stream::parts;
use crate::sync::atomic::Ordering::Relaxed;

impl<T: Element> Buffer<T> {
    /// The device whose memory it is, or that it is registered with.
    pub(crate) fn ordinal(&self) -> Option<i32> {
        self.core().upstream.resource().ordinal()
    }

    /// The host's address of the first element, where there is one.
    #[inline]
    pub(crate) fn host_address(&self) -> u64 {
        self.record().address.load(Relaxed) + self.offset as u64
    }

    #[inline]
    pub(crate) fn device_address(&self) -> Result<u64, Error> {
        if self.kind() == MemoryKind::Device {
            return Ok(self.host_address());
        }
        self.registered_address()
    }

    /// The device's address of host memory.
    #[inline(never)]
    fn registered_address(&self) -> Result<u64, Error> {
        let (address, size) = (self.host_address(), self.size());
        self.core().upstream.device_address(address, size).ok_or(UNSEEN)
    }

    /// How many of `left` bytes from the one at `at` on one copy may take.
    pub(crate) fn piece_len(&self, at: usize, left: usize) -> usize {
        match self.kind() {
            MemoryKind::Device => left,
            _ => self.core().upstream.piece_len(self.host_address() + at as u64, left),
        }
    }

    /// Makes sure that the device sees all elements, and that one copy may take them.
    pub(crate) fn one_piece(&self) -> Result<(), Error> {
        if self.core().gate.is_asleep() {
            return Err(Error::Asleep);
        }
        self.check_seen(self.size())?;
        if self.size() > 0 && self.piece_len(0, self.size()) < self.size() {
            let call = "address of the device in one piece";
            return Err(Error::Driver { call, code: CudaError::INVALID_VALUE });
        }
        Ok(())
    }

    /// The device's address of some of the bytes, which lie in one piece.
    pub(super) fn part_address(&self, part: &Range<usize>) -> Result<u64, Error> {
        let address = self.host_address() + part.start as u64;
        match self.kind() {
            MemoryKind::Device => Ok(address),
            _ => self.core().upstream.device_address(address, part.len()).ok_or(UNSEEN),
        }
    }

    /// Makes sure that the device sees the first `size` bytes.
    pub(super) fn check_seen(&self, size: usize) -> Result<(), Error> {
        let mut parts = parts(size, |at, left| self.piece_len(at, left));
        parts.try_for_each(|part| self.part_address(&part).map(drop))
    }
}

/// The device does not see memory, or not as one range.
const UNSEEN: Error =
    Error::Driver { call: "address of the device", code: CudaError::INVALID_VALUE };
