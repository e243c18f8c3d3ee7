//! The account of a resource: memory obtained, calls and time.

use std::time::Duration;

use super::PageTier;
use super::device_options::Handles;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The memory that a resource has obtained, and its cost so far. Sizes are in bytes.
///
/// A snapshot: the numbers are read one by one while other threads may commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceReport {
    /// How the memory is obtained.
    pub backing: Backing,
    /// Committed memory.
    pub committed: usize,
    /// The part of it that is host memory registered with the driver.
    pub registered: usize,
    /// Memory that could not be taken back; its addresses are not used again.
    pub lost: usize,
    /// Committed memory in pages of each kind. All 0 where the driver chooses the pages.
    pub pages: Pages,
    /// The NUMA node that pages are taken from, where one is asked for.
    pub numa_node: Option<u32>,
    /// How many commits could not be bound to that node, and took pages from anywhere.
    pub unbound_commits: u64,
    /// The handles by which other processes can map the memory.
    pub handles: Handles,
    /// Whether network cards reach it, in a device's memory.
    pub rdma: bool,
    /// How many devices besides its own reach it, in a device's memory.
    pub peers: usize,
    /// How many calls the driver got to reserve, commit, decommit and release.
    pub driver_calls: u64,
    /// Time spent in those calls, in nanoseconds, added up over all threads.
    pub driver_nanoseconds: u64,
}

/// How a resource obtains its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backing {
    /// Piece by piece: a commit takes memory from the system or the driver, a decommit gives it
    /// back.
    Pieces,
    /// In one allocation by the driver, for lack of anything better: commit and decommit only keep
    /// account.
    Whole,
}

/// Bytes in pages of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pages {
    /// In huge pages from the system's pool.
    pub explicit: usize,
    /// In pages that the system was asked to make huge.
    pub transparent: usize,
    /// In pages of the usual size.
    pub plain: usize,
}

/// The numbers behind a [`ResourceReport`].
#[derive(Debug, Default)]
pub(super) struct Tally {
    committed: AtomicUsize,
    registered: AtomicUsize,
    lost: AtomicUsize,
    pages: [AtomicUsize; 3],
    unbound: AtomicU64,
    calls: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Tally {
    /// Counts a commit.
    pub(super) fn commit(&self, len: usize) {
        self.committed.fetch_add(len, Relaxed);
    }

    /// Counts a decommit.
    pub(super) fn decommit(&self, len: usize) {
        self.committed.fetch_sub(len, Relaxed);
    }

    /// Counts a range as out of use for ever.
    pub(super) fn lose(&self, len: usize) {
        self.lost.fetch_add(len, Relaxed);
    }

    /// Counts a registration.
    pub(super) fn register(&self, len: usize) {
        self.registered.fetch_add(len, Relaxed);
    }

    /// Counts the end of a registration.
    pub(super) fn unregister(&self, len: usize) {
        self.registered.fetch_sub(len, Relaxed);
    }

    /// Counts opened pages.
    pub(super) fn open(&self, len: usize, tier: PageTier) {
        self.pages[tier as usize].fetch_add(len, Relaxed);
    }

    /// Counts closed pages.
    pub(super) fn close(&self, len: usize, tier: PageTier) {
        self.pages[tier as usize].fetch_sub(len, Relaxed);
    }

    /// Counts a commit on whatever node.
    pub(super) fn unbound(&self) {
        self.unbound.fetch_add(1, Relaxed);
    }

    /// Counts a call that the driver got.
    pub(super) fn call(&self, time: Duration) {
        self.calls.fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn report(&self, backing: Backing, numa_node: Option<u32>) -> ResourceReport {
        let pages = |tier: PageTier| self.pages[tier as usize].load(Relaxed);
        ResourceReport {
            backing,
            committed: self.committed.load(Relaxed),
            registered: self.registered.load(Relaxed),
            lost: self.lost.load(Relaxed),
            pages: Pages {
                explicit: pages(PageTier::Explicit),
                transparent: pages(PageTier::Transparent),
                plain: pages(PageTier::Plain),
            },
            numa_node,
            handles: Handles::NONE,
            rdma: false,
            peers: 0,
            unbound_commits: self.unbound.load(Relaxed),
            driver_calls: self.calls.load(Relaxed),
            driver_nanoseconds: self.nanoseconds.load(Relaxed),
        }
    }
}
