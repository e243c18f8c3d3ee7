//! A span that the driver allocates in one piece.

#![expect(unsafe_code, reason = "calls the driver")]

use std::ffi::c_void;
use std::ptr;

use wharf_sys::bindings::CUmemAttach_flags;

use super::granule::{GRANULARITY, WHOLE_ALIGNMENT, whole_granules};
use super::owner::{Owner, Section};
use super::piece_map::PieceMap;
use super::report::Backing;
use super::span::Span;
use crate::driver::Context;
use crate::error::{CudaError, Error};

/// One allocation, which is all there is: commit and decommit only keep account.
#[derive(Debug)]
pub(super) struct WholeSpan {
    source: Source,
    /// What the driver returned, before alignment.
    raw: u64,
    base: u64,
    /// Where the device sees `base`.
    device: u64,
    size: usize,
    pieces: PieceMap,
    released: bool,
    owner: Owner,
}

/// What kind of memory a span is allocated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Device,
    Managed,
    /// Pinned, with the flags of the allocation.
    Host(u32),
}

impl WholeSpan {
    pub(super) fn new(context: &Context, size: usize, source: Source) -> Result<Self, Error> {
        let owner = Owner::new(context);
        let size = whole_granules(size, GRANULARITY)?;
        let section = owner.enter()?;
        let raw = source.allocate(&section, size + WHOLE_ALIGNMENT)?;
        let device = source.device_address(&section, raw).inspect_err(|_| {
            section.undo(|api| source.free(api, raw));
        })?;
        drop(section);
        let base = raw.next_multiple_of(WHOLE_ALIGNMENT as u64);
        let device = device + (base - raw);
        let pieces = PieceMap::new(size, GRANULARITY);
        Ok(Self { source, raw, base, device, size, pieces, released: false, owner })
    }

    /// What a range is answered with that breaks the contract.
    fn refusal(&self) -> Error {
        let api = self.owner.api();
        let call = match self.source {
            Source::Device => api.mem_alloc.name(),
            Source::Managed => api.mem_alloc_managed.name(),
            Source::Host(_) => api.mem_host_alloc.name(),
        };
        Error::Driver { call, code: CudaError::INVALID_VALUE }
    }
}

impl Span for WholeSpan {
    fn owner(&self) -> &Owner {
        &self.owner
    }

    fn base(&self) -> u64 {
        self.base
    }

    fn size(&self) -> usize {
        self.size
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        let first = offset - offset % GRANULARITY;
        let end = offset.checked_add(len.max(1))?;
        self.pieces.is_committed(first, end - first).then_some(self.device + offset as u64)
    }

    fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        if self.owner.is_forked() {
            return Err(Error::Forked);
        }
        if !self.pieces.claim(offset, len) {
            return Err(self.refusal());
        }
        self.owner.tally.commit(len);
        Ok(())
    }

    fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        if self.owner.is_forked() {
            return Err(Error::Forked);
        }
        if !self.pieces.is_committed(offset, len) {
            return Err(self.refusal());
        }
        self.pieces.release(offset, len);
        self.owner.tally.decommit(len);
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        let section = self.owner.enter()?;
        section.call(|api| self.source.free(api, self.raw))
    }

    fn granularity(&self) -> usize {
        GRANULARITY
    }

    fn backing(&self) -> Backing {
        Backing::Whole
    }
}

impl Drop for WholeSpan {
    fn drop(&mut self) {
        let outcome = self.release();
        self.owner.note(outcome);
    }
}

impl Source {
    fn allocate(self, section: &Section<'_>, size: usize) -> Result<u64, Error> {
        let mut device = 0;
        let mut host: *mut c_void = ptr::null_mut();
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
            // SAFETY: allocated once, and freed once. Who gave one of its addresses, which are
            // numbers, to the device or made a pointer of it answers for the resource's life.
            Self::Device | Self::Managed => unsafe { api.mem_free.call(raw) },
            // SAFETY: as above.
            Self::Host(_) => unsafe { api.mem_free_host.call(pointer(raw)) },
        }
    }
}

/// The host's pointer to memory that the driver allocated.
fn pointer(address: u64) -> *mut c_void {
    ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
}
