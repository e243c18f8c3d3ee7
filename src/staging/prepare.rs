//! Making the graphs of a set: when a step needs one, or before.

use std::ffi::c_void;

use super::cache::make_room;
use super::node::{add_copy, add_copy_of_rows, add_done, add_record, add_wait};
use super::plan::{Bucket, ByteRange, Layout};
use super::spec::SlotKind;
use super::state::{Copies, CopyNode, SlotClaim, StagingGraph};
use super::transfer::Transfer;
use crate::graph::{Copy1d, Copy2d, Direction, GraphDefinition, GraphError, NodeId};
use crate::profile::range;

impl Transfer {
    /// Makes the graph of a bucket in the claimed slot if there is none, and evicts others for it
    /// if need be. Returns whether there is one; `false` if there is no room.
    pub(super) fn prepare(
        &self,
        claim: &mut SlotClaim<'_>,
        bucket: &Bucket,
    ) -> Result<bool, GraphError> {
        self.prepare_if(claim, bucket, |claim, bytes| {
            let is_done = |index| self.is_done(index).unwrap_or(false);
            let account = &self.graphs.account;
            make_room(account, bytes, claim, &self.ring, is_done, |state| &mut state.graphs)
        })
    }

    /// As [`prepare`](Self::prepare), with room that `take_room` takes for the graph's bytes if it
    /// can.
    fn prepare_if(
        &self,
        claim: &mut SlotClaim<'_>,
        bucket: &Bucket,
        take_room: impl FnOnce(&mut SlotClaim<'_>, u64) -> bool,
    ) -> Result<bool, GraphError> {
        if claim.graphs.has(bucket.graph) {
            return Ok(true);
        }
        if self.is_by_calls() {
            return Ok(false);
        }
        let bytes = self.cost();
        if !take_room(claim, bytes) {
            return Ok(false);
        }
        self.make(claim, bucket, bytes)?;
        Ok(true)
    }

    /// Makes the graphs of the wanted buckets in the claimed slot, and drops the others.
    pub(super) fn keep(
        &self,
        claim: &mut SlotClaim<'_>,
        is_wanted: impl Fn(&Bucket) -> bool,
    ) -> Result<(), GraphError> {
        let buckets = || self.plan.buckets.iter();
        let wanted: Vec<usize> =
            buckets().filter(|bucket| is_wanted(bucket)).map(|bucket| bucket.graph).collect();
        for graph in (0..self.plan.graphs()).filter(|graph| !wanted.contains(graph)) {
            drop(claim.graphs.remove(graph, &self.graphs.account));
        }
        for bucket in buckets().filter(|bucket| is_wanted(bucket)) {
            self.prepare_ahead(claim, bucket)?;
        }
        Ok(())
    }

    /// As [`prepare`](Self::prepare), before a step needs the graph.
    pub(super) fn prepare_ahead(
        &self,
        claim: &mut SlotClaim<'_>,
        bucket: &Bucket,
    ) -> Result<bool, GraphError> {
        let is_new = !claim.graphs.has(bucket.graph);
        let ready = self.prepare(claim, bucket)?;
        if is_new && ready {
            self.made_ahead(claim, bucket)?;
        }
        Ok(ready)
    }

    /// Makes the graphs of all ring slots, those of the smallest buckets first, which are the
    /// commonest, until there are as many as there may be.
    pub(super) fn prepare_all(&self) -> Result<(), GraphError> {
        for bucket in self.plan.buckets.iter().take(self.plan.graphs()) {
            for index in 0..self.ring.len() {
                let Some(mut claim) = self.ring.claim_at(index, |index| self.is_done(index))?
                else {
                    continue;
                };
                // Evicting would trade one graph that was made ahead for another.
                let take_room = |_: &mut SlotClaim<'_>, bytes| self.graphs.account.take(bytes);
                if !self.prepare_if(&mut claim, bucket, take_room)? {
                    return Ok(());
                }
                self.made_ahead(&mut claim, bucket)?;
            }
        }
        Ok(())
    }

    /// Counts a graph that was made ahead, and sends it to the device, so that its first launch
    /// does not have to.
    fn made_ahead(&self, claim: &mut SlotClaim<'_>, bucket: &Bucket) -> Result<(), GraphError> {
        let stream = self.graphs.count_made_ahead(&self.context)?;
        let Some(graph) = claim.graphs.get(bucket.graph) else { return Ok(()) };
        graph.exec.upload(stream)
    }

    /// Makes a graph of which the account knows already.
    fn make(
        &self,
        claim: &mut SlotClaim<'_>,
        bucket: &Bucket,
        bytes: u64,
    ) -> Result<(), GraphError> {
        let _range = range!("staging::instantiate");
        let made = self.graph(claim.index(), bucket).and_then(|(definition, copies)| {
            // The set waits for its launches, and its graphs keep nothing alive.
            let exec = definition.instantiate_bare()?;
            Ok(StagingGraph { exec, copies, bucket: bucket.index, skipped: 0, referred: 0 })
        });
        // The account knows of it already, so that two threads cannot exceed the limit.
        let graph = made.inspect_err(|_| self.graphs.account.give(bytes))?;
        claim.graphs.put(bucket.graph, graph, bytes);
        self.graphs.count_made();
        Ok(())
    }

    /// The cost of a graph in the account, in bytes.
    fn cost(&self) -> u64 {
        let copies = match self.plan.layout {
            Layout::PerSlot => self.plan.staged.count_ones().into(),
            Layout::Packed => 1,
        };
        let events = if self.read_events.is_some() { 4 } else { 2 };
        NODE_BYTES * (copies + events)
    }

    /// The graph that copies a ring slot of a bucket, and which node copies which slot.
    pub(super) fn graph(
        &self,
        index: usize,
        bucket: &Bucket,
    ) -> Result<(GraphDefinition, Copies), GraphError> {
        let (plan, host) = (&self.plan, &self.host);
        let mut graph = GraphDefinition::new(&self.context)?;
        let mut slots = vec![None; plan.slots.len()];
        let mut all = None;
        let mut nodes: Vec<NodeId> = Vec::new();
        let events = self.read_events.as_deref();
        let read = events.map(|events| add_wait(&mut graph, events.read())).transpose()?;
        // Copies are in no order among themselves, so that the driver may overlap them.
        let mut add = |graph: &mut _, copy: Copy1d, rows: Option<Copy2d>, label: &str| {
            let node = match rows {
                Some(rows) => add_copy_of_rows(graph, rows, read.as_slice())?,
                None => add_copy(graph, copy, read.as_slice())?,
            };
            graph.label(node, label)?;
            nodes.push(node.into());
            Ok::<_, GraphError>(CopyNode { node, copy })
        };
        match plan.layout {
            Layout::Packed if bucket.size > 0 => {
                all = Some(add(&mut graph, self.copy(index, bucket.span()), None, "all slots")?);
            }
            Layout::Packed => {}
            Layout::PerSlot => {
                for (slot, (spec, field)) in plan.slots.iter().zip(&bucket.fields).enumerate() {
                    if spec.kind == SlotKind::Copied && field.span.size > 0 {
                        let copy = self.copy_of(index, slot, field.span);
                        let has_rows = spec.has_rows();
                        let rows = has_rows.then(|| self.copy_of_rows(index, slot, field.span));
                        slots[slot] = Some(add(&mut graph, copy, rows, &spec.name)?);
                    }
                }
            }
        }
        if nodes.is_empty() {
            nodes.extend(read);
        }
        if let Some(events) = events {
            let staged = add_record(&mut graph, events.staged(), &nodes)?;
            graph.label(staged, "may be read")?;
        }
        if let Some(word) = host.word(index) {
            let done = add_done(&mut graph, word, &nodes)?;
            graph.label(done, format!("ring slot {index} is free"))?;
            nodes = vec![done];
        }
        if host.has_events {
            let event = add_record(&mut graph, &host.events[index], &nodes)?;
            graph.label(event, "staged")?;
        }
        Ok((graph, Copies { slots: slots.into(), all }))
    }

    /// The copy of a span of a ring slot, where the set's own device memory is the other side.
    pub(super) fn copy(&self, index: usize, span: ByteRange) -> Copy1d {
        self.copy_with(index, span, self.device.address() + span.offset as u64)
    }

    /// The copy of a slot, which has the span.
    pub(super) fn copy_of(&self, index: usize, slot: usize, span: ByteRange) -> Copy1d {
        self.copy_with(index, span, self.plan.address(self.device.address(), slot, span))
    }

    /// The copy of a span of a ring slot, where the other side is device memory at `device`.
    pub(super) fn copy_with(&self, index: usize, span: ByteRange, device: u64) -> Copy1d {
        let host: *mut c_void = self.host.slot(index).pointer(span).cast();
        match self.plan.direction {
            Direction::Dtoh => Copy1d::dtoh(host, device, span.size),
            _ => Copy1d::htod(device, host.cast_const(), span.size),
        }
    }
}

/// The cost of a node in the account, in bytes: the driver does not report it.
const NODE_BYTES: u64 = 1024;
