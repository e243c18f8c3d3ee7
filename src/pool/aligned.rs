//! Buffers whose first element lies at a multiple of more than 256 bytes.

use std::panic::Location;

use super::buffer::Buffer;
use super::stream_pool::Pool;
use crate::address::to_usize;
use crate::element::Element;
use crate::slab::{AllocError, SizeClass};
use crate::stream::Stream;
use crate::sync::atomic::Ordering::Relaxed;

impl Pool {
    /// Allocates `len` elements at a multiple of `align` bytes, a power of two, of the host's
    /// address where host and device differ. Otherwise as [`alloc`](Self::alloc).
    ///
    /// Up to 16 KiB the alignment costs nothing above 128 KiB, and below the rounding to a size
    /// class that has it. A larger one takes up to `align` bytes more than the elements.
    ///
    /// # Errors
    ///
    /// As [`alloc`](Self::alloc), and [`AllocError::Unaligned`]: the alignment is no power of two,
    /// or more than that of the span.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// # let stream = wharf::Stream::new(&context)?;
    /// use wharf::memory::DeviceMemoryResource;
    /// use wharf::pool::{Buffer, Pool};
    ///
    /// let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 1 << 30)?)?;
    /// let page: Buffer<f32> = pool.alloc_aligned(1000, 4096, &stream)?;
    /// // SAFETY: nothing is submitted with the address.
    /// assert_eq!(unsafe { page.as_device_ptr() }? % 4096, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn alloc_aligned<T: Element>(
        &self,
        len: usize,
        align: usize,
        stream: &Stream,
    ) -> Result<Buffer<T>, AllocError> {
        let max = 1 << self.core.upstream.resource().base().trailing_zeros();
        if !align.is_power_of_two() || align > max {
            return Err(AllocError::Unaligned { align, max });
        }
        let too_large =
            || AllocError::TooLarge { size: usize::MAX, max: self.core.upstream.stats().limit };
        let size = len.checked_mul(size_of::<T>()).ok_or_else(too_large)?;
        let site = Location::caller();
        let slice = self.core.slice;
        if align <= slice {
            // Slabs and runs start at slices.
            let class = SizeClass::shared(size).and_then(|_| SizeClass::aligned(size, align));
            let size = class.map_or(size, SizeClass::block_size);
            let buffer: Buffer<T> =
                Buffer::begun(&self.core, self.core.alloc(size, stream, site)?.1, 0, len);
            // A block of a larger class that stood in may start elsewhere.
            if buffer.host_address().is_multiple_of(align as u64) {
                return Ok(buffer);
            }
        }
        // From the block's start, a multiple of what blocks and runs start at, to that of `align`.
        let least = if SizeClass::shared(size).is_some() { LEAST } else { LEAST.max(slice) };
        let most = align.saturating_sub(least);
        let padded = size.checked_add(most).ok_or_else(too_large)?;
        let (_, record) = self.core.alloc(padded, stream, site)?;
        let address = record.address.load(Relaxed);
        let offset = to_usize(address.next_multiple_of(align as u64) - address);
        Ok(Buffer::begun(&self.core, record, offset, len))
    }
}

/// Every block starts at a multiple of it.
const LEAST: usize = 256;
