//! A span that the driver allocates in one piece.

#![expect(unsafe_code, reason = "calls the driver")]

use std::ffi::c_void;
use std::ptr;

use wharf_sys::bindings::CUmemAttach_flags;

use super::allocation::peers;
use super::device_options::{DeviceOptions, Granted};
use super::granule::{GRANULARITY, WHOLE_ALIGNMENT, whole_granules};
use super::owner::{Owner, Section};
use super::physical::{PhysicalMemory, device_memory};
use super::piece_map::PieceMap;
use super::report::Backing;
use super::span::{Failed, Ledger, Span};
use crate::address::to_usize;
use crate::driver::Context;
use crate::error::Error;
use crate::sync::{Mutex, OnceLock};

/// One allocation, which is all there is: commit and decommit only keep account.
///
/// It is made when its address, or memory of it, is first asked for: a pool, which may have a
/// limit below the size, asks by [`Span::limit_to`].
#[derive(Debug)]
pub(super) struct WholeSpan {
    source: Source,
    size: usize,
    /// Where the span is; an error, once [`Span::base`] had to answer without one.
    allocation: OnceLock<Result<Allocation, Error>>,
    /// Held by a thread that makes the allocation.
    turn: Mutex<()>,
    granted: Granted,
    ledger: Ledger,
}

/// The addresses of an allocation.
#[derive(Clone, Copy, Debug)]
struct Allocation {
    /// The address that the driver returned, before alignment.
    raw: u64,
    base: u64,
    /// Where the device sees `base`.
    device: u64,
}

/// The kind of memory that a span is allocated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Device,
    Managed,
    /// Pinned, with the flags of the allocation.
    Host(u32),
}

impl WholeSpan {
    /// A span of `size` bytes, nothing of which is allocated yet.
    pub(super) fn new(context: &Context, size: usize, source: Source) -> Result<Self, Error> {
        let owner = Owner::new(context);
        let size = whole_granules(size, GRANULARITY)?;
        // Nothing is asked of the driver, and what would refuse everything refuses this too.
        drop(owner.enter()?);
        Ok(Self {
            source,
            size,
            allocation: OnceLock::new(),
            turn: Mutex::new(()),
            granted: Granted::default(),
            ledger: Ledger { pieces: PieceMap::new(size, GRANULARITY)?, owner },
        })
    }

    /// The same span, which peers may use: by [`Context::enable_peer`], since it is not mapped.
    pub(super) fn for_peers(self, options: &DeviceOptions) -> Result<Self, Error> {
        let peers = peers(&self.ledger.owner, options)?;
        Ok(Self { granted: Granted { peers, ..Granted::default() }, ..self })
    }

    /// Where the span is. Makes the allocation, if there is none; `is_final`: also keeps an error.
    fn allocation(&self, is_final: bool) -> Result<Allocation, Error> {
        if let Some(allocation) = self.allocation.get() {
            return *allocation;
        }
        // Of the lock, too, a child has but a copy, which another thread may have held.
        self.owner().context().driver().check_fork()?;
        let _turn = self.turn.lock();
        if let Some(allocation) = self.allocation.get() {
            return *allocation;
        }
        let allocation = self.allocate(self.size);
        if allocation.is_err() && !is_final {
            return allocation;
        }
        *self.allocation.get_or_init(|| allocation)
    }

    fn allocate(&self, size: usize) -> Result<Allocation, Error> {
        let section = self.owner().enter()?;
        let raw = self.source.allocate(&section, size + WHOLE_ALIGNMENT)?;
        let device = self.source.device_address(&section, raw).inspect_err(|_| {
            section.undo(|api| self.source.free(api, raw));
        })?;
        let base = raw.next_multiple_of(WHOLE_ALIGNMENT as u64);
        Ok(Allocation { raw, base, device: device + (base - raw) })
    }
}

impl Span for WholeSpan {
    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn base(&self) -> u64 {
        self.allocation(true).map_or(NOWHERE, |allocation| allocation.base)
    }

    fn try_base(&self) -> Result<u64, Error> {
        Ok(self.allocation(false)?.base)
    }

    fn granted(&self) -> Option<&Granted> {
        Some(&self.granted)
    }

    fn limit_to(&mut self, bytes: usize) -> Result<(), Error> {
        if self.allocation.get().is_none() {
            let size = whole_granules(bytes.min(self.size), GRANULARITY)?;
            let pieces = PieceMap::new(size, GRANULARITY)?;
            self.allocation = OnceLock::from(Ok(self.allocate(size)?));
            self.ledger.pieces = pieces;
            self.size = size;
        }
        self.allocation(false).map(drop)
    }

    fn size(&self) -> usize {
        self.size
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        let first = offset - offset % GRANULARITY;
        let end = offset.checked_add(len.max(1))?;
        let allocation = self.allocation.get()?.as_ref().ok()?;
        self.ledger
            .pieces
            .is_committed(first, end - first)
            .then_some(allocation.device + offset as u64)
    }

    fn physical_memory(&self) -> Option<PhysicalMemory> {
        (self.source == Source::Device).then(|| device_memory(self.owner()))?
    }

    fn back(&self, _offset: usize, _len: usize) -> Result<(), Failed> {
        self.allocation(false)?;
        Ok(())
    }

    fn unback(&self, _offset: usize, _len: usize) -> Result<(), Error> {
        Ok(())
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let Some(Ok(allocation)) = self.allocation.get() else { return Ok(()) };
        let section = self.owner().enter()?;
        section.call(|api| self.source.free(api, allocation.raw))
    }

    fn granularity(&self) -> usize {
        GRANULARITY
    }

    fn backing(&self) -> Backing {
        Backing::Whole
    }
}

impl Source {
    fn allocate(self, section: &Section<'_>, size: usize) -> Result<u64, Error> {
        let mut device = 0;
        let mut host: *mut c_void = ptr::null_mut();
        // One call that is counted and timed, whatever the kind.
        section.call(|api| match self {
            // SAFETY: `device` is valid for writes for the whole call.
            Self::Device => unsafe { api.mem_alloc.call(&raw mut device, size) },
            Self::Managed => {
                let flags = CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL.0;
                // SAFETY: as above.
                unsafe { api.mem_alloc_managed.call(&raw mut device, size, flags) }
            }
            // SAFETY: `host` is valid for writes for the whole call.
            Self::Host(flags) => unsafe { api.mem_host_alloc.call(&raw mut host, size, flags) },
        })?;
        Ok(if host.is_null() { device } else { host.expose_provenance() as u64 })
    }

    fn device_address(self, section: &Section<'_>, raw: u64) -> Result<u64, Error> {
        let Self::Host(_) = self else { return Ok(raw) };
        let mut device = 0;
        section.call(|api| {
            // SAFETY: `device` is valid for writes for the whole call.
            unsafe { api.mem_host_get_device_pointer.call(&raw mut device, pointer(raw), 0) }
        })?;
        Ok(device)
    }

    fn free(self, api: &wharf_sys::Api, raw: u64) -> Result<(), Error> {
        match self {
            // SAFETY: allocated once, and freed once. Addresses are numbers: code that gave one to
            // the device or made a pointer of it keeps the resource alive for as long.
            Self::Device | Self::Managed => unsafe { api.mem_free.call(raw) },
            // SAFETY: as above.
            Self::Host(_) => unsafe { api.mem_free_host.call(pointer(raw)) },
        }
    }
}

/// The host's pointer to memory that the driver allocated.
fn pointer(address: u64) -> *mut c_void {
    ptr::with_exposed_provenance_mut(to_usize(address))
}

/// The base of a span whose memory could not be allocated: no process and no device has addresses
/// here, nor in the size of a span from here on, which does not wrap.
const NOWHERE: u64 = 1 << 62;
