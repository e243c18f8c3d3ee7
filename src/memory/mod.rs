//! Where bytes come from: one reserved span of addresses a resource.
//!
//! Every engine uses [`DeviceMemoryResource`] and [`PinnedMemoryResource`], and gives them to a
//! [`Pool`](crate::pool::Pool). [`MemoryResource`] is for resources of its own,
//! [`UnbackedResource`] for tests.
//!
//! Reserve, then commit. A [`MemoryResource`] reserves its whole span first and puts memory
//! behind pieces of it later, so an address is always `base + offset`, never moves, and
//! says by arithmetic which piece it lies in.
//!
//! ```text
//!   base                                                    base + size
//!    |  committed  |          reserved         | committed |     |
//!    +-------------+---------------------------+-----------+-----+
//!    0             ^ offsets: multiples of granularity()
//! ```
//!
//! | resource | reserves | commits |
//! |---|---|---|
//! | [`PinnedMemoryResource`] | host addresses | pages near the device, filled, registered |
//! | [`WriteCombinedMemoryResource`] | one allocation | nothing: it keeps account |
//! | [`DeviceMemoryResource`] | device addresses | memory that is created and mapped |
//! | [`ManagedMemoryResource`] | one allocation | nothing: pages come when they are touched |
//! | [`FileMappedMemoryResource`] | a mapping of the file | its pages, registered |
//!
//! Where the driver cannot do this, pinned and device memory are one allocation, and pages of a
//! file are not within the device's reach.
//!
//! A span that is one allocation is memory from its first use on, all of it: it is allocated when
//! its base is first asked for or memory committed. A pool with a limit has its resource allocate
//! no more than that, by [`limit_to`](MemoryResource::limit_to).
//!
//! A [`WiredResource`] has a transport register what it commits: one registration a commit. While a
//! [`Lease`] holds a piece, it is not decommitted.
//!
//! A [`Budget`] limits what several pools, tiers and sets commit together, and says who has it.
//!
//! The [`ResourceReport`] of each says what it has obtained, and how long the driver took.
//!
//! # Errors
//!
//! A commit that fails leaves the range as it was. What cannot be taken back, then or in a
//! decommit, stays where it is and is not used again; the drop tries once more, and leaks what the
//! device may still have. A commit may be made while any thread captures a stream: it does not
//! disturb the capture. In a forked child every commit and decommit is [`Error::Forked`].

mod allocation;
mod budget;
mod budgeted;
mod descriptor;
mod device;
mod device_options;
mod file_mapped;
mod file_span;
mod first_touch;
mod granule;
mod host_memory;
mod host_span;
mod huge_page;
mod lease;
mod managed;
mod mapped_span;
mod numa;
mod owner;
mod physical;
pub(crate) mod piece_map;
pub(crate) mod piece_table;
mod pieces;
mod pinned;
mod reach;
mod registered_span;
mod registration;
mod registrations;
mod report;
mod share;
mod span;
mod unbacked;
mod whole_span;
mod wire;
mod wired;
mod write_combined;

pub use self::budget::{Budget, BudgetUse};
pub use self::budgeted::Budgeted;
pub use self::descriptor::Descriptor;
pub use self::device::DeviceMemoryResource;
pub use self::device_options::{Ask, DeviceOptions, Granted, Handles};
pub use self::file_mapped::FileMappedMemoryResource;
pub use self::host_memory::HostMemory;
pub use self::huge_page::PageTier;
pub use self::lease::Lease;
pub use self::managed::{Advice, Location, ManagedMemoryResource};
pub use self::numa::NumaNode;
pub use self::physical::PhysicalMemory;
pub use self::pieces::Pieces;
pub(crate) use self::pieces::joined_device_address;
pub use self::pinned::{PinnedMemoryResource, PinnedOptions};
pub use self::registrations::{LeaseError, Registrations};
pub use self::report::{Backing, Pages, ResourceReport};
pub use self::share::{ImportedPiece, ShareableHandle, dma_buf};
pub use self::unbacked::{Faults, UnbackedResource};
pub use self::wire::{Piece, Wire};
pub use self::wired::WiredResource;
pub use self::write_combined::WriteCombinedMemoryResource;

use crate::error::{CudaError, Error};

/// One span of addresses, and the means to put memory behind pieces of it.
///
/// Ranges are offsets into the span, in bytes, `start .. start + len`, both multiples of
/// [`granularity`](Self::granularity). Calls on ranges that do not overlap may come from several
/// threads at once.
///
/// # Safety
///
/// An implementation promises, for as long as the resource lives:
///
/// * `base() .. base() + size()` is reserved for this resource: no other object's addresses
///   lie in it. It does not wrap, and `base()` is not 0.
/// * `base`, `size`, `granularity`, `kind` and `ordinal` return the same values every time; only
///   [`limit_to`](Self::limit_to) may make the size less, and settles the base.
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
/// // SAFETY: the range is not committed, and nothing else uses this resource.
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

    /// The kind of memory.
    fn kind(&self) -> MemoryKind;

    /// The device whose memory this is, or that it is registered with.
    fn ordinal(&self) -> Option<i32>;

    /// The devices besides [`ordinal`](Self::ordinal) whose streams may use the memory, by ordinal.
    /// By default none. A resource made of another one passes it on.
    fn peers(&self) -> &[i32] {
        &[]
    }

    /// Fixes the base of the span, and limits it to `bytes` committed at a time.
    ///
    /// A pool calls it once, before any other thread has the resource. Where a span is memory as
    /// soon as it has addresses, the resource takes no more than that (in whole granules, at least
    /// one), and [`size`](Self::size) is less from then on, unless its base was asked for or memory
    /// committed before. Elsewhere, and by default, it does nothing. A resource made of another one
    /// passes it on.
    ///
    /// # Errors
    ///
    /// The driver's error, if the memory could not be had; that of a [`WiredResource`] whose
    /// [`Registrations`] are held, if its span is one allocation. Nothing was taken.
    fn limit_to(&mut self, bytes: usize) -> Result<(), Error> {
        let _ = bytes;
        Ok(())
    }

    /// Whether the span is one allocation, which [`limit_to`](Self::limit_to) makes. By default it
    /// is not. A resource made of another one passes it on.
    fn is_whole(&self) -> bool {
        false
    }

    /// Whether the calling process may use the memory: a forked child has none of it.
    ///
    /// # Errors
    ///
    /// [`Error::Forked`]: it is such a child.
    fn check_fork(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Where the device sees `len` bytes from `offset` of the span on; `None` if it does not see
    /// all of them, or not in one piece.
    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        (offset.checked_add(len)? <= self.size()).then(|| self.base() + offset as u64)
    }

    /// How many of `len` bytes from `offset` of the span on lie in one piece, for the driver's
    /// copies and fills.
    ///
    /// Host memory that is registered with the driver has a piece for each registration, and the
    /// driver refuses a copy that leaves one. Memory of which this is not true is one piece.
    fn piece_len(&self, offset: usize, len: usize) -> usize {
        let _ = offset;
        len
    }

    /// The pieces that `len` bytes from `offset` of the span on lie in, as ranges of offsets: what
    /// the driver copies or fills in one call each.
    fn pieces(&self, offset: usize, len: usize) -> Pieces<'_, Self>
    where
        Self: Sized,
    {
        Pieces { resource: self, left: offset..offset.saturating_add(len) }
    }

    /// The physical memory that commits take from, at this moment; `None` where that is not known.
    ///
    /// May call the driver or the system.
    fn physical_memory(&self) -> Option<PhysicalMemory> {
        None
    }

    /// Notes that the resource is leaked, and `bytes` of committed memory with it: blocks of
    /// it were in use when its pool ended. It is not dropped then, and not used again.
    ///
    /// The resources of this crate count it in
    /// [`Context::drop_errors`](crate::Context::drop_errors), and tell the hook of
    /// [`Driver::on_drop_error`](crate::Driver::on_drop_error). By default this does nothing. A
    /// resource made of another one passes it on.
    fn note_leak(&self, bytes: usize) {
        let _ = bytes;
    }

    /// Makes a call to other code that needs the memory's context, such as a transport's: with that
    /// context current and the thread's stream captures relaxed, where the memory has one.
    ///
    /// A resource made of another one passes it on.
    ///
    /// # Errors
    ///
    /// The driver's error: the context cannot be used. `call` was not called then.
    fn with_context(&self, call: &mut dyn FnMut()) -> Result<(), Error> {
        call();
        Ok(())
    }

    /// Returns whether a range that is not committed may be: `false` after a commit that failed
    /// and could not be undone. Its memory may be there still, and is not used again. By default
    /// it may be. A resource made of another one passes it on.
    fn is_free(&self, offset: usize, len: usize) -> bool {
        let _ = (offset, len);
        true
    }

    /// Keeps committed host memory from forked children, again: code that ended a registration of
    /// it may have advised the system otherwise. By default it does nothing. A resource made of
    /// another one passes it on.
    fn keep_from_children(&self, offset: usize, len: usize) {
        let _ = (offset, len);
    }

    /// The pieces that a transport has registered; `None` where there is no transport.
    ///
    /// A resource made of another one passes it on.
    fn registrations(&self) -> Option<Registrations> {
        None
    }

    /// Commits `len` bytes from `offset` on: puts memory behind them.
    ///
    /// May call the driver, and block in it.
    ///
    /// # Errors
    ///
    /// The driver's or the system's error; nothing of the range is committed then.
    ///
    /// # Safety
    ///
    /// * The range lies in the span and is a multiple of the granularity at both ends.
    /// * No byte of it is committed, and no other call commits one meanwhile.
    unsafe fn commit(&self, offset: usize, len: usize) -> Result<(), Error>;

    /// Takes the memory behind a committed range away for a while; the range stays this resource's,
    /// and the device's addresses the same.
    ///
    /// [`resume`](Self::resume) puts memory behind it again, and [`decommit`](Self::decommit) ends
    /// it. May call the driver, and block in it until the device has done what it was given.
    ///
    /// # Errors
    ///
    /// The driver's error, with [`NOT_SUPPORTED`](crate::CudaError::NOT_SUPPORTED) where memory
    /// cannot come and go, which is the default. The range is as it was.
    ///
    /// # Safety
    ///
    /// * As of [`decommit`](Self::decommit): exactly the range of one `commit`, not decommitted or
    ///   suspended since.
    /// * Neither the host nor the device uses it before it is resumed.
    unsafe fn suspend(&self, offset: usize, len: usize) -> Result<(), Error> {
        let _ = (offset, len);
        Err(CANNOT_SUSPEND)
    }

    /// Puts memory behind a suspended range again. Its contents are undefined.
    ///
    /// May call the driver, and block in it.
    ///
    /// # Errors
    ///
    /// The driver's error; the range is suspended as before.
    ///
    /// # Safety
    ///
    /// The range is exactly that of one [`suspend`](Self::suspend) that was successful, not resumed
    /// or decommitted since.
    unsafe fn resume(&self, offset: usize, len: usize) -> Result<(), Error> {
        let _ = (offset, len);
        Err(CANNOT_SUSPEND)
    }

    /// Decommits a range: takes the memory behind it away.
    ///
    /// May call the driver, and block in it until the device has done what it was given.
    ///
    /// # Errors
    ///
    /// * [`Error::Leased`]: a lease holds a part of it. Nothing has changed.
    /// * The driver's or the system's error; the range then counts as committed for ever, and its
    ///   addresses are not used again.
    ///
    /// # Safety
    ///
    /// * The range is exactly the range of one earlier `commit`, not decommitted since: pieces
    ///   are never joined or cut.
    /// * Neither the host nor the device uses it, now or later.
    unsafe fn decommit(&self, offset: usize, len: usize) -> Result<(), Error>;
}

/// The error of a suspension where memory comes once and stays.
pub(crate) const CANNOT_SUSPEND: Error =
    Error::Driver { call: "suspension of memory", code: CudaError::NOT_SUPPORTED };

/// The kind of memory that a resource holds.
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
