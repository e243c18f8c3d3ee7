//! Pages of the host, pinned by registration.

use super::first_touch::FirstTouch;
use super::granule::{GRANULARITY, SPAN_ALIGNMENT, whole_granules};
use super::host_memory::{Admission, HostMemory};
use super::host_span::{HostSpan, system};
use super::huge_page::PageTier;
use super::numa;
use super::owner::{Owner, Section};
use super::physical::PhysicalMemory;
use super::piece_map::PieceMap;
use super::registration::{READ_WRITE, Registrar, unregister_everything};
use super::report::Backing;
use super::span::{Failed, Ledger, Span};
use crate::driver::Context;
use crate::error::Error;

/// A span of addresses to which pages are added, registered, piece by piece.
///
/// ```text
///   reserve     addresses only, PROT_NONE, not inherited by forked children
///   commit      accessible -> near the device -> huge -> filled -> registered
///   decommit    unregistered -> addresses only
/// ```
#[derive(Debug)]
pub(super) struct RegisteredSpan {
    span: HostSpan,
    ledger: Ledger,
    tier: PageTier,
    touch: FirstTouch,
    piece_limit: usize,
    admission: Admission,
}

impl RegisteredSpan {
    pub(super) fn new(
        context: &Context,
        size: usize,
        tier: PageTier,
        touch: FirstTouch,
        piece_limit: usize,
    ) -> Result<Self, Error> {
        context.driver().check_fork()?;
        let size = whole_granules(size, GRANULARITY)?;
        let span =
            HostSpan::reserve(size, SPAN_ALIGNMENT).map_err(|error| system("mmap", &error))?;
        Ok(Self {
            span,
            ledger: Ledger {
                pieces: PieceMap::new(size, GRANULARITY)?,
                owner: Owner::new(context),
            },
            tier: tier.available(),
            touch,
            piece_limit: piece_limit.clamp(1, size).next_multiple_of(GRANULARITY),
            admission: Admission::default(),
        })
    }

    /// Makes a range accessible, fills it and registers it. Returns the kind of its pages.
    fn pin(&self, section: &Section<'_>, offset: usize, len: usize) -> Result<PageTier, Failed> {
        let tier = self.tier.open(&self.span, offset, len)?;
        // Pages of the system's pool are set aside already.
        if tier != PageTier::Explicit {
            self.admission.admit(len)?;
        }
        // Pages are taken from a node when they are first touched, so this is before.
        self.bind(offset, len);
        self.touch.fill(&self.span, offset, len)?;
        self.registrar(section).register(offset, len, READ_WRITE)?;
        Ok(tier)
    }

    /// Asks for pages near the device. That it fails costs speed and nothing else.
    fn bind(&self, offset: usize, len: usize) {
        if let Some(node) = self.touch.node
            && numa::prefer(&self.span, offset, len, node).is_err()
        {
            self.ledger.owner.tally.unbound();
        }
    }

    fn registrar<'a>(&'a self, section: &'a Section<'a>) -> Registrar<'a> {
        Registrar { section, span: &self.span, ledger: &self.ledger, piece_limit: self.piece_limit }
    }
}

impl Span for RegisteredSpan {
    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn base(&self) -> u64 {
        self.span.base()
    }

    fn size(&self) -> usize {
        self.span.size()
    }

    fn node(&self) -> Option<u32> {
        self.touch.node
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        self.ledger
            .pieces
            .device_address(offset, len)
            .filter(|_| self.piece_len(offset, len) == len)
    }

    fn piece_len(&self, offset: usize, len: usize) -> usize {
        self.ledger.pieces.reach(offset, len)
    }

    fn physical_memory(&self) -> Option<PhysicalMemory> {
        HostMemory::read().map(PhysicalMemory::from)
    }

    fn back(&self, offset: usize, len: usize) -> Result<(), Failed> {
        let Ledger { pieces, owner } = &self.ledger;
        let section = owner.enter()?;
        let tier = self
            .pin(&section, offset, len)
            .map_err(|failed| failed.and_undo(|| owner.note(self.span.close(offset, len))))?;
        pieces.set_tier(offset, tier as u8);
        owner.tally.open(len, tier);
        Ok(())
    }

    fn unback(&self, offset: usize, len: usize) -> Result<(), Error> {
        let Ledger { pieces, owner } = &self.ledger;
        let section = owner.enter()?;
        self.registrar(&section).unregister(offset, len)?;
        self.span.close(offset, len)?;
        owner.tally.close(len, PageTier::from_number(pieces.tier(offset)));
        Ok(())
    }

    fn keep_from_children(&self, offset: usize, len: usize) {
        self.span.keep_from_children(offset, len);
    }

    fn give_back(&mut self) -> Result<(), Error> {
        unregister_everything(&mut self.span, &self.ledger)
    }

    fn granularity(&self) -> usize {
        GRANULARITY
    }

    fn backing(&self) -> Backing {
        Backing::Pieces
    }
}
