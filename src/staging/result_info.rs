#![expect(unsafe_code, reason = "takes addresses that the caller vouches for")]
//! Results and addresses without their types, for callers that know slots by name only.

use wharf_sys::bindings::CUdeviceptr;

use super::error::{SlotFault, StageError};
use super::fetch::Fetch;
use super::len::Counts;
use super::outputs::OutputBuffers;
use super::pending::Results;
use super::slot_error::SlotError;
use super::slot_info::SlotInfo;
use super::staged::Staged;
use super::static_buffers::StaticBuffers;

impl<Tag> OutputBuffers<Tag> {
    /// The slots, in the order in which they were named.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = SlotInfo> + '_ {
        SlotInfo::all(&self.shared)
    }

    /// A slot by its name.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`]: no slot has the name.
    pub fn slot(&self, name: &str) -> Result<SlotInfo, SlotError> {
        self.slots().find(|slot| *slot.name == *name).ok_or_else(|| SlotError::Unknown(name.into()))
    }
}

impl<'a, Tag> Results<'a, Tag> {
    /// The bytes of a slot's elements, in pinned memory: as many elements as the step has, from an
    /// address that is aligned for them. As [`read`](Self::read), for callers that know types at
    /// run time only.
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: the slot is another set's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use std::time::Duration;
    /// use wharf::Stream;
    /// use wharf::element::DType;
    /// use wharf::staging::{Len, OutputBuffers};
    ///
    /// let outputs = OutputBuffers::builder(&context).slot_of("ids", DType::I32, Len::Tokens);
    /// let outputs = outputs.buckets([8]).build()?;
    /// let (ids, stream) = (outputs.slot("ids")?, Stream::new(&context)?);
    /// let pending = outputs.fetch(2, 1, &stream)?;
    /// let bytes = pending.wait(Duration::from_secs(10))?.read_raw(&ids)?;
    /// assert_eq!(bytes, [0; 8]); // two elements of device memory that nothing has written
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn read_raw(self, slot: &SlotInfo) -> Result<&'a [u8], StageError> {
        self.take(slot.index, slot.set, slot.dtype, slot.dtype.size())
    }

    /// As [`read_raw`](Self::read_raw), of the slot of this set that has a
    /// [number](SlotInfo::index).
    ///
    /// # Errors
    ///
    /// [`StageError::Slot`]: no slot has the number.
    #[inline]
    pub fn read_raw_at(self, index: usize) -> Result<&'a [u8], StageError> {
        let shared = &self.pending.shared;
        match shared.plan.slots.get(index) {
            Some(spec) => Ok(self.elements(index, spec, spec.dtype.size())),
            None => Err(shared.misuse(index, SlotFault::Foreign)),
        }
    }
}

impl<Tag> Fetch<Tag> {
    /// Fetches a slot of this step from device memory at `address`, as [`source`](Self::source),
    /// for callers that know types at run time only.
    ///
    /// # Errors
    ///
    /// As [`source`](Self::source).
    ///
    /// # Safety
    ///
    /// As [`source`](Self::source).
    pub unsafe fn source_raw(
        &mut self,
        slot: &SlotInfo,
        address: CUdeviceptr,
    ) -> Result<(), StageError> {
        self.refer_to(slot.index, slot.set, slot.dtype, address)
    }
}

impl<Tag> StaticBuffers<Tag> {
    /// Where a slot is in the bucket that holds `counts`, or so many tokens, as
    /// [`device_ptr`](Self::device_ptr), for callers that know types at run time only.
    pub fn address_of(&self, slot: &SlotInfo, counts: impl Into<Counts>) -> Option<CUdeviceptr> {
        self.find(slot.index, slot.set, counts.into())
    }
}

impl<Tag> Staged<'_, Tag> {
    /// Where the device finds a slot's elements, as [`device_ptr`](Self::device_ptr), for callers
    /// that know types at run time only.
    pub fn address_of(&self, slot: &SlotInfo) -> CUdeviceptr {
        self.find(slot.index, slot.set)
    }
}
