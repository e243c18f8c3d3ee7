//! Slots that are more than a run of elements which each step copies: what they are, and where
//! their device memory lies.
//!
//! ```text
//!   device memory    |ids ... |positions ... |  table          |  embeddings          |
//!                     copied by each step     patched by steps   written by the device
//!   a ring slot      |ids ... |positions ... |  patches |
//! ```

use super::len::Counts;
use super::shape_error::ShapeFault;
use super::spec::{SlotKind, SlotSpec};

impl SlotSpec {
    /// Whether no step has any bytes of it.
    pub(super) fn has_nothing_to_send(&self) -> bool {
        matches!(self.kind, SlotKind::Dynamic | SlotKind::DeviceOnly)
    }

    /// Why a step cannot write the slot as it writes others; `None` if it can.
    pub(super) fn refusal(&self) -> Option<ShapeFault> {
        match self.kind {
            SlotKind::DeviceOnly => Some(ShapeFault::IsDeviceOnly),
            SlotKind::Persistent => Some(ShapeFault::IsPersistent),
            _ if self.has_rows() => Some(ShapeFault::HasRows),
            _ => None,
        }
    }

    /// From one row to the next on the device; those of a view are as far apart as its set has
    /// them.
    pub(super) fn stride(&self, max: Counts) -> usize {
        let own = self.row_size(max).unwrap_or(0);
        if self.shape.room.is_some() { self.shape.stride } else { own }
    }

    /// The bytes of its own device memory that no copy covers, in the largest step.
    fn uncovered(&self, size: usize) -> usize {
        match self.kind {
            _ if self.device.is_some() => 0,
            SlotKind::DeviceOnly => size,
            SlotKind::Persistent => self.table_size(),
            _ => 0,
        }
    }

    /// The bytes of a persistent table.
    pub(super) fn table_size(&self) -> usize {
        // Checked when its place was found.
        let len = self.declared.rule().unwrap_or_default();
        len.of_counts(Default::default()) * self.dtype.size()
    }
}

/// Numbers the persistent tables. Returns the slots that they are, in order.
pub(super) fn number_tables(slots: &mut [SlotSpec]) -> impl Iterator<Item = usize> + use<> {
    let mut tables = Vec::new();
    for (index, slot) in slots.iter_mut().enumerate() {
        if slot.kind == SlotKind::Persistent {
            slot.shape.table = tables.len();
            tables.push(index);
        }
    }
    tables.into_iter()
}

/// Finds places for the slots that no copy covers, behind `end`, at multiples of `align`. `sizes`
/// are those of the largest step. Returns where they end.
pub(super) fn place(
    slots: &mut [SlotSpec],
    sizes: impl Iterator<Item = usize>,
    end: usize,
    align: usize,
) -> Option<usize> {
    let mut end = end;
    for (slot, size) in slots.iter_mut().zip(sizes) {
        if slot.kind == SlotKind::Persistent {
            slot.declared.of(Default::default())?.checked_mul(slot.dtype.size())?;
        }
        slot.shape.place = end;
        end = end.checked_add(slot.uncovered(size))?.checked_next_multiple_of(align)?;
    }
    (end <= isize::MAX.unsigned_abs()).then_some(end)
}
