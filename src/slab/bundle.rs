//! One block carved into many, for the fields of one step.

use super::block::Block;
use super::error::AllocError;
use super::pool::SlabPool;
use super::size_class::STEP;
use crate::memory::MemoryResource;

/// A block with a part for each of several sizes, allocated and freed as one.
///
/// # Examples
///
/// ```
/// use wharf::memory::UnbackedResource;
/// use wharf::slab::{PoolOptions, SlabPool};
///
/// let pool = SlabPool::new(UnbackedResource::new(1 << 30)?, PoolOptions::default())?;
/// let step = pool.alloc_bundle(&[4000, 8000, 100])?;
/// assert_eq!(step.parts, [0, 4096, 12288]);
/// pool.dealloc(step.block)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a block that is dropped stays allocated"]
#[derive(Debug, PartialEq, Eq)]
pub struct Bundle<const N: usize> {
    /// The block that holds all parts.
    pub block: Block,
    /// Where each part starts, in bytes from the block's address; multiples of 256.
    pub parts: [usize; N],
}

impl<const N: usize> Bundle<N> {
    /// The address of a part, `None` if there is no such part.
    pub fn address(&self, part: usize) -> Option<u64> {
        self.parts.get(part).map(|&offset| self.block.address() + offset as u64)
    }
}

impl<R: MemoryResource + 'static> SlabPool<R> {
    /// Allocates one block for parts of the given sizes, in bytes, each aligned to at least 256.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc) of the sum; a sum that overflows is [`AllocError::TooLarge`].
    #[inline]
    pub fn alloc_bundle<const N: usize>(
        &self,
        sizes: &[usize; N],
    ) -> Result<Bundle<N>, AllocError> {
        let mut end = 0_usize;
        let mut parts = [0; N];
        for (part, size) in parts.iter_mut().zip(sizes) {
            *part = end;
            let next = size.checked_next_multiple_of(STEP).and_then(|size| end.checked_add(size));
            let Some(next) = next else { return Err(self.store.too_large(usize::MAX)) };
            end = next;
        }
        Ok(Bundle { block: self.alloc(end)?, parts })
    }
}
