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

use std::sync::Arc;
use std::time::Duration;

use wharf_sys::Api;

use super::cache::{Account, Cache, make_room};
use super::error::{StageError, Stall};
use super::node::{add_copy, add_done, add_record};
use super::plan::{Bucket, Layout, Plan, Span};
use super::region::{DeviceRegion, HostRegion};
use super::ring::{Claim, Ring};
use super::spec::Place;
use super::state::{Copies, Extras, SlotState, StagingGraph};
use super::ticks::Ticks;
use crate::driver::{Context, Event, EventKind};
use crate::error::{CudaError, Error};
use crate::graph::{Copy1d, GraphDefinition, GraphError, NodeId};
use crate::profile::range;
use crate::stream::{CaptureStatus, Stream};
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
    ticks: Ticks,
    pub(super) host: HostRegion,
    pub(super) device: Arc<DeviceRegion>,
    pub(super) context: Context,
}

/// What is known of a ring slot's last launch.
#[derive(Debug)]
struct Launch {
    stream: AtomicU64,
    /// When it was, by the set's [`Ticks`].
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
        let state = |index| SlotState {
            graphs: Cache::new(plan.buckets.len()),
            fields: plan.fields(),
            memory: host.slot(index),
            has_extras: false,
            extras: Extras::default(),
        };
        Ok(Self {
            ring: Ring::new((0..depth).map(state), SlotState::forget),
            plan,
            account: Account::new(options.max_graphs, options.max_graph_bytes),
            made: AtomicU64::new(0),
            made_ahead: AtomicU64::new(0),
            launches,
            last: AtomicU64::new(0),
            options: *options,
            sentinel: Sentinel::new(context),
            ticks: Ticks::start(),
            host,
            device,
            context: context.clone(),
        })
    }

    /// What slot ids of the set carry.
    #[inline]
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
        if !self.host.is_done(index)? {
            return Ok(false);
        }
        if !self.plan.has_zero_copy {
            return Ok(true);
        }
        // What is read in place is read by who was named.
        let launch = &self.launches[index];
        Ok(launch.consumer.load(Relaxed) != 0 && launch.consumed.query_beside_captures()?)
    }

    /// Takes a ring slot; waits for one until the deadline.
    #[inline]
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
        let age = self.ticks.age(since(&ring_slot));
        Stall { ring_slot, stream: usize::try_from(stream).unwrap_or(0), age, probes }
    }

    /// Refuses a stream that is being captured: what is captured here would run again, when the ring slot
    /// is another step's or gone, and never where the ring waits for it. No driver call while nothing
    /// is captured.
    #[inline]
    pub(super) fn refuse_capture(stream: &Stream, call: fn(&Api) -> &'static str) -> Result<(), Error> {
        let driver = stream.context().driver();
        if !driver.may_be_capturing() || stream.capture_status()? == CaptureStatus::Inactive {
            return Ok(());
        }
        Err(Error::Driver { call: call(driver.api()), code: CudaError::STREAM_CAPTURE_UNSUPPORTED })
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
            0 if launch.stream.load(Relaxed) != own => stream.wait_event(&self.host.events[last]),
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
        launch.since.store(self.ticks.now(), Relaxed);
        // Release: pairs with the Acquire of `order_behind_last`.
        self.last.store(index as u64 + 1, Release);
    }

    /// Takes note of the stream that reads what was staged.
    pub(super) fn consumed(&self, index: usize, stream: &Stream) -> Result<(), Error> {
        Self::refuse_capture(stream, |api| api.event_record.name())?;
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
        bucket: &Bucket,
    ) -> Result<bool, GraphError> {
        if claim.graphs.has(bucket.index) {
            return Ok(true);
        }
        let _range = range!("wharf::staging::instantiate");
        let copies = match self.plan.layout {
            Layout::PerSlot => self.plan.staged.count_ones().into(),
            Layout::Packed => 1,
        };
        let bytes = NODE_BYTES * (copies + 2);
        let is_done = |index| self.is_done(index).unwrap_or(false);
        if !make_room(&self.account, bytes, claim, &self.ring, is_done, |state| &mut state.graphs) {
            return Ok(false);
        }
        let made = self.graph(claim.index(), bucket).and_then(|(definition, copies)| {
            let exec = definition.instantiate()?;
            Ok(StagingGraph { exec, copies, skipped: 0, referred: 0 })
        });
        let graph = made.inspect_err(|_| self.account.give(bytes))?;
        claim.graphs.put(bucket.index, graph, bytes);
        self.made.fetch_add(1, Relaxed);
        Ok(true)
    }

    /// The graph that copies a ring slot of a bucket, and which node copies which slot.
    pub(super) fn graph(
        &self,
        index: usize,
        bucket: &Bucket,
    ) -> Result<(GraphDefinition, Copies), GraphError> {
        let (plan, host) = (&self.plan, &self.host);
        let mut graph = GraphDefinition::new(&self.context)?;
        let mut copies = vec![None; plan.slots.len()];
        let mut nodes: Vec<NodeId> = Vec::new();
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
                for (slot, (spec, field)) in plan.slots.iter().zip(&bucket.fields).enumerate() {
                    if spec.place == Place::Copied && field.span.size > 0 {
                        copies[slot] = Some(add(&mut graph, field.span, &spec.name)?);
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
        let source = self.host.slot(index).pointer(span).cast_const().cast();
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

impl Drop for Shared {
    fn drop(&mut self) {
        // Others' captures are not to be disturbed; an error is that of a driver that is no more.
        let _relaxed = self.context.driver().relax_capture();
        // The driver takes the memory back only when the device is done with it, and cannot be
        // trusted to know: copies of graphs are no pending work of the memory.
        let settled = self.ring.in_flight().try_for_each(|index| {
            if self.plan.has_zero_copy {
                self.launches[index].settle()?;
            }
            if self.host.is_done(index)? { Ok(()) } else { self.host.events[index].synchronize() }
        });
        if settled.is_err() {
            self.context.release().note(self.context.driver(), settled);
            self.host.leak();
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
