//! How a pool of tiers is made.

use std::fmt::{self, Debug};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::memory::{DEVICE_TIER, TierMemory};
use super::pool::TieredPool;
use super::rate_limit::RateLimit;
use super::record::ObjectRecord;
use super::slots::Slots;
use super::stats::Counters;
use super::{Tier, TierError};
use crate::driver::{Context, DeviceAttribute};
use crate::error::{CudaError, Error};
use crate::lockfree::bitmap::Bitmaps;
use crate::memory::{
    Budget, Budgeted, FileMappedMemoryResource, ManagedMemoryResource, MemoryKind, MemoryResource,
    PinnedMemoryResource, PinnedOptions,
};
use crate::stream::Stream;
use crate::sync::atomic::{AtomicU64, AtomicUsize};
use crate::timeline::Sentinel;

/// What a [`TieredPool`] is to be. Nothing is allocated before [`build`](Self::build).
#[derive(Debug)]
#[must_use = "a pool is made by `build`"]
pub struct TierBuilder {
    context: Context,
    limits: [Option<usize>; Tier::ALL.len()],
    /// Tiers whose memory the caller has brought.
    brought: [Option<Brought>; Tier::ALL.len()],
    budget: Option<Budget>,
    file: Option<File>,
    max_in_flight: usize,
    bytes_per_second: u64,
    max_objects: usize,
    max_pins: usize,
    wait: Duration,
}

/// Makes a tier of a resource of the caller's, when all options are known.
struct Brought(Box<Make>);

type Make = dyn FnOnce(Option<&Budget>) -> Result<TierMemory, TierError> + Send + Sync;

impl Debug for Brought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a resource")
    }
}

impl TieredPool {
    /// Begins to describe a pool, which has no tiers yet.
    pub fn builder(context: &Context) -> TierBuilder {
        TierBuilder {
            context: context.clone(),
            limits: [None; Tier::ALL.len()],
            brought: [const { None }; Tier::ALL.len()],
            budget: None,
            file: None,
            max_in_flight: 32,
            bytes_per_second: u64::MAX,
            max_objects: 4096,
            max_pins: 1024,
            wait: Duration::from_secs(10),
        }
    }
}

impl TierBuilder {
    /// Gives the pool a tier of at most `bytes` of the device's memory, a whole number of granules
    /// of 2 MiB and at least one.
    pub fn device(self, bytes: usize) -> Self {
        self.limit(Tier::Device, bytes)
    }

    /// Gives the pool a tier of at most `bytes` of a resource: the device's memory or pinned
    /// memory, by its kind, of the pool's device. So a tier may be registered with a transport, see
    /// [`WiredResource`](crate::memory::WiredResource) and
    /// [`TieredPool::registrations`].
    ///
    /// A resource of another kind or device is an error of [`build`](Self::build).
    pub fn resource<R>(mut self, resource: R, bytes: usize) -> Self
    where
        R: MemoryResource + Debug + 'static,
    {
        let (kind, ordinal) = (resource.kind(), self.context.device().ordinal());
        let (tier, refused) = match kind {
            MemoryKind::Device if resource.ordinal() == Some(ordinal) => (Tier::Device, None),
            MemoryKind::Device => {
                let memory = resource.ordinal().unwrap_or(-1);
                (Tier::Device, Some(Error::OtherDevice { stream: ordinal, memory }))
            }
            MemoryKind::Pinned => (Tier::Pinned, None),
            _ => (Tier::Pinned, Some(NO_TIER)),
        };
        let make = move |budget: Option<&Budget>| {
            if let Some(error) = refused {
                return Err(error.into());
            }
            let budget = budget.filter(|_| tier == Tier::Device);
            let resource = Budgeted::if_any(resource, budget, DEVICE_TIER);
            Ok(TierMemory::new(resource, bytes)?)
        };
        self.brought[tier.index()] = Some(Brought(Box::new(make)));
        self
    }

    /// Counts what the device's tier commits against a budget, which others share, under the name
    /// `device tier`, also if its memory is a [resource](Self::resource) of the caller's. Where the
    /// budget has no room, it is as where the device has no memory. None by default.
    pub fn budget(self, budget: &Budget) -> Self {
        Self { budget: Some(budget.clone()), ..self }
    }

    /// Gives the pool a tier of at most `bytes` of managed memory.
    pub fn managed(self, bytes: usize) -> Self {
        self.limit(Tier::Managed, bytes)
    }

    /// Gives the pool a tier of at most `bytes` of pinned memory.
    pub fn pinned(self, bytes: usize) -> Self {
        self.limit(Tier::Pinned, bytes)
    }

    /// Gives the pool a tier of at most `bytes` of a file, which is written to and made longer if
    /// need be.
    ///
    /// An object that was there once keeps its place in the file.
    pub fn file(self, file: File, bytes: usize) -> Self {
        Self { file: Some(file), ..self.limit(Tier::FileMapped, bytes) }
    }

    /// Limits the copies under way. By default 32.
    pub fn max_in_flight(self, max_in_flight: usize) -> Self {
        Self { max_in_flight: max_in_flight.max(1), ..self }
    }

    /// Limits what copies are begun of, in bytes a second. A copy larger than that is begun, and
    /// the next one waits so much longer. By default there is no limit.
    pub fn bytes_per_second(self, bytes_per_second: u64) -> Self {
        Self { bytes_per_second, ..self }
    }

    /// Limits the number of objects. By default 4096; each costs about 150 bytes of ordinary
    /// memory.
    pub fn max_objects(self, max_objects: usize) -> Self {
        Self { max_objects: max_objects.max(1), ..self }
    }

    /// Limits the number of holds: guards, and what the device still does after their end. By
    /// default 1024.
    pub fn max_pins(self, max_pins: usize) -> Self {
        Self { max_pins: max_pins.max(1), ..self }
    }

    /// Limits how long a call waits for room, for a copy or for others' holds. By default 10 s.
    pub fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Makes the pool: a stream of its own, and the addresses of its tiers.
    ///
    /// # Errors
    ///
    /// * [`TierError::Driver`]: the driver or the system refused.
    /// * [`TierError::Pool`]: a tier is larger than slabs can number, or, where it is one
    ///   allocation, than what the driver has.
    pub fn build(mut self) -> Result<TieredPool, TierError> {
        let stream = Stream::new(&self.context)?;
        // Later tickets make no driver call.
        stream.ticket()?;
        let free = Bitmaps::new(1, self.max_objects).ok_or(NO_RECORDS)?;
        free.get(0).fill(self.max_objects);
        let core = Core {
            records: (0..self.max_objects).map(|_| ObjectRecord::new()).collect(),
            free,
            used: AtomicUsize::new(0),
            tiers: self.tiers()?,
            moves: Slots::new(self.max_in_flight),
            leases: Slots::new(self.max_pins),
            hits: (0..self.max_pins).map(|_| AtomicU64::new(0)).collect(),
            sentinel: Sentinel::new(&self.context),
            stream,
            rate: RateLimit::new(self.bytes_per_second),
            wait: self.wait,
            step: AtomicU64::new(0),
            counters: Counters::default(),
        };
        Ok(TieredPool { core: Arc::new(core) })
    }

    fn limit(mut self, tier: Tier, bytes: usize) -> Self {
        self.limits[tier.index()] = Some(bytes);
        self
    }

    fn tiers(&mut self) -> Result<[Option<TierMemory>; Tier::ALL.len()], TierError> {
        for (limit, brought) in self.limits.iter_mut().zip(&self.brought) {
            *limit = limit.filter(|_| brought.is_none());
        }
        let mut tiers = self.own_tiers()?;
        for (tier, brought) in tiers.iter_mut().zip(&mut self.brought) {
            if let Some(Brought(make)) = brought.take() {
                *tier = Some(make(self.budget.as_ref())?);
            }
        }
        Ok(tiers)
    }

    fn own_tiers(&self) -> Result<[Option<TierMemory>; Tier::ALL.len()], TierError> {
        let context = &self.context;
        let [device, managed, pinned, file] = self.limits;
        let can_map =
            context.device().supports(DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)?;
        let budget = self.budget.as_ref();
        let device = device.map(|limit| TierMemory::device(context, limit, can_map, budget));
        let device = device.transpose()?;
        let managed = match managed {
            Some(limit) => {
                Some(TierMemory::managed(ManagedMemoryResource::new(context, limit)?, limit)?)
            }
            None => None,
        };
        let pinned = match pinned {
            Some(limit) => {
                let resource = PinnedMemoryResource::new(context, limit, PinnedOptions::default())?;
                Some(TierMemory::new(resource, limit)?)
            }
            None => None,
        };
        let file = match (file, &self.file) {
            (Some(limit), Some(file)) => {
                let resource = FileMappedMemoryResource::scratch(context, file, limit)?;
                Some(TierMemory::new(resource, limit)?)
            }
            _ => None,
        };
        Ok([device, managed, pinned, file])
    }
}

/// There is no memory for what is noted of so many objects.
const NO_RECORDS: Error = Error::System { call: "malloc", errno: libc::ENOMEM };

/// A resource of a kind that no tier of the caller's may have.
const NO_TIER: Error = Error::Driver { call: "tier of a resource", code: CudaError::INVALID_VALUE };
