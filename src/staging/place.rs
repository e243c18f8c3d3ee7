//! Where the device finds a slot.

use super::plan::{ByteRange, Layout, Plan};
use super::spec::SlotKind;

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
