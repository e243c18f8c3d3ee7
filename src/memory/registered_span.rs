//! Pages of the host, pinned by registration.

use super::granule::{GRANULARITY, SPAN_ALIGNMENT, whole_granules};
use super::host_span::{HostSpan, system};
use super::huge_page::PageTier;
use super::numa;
use super::owner::{Owner, Section};
use super::piece_map::PieceMap;
use super::registration::{READ_WRITE, Registrar};
use super::report::Backing;
use super::span::Span;
use crate::driver::Context;
use crate::error::{CudaError, Error};

/// A span of addresses to which pages are added, registered, piece by piece.
///
/// ```text
///   reserve     addresses only, PROT_NONE, not inherited by children
///   commit      accessible -> near the device -> huge -> filled -> registered
///   decommit    unregistered -> addresses only
/// ```
#[derive(Debug)]
pub(super) struct RegisteredSpan {
    span: HostSpan,
    pieces: PieceMap,
    tier: PageTier,
    node: Option<u32>,
    piece_limit: usize,
    released: bool,
    owner: Owner,
}

impl RegisteredSpan {
    pub(super) fn new(
        context: &Context,
        size: usize,
        tier: PageTier,
        node: Option<u32>,
        piece_limit: usize,
    ) -> Result<Self, Error> {
        let size = whole_granules(size, GRANULARITY)?;
        let span = HostSpan::reserve(size, SPAN_ALIGNMENT).map_err(|error| system("mmap", &error))?;
        Ok(Self {
            span,
            pieces: PieceMap::new(size, GRANULARITY),
            tier: tier.available(),
            node,
            piece_limit: piece_limit.clamp(1, size).next_multiple_of(GRANULARITY),
            released: false,
            owner: Owner::new(context),
        })
    }

    fn unregister_everything(&self) -> Result<(), Error> {
        if self.pieces.all_pieces().next().is_none() {
            return Ok(());
        }
        let section = self.owner.enter()?;
        self.registrar(&section).unregister(0, self.size())
    }

    fn try_decommit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let section = self.owner.enter()?;
        if !self.pieces.is_committed(offset, len) {
            let call = self.owner.api().mem_host_unregister.name();
            return Err(Error::Driver { call, code: CudaError::HOST_MEMORY_NOT_REGISTERED });
        }
        self.registrar(&section).unregister(offset, len)?;
        self.span.close(offset, len)?;
        self.owner.tally.close(len, PageTier::from_number(self.pieces.tier(offset)));
        self.pieces.release(offset, len);
        self.owner.tally.decommit(len);
        Ok(())
    }

    /// Takes a commit back that failed on the way. What cannot be taken back stays claimed, so that
    /// nobody commits it again.
    fn abandon(&self, offset: usize, len: usize, undone: bool) {
        if undone && self.owner.note(self.span.close(offset, len)) {
            self.pieces.release(offset, len);
        } else {
            self.owner.tally.lose(len);
        }
    }

    /// Asks for pages near the device, which is a wish.
    fn bind(&self, offset: usize, len: usize) {
        if let Some(node) = self.node
            && numa::prefer(&self.span, offset, len, node).is_err()
        {
            self.owner.tally.unbound();
        }
    }

    fn registrar<'a>(&'a self, section: &'a Section<'a>) -> Registrar<'a> {
        Registrar { section, span: &self.span, pieces: &self.pieces, piece_limit: self.piece_limit }
    }
}

impl Span for RegisteredSpan {
    fn owner(&self) -> &Owner {
        &self.owner
    }

    fn base(&self) -> u64 {
        self.span.base()
    }

    fn size(&self) -> usize {
        self.span.size()
    }

    fn node(&self) -> Option<u32> {
        self.node
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        self.pieces.device_address(offset, len)
    }

    fn commit(&self, offset: usize, len: usize) -> Result<(), Error> {
        let section = self.owner.enter()?;
        if !self.pieces.claim(offset, len) {
            let call = self.owner.api().mem_host_register.name();
            return Err(Error::Driver { call, code: CudaError::HOST_MEMORY_ALREADY_REGISTERED });
        }
        let tier =
            self.tier.open(&self.span, offset, len).inspect_err(|_| self.abandon(offset, len, true))?;
        self.bind(offset, len);
        self.span.populate(offset, len).inspect_err(|_| self.abandon(offset, len, true))?;
        let registered = self.registrar(&section).register(offset, len, READ_WRITE);
        registered.map_err(|failed| {
            self.abandon(offset, len, failed.undone);
            failed.error
        })?;
        self.pieces.set_tier(offset, tier as u8);
        self.owner.tally.open(len, tier);
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
        let outcome = self.unregister_everything();
        if outcome.is_err() {
            self.span.leak();
        }
        outcome
    }

    fn granularity(&self) -> usize {
        GRANULARITY
    }

    fn backing(&self) -> Backing {
        Backing::Pieces
    }
}

impl Drop for RegisteredSpan {
    fn drop(&mut self) {
        let outcome = self.release();
        self.owner.note(outcome);
    }
}
