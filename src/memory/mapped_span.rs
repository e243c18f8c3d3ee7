//! Memory of a device, mapped piece by piece.

#![expect(unsafe_code, reason = "calls the driver")]

use wharf_sys::bindings::{
    CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationGranularity_flags, CUmemAllocationHandleType,
    CUmemAllocationProp_st__bindgen_ty_1, CUmemAllocationProp_v1, CUmemAllocationType, CUmemLocation,
    CUmemLocation_st__bindgen_ty_1, CUmemLocationType,
};

use super::granule::{SPAN_ALIGNMENT, whole_granules};
use super::owner::{Owner, Section};
use super::piece_map::PieceMap;
use super::report::Backing;
use super::span::Span;
use crate::driver::Context;
use crate::error::{CudaError, Error};

/// A span of device addresses to which memory is mapped.
///
/// ```text
///   reserve     addresses
///   commit      memory created -> mapped -> accessible -> its handle released: the mapping keeps it
///   decommit    unmapped, which frees it
/// ```
#[derive(Debug)]
pub(super) struct MappedSpan {
    base: u64,
    size: usize,
    granularity: usize,
    pieces: PieceMap,
    released: bool,
    owner: Owner,
}

impl MappedSpan {
    pub(super) fn new(context: &Context, size: usize) -> Result<Self, Error> {
        let owner = Owner::new(context);
        let section = owner.enter()?;
        let granularity = granularity(&section)?;
        let size = whole_granules(size, granularity)?;
        let align = granularity.max(SPAN_ALIGNMENT);
        let mut base = 0;
        section.call(|api| {
            // SAFETY: `base` is valid for writes for the whole call.
            unsafe { api.mem_address_reserve.call(&raw mut base, size, align, 0, 0) }
        })?;
        drop(section);
        let pieces = PieceMap::new(size, granularity);
        Ok(Self { base, size, granularity, pieces, released: false, owner })
    }

    /// Creates memory for a range and maps it; the mapping keeps it.
    fn create_mapped(&self, section: &Section<'_>, address: u64, len: usize) -> Result<(), Error> {
        let properties = properties(self.owner.ordinal());
        let mut handle = 0;
        section.call(|api| {
            // SAFETY: both are valid for the whole call.
            unsafe { api.mem_create.call(&raw mut handle, len, &raw const properties, 0) }
        })?;
        // SAFETY: the range is reserved by this span, and nothing is mapped there.
        let mapped = section.call(|api| unsafe { api.mem_map.call(address, len, 0, handle, 0) });
        // SAFETY: created above, and nobody else knows it.
        let released = section.call(|api| unsafe { api.mem_release.call(handle) });
        match (mapped, released) {
            (Ok(()), Err(error)) => {
                self.unmap_or_lose(section, address, len);
                Err(error)
            }
            (Err(error), released) => {
                self.owner.note(released);
                Err(error)
            }
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// Lets the device read and write a range that is mapped.
    fn make_accessible(&self, section: &Section<'_>, address: u64, len: usize) -> Result<(), Error> {
        let access = CUmemAccessDesc {
            location: device_location(self.owner.ordinal()),
            flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        section.call(|api| {
            // SAFETY: `access` is valid for the whole call, one element long.
            unsafe { api.mem_set_access.call(address, len, &raw const access, 1) }
        })
    }

    /// Takes a mapping back whose commit has failed. If that fails too it stays, as a piece that the
    /// release finds and no commit.
    fn unmap_or_lose(&self, section: &Section<'_>, address: u64, len: usize) {
        // SAFETY: just mapped, and nobody knows of it yet.
        if !section.undo(|api| unsafe { api.mem_unmap.call(address, len) }) {
            self.pieces.begin_piece(self.offset(address), len, address);
        }
    }

    fn unmap(&self, section: &Section<'_>, offset: usize) -> Result<(), Error> {
        let len = self.pieces.piece_len(offset);
        let address = self.base + offset as u64;
        // SAFETY: mapped with this length by one commit, and not unmapped since. That nobody uses
        // it any more is what who decommits it promises.
        section.call(|api| unsafe { api.mem_unmap.call(address, len) })?;
        self.pieces.end_piece(offset);
        Ok(())
    }

    fn try_decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let section = self.owner.enter()?;
        if !self.pieces.is_committed(offset, len) {
            return Err(self.refusal());
        }
        self.unmap(&section, offset)?;
        self.pieces.release(offset, len);
        self.owner.tally.decommit(len);
        Ok(())
    }

    fn offset(&self, address: u64) -> usize {
        usize::try_from(address - self.base).unwrap_or(usize::MAX)
    }

    /// What a range is answered with that breaks the contract.
    fn refusal(&self) -> Error {
        Error::Driver { call: self.owner.api().mem_map.name(), code: CudaError::INVALID_VALUE }
    }
}

impl Span for MappedSpan {
    fn owner(&self) -> &Owner {
        &self.owner
    }

    fn base(&self) -> u64 {
        self.base
    }

    fn size(&self) -> usize {
        self.size
    }

    fn granularity(&self) -> usize {
        self.granularity
    }

    fn backing(&self) -> Backing {
        Backing::Pieces
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        self.pieces.device_address(offset, len)
    }

    fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let section = self.owner.enter()?;
        if !self.pieces.claim(offset, len) {
            return Err(self.refusal());
        }
        let address = self.base + offset as u64;
        let made = self.create_mapped(&section, address, len).and_then(|()| {
            self.make_accessible(&section, address, len)
                .inspect_err(|_| self.unmap_or_lose(&section, address, len))
        });
        if made.is_err() {
            if self.pieces.pieces(offset, len).next().is_some() {
                self.owner.tally.lose(len);
            } else {
                self.pieces.release(offset, len);
            }
            return made;
        }
        self.pieces.begin_piece(offset, len, address);
        self.owner.tally.commit(len);
        Ok(())
    }

    fn decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let outcome = self.try_decommit(offset, len);
        if outcome.is_err() {
            self.owner.tally.lose(len);
        }
        outcome
    }

    fn release(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.released, true) {
            return Ok(());
        }
        let section = self.owner.enter()?;
        self.pieces.all_pieces().try_for_each(|piece| self.unmap(&section, piece))?;
        // SAFETY: reserved with this length, freed once, and nothing is mapped in it any more.
        section.call(|api| unsafe { api.mem_address_free.call(self.base, self.size) })
    }
}

impl Drop for MappedSpan {
    fn drop(&mut self) {
        let outcome = self.release();
        self.owner.note(outcome);
    }
}

/// The unit in which the device's memory is mapped best.
fn granularity(section: &Section<'_>) -> Result<usize, Error> {
    let properties = properties(section.owner().ordinal());
    let recommended = CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_RECOMMENDED;
    let mut granularity = 0;
    section.call(|api| {
        let entry = &api.mem_get_allocation_granularity;
        // SAFETY: both are valid for the whole call.
        unsafe { entry.call(&raw mut granularity, &raw const properties, recommended) }
    })?;
    Ok(granularity.max(4096).next_power_of_two())
}

/// Ordinary memory of a device, not shared with other processes.
fn properties(ordinal: i32) -> CUmemAllocationProp_v1 {
    CUmemAllocationProp_v1 {
        type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
        location: device_location(ordinal),
        win32HandleMetaData: std::ptr::null_mut(),
        allocFlags: CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: 0,
            usage: 0,
            reserved: [0; 4],
        },
    }
}

pub(super) fn device_location(ordinal: i32) -> CUmemLocation {
    CUmemLocation {
        type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
        __bindgen_anon_1: CUmemLocation_st__bindgen_ty_1 { id: ordinal },
    }
}
