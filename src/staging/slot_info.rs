//! Slots without their types, for callers that know them by name only.

use wharf_sys::bindings::CUdeviceptr;

use super::buffers::InputBuffers;
use super::error::{SlotError, StageError};
use super::len::Len;
use super::plan::Layout;
use super::slot_id::SlotId;
use super::spec::SlotKind;
use super::step::Step;
use crate::element::{Bf16, Bool, DType, Element, F8E4M3, F8E5M2, F16, bytes_of_mut};

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
    set: usize,
}

impl<Tag> InputBuffers<Tag> {
    /// The slots, in the order in which they were named.
    #[doc(alias = "get_static_tensors")]
    pub fn slots(&self) -> impl ExactSizeIterator<Item = SlotInfo> + '_ {
        let plan = &self.shared.plan;
        plan.slots.iter().enumerate().map(|(index, slot)| {
            let is_fixed = plan.layout == Layout::PerSlot && slot.kind == SlotKind::Copied;
            let offset = plan
                .buckets
                .first()
                .map_or_else(|| plan.exact_span(plan.max, index), |it| it.fields[index].span);
            SlotInfo {
                name: slot.name.clone(),
                dtype: slot.dtype,
                len: slot.declared,
                is_static: slot.kind != SlotKind::Dynamic,
                address: is_fixed.then(|| self.shared.device.address() + offset.offset as u64),
                index,
                set: self.shared.id(),
            }
        })
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
    /// Writes the bytes of all elements of a slot, which have the slot's length in this step.
    pub(crate) fn write_bytes(&mut self, slot: &SlotInfo, from: &[u8]) -> Result<(), StageError> {
        match slot.dtype {
            DType::Bool => self.write_as::<Bool>(slot, from),
            DType::U8 => self.write_as::<u8>(slot, from),
            DType::I8 => self.write_as::<i8>(slot, from),
            DType::I16 => self.write_as::<i16>(slot, from),
            DType::U16 => self.write_as::<u16>(slot, from),
            DType::I32 => self.write_as::<i32>(slot, from),
            DType::U32 => self.write_as::<u32>(slot, from),
            DType::I64 => self.write_as::<i64>(slot, from),
            DType::U64 => self.write_as::<u64>(slot, from),
            DType::F16 => self.write_as::<F16>(slot, from),
            DType::BF16 => self.write_as::<Bf16>(slot, from),
            DType::F32 => self.write_as::<f32>(slot, from),
            DType::F64 => self.write_as::<f64>(slot, from),
            DType::F8E4M3 => self.write_as::<F8E4M3>(slot, from),
            DType::F8E5M2 => self.write_as::<F8E5M2>(slot, from),
        }
    }

    fn write_as<T: Element>(&mut self, slot: &SlotInfo, from: &[u8]) -> Result<(), StageError> {
        let to = bytes_of_mut(self.write(SlotId::<T, Tag>::new(slot.index, slot.set)));
        if to.len() != from.len() {
            let (wanted, given) = (to.len() / size_of::<T>(), from.len() / size_of::<T>());
            let fault = super::error::SlotFault::Length { wanted, given };
            return Err(StageError::Slot { slot: slot.name.clone(), fault });
        }
        to.copy_from_slice(from);
        Ok(())
    }
}
