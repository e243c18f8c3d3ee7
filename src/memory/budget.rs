//! A limit that several resources share.
//!
//! * `used`: written by `take` (CAS) and `give`; read by `take` and reports. Relaxed: the sum
//!   itself is the fact; no other data hang on it.
//! * `peak`, and both of a share: written by the same; read by reports. Relaxed.

use std::fmt;
use std::sync::{Arc, Weak};

use super::MemoryKind;
use crate::address::to_usize;
use crate::error::Error;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, try_update};

/// A number of bytes that pools, tiers and sets may commit together, and the account of what each
/// of them has: the limit of a device, or of the host's pinned memory.
///
/// Builders take it: [`PoolBuilder::budget`](crate::pool::PoolBuilder::budget),
/// [`TierBuilder::budget`](crate::tier::TierBuilder::budget),
/// [`InputBuffersBuilder::budget`](crate::staging::InputBuffersBuilder::budget),
/// [`OutputBuffersBuilder::budget`](crate::staging::OutputBuffersBuilder::budget); a resource that
/// is used directly is wrapped by [`Budgeted::new`](super::Budgeted::new). Clones are the same
/// budget.
///
/// A commit above the limit is refused as by a driver that is out of memory, with
/// [`Error::OverBudget`]. A pool then gives back what it does not use, and goes through its
/// [ladder](crate::pool::PoolBuilder::on_pressure); it takes nothing from other pools. A limit of
/// its own applies besides.
///
/// Memory that is leaked stays counted. So do what a resource failed to decommit, until the
/// resource ends, and what a [`Lease`](super::Lease) keeps from the end of its pool.
///
/// # Examples
///
/// ```
/// # let machine = softcuda::Simulator::new(softcuda::Config::default());
/// # let _bound = machine.bind();
/// # let driver = wharf::Driver::from_api(machine.api()?)?;
/// # let context = wharf::Context::retain(&driver.device(0)?)?;
/// # let stream = wharf::Stream::new(&context)?;
/// use wharf::memory::{Budget, DeviceMemoryResource};
/// use wharf::pool::{Buffer, Pool};
///
/// let device = Budget::new(8 << 20);
/// let memory = || DeviceMemoryResource::new(&context, 1 << 30);
/// let weights = Pool::builder().name("weights").budget(&device).build(memory()?)?;
/// let cache = Pool::builder().name("cache").budget(&device).build(memory()?)?;
/// let held: Buffer<u8> = weights.alloc(6 << 20, &stream)?;
/// assert!(cache.alloc::<u8>(4 << 20, &stream).is_err());
/// let _fits: Buffer<u8> = cache.alloc(2 << 20, &stream)?;
/// assert_eq!((device.used(), device.uses()[0].name.as_str()), (8 << 20, "weights"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicU64,
    peak: AtomicU64,
    shares: Mutex<Vec<Weak<Share>>>,
}

/// What one resource has of a budget.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Shared>,
    name: String,
    kind: MemoryKind,
    used: AtomicU64,
    peak: AtomicU64,
}

/// What one pool, tier or set has of a [`Budget`]. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BudgetUse {
    /// The name of the pool, tier or set.
    pub name: String,
    /// The kind of memory, in words.
    pub kind: String,
    /// What it has committed.
    pub used: usize,
    /// The most that it ever had.
    pub peak: usize,
}

impl Budget {
    /// A budget of `limit` bytes; with [`usize::MAX`] an account without a limit.
    pub fn new(limit: usize) -> Self {
        let shares = Mutex::new(Vec::new());
        let (used, peak) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { limit, used, peak, shares }) }
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Bytes committed at this moment, by all together.
    pub fn used(&self) -> usize {
        to_usize(self.shared.used.load(Relaxed))
    }

    /// The most that was committed at once.
    pub fn peak(&self) -> usize {
        to_usize(self.shared.peak.load(Relaxed))
    }

    /// What each pool, tier and set has, in the order in which they were made. One that has ended
    /// is in no list; one that has leaked memory is.
    pub fn uses(&self) -> Vec<BudgetUse> {
        let shares = self.shared.shares.lock();
        shares.iter().filter_map(Weak::upgrade).map(|share| share.to_use()).collect()
    }

    /// Begins an account for a resource.
    pub(super) fn share(&self, name: &str, kind: MemoryKind) -> Arc<Share> {
        let share = Arc::new(Share {
            budget: Arc::clone(&self.shared),
            name: name.to_owned(),
            kind,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        });
        let mut shares = self.shared.shares.lock();
        shares.retain(|share| share.strong_count() > 0);
        shares.push(Arc::downgrade(&share));
        share
    }
}

impl Share {
    /// Counts `bytes` as committed, before they are.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Error> {
        let Shared { limit, used, peak, .. } = &*self.budget;
        let more = bytes as u64;
        let before = try_update(used, Relaxed, |used| {
            let over = Error::OverBudget { wanted: bytes, used: to_usize(used), limit: *limit };
            used.checked_add(more).filter(|sum| *sum <= *limit as u64).ok_or(over)
        })?;
        peak.fetch_max(before + more, Relaxed);
        let own = self.used.fetch_add(more, Relaxed) + more;
        self.peak.fetch_max(own, Relaxed);
        Ok(())
    }

    /// Counts `bytes` as given back.
    pub(super) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Relaxed);
        self.budget.used.fetch_sub(bytes as u64, Relaxed);
    }

    fn to_use(&self) -> BudgetUse {
        BudgetUse {
            name: self.name.clone(),
            kind: format!("{:?}", self.kind),
            used: to_usize(self.used.load(Relaxed)),
            peak: to_usize(self.peak.load(Relaxed)),
        }
    }
}

/// The resource has ended: what it had is free for others.
impl Drop for Share {
    fn drop(&mut self) {
        self.give(to_usize(self.used.load(Relaxed)));
    }
}

/// A line for all, and one for each pool, tier and set.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, peak) = (self.used(), self.peak());
        match self.limit() {
            usize::MAX => writeln!(f, "budget: {used} bytes used, {peak} at most")?,
            limit => writeln!(f, "budget: {used} of {limit} bytes used, {peak} at most")?,
        }
        self.uses().iter().try_for_each(|of| {
            let BudgetUse { name, kind, used, peak } = of;
            writeln!(f, "  {name:?}: {kind} memory, {used} bytes used, {peak} at most")
        })
    }
}
