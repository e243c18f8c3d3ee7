//! Host memory made known to the driver, piece by piece.
//!
//! A piece is at most [`PIECE_LIMIT`] long: the driver holds locks that stop other processes while
//! it pins (12 minutes were seen for one allocation of 700 GB), and pins small pieces as fast.

#![expect(unsafe_code, reason = "calls the driver")]

use wharf_sys::bindings::{CU_MEMHOSTREGISTER_DEVICEMAP, CU_MEMHOSTREGISTER_PORTABLE};

use super::host_span::HostSpan;
use super::owner::Section;
use super::span::{Failed, Ledger};
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
    pub(super) ledger: &'a Ledger,
    /// The longest piece, a multiple of the granularity.
    pub(super) piece_limit: usize,
}

impl Registrar<'_> {
    /// Registers a range in pieces, all or nothing.
    ///
    /// # Errors
    ///
    /// The driver's error, and whether the range is as it was.
    pub(super) fn register(&self, offset: usize, len: usize, flags: u32) -> Result<(), Failed> {
        let mut starts = (offset..offset + len).step_by(self.piece_limit);
        starts.try_for_each(|start| {
            let piece = self.piece_limit.min(offset + len - start);
            let registered = self.register_piece(start, piece, flags);
            registered
                .map_err(|failed| failed.and_undo(|| self.unregister_all(offset, start - offset)))
        })
    }

    /// Ends the registrations of a range. The first error ends the work: the rest stays registered.
    pub(super) fn unregister(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.ledger.pieces.pieces(offset, len).try_for_each(|piece| self.unregister_piece(piece))
    }

    /// Ends what registrations can be ended, and notes the errors. Returns whether there were none.
    pub(super) fn unregister_all(&self, offset: usize, len: usize) -> bool {
        let owner = &self.ledger.owner;
        let note = |clean, piece| owner.note(self.unregister_piece(piece)) && clean;
        self.ledger.pieces.pieces(offset, len).fold(true, note)
    }

    fn register_piece(&self, offset: usize, len: usize, flags: u32) -> Result<(), Failed> {
        let host = self.span.at(offset).cast();
        // SAFETY: the range is open memory of the span's, and stays so until it is unregistered.
        let registered =
            self.section.call(|api| unsafe { api.mem_host_register.call(host, len, flags) });
        registered?;
        // The host's address stands in until the driver has said another.
        let mut device = self.span.base() + offset as u64;
        let asked = self.section.call(|api| {
            // SAFETY: `device` is valid for writes for the whole call.
            unsafe { api.mem_host_get_device_pointer.call(&raw mut device, host, 0) }
        });
        let bytes = self.ledger.pieces.begin_piece(offset, len, device);
        self.ledger.owner.tally.register(bytes);
        asked.map_err(|error| Failed::from(error).and_undo(|| self.unregister_all(offset, len)))
    }

    fn unregister_piece(&self, offset: usize) -> Result<(), Error> {
        let host = self.span.at(offset).cast();
        // SAFETY: a piece that was registered at this address; the caller of the decommit promises
        // that it is not used any more.
        self.section.call(|api| unsafe { api.mem_host_unregister.call(host) })?;
        let bytes = self.ledger.pieces.end_piece(offset);
        self.ledger.owner.tally.unregister(bytes);
        Ok(())
    }
}

/// Ends all registrations of a span that goes. If one cannot be ended, the span is leaked: the
/// device may still use it.
pub(super) fn unregister_everything(span: &mut HostSpan, ledger: &Ledger) -> Result<(), Error> {
    // Without a registration nothing depends on the context, which may be lost.
    if ledger.pieces.all_pieces().next().is_none() {
        return Ok(());
    }
    let outcome = ledger.owner.enter().and_then(|section| {
        let registrar = Registrar { section: &section, span, ledger, piece_limit: PIECE_LIMIT };
        registrar.unregister(0, span.size())
    });
    if outcome.is_err() {
        span.leak();
    }
    outcome
}
