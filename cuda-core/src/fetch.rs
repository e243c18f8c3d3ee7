#![expect(unsafe_code, reason = "vouches for memory that leases keep")]
//! cuda-core's memory as the source of results.

use std::fmt;

use cuda_core::{AllocationLease, DeviceBuffer, DeviceCopy};
#[cfg(doc)]
use wharf::CudaError;
use wharf::element::Element;
use wharf::staging::{Fetch, Pending, SlotId, StageError, Untagged};

use crate::error::from_cuda_core;
use crate::stream::BorrowedStream;

/// A fetch of results that lie in cuda-core's memory.
///
/// Dropped without [`submit`](Self::submit), it has not happened.
#[must_use = "a fetch that is dropped has not happened"]
pub struct FetchFrom<'a, Tag = Untagged> {
    fetch: Fetch<Tag>,
    stream: &'a BorrowedStream,
    leases: Vec<AllocationLease>,
}

impl<'a, Tag> FetchFrom<'a, Tag> {
    /// A fetch on `stream`, whose sources are still those of the set.
    pub fn new(fetch: Fetch<Tag>, stream: &'a BorrowedStream) -> Self {
        Self { fetch, stream, leases: Vec::new() }
    }

    /// Fetches a slot from `from`, which holds as many elements as the slot has in the padded step,
    /// or more. It may be dropped at once. Costs as [`Fetch::source`].
    ///
    /// # Errors
    ///
    /// Nothing has changed, and the fetch goes on, after an error:
    ///
    /// * [`StageError::Slot`]: as [`Fetch::source`], or `from` is too short.
    /// * [`StageError::Driver`]: `from` is of another context, or another stream writes it, which
    ///   is [`NOT_READY`](CudaError::NOT_READY).
    pub fn source<T: Element + DeviceCopy>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: &DeviceBuffer<T>,
    ) -> Result<(), StageError> {
        self.fetch.check_source(slot, from.len())?;
        let stream = self.stream.cuda_core();
        let lease = from.storage().acquire(stream, false, false).map_err(driver)?;
        // SAFETY: so many elements, which the lease keeps, and keeps from being written on other
        // streams, until the stream is past the fetch.
        unsafe { self.fetch.source(slot, from.cu_deviceptr()) }?;
        self.leases.push(lease);
        Ok(())
    }

    /// As [`Fetch::submit`].
    ///
    /// # Errors
    ///
    /// As that, and [`StageError::Driver`] where cuda-core could not note that a source is in use:
    /// that one is never freed then, and the others are when their copies are done.
    pub fn submit(self) -> Result<Pending<Tag>, StageError> {
        let Self { fetch, stream, leases } = self;
        let pending = fetch.submit(stream)?;
        // All of them, whatever becomes of the first: a lease that is dropped ends before its copy.
        let retained = leases.into_iter().map(|it| it.retain_until_complete(stream.cuda_core()));
        retained.fold(Ok(()), Result::and).map_err(driver)?;
        Ok(pending)
    }
}

impl<Tag> fmt::Debug for FetchFrom<'_, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchFrom").field("stream", &self.stream).finish_non_exhaustive()
    }
}

fn driver(error: cuda_core::DriverError) -> StageError {
    from_cuda_core(error).into()
}
