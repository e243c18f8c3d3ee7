//! How a pool is made.

use super::error::PoolError;
use super::geometry::Geometry;
use crate::memory::MemoryResource;

/// Options of a [`SlabPool`](super::SlabPool).
///
/// # Examples
///
/// ```
/// use wharf::slab::PoolOptions;
///
/// let options = PoolOptions::default().max_bytes(1 << 30).thread_cache_bytes(8 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    pub(super) max_bytes: usize,
    pub(super) granule: Option<usize>,
    thread_cache_bytes: Option<usize>,
}

impl PoolOptions {
    /// Limits what the pool commits at any time, in bytes, which is whole granules: at least one.
    /// The span's size by default.
    ///
    /// Where a span is one allocation, the pool takes all of its limit when it is made.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Sets the unit in which the pool commits, in bytes: a power of two from 4 KiB to 4 MiB.
    ///
    /// Blocks of up to 8 granules are cut from slabs, which share granules or have up to 8 of them;
    /// larger ones are whole numbers of granules. By default 2 MiB.
    #[must_use]
    pub fn granule(self, granule: usize) -> Self {
        Self { granule: Some(granule), ..self }
    }

    /// Limits the blocks that each thread caches, in bytes. 0: threads cache none.
    /// By default 64 MiB, and at most a 64th of what the pool may commit.
    ///
    /// Less makes allocations of large blocks slower, most of all where several threads allocate. A
    /// thread empties its cache before a pool that had stopped growing grows again. The transfer
    /// cache, which all threads share, holds about half as much as one thread's cache may.
    #[must_use]
    pub fn thread_cache_bytes(self, thread_cache_bytes: usize) -> Self {
        Self { thread_cache_bytes: Some(thread_cache_bytes), ..self }
    }

    /// What each thread of a pool that may commit `limit` bytes may cache, in bytes.
    pub(super) fn cache_bytes(&self, limit: usize) -> usize {
        self.thread_cache_bytes.unwrap_or(DEFAULT_CACHE.min(limit / 64))
    }

    /// Settles a resource's span, as much of it as the limit has use for, and cuts it.
    pub(super) fn geometry(
        &self,
        resource: &mut impl MemoryResource,
    ) -> Result<Geometry, PoolError> {
        let granularity = resource.granularity();
        let granule = self.granule.unwrap_or(granularity.max(DEFAULT_GRANULE));
        if !granule.is_power_of_two()
            || granule < granularity
            || !Geometry::GRANULES.contains(&granule)
        {
            return Err(PoolError::Granule { granule, granularity });
        }
        if self.max_bytes < granule {
            return Err(PoolError::Limit { limit: self.max_bytes, granule });
        }
        let most = (self.max_bytes - self.max_bytes % granule).min(resource.size());
        resource.limit_to(most).map_err(|cause| PoolError::Upstream {
            size: most,
            cause,
            physical: cause.is_out_of_memory().then(|| resource.physical_memory()).flatten(),
        })?;
        let wrong_span = PoolError::Span { base: resource.base(), size: resource.size() };
        let base = resource.base();
        let granules = resource.size() / granule;
        let slices = resource.size() / Geometry::slice_for(granule);
        let numbered = granules > 0 && u32::try_from(slices).is_ok_and(|n| n < u32::MAX);
        let aligned = base.is_multiple_of(granule as u64);
        if !numbered || !aligned || base.checked_add(resource.size() as u64).is_none() {
            return Err(wrong_span);
        }
        Ok(Geometry::new(base, granule, Geometry::slice_for(granule), granules))
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { max_bytes: usize::MAX, granule: None, thread_cache_bytes: None }
    }
}

/// As large as the pages of devices and the huge pages of hosts.
const DEFAULT_GRANULE: usize = 2 << 20;

const DEFAULT_CACHE: usize = 64 << 20;
