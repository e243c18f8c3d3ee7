//! How a pool is made.

use std::fmt;
use std::time::{Duration, Instant};

use super::address_map::AddressMap;
use super::core::Core;
use super::gate::Gate;
use super::limit::BufferLimit;
use super::plan::Peaks;
use super::pressure::{Hook, Pressure};
use super::record::BufferRecords;
use super::sleeper::Sleeper;
use super::stats::Counters;
use super::stream_pool::Pool;
use super::stream_slot::StreamSlots;
use super::track::Track;
use crate::lockfree::index_stack::IndexStack;
use crate::lockfree::turn::Turns;
use crate::memory::{Budget, Budgeted, MemoryResource};
use crate::profile::Name;
use crate::slab::{Blocks, PoolError, PoolOptions, SlabPool};
use crate::sync::atomic::{AtomicU32, AtomicU64};

/// Options of a [`Pool`].
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
/// use wharf::memory::UnbackedResource;
/// use wharf::pool::Pool;
///
/// let pool = Pool::builder()
///     .max_bytes(64 << 20)
///     .wait(Duration::from_millis(100))
///     .on_pressure(|pressure| {
///         // Free something of `pressure.state.size` bytes, if there is any.
///         false
///     })
///     .build(UnbackedResource::new(1 << 30)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a pool is made by `build`"]
pub struct PoolBuilder {
    name: String,
    slabs: PoolOptions,
    budget: Option<Budget>,
    wait: Duration,
    keep_idle: Duration,
    hook: Option<Hook>,
    track: bool,
    max_buffers: Option<usize>,
}

impl PoolBuilder {
    /// Names the pool, for reports: whose memory it is.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Sets the options of the slabs. Threads cache no blocks, whatever these say: streams keep
    /// what they drop.
    pub fn slabs(self, slabs: PoolOptions) -> Self {
        Self { slabs, ..self }
    }

    /// Limits what the pool commits at any time, in bytes, which is whole granules: at least one.
    /// The span's size by default.
    ///
    /// Where a span is one allocation, the pool takes all of its limit when it is made.
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { slabs: self.slabs.max_bytes(max_bytes), ..self }
    }

    /// Counts what the pool commits against a budget, which others share. None by default.
    pub fn budget(self, budget: &Budget) -> Self {
        Self { budget: Some(budget.clone()), ..self }
    }

    /// Lets an allocation at the limit wait for the device, for at most this long. By default 2
    /// milliseconds: streams that were not polled before have to report first how far they are.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Sets how long a block of up to 128 KiB has to be of no use to its stream before the pool
    /// gives it back to the slabs rather than grow. By default it is given back when the device is
    /// past it. [`Duration::MAX`] keeps all.
    pub fn keep_idle(self, keep_idle: Duration) -> Self {
        Self { keep_idle, ..self }
    }

    /// Sets a function that is asked to free something before an allocation fails; it says whether
    /// it did. It may drop buffers. Where it allocates from the pool itself, it is not asked again:
    /// that allocation fails.
    ///
    /// A panic in it passes through [`Pool::alloc`] to the caller; the pool stays as it was.
    pub fn on_pressure(self, hook: impl Fn(&Pressure) -> bool + Send + Sync + 'static) -> Self {
        Self { hook: Some(Hook(Box::new(hook))), ..self }
    }

    /// Limits how many blocks there are at a time, held and retired together. When there are as
    /// many, the one that was dropped first is given back to the slabs, if the device is past its
    /// last use.
    pub fn max_buffers(self, max_buffers: usize) -> Self {
        Self { max_buffers: Some(max_buffers), ..self }
    }

    /// Notes where each buffer is allocated, for reports. Takes a lock and the time at each
    /// allocation.
    pub fn track(self, track: bool) -> Self {
        Self { track, ..self }
    }

    /// Makes the pool. Nothing is committed yet, as far as the span is not one allocation.
    ///
    /// # Errors
    ///
    /// As [`SlabPool::new`].
    pub fn build<R: MemoryResource + fmt::Debug + 'static>(
        self,
        resource: R,
    ) -> Result<Pool, PoolError> {
        // Streams keep what they drop, so threads need not.
        let slabs = self.slabs.thread_cache_bytes(0).slice(SLICE);
        let resource = Budgeted::if_any(resource, self.budget.as_ref(), &self.name);
        let upstream: Box<dyn Blocks> = Box::new(SlabPool::new(resource, slabs)?);
        Ok(Pool::with(Core {
            alloc_range: Name::of(c"pool::alloc", &self.name),
            name: self.name,
            slots: StreamSlots::new(upstream.id()),
            id: upstream.id(),
            addresses: AddressMap::new(upstream.resource().base(), upstream.resource().size()),
            slice: upstream.run_size(1),
            kind: upstream.resource().kind(),
            upstream,
            records: BufferRecords::new(),
            mixed: IndexStack::new(),
            spare: IndexStack::new(),
            draining: Turns::new(),
            passes: AtomicU32::new(0),
            holds: AtomicU32::new(0),
            start: Instant::now(),
            last_pass: AtomicU64::new(0),
            limit: BufferLimit::new(self.max_buffers),
            peaks: Peaks::new(),
            counters: Counters::default(),
            gate: Gate::new(self.track),
            sleeper: Sleeper::default(),
            wait: self.wait,
            close_timeout: CLOSE_TIMEOUT,
            pass_interval: u64::try_from(self.keep_idle.as_millis()).unwrap_or(u64::MAX),
            hook: self.hook,
            track: self.track.then(Track::default),
        }))
    }
}

impl Pool {
    /// Options, to [build](PoolBuilder::build) a pool with.
    pub fn builder() -> PoolBuilder {
        PoolBuilder::default()
    }
}

impl Default for PoolBuilder {
    fn default() -> Self {
        Self {
            name: String::new(),
            slabs: PoolOptions::default(),
            budget: None,
            wait: WAIT,
            keep_idle: KEEP_IDLE,
            hook: None,
            track: false,
            max_buffers: None,
        }
    }
}

const KEEP_IDLE: Duration = Duration::ZERO;
/// Half of what slabs have by themselves: less is lost at the ends of large blocks, and a slab of
/// fewer blocks is empty sooner. Slabs have fewer blocks for each search, which is nothing here:
/// streams keep what they drop, and no thread fills a cache from slabs.
const SLICE: usize = 16 << 10;
/// Long enough for a marker to come back from an idle device.
const WAIT: Duration = Duration::from_millis(2);
/// How long the end of a pool waits for the device before it leaks what that uses.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
