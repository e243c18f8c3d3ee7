//! Memory of a device, mapped piece by piece.

#![expect(unsafe_code, reason = "calls the driver")]

use super::allocation::Allocation;
use super::device_options::{DeviceOptions, Granted};
use super::granule::{SPAN_ALIGNMENT, whole_granules};
use super::owner::{Owner, Section};
use super::physical::{PhysicalMemory, device_memory};
use super::piece_map::PieceMap;
use super::report::Backing;
use super::span::{Failed, Ledger, Span};
use crate::address::to_usize;
use crate::driver::Context;
use crate::error::{CudaError, Error};

/// A span of device addresses to which memory is mapped.
///
/// ```text
///   reserve     addresses
///   commit      memory created -> mapped -> accessible; the mapping keeps it, its handle goes
///   suspend     unmapped, which frees it; the range stays claimed
///   resume      as commit, of a range that is claimed
///   decommit    unmapped, which frees it
/// ```
#[derive(Debug)]
pub(super) struct MappedSpan {
    base: u64,
    size: usize,
    allocation: Allocation,
    ledger: Ledger,
}

impl MappedSpan {
    pub(super) fn new(
        context: &Context,
        size: usize,
        options: &DeviceOptions,
    ) -> Result<Self, Error> {
        let owner = Owner::new(context);
        let section = owner.enter()?;
        let allocation = Allocation::new(&section, options)?;
        let granularity = allocation.granularity;
        let size = whole_granules(size, granularity)?;
        let pieces = PieceMap::new(size, granularity)?;
        let align = granularity.max(SPAN_ALIGNMENT);
        let mut base = 0;
        section.call(|api| {
            // SAFETY: `base` is valid for writes for the whole call.
            unsafe { api.mem_address_reserve.call(&raw mut base, size, align, 0, 0) }
        })?;
        drop(section);
        Ok(Self { base, size, allocation, ledger: Ledger { pieces, owner } })
    }

    /// Creates memory for a range and maps it; the mapping keeps it.
    fn create_mapped(&self, section: &Section<'_>, address: u64, len: usize) -> Result<(), Failed> {
        let properties = self.allocation.properties();
        let mut handle = 0;
        section.call(|api| {
            // SAFETY: both are valid for the whole call.
            unsafe { api.mem_create.call(&raw mut handle, len, &raw const properties, 0) }
        })?;
        // SAFETY: the range is reserved by this span, and nothing is mapped there.
        let mapped = section.call(|api| unsafe { api.mem_map.call(address, len, 0, handle, 0) });
        // SAFETY: created above, and only this call knows it.
        let released = section.call(|api| unsafe { api.mem_release.call(handle) });
        match (mapped, released) {
            (Ok(()), Ok(())) => Ok(()),
            // The handle would keep the memory for ever, so the mapping is of no use.
            (Ok(()), Err(error)) => {
                Err(Failed::from(error).and_undo(|| self.undo_map(section, address, len)))
            }
            (Err(error), released) => {
                self.owner().note(released);
                Err(error.into())
            }
        }
    }

    /// Takes a mapping back whose commit has failed. If that fails too it stays, as a piece that
    /// only the drop finds. Returns whether it succeeded.
    fn undo_map(&self, section: &Section<'_>, address: u64, len: usize) -> bool {
        // SAFETY: just mapped, and only this call knows of it.
        let is_undone = section.undo(|api| unsafe { api.mem_unmap.call(address, len) });
        if !is_undone {
            self.ledger.pieces.begin_piece(self.offset(address), len, address);
        }
        is_undone
    }

    fn unmap(&self, section: &Section<'_>, offset: usize) -> Result<(), Error> {
        let len = self.ledger.pieces.piece_len(offset);
        let address = self.base + offset as u64;
        // SAFETY: mapped with this length by one commit, and not unmapped since; the caller of the
        // decommit promises that it is not used any more.
        section.call(|api| unsafe { api.mem_unmap.call(address, len) })?;
        self.ledger.pieces.end_piece(offset);
        Ok(())
    }

    fn offset(&self, address: u64) -> usize {
        to_usize(address - self.base)
    }
}

impl Span for MappedSpan {
    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn base(&self) -> u64 {
        self.base
    }

    fn size(&self) -> usize {
        self.size
    }

    fn granularity(&self) -> usize {
        self.allocation.granularity
    }

    fn granted(&self) -> Option<&Granted> {
        Some(&self.allocation.granted)
    }

    fn backing(&self) -> Backing {
        Backing::Pieces
    }

    /// Of suspended memory, too: it comes back at the same address.
    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        let first = offset - offset % self.allocation.granularity;
        let end = offset.checked_add(len.max(1))?;
        self.ledger.pieces.is_committed(first, end - first).then_some(self.base + offset as u64)
    }

    fn physical_memory(&self) -> Option<PhysicalMemory> {
        device_memory(self.owner())
    }

    fn back(&self, offset: usize, len: usize) -> Result<(), Failed> {
        let section = self.owner().enter()?;
        let address = self.base + offset as u64;
        self.create_mapped(&section, address, len)?;
        self.allocation.make_accessible(&section, address, len).map_err(|error| {
            Failed::from(error).and_undo(|| self.undo_map(&section, address, len))
        })?;
        self.ledger.pieces.begin_piece(offset, len, address);
        Ok(())
    }

    fn suspend(&self, offset: usize, len: usize) -> Result<(), Error> {
        let Ledger { pieces, owner } = &self.ledger;
        owner.context().driver().check_fork()?;
        if !pieces.is_one_claim(offset, len) || self.is_suspended(offset, len) {
            return Err(NOT_MAPPED);
        }
        // A call that was refused has unmapped nothing.
        self.unback(offset, len)?;
        owner.tally.decommit(len);
        Ok(())
    }

    fn resume(&self, offset: usize, len: usize) -> Result<(), Error> {
        let Ledger { pieces, owner } = &self.ledger;
        owner.context().driver().check_fork()?;
        if !pieces.is_one_claim(offset, len) {
            return Err(NOT_MAPPED);
        }
        if !self.is_suspended(offset, len) {
            // What an earlier call could not take back.
            self.unback(offset, len)?;
            owner.tally.decommit(len);
        }
        let outcome = self.back(offset, len).map_err(|failed| failed.error);
        // Also after an error, if the mapping could not be undone: decommits and the next call end
        // it.
        if !self.is_suspended(offset, len) {
            owner.tally.commit(len);
        }
        outcome
    }

    fn is_suspended(&self, offset: usize, len: usize) -> bool {
        self.ledger.pieces.pieces(offset, len).next().is_none()
    }

    fn unback(&self, offset: usize, len: usize) -> Result<(), Error> {
        debug_assert_eq!(self.ledger.pieces.piece_len(offset), len, "a commit is one mapping");
        let section = self.owner().enter()?;
        self.unmap(&section, offset)
    }

    fn give_back(&mut self) -> Result<(), Error> {
        let section = self.owner().enter()?;
        self.ledger.pieces.all_pieces().try_for_each(|piece| self.unmap(&section, piece))?;
        // SAFETY: reserved with this length, freed once, and nothing is mapped in it any more.
        section.call(|api| unsafe { api.mem_address_free.call(self.base, self.size) })
    }
}

/// The error of a suspension of a range that is not one commit's, or has no memory.
const NOT_MAPPED: Error = Error::Driver {
    call: "suspension of a range that is not one commit's",
    code: CudaError::INVALID_VALUE,
};
