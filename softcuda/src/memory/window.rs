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
    range: Arc<Range>,
    size: usize,
}

/// Addresses for a reservation, or for several in turn: windows of a former one may still be there.
#[derive(Debug)]
pub(crate) struct Range {
    mapping: Mapping,
    /// Granules that windows show, or showed where an operation in flight keeps the window.
    granules: Mutex<BTreeMap<u64, Granule>>,
}

/// The state of a granule of addresses.
#[derive(Debug, Default)]
struct Granule {
    /// The number of the window that was last put there, or zero when that one is gone.
    newest: u64,
    /// The number of live windows that are or were there.
    windows: usize,
}

/// A mapping of physical memory into a reservation.
#[derive(Debug)]
pub(crate) struct Window {
    range: Arc<Range>,
    number: u64,
    address: u64,
    size: usize,
    /// Keeps the bytes.
    _bytes: Arc<Bytes>,
}

impl Reservation {
    pub(crate) fn new(size: usize, align: usize, hint: u64) -> Option<Self> {
        let mapping = Mapping::reserve(size, align, hint)?;
        let range = Arc::new(Range { mapping, granules: Mutex::new(BTreeMap::new()) });
        Some(Self { range, size })
    }

    /// A reservation of the first `size` bytes of `range`.
    pub(crate) fn of(range: Arc<Range>, size: usize) -> Self {
        Self { range, size }
    }

    pub(crate) fn range(&self) -> &Arc<Range> {
        &self.range
    }

    pub(crate) fn address(&self) -> u64 {
        self.range.mapping.address()
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether the range lies inside.
    pub(crate) fn contains(&self, address: u64, size: usize) -> bool {
        let begin = address.checked_sub(self.address());
        let end = begin.and_then(|begin| begin.checked_add(size as u64));
        end.is_some_and(|end| end <= self.size() as u64)
    }

    /// Maps the bytes from `offset` on at the range, which lies inside, without access. `number`
    /// names the window and is not used again.
    pub(crate) fn map(
        &self,
        number: u64,
        address: u64,
        size: usize,
        bytes: &Arc<Bytes>,
        offset: u64,
    ) -> Option<Window> {
        let mut granules = self.range.granules.lock();
        let (file, place) = bytes.locate(offset);
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let in_use = granules_of(address, size).any(|granule| granules.contains_key(&granule));
        let protection = if in_use { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
        // SAFETY: the range lies in this reservation, so replacing what it shows touches nothing
        // else; the file has the bytes.
        let mapped = unsafe {
            libc::mmap(pointer(address), size, protection, flags, file, place.cast_signed())
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        for granule in granules_of(address, size) {
            let granule = granules.entry(granule).or_default();
            granule.newest = number;
            granule.windows += 1;
        }
        drop(granules);
        Some(Window {
            range: Arc::clone(&self.range),
            number,
            address,
            size,
            _bytes: Arc::clone(bytes),
        })
    }
}

impl Range {
    /// Whether a reservation of such a size, aligned so, fits; at `hint`, if it is not zero.
    pub(crate) fn fits(&self, size: usize, align: usize, hint: u64) -> bool {
        let address = self.mapping.address();
        let is_there = hint == 0 || hint == address;
        is_there && size <= self.mapping.size() && address.is_multiple_of(align as u64)
    }
}

impl Window {
    /// Lets the host's threads, which stand for the device's too, do what `access` says; anything
    /// where an operation in flight has an older window.
    pub(crate) fn protect(&self, access: u32) {
        let granules = self.range.granules.lock();
        let is_shared = |granule| granules.get(&granule).is_some_and(|granule| granule.windows > 1);
        let in_use = granules_of(self.address, self.size).any(is_shared);
        let protection = match access {
            _ if in_use => libc::PROT_READ | libc::PROT_WRITE,
            READ_WRITE => libc::PROT_READ | libc::PROT_WRITE,
            READ => libc::PROT_READ,
            _ => libc::PROT_NONE,
        };
        // SAFETY: the range is this window's, which is the newest there while it is in the table.
        unsafe { libc::mprotect(pointer(self.address), self.size, protection) };
    }
}

impl Drop for Window {
    /// Makes the range unusable again, except where there is another window. For an older one,
    /// which an operation in flight has, there are bytes that nothing else sees.
    fn drop(&mut self) {
        let mut granules = self.range.granules.lock();
        for address in granules_of(self.address, self.size) {
            let Some(granule) = granules.get_mut(&address) else { continue };
            granule.windows -= 1;
            let is_last = granule.windows == 0;
            if granule.newest != self.number && !is_last {
                continue;
            }
            granule.newest = 0;
            let protection =
                if is_last { libc::PROT_NONE } else { libc::PROT_READ | libc::PROT_WRITE };
            let flags =
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
            // SAFETY: the granule is in this window's range, and no newer window is there.
            unsafe { libc::mmap(pointer(address), GRANULARITY, protection, flags, -1, 0) };
            if is_last {
                granules.remove(&address);
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
