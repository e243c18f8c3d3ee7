//! Pages of a file, registered with the driver where it allows that.

#![expect(unsafe_code, reason = "a system call for which the standard library has no function")]

use std::fs::File;
use std::os::fd::AsRawFd;

use super::granule::{GRANULARITY, SPAN_ALIGNMENT, whole_granules};
use super::host_memory::Admission;
use super::host_span::{HostSpan, check, page_size, system};
use super::huge_page::PageTier;
use super::owner::{Owner, Section};
use super::piece_map::PieceMap;
use super::registration::{PIECE_LIMIT, Registrar, unregister_everything};
use super::report::Backing;
use super::span::{Failed, Ledger, Span};
use crate::driver::Context;
use crate::error::{CudaError, Error};

/// A file that is mapped as a whole; a commit reads a piece of it in and registers it.
#[derive(Debug)]
pub(super) struct FileSpan {
    span: HostSpan,
    ledger: Ledger,
    /// Bytes of the span that are pages of the file.
    mapped: usize,
    /// The file, if its blocks come and go with commits.
    scratch: Option<File>,
    /// With which flags pieces are registered, if at all.
    flags: Option<u32>,
    admission: Admission,
}

impl FileSpan {
    /// Maps a whole file, for reading.
    pub(super) fn read_only(
        context: &Context,
        file: &File,
        flags: Option<u32>,
    ) -> Result<Self, Error> {
        context.driver().check_fork()?;
        let len = file.metadata().map_err(|error| system("fstat", &error))?.len();
        let too_large = Error::System { call: "mmap", errno: libc::ENOMEM };
        let len = usize::try_from(len).map_err(|_| too_large)?;
        let size = whole_granules(len, GRANULARITY)?;
        let mapped = len.next_multiple_of(page_size());
        let span =
            HostSpan::reserve(size, SPAN_ALIGNMENT).map_err(|error| system("mmap", &error))?;
        if len > 0 {
            span.open_file(file, len, libc::PROT_READ)?;
        }
        if mapped < size {
            // The part of the last granule behind the end of the file reads as zero.
            span.open(mapped, size - mapped)?;
        }
        Self::with(context, span, mapped, None, flags)
    }

    /// Maps `size` bytes of a file, for reading and writing; a shorter file is extended.
    pub(super) fn scratch(
        context: &Context,
        file: &File,
        size: usize,
        flags: Option<u32>,
    ) -> Result<Self, Error> {
        context.driver().check_fork()?;
        let size = whole_granules(size, GRANULARITY)?;
        let file = file.try_clone().map_err(|error| system("dup", &error))?;
        let span =
            HostSpan::reserve(size, SPAN_ALIGNMENT).map_err(|error| system("mmap", &error))?;
        let len = file.metadata().map_err(|error| system("fstat", &error))?.len();
        // A mapping behind the end of a file faults when it is touched.
        if len < size as u64 {
            file.set_len(size as u64).map_err(|error| system("ftruncate", &error))?;
        }
        span.open_file(&file, size, libc::PROT_READ | libc::PROT_WRITE)?;
        Self::with(context, span, size, Some(file), flags)
    }

    fn with(
        context: &Context,
        span: HostSpan,
        mapped: usize,
        scratch: Option<File>,
        flags: Option<u32>,
    ) -> Result<Self, Error> {
        let pieces = PieceMap::new(span.size(), GRANULARITY)?;
        let ledger = Ledger { pieces, owner: Owner::new(context) };
        Ok(Self { span, ledger, mapped, scratch, flags, admission: Admission::default() })
    }

    /// Reads the file's pages in a range into memory, or sets their blocks aside, and registers
    /// them.
    fn bring_in(&self, section: &Section<'_>, offset: usize, len: usize) -> Result<(), Failed> {
        let pages = self.in_file(offset, len);
        if pages == 0 {
            return Ok(());
        }
        match &self.scratch {
            Some(file) => {
                self.admission.admit(pages)?;
                allocate_blocks(file, offset, pages)?;
                self.span.populate(offset, pages)?;
            }
            None => self.span.read_in(offset, pages)?,
        }
        let Some(flags) = self.flags else { return Ok(()) };
        match self.registrar(section).register(offset, pages, flags) {
            // The driver cannot do it for this file: the host can use the pages all the same.
            Err(Failed { error, undone: true })
                if error.code() == Some(CudaError::NOT_SUPPORTED) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Gives the blocks of a range of a scratch file back to its file system.
    fn free_blocks(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.scratch.as_ref().map_or(Ok(()), |file| free_blocks(file, offset, len))
    }

    /// Bytes of a range that are pages of the file.
    fn in_file(&self, offset: usize, len: usize) -> usize {
        self.mapped.saturating_sub(offset).min(len)
    }

    fn registrar<'a>(&'a self, section: &'a Section<'a>) -> Registrar<'a> {
        Registrar { section, span: &self.span, ledger: &self.ledger, piece_limit: PIECE_LIMIT }
    }
}

impl Span for FileSpan {
    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn base(&self) -> u64 {
        self.span.base()
    }

    fn size(&self) -> usize {
        self.span.size()
    }

    fn granularity(&self) -> usize {
        GRANULARITY
    }

    fn backing(&self) -> Backing {
        Backing::Pieces
    }

    fn device_address(&self, offset: usize, len: usize) -> Option<u64> {
        let in_file = offset.checked_add(len).is_some_and(|end| end <= self.mapped);
        let address = self.ledger.pieces.device_address(offset, len).filter(|_| in_file);
        address.filter(|_| self.piece_len(offset, len) == len)
    }

    fn piece_len(&self, offset: usize, len: usize) -> usize {
        // The part of the last granule behind the end of the file is not registered.
        let in_file = Some(self.in_file(offset, len)).filter(|bytes| *bytes > 0);
        self.ledger.pieces.reach(offset, in_file.unwrap_or(len))
    }

    fn back(&self, offset: usize, len: usize) -> Result<(), Failed> {
        let owner = &self.ledger.owner;
        let section = owner.enter()?;
        self.bring_in(&section, offset, len)
            .map_err(|failed| failed.and_undo(|| owner.note(self.free_blocks(offset, len))))?;
        owner.tally.open(self.in_file(offset, len), PageTier::Plain);
        Ok(())
    }

    fn unback(&self, offset: usize, len: usize) -> Result<(), Error> {
        let owner = &self.ledger.owner;
        let section = owner.enter()?;
        self.registrar(&section).unregister(offset, len)?;
        self.free_blocks(offset, len)?;
        owner.tally.close(self.in_file(offset, len), PageTier::Plain);
        Ok(())
    }

    fn keep_from_children(&self, offset: usize, len: usize) {
        self.span.keep_from_children(offset, len);
    }

    fn give_back(&mut self) -> Result<(), Error> {
        unregister_everything(&mut self.span, &self.ledger)
    }
}

/// Has the file system set blocks aside, so that a write cannot find it full.
fn allocate_blocks(file: &File, offset: usize, len: usize) -> Result<(), Error> {
    fallocate(file, 0, offset, len)
}

/// Gives blocks back to the file system, where it can take them from within a file.
fn free_blocks(file: &File, offset: usize, len: usize) -> Result<(), Error> {
    match fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, len) {
        Err(Error::System { errno: libc::EOPNOTSUPP, .. }) => Ok(()),
        outcome => outcome,
    }
}

fn fallocate(file: &File, mode: i32, offset: usize, len: usize) -> Result<(), Error> {
    let number = |n: usize| libc::off_t::try_from(n).unwrap_or(libc::off_t::MAX);
    // SAFETY: the file is open; only blocks of the file change, which the caller does not use.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, number(offset), number(len)) };
    check("fallocate", result)
}
