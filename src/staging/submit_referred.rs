#![expect(unsafe_code, reason = "copies patches to the set's own memory")]
//! Sending a step that has more than its ring slot's copies: slots that are read elsewhere, and
//! patches of persistent tables.
//!
//! Patches are copied ahead of the launch, in its stream: so they are in place for the model, and
//! the completion word comes behind them.

use wharf_sys::constants::STREAM_LEGACY;

use super::error::{SlotFault, StageError};
use super::launch::Sent;
use super::patches::Patch;
use super::staged::Staged;
use super::step::Step;
use super::tables::Held;
use super::transfer::Transfer;
use crate::lockfree::step_word::Begun;
use crate::stream::{self, Stream};

impl<'a, Tag> Step<'a, Tag> {
    /// The rest of [`submit`](Self::submit).
    #[cold]
    pub(super) fn submit_referred(
        self,
        skipped: u64,
        stream: &Stream,
    ) -> Result<Staged<'a, Tag>, StageError> {
        let shared = self.shared;
        let referred = self.referred() & !shared.plan.tables;
        let sent = Sent { bucket: self.bucket, skipped, referred };
        self.send(stream, |step| shared.launch(&mut step.claim, sent, stream))
    }

    /// The rest of [`submit_with`](Self::submit_with). The engine's graph has the copies of slots,
    /// and patches come ahead of it.
    #[cold]
    pub(super) fn submit_patched_with<E: From<StageError>>(
        self,
        stream: &Stream,
        launch: impl FnOnce() -> Result<(), E>,
    ) -> Result<Staged<'a, Tag>, E> {
        let referred = self.referred() & !self.shared.plan.tables;
        if referred != 0 {
            let slot = referred.trailing_zeros() as usize;
            return Err(self.shared.misuse(slot, SlotFault::Embedded).into());
        }
        self.send(stream, |_| launch())
    }

    /// Sends the patches, and what `launch` sends.
    fn send<E: From<StageError>>(
        mut self,
        stream: &Stream,
        launch: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Staged<'a, Tag>, E> {
        let shared = self.shared;
        // A thread of the parent may have held the tables.
        shared.check_fork().map_err(StageError::from)?;
        shared.guard.check_device(stream)?;
        let referred = self.referred();
        self.claim.order_behind(referred, stream).map_err(StageError::from)?;
        let has_tables = referred & shared.plan.tables != 0;
        // From here to the end, so that what the device has is what was noted last.
        let held = match has_tables {
            true => Some(shared.device.tables().hold().ok_or(StageError::InLaunch)?),
            false => None,
        };
        let begun = shared.guard.begin(stream)?;
        self.claim.open().reset();
        let mut attempt = Attempt { step: &mut self, held, begun: Some(begun), stream };
        attempt.send_patches()?;
        launch(attempt.step)?;
        attempt.begun = None;
        attempt.note_patches();
        // Held until the guard knows of the step.
        let held = attempt.held.take();
        drop(attempt);
        self.claim.note_uses(stream);
        let staged = self.hand_over(stream, begun);
        drop(held);
        Ok(staged)
    }

    /// A bit for each table of the set, if one has to be mended.
    pub(super) fn torn_tables(&self) -> u64 {
        let is_torn = self.shared.device.tables().is_torn();
        if is_torn { self.shared.plan.tables } else { 0 }
    }

    fn patches(&self, table: usize) -> &[Patch] {
        self.claim.extras.patches.get(table).map_or(&[], |patches| patches.list())
    }

    /// Where a table is on the device.
    fn table(&self, slot: usize) -> u64 {
        self.shared.plan.address(self.shared.device.address(), slot, self.span(slot))
    }
}

/// A step that is being sent; dropped before its launch was made, it has not happened.
struct Attempt<'s, 'a, Tag> {
    step: &'s mut Step<'a, Tag>,
    held: Option<Held<'a>>,
    /// `None` when the launch was made.
    begun: Option<Begun>,
    stream: &'s Stream,
}

impl<Tag> Attempt<'_, '_, Tag> {
    /// Enqueues what a failed step has torn, and then the patches.
    fn send_patches(&self) -> Result<(), StageError> {
        let Self { step, held: Some(held), stream, .. } = self else { return Ok(()) };
        let _scope = step.shared.context.enter()?;
        for (slot, table) in step.shared.tables() {
            for (start, bytes) in held.torn(table) {
                let (to, from) = (step.table(slot) + start as u64, bytes.as_ptr().cast());
                // SAFETY: the range lies in the table, which lives as long as the set, and the
                // guard orders the step behind all that uses it. Pageable memory may change once
                // the call has returned.
                unsafe { stream.copy_htod(to, from, bytes.len()) }?;
            }
        }
        let mut copies = Vec::new();
        for (slot, table) in step.shared.tables() {
            let area = step.claim.memory.pointer(step.span(slot)).expose_provenance() as u64;
            let copy = |patch: &Patch| stream::Transfer {
                destination: step.table(slot) + patch.start as u64,
                source: area + patch.at as u64,
                size: patch.size,
            };
            copies.extend(step.patches(table).iter().map(copy));
        }
        // "Must not be legacy NULL stream" (Driver API, cuMemcpyBatchAsync).
        let is_legacy = stream.as_raw().is_null() || stream.as_raw() == STREAM_LEGACY;
        let at_once = if is_legacy { 1 } else { copies.len().max(1) };
        for copies in copies.chunks(at_once) {
            // SAFETY: as above; no two patches of a table overlap. Their bytes are in the claimed
            // ring slot, which is written again only behind its completion word, or behind the
            // wait of the drop.
            unsafe { stream.copy_batch(copies) }?;
        }
        Ok(())
    }

    /// Notes the tables as the device will have them.
    fn note_patches(&mut self) {
        let Self { step, held: Some(held), .. } = self else { return };
        for (slot, table) in step.shared.tables() {
            held.mend(table);
            for patch in step.patches(table) {
                let area = step.claim.memory.pointer(step.span(slot)).wrapping_add(patch.at);
                // SAFETY: the patch lies in the slot's area of the claimed ring slot, which was
                // initialised when it was made, and nothing writes it now.
                let bytes = unsafe { std::slice::from_raw_parts(area, patch.size) };
                held.note(table, patch, bytes);
            }
        }
    }
}

impl<Tag> Drop for Attempt<'_, '_, Tag> {
    fn drop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let shared = self.step.shared;
        if let Some(held) = &mut self.held {
            // What may have been written of a step that has not happened.
            for (_, table) in shared.tables() {
                let ranges = self.step.patches(table).iter();
                held.tear(table, ranges.map(|patch| (patch.start, patch.end())));
            }
            // Some copies may be under way: the ring slot is not to be used before they are done.
            // If the stream cannot be waited for either, nothing will ever run in it again.
            let context = &shared.context;
            let _relaxed = context.driver().relax_capture();
            context.release().note(context.driver(), self.stream.synchronize());
        }
        shared.guard.undo(begun);
    }
}

impl Transfer {
    /// The slots that are tables, and which tables they are.
    fn tables(&self) -> impl Iterator<Item = (usize, usize)> {
        let (plan, tables) = (&self.plan, self.plan.tables);
        let slots = (0..plan.slots.len()).filter(move |slot| tables & 1 << slot != 0);
        slots.map(|slot| (slot, plan.slots[slot].shape.table))
    }

    /// Lets the next step send all tables of the set anew.
    ///
    /// # Errors
    ///
    /// [`StageError::InLaunch`].
    #[cold]
    pub(super) fn tear_tables(&self) -> Result<(), StageError> {
        if self.plan.tables != 0 {
            let mut held = self.device.tables().hold().ok_or(StageError::InLaunch)?;
            self.tables().for_each(|(_, table)| held.tear_all(table));
        }
        Ok(())
    }
}
