//! Slots without their types, for callers that know them by name only.

use wharf_sys::bindings::CUdeviceptr;

use super::buffers::InputBuffers;
use super::error::{SlotFault, StageError};
use super::len::Len;
use super::plan::Field;
use super::slot_error::SlotError;
use super::spec::SlotKind;
use super::step::Step;
use super::transfer::Transfer;
use crate::element::DType;

/// A slot's description.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(alias = "InputSlot")]
pub struct SlotInfo {
    /// Its name.
    pub name: Box<str>,
    /// The type of its elements.
    pub dtype: DType,
    /// How many elements it has in a step.
    pub len: Len,
    /// Whether it has memory of its own; otherwise its address is passed through.
    pub is_static: bool,
    /// Where the device finds it in every step; `None` if that depends on the step.
    pub address: Option<CUdeviceptr>,
    /// Its number.
    pub index: usize,
    /// The set that it belongs to.
    pub(super) set: usize,
}

impl SlotInfo {
    /// The slots of a set.
    pub(super) fn all(shared: &Transfer) -> impl ExactSizeIterator<Item = Self> + '_ {
        let plan = &shared.plan;
        plan.slots.iter().enumerate().map(|(index, slot)| {
            let span = plan
                .buckets
                .first()
                .map_or_else(|| plan.exact_span(plan.max, index), |it| it.fields[index].span);
            Self {
                name: slot.name.clone(),
                dtype: slot.dtype,
                len: slot.declared,
                is_static: slot.kind != SlotKind::Dynamic,
                address: plan
                    .is_fixed(index)
                    .then(|| plan.address(shared.device.address(), index, span)),
                index,
                set: shared.id(),
            }
        })
    }
}

impl<Tag> InputBuffers<Tag> {
    /// The slots, in the order in which they were named.
    #[doc(alias = "get_static_tensors")]
    pub fn slots(&self) -> impl ExactSizeIterator<Item = SlotInfo> + '_ {
        SlotInfo::all(&self.shared)
    }

    /// A slot by its name.
    ///
    /// # Errors
    ///
    /// [`SlotError::Unknown`]: no slot has the name.
    #[doc(alias = "get_slot")]
    pub fn slot(&self, name: &str) -> Result<SlotInfo, SlotError> {
        self.slots().find(|slot| *slot.name == *name).ok_or_else(|| SlotError::Unknown(name.into()))
    }
}

impl<Tag> Step<'_, Tag> {
    /// The bytes of a slot's elements, in pinned memory, to be written in place: as many elements
    /// as the step has, each of the size of the slot's [type](SlotInfo::dtype), from an address
    /// that is aligned for them. Their contents are left from earlier steps.
    ///
    /// As [`write`](Self::write), for callers that know types at run time only. A slot that has no
    /// memory here has no bytes, and [`submit`](Self::submit) returns the error.
    ///
    /// # Examples
    ///
    /// ```
    /// # let machine = softcuda::Simulator::new(softcuda::Config::default());
    /// # let _bound = machine.bind();
    /// # let driver = wharf::Driver::from_api(machine.api()?)?;
    /// # let context = wharf::Context::retain(&driver.device(0)?)?;
    /// use wharf::Stream;
    /// use wharf::element::DType;
    /// use wharf::staging::{InputBuffers, Len};
    ///
    /// let inputs = InputBuffers::builder(&context).slot_of("ids", DType::I32, Len::Tokens);
    /// let inputs = inputs.buckets([8]).build()?;
    /// let (ids, stream) = (inputs.slot("ids")?, Stream::new(&context)?);
    /// let mut step = inputs.begin(2, 1)?;
    /// step.write_raw(&ids).copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
    /// step.submit(&stream)?;
    /// # stream.synchronize()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn write_raw(&mut self, slot: &SlotInfo) -> &mut [u8] {
        // The fields of a `SlotInfo` are public: a caller may have changed them.
        let is_here = |field: &Field| field.dtype == Some(slot.dtype);
        if slot.set == self.set() && self.fields().get(slot.index).is_some_and(is_here) {
            return self.write_raw_at(slot.index).unwrap_or_default();
        }
        self.note_refused(slot.index, slot.set);
        &mut []
    }

    /// As [`write_raw`](Self::write_raw), of the slot of this set that has a
    /// [number](SlotInfo::index). `None` if no slot has it.
    #[inline]
    pub fn write_raw_at(&mut self, index: usize) -> Option<&mut [u8]> {
        let field = self.fields().get(index)?;
        if let Some(dtype) = field.dtype {
            let (span, len) = (field.span, field.len.of(&self.claim.counts));
            return Some(self.take(index, span, len * dtype.size()));
        }
        self.note_refused(index, self.set());
        Some(&mut [])
    }

    /// Writes the bytes of all elements of a slot, which have the slot's length in this step.
    pub(crate) fn write_bytes(&mut self, slot: &SlotInfo, from: &[u8]) -> Result<(), StageError> {
        let to = self.write_raw(slot);
        if to.len() != from.len() {
            let size = slot.dtype.size();
            let (wanted, given) = (to.len() / size, from.len() / size);
            let fault = SlotFault::Length { wanted, given };
            return Err(StageError::Slot { slot: slot.name.clone(), fault });
        }
        to.copy_from_slice(from);
        Ok(())
    }
}
