//! Addresses of the host, and pages put behind pieces of them.
//!
//! The reservation is made with libc, for two reasons. memmap2 maps anonymous memory as writable,
//! and a host that does not overcommit (`vm.overcommit_memory=2`) counts every writable page of a
//! reservation as used; `PROT_NONE` is not counted. And pages come and go at fixed addresses in it,
//! for which memmap2 has no call.

#![expect(unsafe_code, reason = "maps and unmaps address space")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process;
use std::ptr::{self, NonNull};

use memmap2::{MmapOptions, MmapRaw};

use crate::error::Error;

/// Address space that belongs to this object and is not accessible until opened.
///
/// Pages that are opened are not inherited by a forked child: a page that the device uses would
/// otherwise become a copy on the next write, in the parent or in the child.
///
/// Offsets and lengths are multiples of the page size, and of 2 MiB where huge pages are asked for.
#[derive(Debug)]
pub(super) struct HostSpan {
    base: NonNull<u8>,
    size: usize,
    /// The start of the mapping, before alignment.
    start: NonNull<libc::c_void>,
    mapped: usize,
    /// The process in which it is to be unmapped: a child has no such mapping.
    process: Option<u32>,
}

/// Pages of a span, which outlives their use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    start: *mut u8,
    len: usize,
}

impl HostSpan {
    /// Reserves `size` bytes of addresses at a multiple of `align`, a power of two.
    pub(super) fn reserve(size: usize, align: usize) -> io::Result<Self> {
        let mapped =
            size.checked_add(align).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the system's choice touches no other.
        let start = unsafe { libc::mmap(ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        let found = NonNull::new(start).filter(|start| start.as_ptr() != libc::MAP_FAILED);
        let Some(start) = found else { return Err(io::Error::last_os_error()) };
        let base = start.cast::<u8>().map_addr(|address| {
            // Of a mapping larger by `align`, the aligned part fits and is not at 0.
            address.saturating_add(address.get().wrapping_neg() & (align - 1))
        });
        let span = Self { base, size, start, mapped, process: Some(process::id()) };
        span.keep_from_children(0, size);
        Ok(span)
    }

    /// The address of the first byte.
    pub(super) fn base(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// The byte at `offset`.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        self.base.as_ptr().wrapping_add(offset)
    }

    /// Makes pages of the usual size accessible. They get memory when they are touched.
    pub(super) fn open(&self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the range is part of this mapping, and is not used while it is closed.
        let result = unsafe {
            libc::mprotect(self.at(offset).cast(), len, libc::PROT_READ | libc::PROT_WRITE)
        };
        check("mprotect", result)
    }

    /// Makes pages of 2 MiB from the system's pool of them accessible.
    ///
    /// They are mapped elsewhere and moved here, so that an empty pool leaves the range as it was.
    pub(super) fn open_huge(&self, offset: usize, len: usize) -> Result<(), Error> {
        let pages = MmapOptions::new().len(len).huge(Some(HUGE_PAGE_BITS)).map_anon();
        let pages = MmapRaw::from(pages.map_err(|error| system("mmap", &error))?);
        let (from, to) = (pages.as_mut_ptr().cast(), self.at(offset).cast::<libc::c_void>());
        // SAFETY: `pages` is ours, and replaces a part of this mapping that is closed, and so not
        // used.
        let moved =
            unsafe { libc::mremap(from, len, len, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to) };
        if moved == libc::MAP_FAILED {
            return Err(last("mremap"));
        }
        #[expect(clippy::mem_forget, reason = "its pages are a part of this mapping now")]
        std::mem::forget(pages);
        self.keep_from_children(offset, len);
        Ok(())
    }

    /// Maps the first `len` bytes of a file at the start of the span, with the protection `access`,
    /// shared with other mappings of the file.
    pub(super) fn open_file(&self, file: &File, len: usize, access: i32) -> Result<(), Error> {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: the range is the beginning of this mapping, and is not used while it is closed.
        let mapped =
            unsafe { libc::mmap(self.at(0).cast(), len, access, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(last("mmap"));
        }
        self.keep_from_children(0, len);
        Ok(())
    }

    /// Gives the pages back, with every advice and policy, and keeps the addresses.
    pub(super) fn close(&self, offset: usize, len: usize) -> Result<(), Error> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the range is part of this mapping, and the caller does not use it any more.
        let mapped =
            unsafe { libc::mmap(self.at(offset).cast(), len, libc::PROT_NONE, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(last("mmap"));
        }
        // As at the beginning, so that the system sees one mapping again.
        self.keep_from_children(offset, len);
        Ok(())
    }

    /// Fills every page with memory now instead of on the first touch.
    pub(super) fn populate(&self, offset: usize, len: usize) -> Result<(), Error> {
        self.pages(offset, len).populate()
    }

    /// The pages of a range.
    pub(super) fn pages(&self, offset: usize, len: usize) -> Pages {
        Pages { start: self.at(offset), len }
    }

    /// Reads every page of a file in now instead of on the first touch.
    pub(super) fn read_in(&self, offset: usize, len: usize) -> Result<(), Error> {
        match self.advise(offset, len, libc::MADV_POPULATE_READ) {
            // Linux before 5.14 does not know it. A touch is no substitute: a file that was cut
            // short would end the process.
            Err(Error::System { errno: libc::EINVAL, .. }) => {
                self.advise(offset, len, libc::MADV_WILLNEED)
            }
            outcome => outcome,
        }
    }

    /// Leaks the mapping: the device may still use the memory.
    pub(super) fn leak(&mut self) {
        self.process = None;
    }

    /// Gives the system an advice about pages.
    pub(super) fn advise(&self, offset: usize, len: usize, advice: i32) -> Result<(), Error> {
        self.pages(offset, len).advise(advice)
    }

    /// Lets no forked child have a range.
    pub(super) fn keep_from_children(&self, offset: usize, len: usize) {
        let kept = self.advise(offset, len, libc::MADV_DONTFORK);
        debug_assert_eq!(kept, Ok(()), "a mapping of ours can be kept from children");
    }
}

impl Drop for HostSpan {
    fn drop(&mut self) {
        if self.process != Some(process::id()) {
            return;
        }
        // SAFETY: `reserve` mapped exactly this, only this object unmaps it, and its owner does not
        // use the memory any more.
        let result = unsafe { libc::munmap(self.start.as_ptr(), self.mapped) };
        debug_assert_eq!(result, 0, "munmap of a mapping of ours");
    }
}

impl Pages {
    /// Fills every page with memory now instead of on the first touch.
    pub(super) fn populate(self) -> Result<(), Error> {
        match self.advise(libc::MADV_POPULATE_WRITE) {
            // Linux before 5.14 does not know it.
            Err(Error::System { errno: libc::EINVAL, .. }) => {
                self.touch();
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn advise(self, advice: i32) -> Result<(), Error> {
        // SAFETY: the range is part of a span's mapping, and no advice that callers pass discards
        // its contents.
        let result = unsafe { libc::madvise(self.start.cast(), self.len, advice) };
        check("madvise", result)
    }

    /// Writes to every page of a range that was just opened, and is zero.
    fn touch(self) {
        for page in (0..self.len).step_by(page_size()) {
            // SAFETY: open for writing, and not used by anything else yet.
            unsafe { self.start.wrapping_add(page).write_volatile(0) };
        }
    }
}

// SAFETY: only `touch` writes through the pointer, and only what was just opened and is of one
// thread; otherwise it is an address.
unsafe impl Send for Pages {}

// SAFETY: the pointers are addresses: what is done with memory is done through `Pages`.
unsafe impl Send for HostSpan {}

// SAFETY: as for Send; the fields do not change before the drop.
unsafe impl Sync for HostSpan {}

/// The size of a huge page, as the binary logarithm of its bytes.
const HUGE_PAGE_BITS: u8 = 21;

/// The size of a page that is not huge, in bytes.
pub(super) fn page_size() -> usize {
    // SAFETY: no precondition.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// The error of the system call that just returned `result`, if there is one.
pub(super) fn check(call: &'static str, result: i32) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(last(call)) }
}

/// The error that the system call which just failed has left.
pub(super) fn last(call: &'static str) -> Error {
    system(call, &io::Error::last_os_error())
}

/// An error of the system, in the words of this crate.
pub(super) fn system(call: &'static str, error: &io::Error) -> Error {
    Error::System { call, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}
