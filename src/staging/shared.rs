//! What the handles of a set share: memory, the ring, the account of graphs, the guard of the
//! destination.
//!
//! # The guard of the destination
//!
//! The device memory of a set is one place that every step writes. On one stream, stream order is
//! all that is needed. A step on another stream than the step before it waits, on the device, for that
//! step's copy, or, if [`Staged::consumed_by`](super::Staged::consumed_by) has said who reads
//! it, for the reader.
//!
//! | word | written by | read by | orderings |
//! |---|---|---|---|
//! | `last`, a launch's `stream`, `consumer`, `since` | `submit`, `consumed_by` | `submit`, a stall's diagnosis | `Release` of `last` pairs with its `Acquire`: who orders itself behind a step sees where that went. Steps that are submitted at once by two threads are ordered by neither |

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::{Account, Cache, make_room};
use super::error::{StageError, Stall};
use super::node::{add_copy, add_done, add_record, redirect};
use super::plan::{Layout, Plan, Span};
use super::region::{DeviceRegion, HostRegion};
use super::ring::{Claim, Ring};
use super::spec::Place;
use crate::driver::{Context, Event, EventKind};
use crate::error::{CudaError, Error};
use crate::graph::{Copy1d, GraphDefinition, GraphError, GraphExec, MemcpyNode, NodeId};
use crate::profile::range;
use crate::stream::Stream;
use crate::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::timeline::{GaveUp, Sentinel};

/// A set of buffers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ring: Ring<SlotState>,
    pub(super) plan: Arc<Plan>,
    pub(super) account: Account,
    /// Graphs that were made, and how many of them before a step needed them.
    pub(super) made: AtomicU64,
    pub(super) made_ahead: AtomicU64,
    launches: Box<[Launch]>,
    /// One more than the ring slot submitted last; 0 before the first.
    last: AtomicU64,
    pub(super) options: Options,
    sentinel: Sentinel,
    start: Instant,
    /// Present until the drop.
    host: Option<HostRegion>,
    pub(super) device: Arc<DeviceRegion>,
    pub(super) context: Context,
}

/// What belongs to whoever has claimed a ring slot.
#[derive(Debug)]
pub(super) struct SlotState {
    pub(super) graphs: Cache<StagingGraph>,
    /// Where slots lie in a step that has no bucket.
    pub(super) spans: Box<[Span]>,
    /// What the device reads elsewhere in the step that was submitted last.
    pub(super) references: Vec<Reference>,
}

/// An executable graph, and which node copies which slot.
#[derive(Debug)]
pub(super) struct StagingGraph {
    pub(super) exec: GraphExec,
    copies: Copies,
    /// A bit for each slot whose copy is disabled.
    pub(super) skipped: u64,
    /// A bit for each slot whose copy reads elsewhere.
    pub(super) referred: u64,
}

/// A slot whose elements are not in the ring slot, and what keeps them where they are.
pub(super) struct Reference {
    pub(super) slot: usize,
    pub(super) copy: Copy1d,
    pub(super) _owner: Box<dyn Send>,
}

/// The node that copies each slot, if it has one of its own.
type Copies = Box<[Option<MemcpyNode>]>;

/// What is known of a ring slot's last launch.
#[derive(Debug)]
struct Launch {
    stream: AtomicU64,
    /// In nanoseconds since the set was made.
    since: AtomicU64,
    /// The stream that reads what was staged; 0 if nobody said so.
    consumer: AtomicU64,
    consumed: Event,
}

impl Shared {
    pub(super) fn new(
        plan: Arc<Plan>,
        device: Arc<DeviceRegion>,
        options: &Options,
        context: &Context,
    ) -> Result<Self, Error> {
        let depth = options.depth;
        let host = HostRegion::new(context, plan.size.max(1), depth)?;
        let launch = |_| {
            Ok(Launch {
                stream: AtomicU64::new(0),
                since: AtomicU64::new(0),
                consumer: AtomicU64::new(0),
                consumed: Event::new(context, EventKind::Ordering)?,
            })
        };
        let launches = (0..depth).map(launch).collect::<Result<_, Error>>()?;
        let state = |_| SlotState {
            graphs: Cache::new(plan.buckets.len()),
            spans: vec![Span::default(); plan.slots.len()].into(),
            references: Vec::new(),
        };
        Ok(Self {
            ring: Ring::new((0..depth).map(state)),
            plan,
            account: Account::new(options.max_graphs, options.max_graph_bytes),
            made: AtomicU64::new(0),
            made_ahead: AtomicU64::new(0),
            launches,
            last: AtomicU64::new(0),
            options: *options,
            sentinel: Sentinel::new(context),
            start: Instant::now(),
            host: Some(host),
            device,
            context: context.clone(),
        })
    }

    #[inline]
    pub(super) fn host(&self) -> &HostRegion {
        let Some(host) = &self.host else { unreachable!("it is there until the drop") };
        host
    }

    /// What slot ids of the set carry.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.plan).addr()
    }

    /// Takes a ring slot; does not wait.
    #[inline]
    pub(super) fn try_claim(&self) -> Result<Option<Claim<'_, SlotState>>, Error> {
        self.ring.claim(|index| self.is_done(index))
    }

    /// Whether the device has read a ring slot that is in flight.
    #[inline]
    pub(super) fn is_done(&self, index: usize) -> Result<bool, Error> {
        if !self.host().is_done(index)? {
            return Ok(false);
        }
        if !self.plan.has_zero_copy {
            return Ok(true);
        }
        // What is read in place is read by who was named.
        let launch = &self.launches[index];
        Ok(launch.consumer.load(Relaxed) != 0 && launch.consumed.query()?)
    }

    /// Takes a ring slot; waits for one until the deadline.
    pub(super) fn claim(&self) -> Result<Claim<'_, SlotState>, StageError> {
        match self.try_claim()? {
            Some(claim) => Ok(claim),
            None => self.wait_for_claim(),
        }
    }

    #[cold]
    fn wait_for_claim(&self) -> Result<Claim<'_, SlotState>, StageError> {
        let _range = range!("wharf::staging::wait");
        let mut claim = None;
        let waited = self.sentinel.wait(self.options.deadline, || {
            claim = self.try_claim()?;
            Ok(claim.is_some())
        });
        match (waited, claim) {
            (Ok(()), Some(claim)) => Ok(claim),
            (Err(GaveUp::Driver(error)), _) => Err(StageError::Driver(error)),
            (Err(GaveUp::Deadline { probes, .. }), _) => Err(StageError::Stalled(self.stall(probes))),
            (Ok(()), None) => Err(StageError::WouldBlock),
        }
    }

    /// Waits until no ring slot is in flight, or the deadline.
    pub(super) fn wait_for_all(&self) -> Result<(), StageError> {
        let waited = self.sentinel.wait(self.options.deadline, || {
            for index in self.ring.in_flight() {
                if !self.is_done(index)? {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        waited.map_err(|gave_up| match gave_up {
            GaveUp::Driver(error) => StageError::Driver(error),
            GaveUp::Deadline { probes, .. } => StageError::Stalled(self.stall(probes)),
        })
    }

    /// The ring slot that is longest in flight.
    fn stall(&self, probes: u32) -> Stall {
        let since = |index: &usize| self.launches[*index].since.load(Relaxed);
        let Some(ring_slot) = self.ring.in_flight().min_by_key(since) else {
            return Stall { ring_slot: 0, stream: 0, age: Duration::ZERO, probes };
        };
        let stream = self.launches[ring_slot].stream.load(Relaxed);
        let age = self.start.elapsed().saturating_sub(Duration::from_nanos(since(&ring_slot)));
        Stall { ring_slot, stream: usize::try_from(stream).unwrap_or(0), age, probes }
    }

    /// Makes what `stream` is given from here on wait for the last step's copy, or for its reader.
    #[inline]
    pub(super) fn order_behind_last(&self, stream: &Stream) -> Result<(), Error> {
        // Acquire: pairs with the Release of `note`.
        let Some(last) = self.last.load(Acquire).checked_sub(1) else { return Ok(()) };
        let last = usize::try_from(last).unwrap_or(0);
        let launch = &self.launches[last];
        let own = number(stream);
        match launch.consumer.load(Relaxed) {
            0 if launch.stream.load(Relaxed) != own => stream.wait_event(&self.host().events[last]),
            consumer if consumer != 0 && consumer != own => stream.wait_event(&launch.consumed),
            _ => Ok(()),
        }
    }

    /// Takes note of a launch, before the ring slot is handed to the device.
    #[inline]
    pub(super) fn note(&self, index: usize, stream: &Stream) {
        let launch = &self.launches[index];
        launch.stream.store(number(stream), Relaxed);
        launch.consumer.store(0, Relaxed);
        let since = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        launch.since.store(since, Relaxed);
        // Release: pairs with the Acquire of `order_behind_last`.
        self.last.store(index as u64 + 1, Release);
    }

    /// Takes note of the stream that reads what was staged.
    pub(super) fn consumed(&self, index: usize, stream: &Stream) -> Result<(), Error> {
        let launch = &self.launches[index];
        let before = launch.consumer.load(Relaxed);
        if before != 0 && before != number(stream) {
            // One event stands for all readers: the later ones are behind the earlier ones.
            stream.wait_event(&launch.consumed)?;
        }
        stream.record(&launch.consumed)?;
        launch.consumer.store(number(stream), Relaxed);
        Ok(())
    }

    /// Has the graph of a bucket in the claimed slot. `false` if there is no room for it.
    pub(super) fn prepare(
        &self,
        claim: &mut Claim<'_, SlotState>,
        bucket: usize,
    ) -> Result<bool, GraphError> {
        if claim.graphs.has(bucket) {
            return Ok(true);
        }
        let _range = range!("wharf::staging::instantiate");
        let copies = match self.plan.layout {
            Layout::PerSlot => self.plan.staged.count_ones().into(),
            Layout::Packed => 1,
        };
        let bytes = NODE_BYTES * (copies + 2);
        if !make_room(&self.account, bytes, claim, &self.ring, |state| &mut state.graphs) {
            return Ok(false);
        }
        let made = self.graph(claim.index(), bucket).and_then(|(definition, copies)| {
            let exec = definition.instantiate()?;
            Ok(StagingGraph { exec, copies, skipped: 0, referred: 0 })
        });
        let graph = made.inspect_err(|_| self.account.give(bytes))?;
        claim.graphs.put(bucket, graph, bytes);
        self.made.fetch_add(1, Relaxed);
        Ok(true)
    }

    /// The graph that copies a ring slot of a bucket, and which node copies which slot.
    pub(super) fn graph(&self, index: usize, bucket: usize) -> Result<(GraphDefinition, Copies), GraphError> {
        let (plan, host) = (&self.plan, self.host());
        let mut graph = GraphDefinition::new(&self.context)?;
        let mut copies = vec![None; plan.slots.len()];
        let mut nodes: Vec<NodeId> = Vec::new();
        let Some(bucket) = plan.buckets.get(bucket) else { return Ok((graph, copies.into())) };
        let mut add = |graph: &mut GraphDefinition, span: Span, label: &str| {
            let copy = self.copy(index, span);
            let node = add_copy(graph, copy)?;
            graph.label(node, label)?;
            nodes.push(node.into());
            Ok::<_, GraphError>(node)
        };
        match plan.layout {
            Layout::Packed if bucket.size > 0 => {
                add(&mut graph, Span { offset: 0, size: bucket.size }, "all slots")?;
            }
            Layout::Packed => {}
            Layout::PerSlot => {
                for (slot, (spec, span)) in plan.slots.iter().zip(&bucket.spans).enumerate() {
                    if spec.place == Place::Copied && span.size > 0 {
                        copies[slot] = Some(add(&mut graph, *span, &spec.name)?);
                    }
                }
            }
        }
        if let Some(word) = host.word(index) {
            let done = add_done(&mut graph, word, &nodes)?;
            graph.label(done, format!("ring slot {index} is free"))?;
            nodes = vec![done];
        }
        let event = add_record(&mut graph, &host.events[index], &nodes)?;
        graph.label(event, "staged")?;
        Ok((graph, copies.into()))
    }

    /// The copy of a span of a ring slot.
    pub(super) fn copy(&self, index: usize, span: Span) -> Copy1d {
        let source = self.host().pointer(index, span).cast_const().cast();
        Copy1d::htod(self.device.address() + span.offset as u64, source, span.size)
    }
}

impl Launch {
    /// Waits for who reads a ring slot in place.
    fn settle(&self) -> Result<(), Error> {
        match self.consumer.load(Relaxed) {
            // Nobody knows who, so nobody can wait for it.
            0 => Err(Error::Driver { call: "Staged::consumed_by", code: CudaError::NOT_READY }),
            _ => self.consumed.synchronize(),
        }
    }
}

impl StagingGraph {
    /// Lets later launches leave out the copies of these slots, and no others.
    #[cold]
    pub(super) fn skip(&mut self, slots: u64) -> Result<(), GraphError> {
        let mut changed = self.skipped ^ slots;
        while changed != 0 {
            let slot = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            if let Some(copy) = self.copies[slot] {
                self.exec.set_enabled(copy, slots & 1 << slot == 0)?;
            }
            self.skipped ^= 1 << slot;
        }
        Ok(())
    }

    /// Lets later launches copy these slots from elsewhere, and all others from the ring slot, where
    /// `own` says they are.
    #[cold]
    pub(super) fn refer(
        &mut self,
        references: &[Reference],
        own: impl Fn(usize) -> Copy1d,
    ) -> Result<(), GraphError> {
        let mut back = self.referred;
        for Reference { slot, copy, .. } in references {
            if let Some(node) = self.copies[*slot] {
                redirect(&mut self.exec, node, *copy)?;
                self.referred |= 1 << slot;
            }
            back &= !(1 << slot);
        }
        while back != 0 {
            let slot = back.trailing_zeros() as usize;
            back &= back - 1;
            if let Some(node) = self.copies[slot] {
                redirect(&mut self.exec, node, own(slot))?;
            }
            self.referred &= !(1 << slot);
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference")
            .field("slot", &self.slot)
            .field("copy", &self.copy)
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(host) = self.host.take() else { return };
        // The driver takes the memory back only when the device is done with it, and cannot be
        // trusted to know: copies of graphs are no pending work of the memory.
        let settled = self.ring.in_flight().try_for_each(|index| {
            if self.plan.has_zero_copy {
                self.launches[index].settle()?;
            }
            if host.is_done(index)? { Ok(()) } else { host.events[index].synchronize() }
        });
        if settled.is_err() {
            self.context.release().note(self.context.driver(), settled);
            host.leak();
        }
    }
}

/// How a set is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) depth: usize,
    pub(super) deadline: Duration,
    pub(super) max_graphs: usize,
    pub(super) max_graph_bytes: usize,
}

fn number(stream: &Stream) -> u64 {
    stream.as_raw().addr() as u64
}

/// What a node is taken to cost, for the bound in bytes: the driver does not say.
pub(super) const NODE_BYTES: u64 = 1024;
