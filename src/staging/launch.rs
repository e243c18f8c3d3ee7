//! Giving a stream the copies of a ring slot: by its graph, or without.

use super::error::StageError;
use super::node::enqueue_copy;
use super::plan::{Bucket, ByteRange, Layout};
use super::spec::SlotKind;
use super::state::{SlotClaim, SlotState, StagingGraph};
use super::transfer::Transfer;
use crate::error::{CudaError, Error};
use crate::graph::GraphError;
use crate::stream::Stream;

/// What of a ring slot is copied.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    /// `None` above the largest bucket: the claim says where its slots lie.
    pub(super) bucket: Option<&'a Bucket>,
    /// A bit for each slot that is left out.
    pub(super) skipped: u64,
    /// A bit for each slot whose copy has a reference of the claim in place of its own memory.
    pub(super) referred: u64,
}

impl Transfer {
    /// Gives `stream` the copies of a claimed ring slot, and what says that they are done.
    #[inline]
    pub(super) fn launch(
        &self,
        claim: &mut SlotClaim<'_>,
        sent: Sent<'_>,
        stream: &Stream,
    ) -> Result<(), StageError> {
        let Sent { bucket, skipped, referred } = sent;
        if let Some(bucket) = bucket
            && let Some(graph) = claim.graphs.get(bucket.graph)
            && graph.is_whole(bucket.index)
            && skipped | referred == 0
        {
            return Ok(graph.exec.launch(stream)?);
        }
        self.launch_other(claim, bucket, [skipped, referred], stream)
    }

    /// As `launch`, where no graph does just that. Its arguments are such that a usual step has
    /// nothing to write for it.
    #[cold]
    fn launch_other(
        &self,
        claim: &mut SlotClaim<'_>,
        bucket: Option<&Bucket>,
        [skipped, referred]: [u64; 2],
        stream: &Stream,
    ) -> Result<(), StageError> {
        let sent = Sent { bucket, skipped, referred };
        let graph = match bucket.filter(|_| !self.is_by_calls()) {
            Some(bucket) => self.adapt(claim, bucket, sent)?,
            None => None,
        };
        match graph {
            Some(graph) => Ok(graph.exec.launch(stream)?),
            None => self.enqueue(claim, sent, stream),
        }
    }

    /// A graph for the copies: made if there is none, and told which bucket it is, which slots it
    /// leaves out and which it copies from or to elsewhere. `None` if there is no room for it, or
    /// it cannot.
    #[cold]
    fn adapt<'c>(
        &self,
        claim: &'c mut SlotClaim<'_>,
        bucket: &Bucket,
        sent: Sent<'_>,
    ) -> Result<Option<&'c mut StagingGraph>, GraphError> {
        let index = claim.index();
        if !self.prepare(claim, bucket)? {
            return Ok(None);
        }
        let SlotState { graphs, extras, .. } = &mut **claim;
        let Some(graph) = graphs.get(bucket.graph) else { return Ok(None) };
        if graph.bucket != bucket.index {
            graph.resize(bucket, self.copy(index, bucket.span()))?;
        }
        match graph.skip(sent.skipped) {
            // Before CUDA 11.6 a graph leaves nothing out.
            Err(GraphError::Driver(Error::Unsupported { .. })) => return Ok(None),
            outcome => outcome?,
        }
        let referred = graph.refer(sent.referred, &extras.references, |slot| {
            self.copy_of(index, slot, bucket.fields[slot].span)
        });
        match referred {
            // A node takes no memory of another origin than its own, such as of cuMemAlloc in place
            // of the set's: that is copied by a call.
            Err(GraphError::Driver(error)) if error.code() == Some(CudaError::INVALID_VALUE) => {
                Ok(None)
            }
            outcome => outcome.map(|()| Some(graph)),
        }
    }

    /// Enqueues the copies one by one, without a graph.
    #[cold]
    pub(super) fn enqueue(
        &self,
        claim: &SlotClaim<'_>,
        sent: Sent<'_>,
        stream: &Stream,
    ) -> Result<(), StageError> {
        self.enqueue_as(claim, sent, stream, self.is_by_calls())
    }

    /// As [`enqueue`](Self::enqueue); ends in the completion word alone, where there is one, if
    /// `only_word`.
    #[cold]
    pub(super) fn enqueue_as(
        &self,
        claim: &SlotClaim<'_>,
        sent: Sent<'_>,
        stream: &Stream,
        only_word: bool,
    ) -> Result<(), StageError> {
        let (plan, index) = (&self.plan, claim.index());
        let _scope = self.context.enter()?;
        let fields = sent.bucket.map_or(&claim.fields, |bucket| &bucket.fields);
        let mut copied = (0..plan.slots.len()).filter(|slot| {
            sent.skipped & 1 << slot == 0 && plan.slots[*slot].kind == SlotKind::Copied
        });
        if let Some(events) = &self.read_events {
            stream.wait_event(events.read())?;
        }
        let outcome = match plan.layout {
            Layout::Packed => {
                let ends = copied.map(|slot| fields[slot].span).map(|it| it.offset + it.size);
                let size = ends.max().unwrap_or(0);
                enqueue_copy(stream, self.copy(index, ByteRange { offset: 0, size }))
            }
            Layout::PerSlot => copied.try_for_each(|slot| {
                let mut references = claim.extras.references.iter();
                let referred = sent.referred & 1 << slot != 0;
                let reference = references.find(|reference| referred && reference.slot == slot);
                let own = || self.row_copies(index, slot, fields[slot].span);
                match reference {
                    Some(reference) => enqueue_copy(stream, reference.copy),
                    None => own().try_for_each(|copy| enqueue_copy(stream, copy)),
                }
            }),
        };
        let outcome = outcome.and_then(|()| match &self.read_events {
            Some(events) => stream.record(events.staged()),
            None => Ok(()),
        });
        outcome.and_then(|()| self.host.mark(index, stream, only_word)).map_err(|error| {
            // Some copies may be under way: the ring slot is not to be used before they are done.
            // If the stream cannot be waited for either, nothing will ever run in it again.
            let _relaxed = self.context.driver().relax_capture();
            let waited = stream.synchronize();
            self.context.release().note(self.context.driver(), waited);
            StageError::Driver(error)
        })
    }
}
