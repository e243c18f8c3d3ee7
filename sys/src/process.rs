#![expect(unsafe_code, reason = "maps a page and reads it")]
//! Distinguishes the process that loaded a driver from its forks.
//!
//! A driver is of no use in a child that was forked from its process: its threads, its mappings and
//! its connection to the device are the parent's. What notices that must cost nothing, since it
//! stands before every call: one word in a page that the system empties in a child
//! (`MADV_WIPEONFORK`, Linux 4.14), so that the check is a load and no system call. Where the
//! system does not know the advice, the process's number is compared.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::process;
use std::sync::Arc;

use crate::error::Error;

/// The process in which a table was made. The clones share one page.
#[derive(Clone, Debug)]
pub struct Home {
    /// The page's word, or one that is always 0.
    word: NonNull<AtomicU32>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    page: Option<Page>,
    process: u32,
}

impl Home {
    /// The calling process.
    pub(crate) fn here() -> Self {
        Self::of(Page::new())
    }

    fn of(page: Option<Page>) -> Self {
        let word = page.as_ref().map_or(NonNull::from(&UNMARKED), |page| page.0);
        Self { word, inner: Arc::new(Inner { page, process: process::id() }) }
    }

    /// Whether the calling process is a fork of the one in which this was made. One load, no system
    /// call.
    #[inline]
    #[must_use]
    pub fn is_forked(&self) -> bool {
        // SAFETY: the word of the page, which `inner` keeps mapped, or a static.
        let word = unsafe { self.word.as_ref() };
        word.load(Relaxed) == 0 && self.is_elsewhere()
    }

    /// As `is_forked`, for a word that is 0: that of a child, or where there is no page.
    #[cold]
    fn is_elsewhere(&self) -> bool {
        self.inner.page.is_some() || process::id() != self.inner.process
    }

    /// # Errors
    ///
    /// [`Error::Forked`]: as [`is_forked`](Self::is_forked).
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_forked() { Err(Error::Forked) } else { Ok(()) }
    }
}

// SAFETY: what is behind the pointer is an atomic that the value keeps, or a static.
unsafe impl Send for Home {}
// SAFETY: as above.
unsafe impl Sync for Home {}

/// Where no page tells a child from its parent.
static UNMARKED: AtomicU32 = AtomicU32::new(0);

/// A page whose first word is 1 here and 0 in a forked child.
#[derive(Debug)]
struct Page(NonNull<AtomicU32>);

impl Page {
    /// A page, if the system has one that it empties in a child.
    fn new() -> Option<Self> {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the system's choice touches no other.
        let base = unsafe { libc::mmap(ptr::null_mut(), LEN, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let page = Self(NonNull::new(base)?.cast());
        page.word().store(1, Relaxed);
        // Some emulators (QEMU) ignore every advice and report success. An advice that no system
        // knows tells: there it is not refused. SAFETY: the mapping is this value's.
        let unknown = unsafe { libc::madvise(base, LEN, -1) };
        // SAFETY: as above.
        let advised = unsafe { libc::madvise(base, LEN, libc::MADV_WIPEONFORK) };
        if unknown == 0 || advised != 0 {
            return None;
        }
        Some(page)
    }

    fn is_marked(&self) -> bool {
        // Relaxed: written before the value is shared, and by the system before a child runs.
        self.word().load(Relaxed) != 0
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the first bytes of a mapping that lives as long as this value; only an atomic.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // A child leaves its mappings as they are.
        if self.is_marked() {
            // SAFETY: mapped by `new`; no reference to it is left.
            unsafe { libc::munmap(self.0.as_ptr().cast(), LEN) };
        }
    }
}

// SAFETY: the page belongs to no thread, and is read and written as an atomic only.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

/// The system rounds it up to a page of its own.
const LEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of `check` in a child.
    fn in_a_child(home: &Home) -> Result<(), Error> {
        // SAFETY: the child makes one comparison and ends.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            let code = i32::from(home.check() == Err(Error::Forked));
            // SAFETY: ends the child without what the parent registered for its own end.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writes, and the child is ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(waited, child);
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1 {
            Err(Error::Forked)
        } else {
            Ok(())
        }
    }

    #[test]
    fn a_child_is_told_from_its_parent_by_the_page_and_by_the_number() {
        let by_page = Home::here();
        let by_number = Home::of(None);
        for home in [by_page, by_number] {
            assert_eq!(home.check(), Ok(()));
            assert_eq!(in_a_child(&home), Err(Error::Forked));
            assert_eq!(home.check(), Ok(()), "the child changed nothing here");
        }
    }
}
