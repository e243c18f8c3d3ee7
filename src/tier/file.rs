//! Files that objects are made of.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::TierError;
use super::memory::TierBlock;
use crate::address::to_usize;
use crate::driver::Context;
use crate::memory::{FileMappedMemoryResource, MemoryResource, joined_device_address};
use crate::slab::{PoolOptions, SlabPool};

/// A file, such as one of weights, whose parts are objects that need no writing back.
///
/// All of it is read in and, where the driver can, registered. Cheap to clone; the file stays
/// mapped as long as a clone or an object of it.
#[derive(Clone, Debug)]
pub struct MappedFile(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    /// One block, the whole file: slabs see to it that its memory is committed and given back.
    slabs: SlabPool<FileMappedMemoryResource>,
    base: u64,
    len: usize,
}

impl MappedFile {
    pub(super) fn new(file: &File, context: &Context) -> Result<Self, TierError> {
        let failed = |error: std::io::Error| crate::error::Error::System {
            call: "fstat",
            errno: error.raw_os_error().unwrap_or(0),
        };
        let len = to_usize(file.metadata().map_err(failed)?.len());
        let resource = FileMappedMemoryResource::read_only(context, file)?;
        let size = resource.size();
        let slabs = SlabPool::new(resource, PoolOptions::default().thread_cache_bytes(0))?;
        let base = slabs
            .alloc_raw(size)
            .map_err(|error| TierError::of_slab(error, super::Tier::FileMapped, size))?;
        // The lowest run of an unused span, and all of it.
        debug_assert_eq!(base, slabs.upstream().base());
        Ok(Self(Arc::new(Mapping { slabs, base, len })))
    }

    /// The length of the file when it was mapped, in bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether the file was empty.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Where a range of the file is.
    pub(super) fn block(&self, range: &Range<usize>) -> Result<TierBlock, TierError> {
        if range.is_empty() || range.end > self.0.len {
            return Err(TierError::OutOfFile { end: range.end, len: self.0.len });
        }
        let device = joined_device_address(self.0.slabs.upstream(), range.start, range.len());
        // No slab takes it back: it ends with the mapping.
        Ok(TierBlock { address: self.0.base + range.start as u64, meta: 0, device })
    }

    /// How many of `len` bytes from an address of the file's on one copy may take.
    pub(super) fn piece_len(&self, address: u64, len: usize) -> usize {
        let offset = to_usize(address - self.0.base);
        self.0.slabs.upstream().piece_len(offset, len)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let freed = self.slabs.dealloc_raw(self.base);
        debug_assert!(freed.is_ok(), "{freed:?}");
    }
}
