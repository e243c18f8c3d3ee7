//! Pools with a limit, over as many addresses as are cheap.

use super::builder::PoolBuilder;
use super::stream_pool::Pool;
use crate::driver::Context;
use crate::error::Error;
use crate::memory::{DeviceMemoryResource, MemoryResource, PinnedMemoryResource, PinnedOptions};
use crate::slab::PoolError;

impl PoolBuilder {
    /// Makes a pool of a device's memory that commits at most `max_bytes`.
    ///
    /// Addresses are cheap, and a span that is no longer than what is committed has no long ranges
    /// left when blocks lie all over it. So the span is four times the limit, or as long as the
    /// driver has addresses for. Where a span is one allocation, it is as long as the limit.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and [`PoolError::Addresses`]: there are none, or the context is
    /// lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::pool::Pool;
    ///
    /// let pool = Pool::builder().build_on_device(&context, 1 << 30)?;
    /// assert_eq!(pool.slab_stats().limit, 1 << 30);
    /// let span = pool.span();
    /// assert_eq!(span.end - span.start, 4 << 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build_on_device(self, context: &Context, max_bytes: usize) -> Result<Pool, PoolError> {
        let resource = longest(max_bytes, |span| DeviceMemoryResource::new(context, span))?;
        self.max_bytes(max_bytes).build(resource)
    }

    /// Makes a pool of pinned memory of the host that commits at most `max_bytes`. Its span is as
    /// that of [`build_on_device`](Self::build_on_device).
    ///
    /// # Errors
    ///
    /// As [`build_on_device`](Self::build_on_device).
    pub fn build_pinned(
        self,
        context: &Context,
        max_bytes: usize,
        options: PinnedOptions,
    ) -> Result<Pool, PoolError> {
        let resource =
            longest(max_bytes, |span| PinnedMemoryResource::new(context, span, options))?;
        self.max_bytes(max_bytes).build(resource)
    }
}

/// The resource with the longest span of four times the limit or less.
fn longest<R: MemoryResource>(
    limit: usize,
    reserve: impl Fn(usize) -> Result<R, Error>,
) -> Result<R, PoolError> {
    let spans = [4, 2, 1].map(|times| limit.saturating_mul(times));
    let mut outcome = reserve(spans[0]);
    for span in &spans[1..] {
        match outcome {
            // There are fewer addresses, or the driver has no room for their tables.
            Err(error) if is_for_want_of_addresses(&error) => outcome = reserve(*span),
            _ => break,
        }
    }
    outcome.map_err(|cause| PoolError::Addresses { size: limit, cause })
}

/// Drivers answer a span that they cannot reserve in more than one way.
fn is_for_want_of_addresses(error: &Error) -> bool {
    error.is_out_of_memory() || error.kind() == crate::error::ErrorKind::Invalid
}
