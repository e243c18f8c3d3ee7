//! What a view has of the set that it is of.

use std::sync::Arc;

use super::build_error::BuildError;
use super::guard::Guard;
use super::len::Counts;
use super::plan::Layout;
use super::read_events::ReadEvents;
use super::region::DeviceRegion;
use super::shape_error::ViewFault;
use super::spec::{SlotKind, SlotSpec};
use super::submission::{Submission, Submitting};
use super::transfer::Transfer;

/// The set that a view is of.
#[derive(Clone, Debug)]
pub(super) struct Viewed {
    pub(super) device: Arc<DeviceRegion>,
    pub(super) guard: Arc<Guard>,
    /// Whether slots have one address in all its steps.
    pub(super) is_per_slot: bool,
    pub(super) has_zero_copy: bool,
    /// What orders the reads of the memory on another stream.
    pub(super) read_events: Option<Arc<ReadEvents>>,
    pub(super) submitting: Submitting,
}

impl Viewed {
    /// Checks that a view's slots are where their set has them, in steps of at most `max`.
    pub(super) fn check(
        &self,
        slots: &[SlotSpec],
        layout: Layout,
        max: Counts,
    ) -> Result<(), BuildError> {
        for slot in slots {
            let is_viewed = slot.device.is_some();
            let size = slot.row_size(max);
            let fault = match slot.shape.room {
                _ if slot.kind == SlotKind::ZeroCopy || self.has_zero_copy => ViewFault::ZeroCopy,
                _ if slot.kind == SlotKind::Persistent && !is_viewed => ViewFault::Table,
                Some(_) if !self.is_per_slot || layout != Layout::PerSlot => {
                    ViewFault::NeedsPerSlot
                }
                Some(room) if size.is_none_or(|size| size > room) => {
                    let width = slot.dtype.size();
                    let wanted = size.map_or(usize::MAX, |size| size / width);
                    ViewFault::TooLong { wanted, max: room / width }
                }
                _ => continue,
            };
            return Err(BuildError::View { slot: slot.name.clone(), fault });
        }
        Ok(())
    }

    /// Refuses a view whose steps would not wait for the reads of the memory, or for others.
    pub(super) fn check_events(&self, wanted: bool) -> Result<(), BuildError> {
        let has = self.read_events.is_some();
        if wanted == has { Ok(()) } else { Err(BuildError::ReadEventsOfView) }
    }

    /// Gives a view what it has of its set.
    pub(super) fn share_with(self, view: &mut Transfer, submission: Submission) {
        view.read_events = self.read_events;
        view.submitting = match submission {
            // To measure is to send steps, which would overwrite what the set has staged.
            Submission::Fastest => self.submitting,
            by => Submitting { by, measured: None },
        };
    }
}
