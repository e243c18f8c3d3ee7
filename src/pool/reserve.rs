//! Memory that is committed before it is known what for.

use super::stream_pool::Pool;
use crate::profile::range;
use crate::slab::{AllocError, BlockRequest};

impl Pool {
    /// Commits memory until `bytes` are free for whatever comes, of any size and stream, in as few
    /// ranges as can be. Returns how many are: fewer where the limit or the driver leaves no room.
    ///
    /// What is free already counts. Allocations then make no call for memory until it is used up.
    /// [`trim`](Self::trim) gives it back as all that is free.
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
        let (mut held, mut left, mut size) = (Vec::new(), bytes, bytes);
        let outcome = loop {
            if left == 0 || size < core.slice {
                break Ok(bytes - left);
            }
            match core.upstream.alloc(BlockRequest { class: None, size, owner: None }) {
                Ok(block) => {
                    held.push(block.block);
                    left = left.saturating_sub(size);
                    size = size.min(left).max(core.slice);
                }
                // Where there is no range for all of it there may be shorter ones.
                Err(AllocError::Exhausted(_) | AllocError::TooLarge { .. }) => size /= 2,
                Err(error) => break Err(error),
            }
        };
        held.into_iter().for_each(|block| core.upstream.dealloc(block));
        outcome
    }
}
