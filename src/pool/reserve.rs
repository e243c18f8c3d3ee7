//! Memory that is committed before it is known what for.

use super::core::Core;
use super::stream_pool::Pool;
use crate::profile::range;
use crate::slab::{AllocError, Block, BlockRequest};

impl Pool {
    /// Commits memory until `bytes` are free for whatever comes, of any size and stream. Returns
    /// how many are: fewer where the limit or the driver leaves no room.
    ///
    /// An eighth of them is where blocks of up to 128 KiB lie, in whole granules; the rest is one
    /// range, or as few as can be. Free memory counts. Allocations then make no call for
    /// memory until it is used up. [`trim`](Self::trim) gives it back as all that is free.
    ///
    /// # Errors
    ///
    /// * [`AllocError::Asleep`]: the pool sleeps.
    /// * [`AllocError::Upstream`]: the driver refused, or has lost the context. What was committed
    ///   by then is free.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::memory::DeviceMemoryResource;
    /// use wharf::pool::Pool;
    ///
    /// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
    /// assert_eq!(pool.reserve_bytes(100 << 20)?, 100 << 20);
    /// assert_eq!(pool.slab_stats().reserved, 100 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve_bytes(&self, bytes: usize) -> Result<usize, AllocError> {
        let _range = range!("pool::reserve_bytes", bytes);
        let core = &*self.core;
        core.gate.check()?;
        let small = bytes / 8;
        let small = small - small % core.upstream.resource().granularity();
        let mut held = Vec::new();
        // Small blocks' memory may be an eighth of all there is, so the other comes first.
        let outcome = core
            .reserve_range(bytes - small, bytes, &mut held)
            .and_then(|large| Ok(large + core.reserve_range(small, SMALL, &mut held)?));
        held.into_iter().for_each(|block| core.upstream.dealloc(block));
        outcome
    }
}

impl Core {
    /// Takes blocks of up to `most` bytes until they are `bytes` together. Returns how many they
    /// are; the rest has no room.
    fn reserve_range(
        &self,
        bytes: usize,
        most: usize,
        held: &mut Vec<Block>,
    ) -> Result<usize, AllocError> {
        let (mut left, mut size) = (bytes, bytes.min(most));
        while left > 0 && size >= self.slice {
            match self.upstream.alloc(BlockRequest { class: None, size, owner: None }) {
                Ok(block) => {
                    held.push(block.block);
                    left = left.saturating_sub(size);
                    size = size.min(left).max(self.slice);
                }
                // Where there is no range for all of it there may be shorter ones.
                Err(AllocError::Exhausted(_) | AllocError::TooLarge { .. }) => size /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(bytes - left)
    }
}

/// The largest blocks that lie where small ones do.
const SMALL: usize = 128 << 10;
