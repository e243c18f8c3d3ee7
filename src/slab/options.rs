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
    pub(super) thread_cache_bytes: usize,
}

impl PoolOptions {
    /// Limits what the pool commits at any time, in bytes. The span's size by default.
    #[must_use]
    pub fn max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// Sets the unit in which the pool commits, in bytes: a power of two from 4 KiB to 4 MiB.
    ///
    /// Blocks of up to 8 granules are cut from slabs of 1 to 8 granules; larger ones are whole
    /// numbers of granules. By default 2 MiB.
    #[must_use]
    pub fn granule(self, granule: usize) -> Self {
        Self { granule: Some(granule), ..self }
    }

    /// Limits the blocks that each thread keeps for itself, in bytes. 0: threads keep none.
    /// By default 14 MiB.
    ///
    /// More makes allocations of large blocks faster, most of all where several threads allocate, and leaves more memory
    /// in nobody's use: an engine that allocates on few threads and has the memory does well with 64 MiB.
    #[must_use]
    pub fn thread_cache_bytes(self, thread_cache_bytes: usize) -> Self {
        Self { thread_cache_bytes, ..self }
    }

    /// The cut of a resource's span.
    pub(super) fn geometry(&self, resource: &impl MemoryResource) -> Result<Geometry, PoolError> {
        let granularity = resource.granularity();
        let granule = self.granule.unwrap_or(granularity.max(DEFAULT_GRANULE));
        if !granule.is_power_of_two() || granule < granularity || !Geometry::GRANULES.contains(&granule) {
            return Err(PoolError::Granule { granule, granularity });
        }
        let wrong_span = PoolError::Span { base: resource.base(), size: resource.size() };
        let base = usize::try_from(resource.base()).map_err(|_| wrong_span)?;
        let granules = resource.size() / granule;
        let numbered = u32::try_from(granules).is_ok_and(|n| n > 0 && n < u32::MAX);
        if !numbered || !base.is_multiple_of(granule) || base.checked_add(resource.size()).is_none() {
            return Err(wrong_span);
        }
        Ok(Geometry::new(base, granule, granules))
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { max_bytes: usize::MAX, granule: None, thread_cache_bytes: DEFAULT_CACHE }
    }
}

/// As large as the pages of devices and the huge pages of hosts.
const DEFAULT_GRANULE: usize = 2 << 20;

const DEFAULT_CACHE: usize = 14 << 20;
