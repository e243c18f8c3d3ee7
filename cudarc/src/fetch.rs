#![expect(unsafe_code, reason = "vouches for memory that cudarc orders")]
//! cudarc's memory as the source of results.

use std::fmt;

use cudarc::driver::{CudaSlice, DevicePtr, SyncOnDrop};
use wharf::element::Element;
use wharf::staging::{Fetch, Pending, SlotId, StageError, Untagged};

use crate::error::from_cudarc;
use crate::stream::BorrowedStream;

/// A fetch of results that lie in cudarc's memory.
///
/// Dropped without [`submit`](Self::submit), it has not happened.
#[must_use = "a fetch that is dropped has not happened"]
pub struct FetchFrom<'a, Tag = Untagged> {
    fetch: Fetch<Tag>,
    stream: &'a BorrowedStream,
    /// What cudarc does behind the fetch: it records that the sources were read.
    behind: Vec<SyncOnDrop<'a>>,
}

impl<'a, Tag> FetchFrom<'a, Tag> {
    /// A fetch on `stream`, whose sources are still those of the set.
    pub fn new(fetch: Fetch<Tag>, stream: &'a BorrowedStream) -> Self {
        Self { fetch, stream, behind: Vec::new() }
    }

    /// Fetches a slot from `from`, which holds as many elements as the slot has in the padded step,
    /// or more. When the fetch was submitted, cudarc orders what frees or writes it behind the
    /// copy, as it does for its own copies. Costs as [`Fetch::source`].
    ///
    /// # Errors
    ///
    /// Nothing has changed, and the fetch goes on, after an error:
    ///
    /// * [`StageError::Slot`]: as [`Fetch::source`], or `from` is too short.
    /// * [`StageError::Driver`]: cudarc could not order the stream behind what writes `from`.
    pub fn source<T: Element>(
        &mut self,
        slot: SlotId<T, Tag>,
        from: &'a CudaSlice<T>,
    ) -> Result<(), StageError> {
        self.fetch.check_source(slot, from.len())?;
        let stream = self.stream.cudarc();
        let (address, behind) = from.device_ptr(stream);
        // The trait has no errors: cudarc's context has recorded what went wrong.
        stream.context().check_err().map_err(|error| StageError::from(from_cudarc(error)))?;
        // SAFETY: so many elements; the stream waits for what writes them, and cudarc lets what
        // frees or writes them wait for the fetch, by what is done behind it.
        unsafe { self.fetch.source(slot, address) }?;
        self.behind.push(behind);
        Ok(())
    }

    /// As [`Fetch::submit`].
    ///
    /// # Errors
    ///
    /// As that, and [`StageError::Driver`] where cudarc could not record that the sources are read:
    /// the host has waited for the copies then.
    pub fn submit(self) -> Result<Pending<Tag>, StageError> {
        let Self { fetch, stream, behind } = self;
        let pending = fetch.submit(stream)?;
        drop(behind);
        let told = stream.cudarc().context().check_err();
        told.map_err(|error| {
            // Nothing keeps the sources from being freed under the copies: they are to be over. If
            // the stream cannot be waited for either, nothing will ever run in it again.
            _ = stream.synchronize();
            StageError::from(from_cudarc(error))
        })?;
        Ok(pending)
    }
}

impl<Tag> fmt::Debug for FetchFrom<'_, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchFrom").field("stream", &self.stream).finish_non_exhaustive()
    }
}
