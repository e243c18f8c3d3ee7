//! Host memory made known to the driver, piece by piece.
//!
//! A piece is at most [`PIECE_LIMIT`] long: the driver holds locks that stop other processes while it
//! pins (12 minutes were seen for one allocation of 700 GB), and pins small pieces as fast.

#![expect(unsafe_code, reason = "calls the driver")]

use wharf_sys::bindings::{CU_MEMHOSTREGISTER_DEVICEMAP, CU_MEMHOSTREGISTER_PORTABLE};

use super::host_span::HostSpan;
use super::owner::Section;
use super::piece_map::PieceMap;
use crate::error::Error;

/// The longest registration, in bytes.
pub(super) const PIECE_LIMIT: usize = 256 << 20;

/// Pinned for every context, and in the device's addresses.
pub(super) const READ_WRITE: u32 = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;

/// As [`READ_WRITE`], and the device only reads: `CU_MEMHOSTREGISTER_READ_ONLY`.
pub(super) const READ_ONLY: u32 = READ_WRITE | 8;

/// Registrations of pieces of a span.
#[derive(Debug)]
pub(super) struct Registrar<'a> {
    pub(super) section: &'a Section<'a>,
    pub(super) span: &'a HostSpan,
    pub(super) pieces: &'a PieceMap,
    /// The longest piece, a multiple of the granularity.
    pub(super) piece_limit: usize,
}

impl Registrar<'_> {
    /// Registers a range in pieces, all or nothing.
    ///
    /// # Errors
    ///
    /// What the driver said, and whether the range is as it was.
    pub(super) fn register(&self, offset: usize, len: usize, flags: u32) -> Result<(), Failed> {
        for start in (offset..offset + len).step_by(self.piece_limit) {
            let piece = self.piece_limit.min(offset + len - start);
            if let Err(failed) = self.register_piece(start, piece, flags) {
                let undone = self.unregister_all(offset, start - offset);
                return Err(Failed { undone: failed.undone && undone, ..failed });
            }
        }
        Ok(())
    }

    /// Ends the registrations of a range. The first error ends the work: the rest stays registered.
    pub(super) fn unregister(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.pieces.pieces(offset, len).try_for_each(|piece| self.unregister_piece(piece))
    }

    /// Ends what registrations can be ended, and notes the errors; whether there were none.
    pub(super) fn unregister_all(&self, offset: usize, len: usize) -> bool {
        let owner = self.section.owner();
        let note = |clean, piece| owner.note(self.unregister_piece(piece)) && clean;
        self.pieces.pieces(offset, len).fold(true, note)
    }

    fn register_piece(&self, offset: usize, len: usize, flags: u32) -> Result<(), Failed> {
        let host = self.span.at(offset).cast();
        // SAFETY: the range is open memory of the span's, and stays so until it is unregistered.
        let registered = self.section.call(|api| unsafe { api.mem_host_register.call(host, len, flags) });
        registered.map_err(|error| Failed { error, undone: true })?;
        // The host's address stands in until the driver has said another.
        let mut device = self.span.base() + offset as u64;
        let asked = self.section.call(|api| {
            // SAFETY: `device` is valid for writes for the whole call.
            unsafe { api.mem_host_get_device_pointer.call(&raw mut device, host, 0) }
        });
        let bytes = self.pieces.begin_piece(offset, len, device);
        self.section.owner().tally.register(bytes);
        asked.map_err(|error| Failed { error, undone: self.unregister_all(offset, len) })
    }

    fn unregister_piece(&self, offset: usize) -> Result<(), Error> {
        let host = self.span.at(offset).cast();
        // SAFETY: a piece that was registered at this address; that nobody uses it any more is
        // what who decommits it promises.
        self.section.call(|api| unsafe { api.mem_host_unregister.call(host) })?;
        let bytes = self.pieces.end_piece(offset);
        self.section.owner().tally.unregister(bytes);
        Ok(())
    }
}

/// A registration that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// Whether everything on the way to it was taken back.
    pub(super) undone: bool,
}
