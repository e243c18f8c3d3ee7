#![expect(unsafe_code, reason = "maps and unmaps address space")]
//! One allocation.

use core::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// What an allocation is to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `cuMemAlloc` and its kin.
    Device,
    /// `cuMemHostAlloc`, with its flags.
    Pinned { flags: u32 },
    /// `cuMemHostRegister`, with its flags: the caller's memory.
    Registered { flags: u32 },
    /// `cuMemAllocManaged`, with its attach flags.
    Managed { flags: u32 },
    /// From a memory pool, whose handle is kept.
    Pool { pool: u64 },
    /// A mapping of a physical allocation, whose handle is kept.
    Mapping { physical: u64 },
    /// The storage of a linear array.
    Array,
    /// A module's global variable.
    Global,
}

impl Kind {
    /// Whether the host can use the address: the driver API's "host accessible".
    pub(crate) fn is_host(self) -> bool {
        matches!(self, Self::Pinned { .. } | Self::Registered { .. })
    }
}

/// An allocation: a range of addresses and who owns it.
///
/// The table holds one reference and every operation in flight that names the range another,
/// so that freeing early is seen by [`Block::is_freed`] and never touches foreign memory.
#[derive(Debug)]
pub(crate) struct Block {
    /// Names the allocation in reports and as `CU_POINTER_ATTRIBUTE_BUFFER_ID`.
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    /// Where the bytes are.
    pub(crate) host: u64,
    /// Where the device sees them.
    pub(crate) device: u64,
    /// In bytes, as asked for.
    pub(crate) size: usize,
    pub(crate) context: u64,
    /// The device's number on its machine.
    pub(crate) ordinal: i32,
    freed: AtomicBool,
    backing: Backing,
}

/// Who gives the bytes back.
#[derive(Debug)]
pub(crate) enum Backing {
    /// The caller, or another block.
    Borrowed,
    /// This block, by unmapping.
    Mapped(Mapping),
}

impl Block {
    #[expect(clippy::too_many_arguments, reason = "a plain record; every field is named at the call")]
    pub(crate) fn new(
        id: u64,
        kind: Kind,
        host: u64,
        device: u64,
        size: usize,
        context: u64,
        ordinal: i32,
        backing: Backing,
    ) -> Self {
        Self { id, kind, host, device, size, context, ordinal, freed: AtomicBool::new(false), backing }
    }

    /// Marks the allocation as freed; operations in flight may still hold its bytes.
    pub(crate) fn free(&self) {
        // Release: pairs with the Acquire in `is_freed`, for what the owner wrote before.
        self.freed.store(true, Ordering::Release);
    }

    pub(crate) fn is_freed(&self) -> bool {
        // Acquire: pairs with the Release in `free`.
        self.freed.load(Ordering::Acquire)
    }

    /// Whether the block owns its bytes.
    pub(crate) fn is_owner(&self) -> bool {
        matches!(self.backing, Backing::Mapped(_))
    }
}

/// A private anonymous mapping, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: u64,
    size: usize,
}

impl Mapping {
    /// Reserves `size` bytes, readable and writable, without committing any.
    pub(crate) fn new(size: usize) -> Option<Self> {
        Self::with_protection(size, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Reserves `size` bytes of addresses that nobody may touch yet.
    pub(crate) fn reserve(size: usize) -> Option<Self> {
        Self::with_protection(size, libc::PROT_NONE)
    }

    fn with_protection(size: usize, protection: i32) -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
        let pointer = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
        (pointer != libc::MAP_FAILED).then(|| Self { address: pointer.expose_provenance() as u64, size })
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let pointer = ptr::with_exposed_provenance_mut(self.address as usize);
        // SAFETY: mapped in `new` with this size, and owned by this value alone; every
        // operation that could touch it holds a reference to the block that is going.
        unsafe { libc::munmap(pointer, self.size) };
    }
}
