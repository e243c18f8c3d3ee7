#![expect(unsafe_code, reason = "maps files into address space that this module has reserved")]
//! Reserved addresses, and what they show.
//!
//! ```text
//!  reservation   |......|======window A======|..........|==window B==|....|   addresses
//!                          |                                |
//!  physical            [ 0 . . . . . . . ]              [ . 4 . . ]           bytes
//! ```
//!
//! Operations in flight keep their window, so the addresses stay usable for them though the
//! program has unmapped or freed them in the meantime; what they do there is reported. Where
//! the program has mapped something else since, they reach that, as on a device.

use core::ffi::c_void;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::{Mapping, READ, READ_WRITE};
use super::physical::Bytes;

/// Mappings are multiples of this many bytes, in place and in size.
pub(crate) const GRANULARITY: usize = 2 << 20;

/// A range of addresses of `cuMemAddressReserve`.
#[derive(Debug)]
pub(crate) struct Reservation {
    mapping: Mapping,
    /// Which window was last put at each granule, by the window's number.
    granules: Mutex<BTreeMap<u64, u64>>,
}

/// A mapping of physical memory into a reservation.
#[derive(Debug)]
pub(crate) struct Window {
    reservation: Arc<Reservation>,
    number: u64,
    address: u64,
    size: usize,
    /// Keeps the bytes.
    _bytes: Arc<Bytes>,
}

impl Reservation {
    pub(crate) fn new(size: usize, align: usize, hint: u64) -> Option<Self> {
        let mapping = Mapping::reserve(size, align, hint)?;
        Some(Self { mapping, granules: Mutex::new(BTreeMap::new()) })
    }

    pub(crate) fn address(&self) -> u64 {
        self.mapping.address()
    }

    pub(crate) fn size(&self) -> usize {
        self.mapping.size()
    }

    /// Whether the range lies inside.
    pub(crate) fn contains(&self, address: u64, size: usize) -> bool {
        let begin = address.checked_sub(self.address());
        let end = begin.and_then(|begin| begin.checked_add(size as u64));
        end.is_some_and(|end| end <= self.size() as u64)
    }

    /// Shows the bytes from `offset` on at the range, which lies inside. Nobody may touch it yet.
    /// `number` names the window and is not used again.
    pub(crate) fn map(
        self: &Arc<Self>,
        number: u64,
        address: u64,
        size: usize,
        bytes: &Arc<Bytes>,
        offset: u64,
    ) -> Option<Window> {
        let mut granules = self.granules.lock();
        let (file, place) = bytes.locate(offset);
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: the range lies in this reservation, so replacing what it shows touches nothing
        // else; the file has the bytes.
        let mapped =
            unsafe { libc::mmap(pointer(address), size, libc::PROT_NONE, flags, file, place.cast_signed()) };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        granules.extend(granules_of(address, size).map(|granule| (granule, number)));
        drop(granules);
        Some(Window { reservation: Arc::clone(self), number, address, size, _bytes: Arc::clone(bytes) })
    }
}

impl Window {
    /// Lets the host's threads, which stand for the device's too, do what `access` says.
    pub(crate) fn protect(&self, access: u32) {
        let protection = match access {
            READ_WRITE => libc::PROT_READ | libc::PROT_WRITE,
            READ => libc::PROT_READ,
            _ => libc::PROT_NONE,
        };
        // SAFETY: the range is this window's, which is the newest there while it is in the table.
        unsafe { libc::mprotect(pointer(self.address), self.size, protection) };
    }
}

impl Drop for Window {
    /// Makes the range unusable again, except where another window has been put.
    fn drop(&mut self) {
        let mut granules = self.reservation.granules.lock();
        for granule in granules_of(self.address, self.size) {
            if granules.get(&granule) == Some(&self.number) {
                granules.remove(&granule);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
                // SAFETY: the granule is this window's alone, and no operation has the window.
                unsafe { libc::mmap(pointer(granule), GRANULARITY, libc::PROT_NONE, flags, -1, 0) };
            }
        }
    }
}

fn granules_of(address: u64, size: usize) -> impl Iterator<Item = u64> {
    (address..address + size as u64).step_by(GRANULARITY)
}

fn pointer(address: u64) -> *mut c_void {
    crate::address::pointer(address)
}
