//! Memory pools: what stream-ordered allocations come from.
//!
//! ```text
//!            alloc: grows by granules                    free operation runs
//!   device ------------------------> reserved >= used ------------------------> reserved > used
//!     ^                                                                             |
//!     +------------ a synchronising call, where more than the threshold is held ----+
//! ```
//!
//! A pool is an account: each allocation has addresses of its own, given at the call, which come
//! back to it alone where the machine recycles, see [`Config::recycle`](crate::Config::recycle).
//! The bytes that a pool reserves are charged to its device.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wharf_sys::CudaError;

use crate::handle::{Kind as HandleKind, Numbering, Registry};
use crate::location::Location;
use crate::memory::block::{Block, Kind, READ_WRITE};
use crate::memory::table::{Owner, Table};

/// Backing memory comes and goes in multiples of this many bytes.
const GRANULE: u64 = 2 << 20;
/// Allocations are multiples of this many bytes.
const UNIT: u64 = 512;

/// The kind and the location of the memory of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) managed: bool,
    /// Absent for managed memory that prefers no location.
    pub(crate) location: Option<Location>,
}

impl Place {
    /// Pinned memory of a device: what `cuMemAllocAsync` takes from.
    pub(crate) fn device(ordinal: i32) -> Self {
        Self { managed: false, location: Some(Location::Device(ordinal)) }
    }

    fn is_host(self) -> bool {
        !self.managed && self.location.is_some_and(Location::is_host)
    }

    fn ordinal(self) -> i32 {
        self.location.map_or(0, Location::ordinal)
    }
}

/// The pools of one machine.
#[derive(Debug)]
pub(crate) struct Pools {
    registry: Registry<Pool>,
    defaults: HashMap<Place, u64>,
    current: HashMap<Place, u64>,
}

/// A memory pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) place: Place,
    /// The most bytes in use, or zero for no limit.
    pub(crate) max_size: u64,
    /// `CU_MEMPOOL_ATTR_REUSE_*`, in their order. No reuse is legal whatever they say.
    pub(crate) reuse: [i32; 3],
    pub(crate) threshold: u64,
    pub(crate) reserved: Level,
    pub(crate) used: Level,
    /// The access of other locations.
    pub(crate) access: BTreeMap<Location, u32>,
    /// Allocations whose memory has not come back.
    live: usize,
    /// The program has destroyed it; it goes with its last allocation.
    destroyed: bool,
}

/// A number of bytes and the most it has been since that was last reset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Level {
    pub(crate) now: u64,
    pub(crate) high: u64,
}

impl Level {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.now += bytes;
        self.high = self.high.max(self.now);
    }

    /// Starts the high watermark again.
    pub(crate) fn reset(&mut self) {
        self.high = self.now;
    }
}

impl Pool {
    fn new(place: Place, max_size: u64) -> Self {
        Self {
            place,
            max_size,
            reuse: [1; 3],
            threshold: 0,
            reserved: Level::default(),
            used: Level::default(),
            access: BTreeMap::new(),
            live: 0,
            destroyed: false,
        }
    }

    /// Lowers what is reserved towards `keep` bytes, and says by how much.
    fn shrink(&mut self, keep: u64) -> u64 {
        let floor = self.used.now.max(keep).next_multiple_of(GRANULE);
        let surplus = self.reserved.now.saturating_sub(floor);
        self.reserved.now -= surplus;
        surplus
    }
}

impl Pools {
    pub(crate) fn new(numbering: Numbering) -> Self {
        Self {
            registry: Registry::new(HandleKind::Pool, numbering),
            defaults: HashMap::new(),
            current: HashMap::new(),
        }
    }

    pub(crate) fn create(&mut self, place: Place, max_size: u64) -> u64 {
        self.registry.insert(Pool::new(place, max_size))
    }

    /// The pool that the program knows as `handle`.
    pub(crate) fn get(&mut self, handle: u64) -> Result<&mut Pool, CudaError> {
        self.registry.get_mut(handle).filter(|pool| !pool.destroyed).ok_or(CudaError::INVALID_VALUE)
    }

    /// A place's default pool, made when first asked for.
    pub(crate) fn default_of(&mut self, place: Place) -> u64 {
        if let Some(handle) = self.defaults.get(&place) {
            return *handle;
        }
        let handle = self.create(place, 0);
        self.defaults.insert(place, handle);
        handle
    }

    /// A place's current pool.
    pub(crate) fn current_of(&mut self, place: Place) -> u64 {
        self.current.get(&place).copied().unwrap_or_else(|| self.default_of(place))
    }

    /// Makes `handle` the current pool of its place.
    pub(crate) fn set_current(&mut self, place: Place, handle: u64) -> Result<(), CudaError> {
        // "The memory pool must be local to the specified device."
        if self.get(handle)?.place != place {
            return Err(CudaError::INVALID_VALUE);
        }
        self.current.insert(place, handle);
        Ok(())
    }

    /// The access of another location to the pool's allocations.
    pub(crate) fn access(&self, pool: u64, location: Location) -> u32 {
        let Some(pool) = self.registry.get(pool) else { return 0 };
        if pool.place.managed {
            READ_WRITE
        } else {
            pool.access.get(&location).copied().unwrap_or(0)
        }
    }

    /// Whether allocations of this pool are managed memory.
    pub(crate) fn is_managed(&self, pool: u64) -> bool {
        self.registry.get(pool).is_some_and(|pool| pool.place.managed)
    }

    /// The pools that the program has made and not destroyed, for leak reports.
    pub(crate) fn created(&self) -> Vec<u64> {
        let is_default = |handle: &u64| self.defaults.values().any(|default| default == handle);
        let is_alive =
            |handle: &u64| self.registry.get(*handle).is_some_and(|pool| !pool.destroyed);
        self.registry
            .handles()
            .into_iter()
            .filter(|handle| is_alive(handle) && !is_default(handle))
            .collect()
    }
}

impl Pools {
    /// Destroys a pool; its memory goes when its last allocation has come back.
    pub(crate) fn destroy(&mut self, memory: &mut Table, handle: u64) -> Result<(), CudaError> {
        if self.defaults.values().any(|default| *default == handle) {
            // "A device's default memory pool cannot be destroyed."
            return Err(CudaError::INVALID_VALUE);
        }
        self.get(handle)?.destroyed = true;
        // "Destroying the current mempool of a device sets the default mempool of that device as
        // the current mempool for that device."
        self.current.retain(|_, current| *current != handle);
        self.shrink(memory, handle, 0);
        self.collect(memory, handle);
        Ok(())
    }

    /// Gives an allocation of `size` bytes addresses. Its memory is to be reserved, and it comes
    /// to life when the operation that allocates it runs.
    pub(crate) fn place(
        &mut self,
        memory: &mut Table,
        pool: u64,
        size: usize,
        stream: u64,
    ) -> Result<Arc<Block>, CudaError> {
        let place = self.get(pool)?.place;
        // Such memory belongs to its device, not to a context.
        let owner = Owner { context: 0, ordinal: place.ordinal() };
        let kind = Kind::Pool { pool, host: place.is_host() };
        let block = memory.allocate_on(kind, size, owner, stream)?;
        block.postpone();
        Ok(block)
    }

    /// Takes the memory of an allocation from its pool, which has at most `limit` bytes of
    /// backing memory to grow into.
    pub(crate) fn reserve(
        &mut self,
        memory: &mut Table,
        block: &Block,
        limit: u64,
    ) -> Result<(), CudaError> {
        let Kind::Pool { pool: handle, .. } = block.kind else {
            return Err(CudaError::INVALID_VALUE);
        };
        let need = (block.size as u64).next_multiple_of(UNIT);
        let pool = self.get(handle)?;
        let used = pool.used.now.checked_add(need).ok_or(CudaError::OUT_OF_MEMORY)?;
        if pool.max_size != 0 && used > pool.max_size {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        // The pool's limit is on what is in use, the device's on what is reserved.
        let growth = used.saturating_sub(pool.reserved.now).next_multiple_of(GRANULE);
        let account = memory.account(block.kind, block.ordinal);
        if account.checked_add(growth).is_none_or(|after| after > limit) {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        *account += growth;
        pool.reserved.add(growth);
        pool.used.add(need);
        pool.live += 1;
        Ok(())
    }

    /// Gives the memory of an allocation back to its pool.
    pub(crate) fn give_back(&mut self, memory: &mut Table, block: &Block) {
        let Kind::Pool { pool: handle, .. } = block.kind else { return };
        if let Some(pool) = self.registry.get_mut(handle) {
            pool.used.now -= (block.size as u64).next_multiple_of(UNIT);
            pool.live -= 1;
        }
        self.collect(memory, handle);
    }

    /// "When more than the release threshold bytes of memory are held by the memory pool, the
    /// allocator will try to release memory back to the OS on the next call to stream, event or
    /// context synchronize."
    pub(crate) fn release_surplus(&mut self, memory: &mut Table) {
        let is_over =
            |pool: &Pool| pool.reserved.now > pool.threshold && pool.reserved.now > pool.used.now;
        if !self.registry.values().any(is_over) {
            return;
        }
        for handle in self.registry.handles() {
            let threshold = self.registry.get(handle).map_or(0, |pool| pool.threshold);
            self.shrink(memory, handle, threshold);
        }
    }

    /// Releases what a pool has reserved and not in use, down to `keep` bytes.
    pub(crate) fn shrink(&mut self, memory: &mut Table, handle: u64, keep: u64) {
        let Some(pool) = self.registry.get_mut(handle) else { return };
        let surplus = pool.shrink(keep);
        let kind = Kind::Pool { pool: handle, host: pool.place.is_host() };
        let ordinal = pool.place.ordinal();
        memory.refund(kind, ordinal, usize::try_from(surplus).unwrap_or(usize::MAX));
    }

    /// Removes a destroyed pool whose last allocation has come back.
    fn collect(&mut self, memory: &mut Table, handle: u64) {
        if self.registry.get(handle).is_some_and(|pool| pool.destroyed && pool.live == 0) {
            self.shrink(memory, handle, 0);
            self.registry.remove(handle);
        }
    }
}
