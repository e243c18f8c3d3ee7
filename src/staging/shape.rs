//! Slots that are more than a run of elements which each step copies: what they are, and where their
//! device memory lies.
//!
//! ```text
//!   device memory    |ids ... |positions ... |  table          |  embeddings          |
//!                     copied by each step     patched by steps   written by the device
//!   a ring slot      |ids ... |positions ... |  patches |
//! ```

use super::len::{Counts, Len};
use super::plan::{ALIGN, ByteRange, Layout, Plan};
use super::shape_error::ShapeFault;
use super::spec::{SlotKind, SlotSpec};

/// What of a slot is not said by its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// How many rows of its length it has.
    pub(super) rows: usize,
    /// From one row to the next on the device where it is the same in all steps, in bytes.
    pub(super) stride: usize,
    /// How many elements of a persistent table a step may change.
    pub(super) patched: usize,
    /// Which of the tables it is.
    pub(super) table: usize,
    /// Where the device memory starts that no copy covers, in bytes of the set's.
    pub(super) place: usize,
    /// How many bytes there are at its device address, if that is another set's.
    pub(super) room: Option<usize>,
    /// Whether the device overwrites it behind the copy.
    pub(super) is_overwritten: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            rows: 1,
            stride: 0,
            patched: 0,
            table: 0,
            place: 0,
            room: None,
            is_overwritten: false,
        }
    }
}

impl Shape {
    /// The elements of a table that a step has room for.
    pub(super) fn area(&self) -> Len {
        Len::Fixed(self.patched)
    }
}

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
    fn uncovered(&self, span: ByteRange) -> usize {
        match self.kind {
            _ if self.device.is_some() => 0,
            SlotKind::DeviceOnly => span.size,
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

/// Finds places for the slots that no copy covers, behind `end`. `spans` are those of the largest
/// step. Returns where they end.
pub(super) fn place(slots: &mut [SlotSpec], spans: &[ByteRange], end: usize) -> Option<usize> {
    let mut end = end;
    for (slot, span) in slots.iter_mut().zip(spans) {
        if slot.kind == SlotKind::Persistent {
            slot.declared.of(Default::default())?.checked_mul(slot.dtype.size())?;
        }
        slot.shape.place = end;
        end = end.checked_add(slot.uncovered(*span))?.checked_next_multiple_of(ALIGN)?;
    }
    (end <= isize::MAX.unsigned_abs()).then_some(end)
}

impl Plan {
    /// Where the device finds a slot that has the span in a step; `base` is the set's memory.
    pub(super) fn address(&self, base: u64, slot: usize, span: ByteRange) -> u64 {
        let spec = &self.slots[slot];
        let own = match spec.kind {
            SlotKind::DeviceOnly | SlotKind::Persistent => spec.shape.place,
            _ => span.offset,
        };
        spec.device.unwrap_or(base + own as u64)
    }

    /// Whether a slot has one address in all steps.
    pub(super) fn is_fixed(&self, slot: usize) -> bool {
        match self.slots[slot].kind {
            SlotKind::Copied => self.layout == Layout::PerSlot,
            SlotKind::DeviceOnly | SlotKind::Persistent => true,
            SlotKind::ZeroCopy | SlotKind::Dynamic => false,
        }
    }
}
