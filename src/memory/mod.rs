//! Where bytes come from: one reserved span of addresses a resource.
//!
//! Reserve, then commit. A [`MemoryResource`] reserves its whole span when it is made and puts
//! memory behind pieces of it later, so an address is always `base + offset`, never moves, and
//! says by arithmetic which piece it lies in.
//!
//! ```text
//!   base                                                    base + size
//!    |  committed  |          reserved         | committed |     |
//!    +-------------+---------------------------+-----------+-----+
//!    0             ^ offsets: multiples of granularity()
//! ```
//!
//! | resource | reserve | commit | where the driver cannot |
//! |---|---|---|---|
//! | [`PinnedMemoryResource`] | addresses of the host | pages near the device, huge, filled, registered | one pinned allocation |
//! | [`WriteCombinedMemoryResource`] | one allocation | account only | |
//! | [`DeviceMemoryResource`] | addresses of the device | memory created and mapped | one device allocation |
//! | [`ManagedMemoryResource`] | one allocation | account only: pages come when touched | |
//! | [`FileMappedMemoryResource`] | a mapping of the file | pages read in or set aside, registered | pages the device does not reach |
//!
//! What each obtained, and how long that kept the driver busy, is in its [`ResourceReport`].
//!
//! # Errors
//!
//! A commit that fails leaves the range as it was. What cannot be taken back, then or in a decommit,
//! stays where it is and is not used again; the drop tries once more, and leaks what the device may
//! still have. A commit may be made while any thread captures a stream: it does not disturb the
//! capture. In a forked child every commit and decommit is [`Error::Forked`].

mod device;
mod file_mapped;
mod file_span;
mod granule;
mod host_span;
mod huge_page;
mod managed;
mod mapped_span;
mod numa;
mod owner;
mod piece_map;
mod pinned;
mod registered_span;
mod registration;
mod report;
mod span;
mod unbacked;
mod whole_span;
mod write_combined;

pub use self::device::DeviceMemoryResource;
pub use self::file_mapped::FileMappedMemoryResource;
pub use self::huge_page::PageTier;
pub use self::managed::{Advice, Location, ManagedMemoryResource};
pub use self::numa::NumaNode;
pub use self::pinned::{PinnedMemoryResource, PinnedOptions};
pub use self::report::{Backing, Pages, ResourceReport};
pub use self::unbacked::{Faults, UnbackedResource};
pub use self::write_combined::WriteCombinedMemoryResource;

use crate::error::Error;

/// One span of addresses, and the means to put memory behind pieces of it.
///
/// Ranges are offsets into the span, in bytes, `start .. start + len`, both multiples of
/// [`granularity`](Self::granularity). Calls on ranges that do not overlap may come from several
/// threads at once.
///
/// # Safety
///
/// Whoever implements it promises, for as long as the resource lives:
///
/// * `base() .. base() + size()` is reserved for this resource: no other object's addresses
///   lie in it. It does not wrap, and `base()` is not 0.
/// * `base`, `size`, `granularity`, `kind` and `ordinal` return the same values every time.
/// * `granularity()` is a power of two; `base()` and `size()` are multiples of it.
/// * After `commit` returned `Ok`, the range is memory of that kind until `decommit` of it.
/// * A `commit` that failed has committed nothing of its range.
/// * Memory of the kinds that the host reaches is readable and writable at its address.
///
/// Not required: that the CPU can read or write the memory, or that it is zero. The crate's
/// structures lie elsewhere and never touch it.
///
/// # Examples
///
/// ```
/// use wharf::memory::{MemoryResource, UnbackedResource};
///
/// let resource = UnbackedResource::new(1 << 30)?;
/// // SAFETY: the range is not committed, and nobody else uses this resource.
/// unsafe { resource.commit(0, resource.granularity()) }?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[expect(unsafe_code, reason = "an implementation vouches for addresses")]
pub unsafe trait MemoryResource: Send + Sync {
    /// The address of the first byte of the span.
    fn base(&self) -> u64;

    /// The length of the span, in bytes.
    fn size(&self) -> usize;

    /// The unit of offsets and lengths in `commit` and `decommit`, in bytes.
    fn granularity(&self) -> usize;

    /// What kind of memory this is.
    fn kind(&self) -> MemoryKind;

    /// The device whose memory this is, or that it is registered with.
    fn ordinal(&self) -> Option<i32>;

    /// Where the device sees `len` bytes from `offset` of the span on; `None` if it does not see all
    /// of them, or not in one piece.
    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        (offset.checked_add(len)? <= self.size()).then(|| self.base() + offset as u64)
    }

    /// Puts memory behind `len` bytes from `offset` on.
    ///
    /// May call the driver, and block in it.
    ///
    /// # Errors
    ///
    /// What the driver or the system said; nothing of the range is committed then.
    ///
    /// # Safety
    ///
    /// * The range lies in the span and is a multiple of the granularity at both ends.
    /// * No byte of it is committed, and nobody else commits one meanwhile.
    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error>;

    /// Takes the memory behind a range away again.
    ///
    /// May call the driver, and block in it until the device has done what it was given.
    ///
    /// # Errors
    ///
    /// What the driver or the system said; the range then counts as committed for ever, and
    /// its addresses are not used again.
    ///
    /// # Safety
    ///
    /// * The range is exactly the range of one earlier `commit`, not decommitted since: pieces
    ///   are never joined or cut.
    /// * Neither the host nor the device uses it, now or later.
    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error>;
}

/// What kind of memory a resource holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryKind {
    /// Pinned (page-locked) host memory that the device can read and write.
    Pinned,
    /// Pinned host memory past the CPU's caches, which the host only writes.
    WriteCombined,
    /// Memory of one device.
    Device,
    /// Managed memory: one address for host and device.
    Managed,
    /// A file in host memory, registered with the device where the driver allows it.
    FileMapped,
    /// Addresses with no memory behind them.
    Unbacked,
}
