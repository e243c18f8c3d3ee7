//! How a pool is made.

use super::error::PoolError;
use super::geometry::Geometry;
use super::space::PiecePolicy;
use crate::memory::{MemoryKind, MemoryResource};

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
    slice: Option<usize>,
    piece_bytes: Option<usize>,
    blocks_in_pieces: Option<bool>,
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
    /// Blocks and slabs are cut from granules in slices of 32 KiB, in a
    /// [`Pool`](crate::pool::Pool) of 16, or of the granule if that is less. By default 2 MiB.
    #[must_use]
    pub fn granule(self, granule: usize) -> Self {
        Self { granule: Some(granule), ..self }
    }

    /// Sets the size of the pieces that the pool commits, in bytes, up to 1 GiB: rounded up to a
    /// power of two of granules. By default, and for 0, pieces grow with the pool: a 64th of what
    /// is committed, up to 256 MiB. Where a transport registers them they have 256 MiB.
    ///
    /// Large pieces are fewer calls of the driver and fewer registrations; small ones go back
    /// sooner.
    #[must_use]
    pub fn piece_bytes(self, piece_bytes: usize) -> Self {
        Self { piece_bytes: Some(piece_bytes).filter(|bytes| *bytes > 0), ..self }
    }

    /// Sets whether every block lies in one piece: in one mapping, or one registration with the
    /// driver. By default this is so for host memory that is registered, where a copy must not
    /// leave a registration, where a transport registers the pieces, and while a memory checker
    /// listens.
    ///
    /// It costs memory: what is free at the end of one piece and at the start of the next serves no
    /// block.
    #[must_use]
    pub fn blocks_in_pieces(self, blocks_in_pieces: bool) -> Self {
        Self { blocks_in_pieces: Some(blocks_in_pieces), ..self }
    }

    /// Sets the unit in which granules are cut, in bytes: a power of two.
    #[must_use]
    pub(crate) fn slice(self, slice: usize) -> Self {
        Self { slice: Some(slice), ..self }
    }

    /// Limits the blocks that each thread caches, in bytes. 0: threads cache none.
    /// By default 64 MiB, and at most a 64th of what the pool may commit. All threads together
    /// cache a seventh of that at most: with more than eight threads, later ones have less.
    ///
    /// Less makes allocations of large blocks slower, most of all where several threads allocate. A
    /// thread empties its cache before a pool that had stopped growing grows again. The transfer
    /// cache, which all threads share, holds about half as much again for each of the first four.
    #[must_use]
    pub fn thread_cache_bytes(self, thread_cache_bytes: usize) -> Self {
        Self { thread_cache_bytes: Some(thread_cache_bytes), ..self }
    }

    /// What each thread of a pool that may commit `limit` bytes may cache, in bytes.
    pub(super) fn cache_bytes(&self, limit: usize) -> usize {
        self.thread_cache_bytes.unwrap_or(DEFAULT_CACHE.min(limit / 64))
    }

    /// How large pieces of a span are, of granules of `granule` bytes. `wired`: a transport
    /// registers them.
    pub(super) fn piece_policy(
        &self,
        granule: usize,
        kind: MemoryKind,
        span: usize,
        told: bool,
        wired: bool,
    ) -> PiecePolicy {
        let granules = |bytes: usize| {
            let granules = bytes.min(MOST_PIECE).div_ceil(granule).next_power_of_two();
            u32::try_from(granules).unwrap_or(u32::MAX)
        };
        let registered = matches!(kind, MemoryKind::Pinned | MemoryKind::FileMapped);
        let fixed = self.piece_bytes.or(wired.then_some(LARGEST_PIECE)).map(granules);
        let inside_pieces = self.blocks_in_pieces.unwrap_or(registered || told || wired);
        // Growth to both sides takes addresses that a pool may need, and more pieces.
        let grows_down = span / 2 >= self.max_bytes && fixed.is_none() && !inside_pieces;
        PiecePolicy { fixed, most: granules(LARGEST_PIECE), inside_pieces, grows_down }
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
        let slice = self.slice.unwrap_or(granule).min(Geometry::slice_for(granule));
        let slices = resource.size() / slice;
        let numbered = granules > 0 && u32::try_from(slices).is_ok_and(|n| n < u32::MAX);
        let aligned = base.is_multiple_of(granule as u64);
        if !numbered || !aligned || base.checked_add(resource.size() as u64).is_none() {
            return Err(wrong_span);
        }
        Ok(Geometry::new(base, granule, slice, granules))
    }
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max_bytes: usize::MAX,
            granule: None,
            slice: None,
            piece_bytes: None,
            blocks_in_pieces: None,
            thread_cache_bytes: None,
        }
    }
}

/// As large as the pages of devices and the huge pages of hosts.
const DEFAULT_GRANULE: usize = 2 << 20;

const DEFAULT_CACHE: usize = 64 << 20;

/// The largest piece that is not asked for.
const LARGEST_PIECE: usize = 256 << 20;
const MOST_PIECE: usize = 1 << 30;
