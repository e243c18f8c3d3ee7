#![expect(unsafe_code, reason = "maps and unmaps address space")]
//! One allocation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use super::window::Window;

/// The kind of an allocation.
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
    /// From a memory pool, whose handle is kept, on the host or on a device.
    Pool { pool: u64, host: bool },
    /// A mapping of a physical allocation, whose handle is kept, on the host or on a device.
    Mapping { physical: u64, host: bool },
    /// The storage of an array.
    Array,
    /// From an allocation node of a graph.
    Graph { managed: bool },
    /// A module's global variable.
    Global,
}

impl Kind {
    /// Whether the host can use the address: the driver API's "host accessible".
    pub(crate) fn is_host(self) -> bool {
        matches!(
            self,
            Self::Pinned { .. }
                | Self::Registered { .. }
                | Self::Mapping { host: true, .. }
                | Self::Pool { host: true, .. }
        )
    }
}

impl Kind {
    /// Whether the driver promises no more than the least alignment: of pinned and managed memory
    /// the system's pages are seen.
    pub(crate) fn is_aligned_least(self) -> bool {
        matches!(
            self,
            Self::Device | Self::Pool { host: false, .. } | Self::Graph { managed: false }
        )
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
    life: AtomicU8,
    /// The access of operations: bits of `CUmemAccess_flags`.
    access: AtomicU32,
    /// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`.
    pub(crate) sync_memops: AtomicBool,
    backing: Backing,
}

/// The lives of an allocation. A stream-ordered one begins pending; one of a graph goes round.
const PENDING: u8 = 0;
const ALIVE: u8 = 1;
const FREED: u8 = 2;

/// The owner of the bytes, which returns them to the system.
#[derive(Debug)]
pub(crate) enum Backing {
    /// The caller, or another block.
    Borrowed,
    /// The last block that has them, by unmapping: where a machine recycles, one that was freed
    /// and still has operations in flight shares them with its successors.
    Mapped(Arc<Mapping>),
    /// A reservation, whose addresses show physical memory.
    Window(Window),
}

/// May be read: `CU_MEM_ACCESS_FLAGS_PROT_READ`.
pub(crate) const READ: u32 = 1;
/// May be read and written: `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
pub(crate) const READ_WRITE: u32 = 3;

impl Block {
    #[expect(
        clippy::too_many_arguments,
        reason = "a plain record; every field is named at the call"
    )]
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
        // "All mappings start with no accessibility setup."
        let access = if matches!(backing, Backing::Window(_)) { 0 } else { READ_WRITE };
        Self {
            id,
            kind,
            host,
            device,
            size,
            context,
            ordinal,
            life: AtomicU8::new(ALIVE),
            access: AtomicU32::new(access),
            sync_memops: AtomicBool::new(false),
            backing,
        }
    }

    /// The union of what any location may do.
    pub(crate) fn access(&self) -> u32 {
        // Relaxed: changed and read under the machine's lock.
        self.access.load(Ordering::Relaxed)
    }

    /// Sets what operations may do; with `idle`, no operation in flight names the block.
    pub(crate) fn set_access(&self, access: u32, idle: bool) {
        let before = self.access.swap(access, Ordering::Relaxed);
        if let Backing::Window(window) = &self.backing
            && (idle || before & access == before)
        {
            window.protect(access);
        }
    }

    /// Whether synchronous operations on it always wait: `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`.
    pub(crate) fn always_synchronises(&self) -> bool {
        // Relaxed: changed and read under the machine's lock.
        self.sync_memops.load(Ordering::Relaxed)
    }

    /// Marks the allocation as freed; operations in flight may still hold its bytes.
    pub(crate) fn free(&self) {
        self.enter(FREED);
    }

    /// Marks the allocation as one that an operation is still to bring to life.
    pub(crate) fn postpone(&self) {
        self.enter(PENDING);
    }

    /// Marks the allocation as usable.
    pub(crate) fn begin(&self) {
        self.enter(ALIVE);
    }

    fn enter(&self, life: u8) {
        // Release: pairs with the Acquire in `is`, for what was written before.
        self.life.store(life, Ordering::Release);
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.is(FREED)
    }

    /// Whether the operation that allocates it has not run.
    pub(crate) fn is_pending(&self) -> bool {
        self.is(PENDING)
    }

    fn is(&self, life: u8) -> bool {
        // Acquire: pairs with the Release in `enter`.
        self.life.load(Ordering::Acquire) == life
    }

    /// The addresses that the next allocation may get, if they are the block's to give.
    pub(crate) fn mapping(&self) -> Option<&Arc<Mapping>> {
        match &self.backing {
            Backing::Mapped(mapping) => Some(mapping),
            Backing::Borrowed | Backing::Window(_) => None,
        }
    }

    /// Whether the bytes are the driver's, not the caller's.
    pub(crate) fn is_owner(&self) -> bool {
        !matches!(self.backing, Backing::Borrowed)
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

    /// Reserves `size` bytes of inaccessible addresses at a multiple of `align`; at `hint` if that
    /// range is free.
    pub(crate) fn reserve(size: usize, align: usize, hint: u64) -> Option<Self> {
        if hint != 0 && hint.is_multiple_of(align as u64) {
            let there = Self::at(hint, size, libc::PROT_NONE)?;
            if there.address == hint {
                return Some(there);
            }
        }
        let mut whole = Self::at(0, size.checked_add(align)?, libc::PROT_NONE)?;
        let first = whole.address.next_multiple_of(align as u64);
        whole.trim(first, size);
        Some(whole)
    }

    fn with_protection(size: usize, protection: i32) -> Option<Self> {
        Self::at(0, size, protection)
    }

    fn at(hint: u64, size: usize, protection: i32) -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that is free touches nothing else; the hint does
        // not replace what is there.
        let pointer = unsafe { libc::mmap(pointer(hint), size, protection, flags, -1, 0) };
        (pointer != libc::MAP_FAILED)
            .then(|| Self { address: pointer.expose_provenance() as u64, size })
    }

    /// Gives back all but `size` bytes from `first` on.
    fn trim(&mut self, first: u64, size: usize) {
        let head = usize::try_from(first - self.address).unwrap_or(0);
        let tail = self.size - head - size;
        for (from, size) in [(self.address, head), (first + size as u64, tail)] {
            if size > 0 {
                // SAFETY: part of this mapping, whose addresses were not given out yet.
                unsafe { libc::munmap(pointer(from), size) };
            }
        }
        (self.address, self.size) = (first, size);
    }

    /// Gives the pages back to the system; they read as zeros then.
    pub(crate) fn discard(&self) {
        // SAFETY: the mapping is this value's, and the caller says that its bytes are done with.
        unsafe { libc::madvise(pointer(self.address), self.size, libc::MADV_DONTNEED) };
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

fn pointer(address: u64) -> *mut core::ffi::c_void {
    crate::address::pointer(address)
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `at` with this size, and owned by this value alone; every
        // operation that could touch it holds a reference to the block that is going.
        unsafe { libc::munmap(pointer(self.address), self.size) };
    }
}
