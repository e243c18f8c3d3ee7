//! What a set of inputs and a set of outputs have in common: ring slots, the graphs that copy them,
//! and what says when a ring slot may be used again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use wharf_sys::Api;

use super::cache::{Account, Cache};
use super::completion::Completion;
use super::error::{CountFault, SlotFault, StageError};
use super::graphs::Graphs;
use super::in_place::{InPlace, Reading};
use super::launches::Launch;
use super::len::{AllCounts, Counts};
use super::names::Names;
use super::plan::{Bucket, Plan};
use super::read_events::ReadEvents;
use super::region::{DeviceRegion, HostRegion, Run};
use super::ring::Ring;
use super::spec::SlotKind;
use super::state::{Extras, NO_BUCKET, SlotClaim, SlotState};
use super::submission::{Submission, Submitting};
use super::ticks::Ticks;
use crate::driver::{CaptureElsewhere, Context, HomeWord};
use crate::error::{CudaError, Error};
use crate::stream::{CaptureStatus, Stream};
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::Sentinel;

/// A ring, and the copies between its slots and device memory, in one direction.
#[derive(Debug)]
pub(super) struct Transfer {
    /// That of the plan.
    number: usize,
    pub(super) ring: Ring<SlotState, Launch>,
    pub(super) plan: Arc<Plan>,
    pub(super) names: Arc<Names>,
    pub(super) graphs: Graphs,
    /// The times of launches.
    pub(super) ticks: Ticks,
    /// The readers of each ring slot in place; empty where no slot is zero-copy.
    pub(super) in_place: Box<[Arc<InPlace>]>,
    /// 0 in a forked child.
    home: HomeWord,
    pub(super) options: Options,
    /// Present where the staging graphs order reads on another stream.
    pub(super) read_events: Option<Arc<ReadEvents>>,
    /// How steps are sent.
    pub(super) submitting: Submitting,
    /// Present where streams are asked each time.
    _elsewhere: Option<CaptureElsewhere>,
    pub(super) sentinel: Sentinel,
    pub(super) host: HostRegion,
    pub(super) device: Arc<DeviceRegion>,
    pub(super) context: Context,
}

impl Transfer {
    pub(super) fn new(
        plan: Arc<Plan>,
        names: Arc<Names>,
        device: Arc<DeviceRegion>,
        options: &Options,
        context: &Context,
    ) -> Result<Self, Error> {
        let host = HostRegion::new(context, plan.size.max(1), options.depth, options.completion)?;
        Self::with_host(plan, names, device, options, context, host)
    }

    /// As [`new`](Self::new), with these ring slots.
    pub(super) fn with_host(
        plan: Arc<Plan>,
        names: Arc<Names>,
        device: Arc<DeviceRegion>,
        options: &Options,
        context: &Context,
        host: HostRegion,
    ) -> Result<Self, Error> {
        let depth = options.depth;
        // Only zero-copy slots are read in place, and few sets have any.
        let read_in_place = if plan.has_zero_copy { depth } else { 0 };
        let state = |index| SlotState {
            graphs: Cache::new(plan.graphs()),
            fields: plan.fields(),
            memory: host.slot(index),
            runs: plan.slots.iter().map(|_| Run::default()).collect(),
            counts: AllCounts::default(),
            bucket: NO_BUCKET,
            is_steady: false,
            tails: None,
            has_extras: false,
            extras: Extras::default(),
            tail: None,
        };
        let slot = |index| (Launch::new(host.completion(index)), state(index));
        Ok(Self {
            ring: Ring::with((0..depth).map(slot), SlotState::give_up),
            home: HomeWord::new(1)?,
            number: plan.number,
            plan,
            names,
            graphs: Graphs::new(Account::new(options.max_graphs, options.max_graph_bytes)),
            ticks: Ticks::start(),
            in_place: (0..read_in_place).map(|_| Arc::default()).collect(),
            options: *options,
            read_events: options.read_events.then(|| ReadEvents::new(context)).transpose()?,
            submitting: Submitting::default(),
            _elsewhere: options.check_captures.then(|| context.driver().capture_elsewhere()),
            sentinel: Sentinel::new(context),
            host,
            device,
            context: context.clone(),
        })
    }

    /// The number of the set that its slot ids carry.
    #[inline]
    pub(super) fn id(&self) -> usize {
        self.number
    }

    /// Whether steps are calls of the stream, and not graphs.
    #[inline]
    pub(super) fn is_by_calls(&self) -> bool {
        self.submitting.by == Submission::Calls
    }

    /// Whether no event ends the copies of a ring slot.
    pub(super) fn has_no_events(&self) -> bool {
        !self.host.has_events || (self.is_by_calls() && self.host.has_words())
    }

    /// Refuses a forked child before pinned memory is looked at.
    #[inline]
    pub(super) fn check_fork(&self) -> Result<(), Error> {
        if self.home.get().load(Relaxed) == 0 { Err(Error::Forked) } else { Ok(()) }
    }

    /// Another ring, whose slots are copied from or to the same device memory.
    pub(super) fn sibling(&self, depth: usize, completion: Completion) -> Result<Self, Error> {
        let (plan, names) = (Arc::clone(&self.plan), Arc::clone(&self.names));
        let options = Options { depth, completion, read_events: false, ..self.options };
        let device = Arc::clone(&self.device);
        let mut sibling = Self::new(plan, names, device, &options, &self.context)?;
        sibling.read_events.clone_from(&self.read_events);
        Ok(sibling)
    }

    /// The counts of a step, if it fits, and its bucket; `None` above the largest.
    #[inline]
    pub(super) fn checked(
        &self,
        tokens: usize,
        requests: usize,
    ) -> Result<Fitting<'_>, StageError> {
        self.check_fork()?;
        let counts = Counts { tokens, requests };
        let bucket = self.plan.bucket_of(counts);
        // What a bucket holds fits: one comparison for a usual step.
        if bucket.is_none_or(|bucket| !counts.is_within(bucket.counts)) {
            within(counts, self.plan.max)?;
        }
        Ok((counts, bucket))
    }

    /// The counts of a step, if it fits a bucket.
    pub(super) fn checked_in(
        &self,
        bucket: &Bucket,
        tokens: usize,
        requests: usize,
    ) -> Result<Counts, StageError> {
        self.check_fork()?;
        within(Counts { tokens, requests }, bucket.counts)
    }

    /// The error of a slot that was used wrongly.
    #[cold]
    pub(super) fn misuse(&self, slot: usize, fault: SlotFault) -> StageError {
        if let Err(forked) = self.check_fork() {
            return forked.into();
        }
        let name = match self.plan.slots.get(slot) {
            Some(spec) if fault != SlotFault::Foreign => spec.name.clone(),
            _ => slot.to_string().into(),
        };
        StageError::Slot { slot: name, fault }
    }

    /// Why a step has no elements of a slot of the set of that number, one after the other.
    #[cold]
    pub(super) fn refusal(&self, slot: usize, set: usize) -> SlotFault {
        match self.plan.slots.get(slot).filter(|_| set == self.id()) {
            Some(spec) if spec.kind == SlotKind::Dynamic => SlotFault::IsDynamic,
            Some(spec) => spec.refusal().map_or(SlotFault::Foreign, SlotFault::Shape),
            None => SlotFault::Foreign,
        }
    }

    /// The most that a step of these counts has of a count by name; `None` if it is another set's.
    pub(super) fn most_of(
        &self,
        count: u8,
        set: usize,
        padded: Counts,
    ) -> Result<Option<usize>, StageError> {
        self.check_fork()?;
        let spec = self.plan.counts.get(usize::from(count)).filter(|_| set == self.id());
        // No more than the largest step's, which does not overflow.
        Ok(spec.map(|spec| spec.most.checked(padded).unwrap_or(0)))
    }

    /// The error of a count that was used wrongly.
    #[cold]
    pub(super) fn count_misuse(&self, count: u8, fault: CountFault) -> StageError {
        let spec = self.plan.counts.get(usize::from(count));
        let name = spec.filter(|_| fault != CountFault::Foreign);
        let count = name.map_or_else(|| count.to_string().into(), |spec| spec.name.clone());
        StageError::Count { count, fault }
    }

    /// Takes a ring slot; does not wait.
    #[inline]
    pub(super) fn try_claim(&self) -> Result<Option<SlotClaim<'_>>, Error> {
        self.ring.claim(|index| self.is_done(index))
    }

    /// Whether the device has read a ring slot that is in flight.
    #[inline]
    pub(super) fn is_done(&self, index: usize) -> Result<bool, Error> {
        if !self.host.is_done(index)? {
            return Ok(false);
        }
        // A zero-copy slot is free once the readers of its memory are done as well.
        self.in_place.get(index).map_or(Ok(true), |read| Ok(read.reading()? == Reading::Done))
    }

    /// Refuses a stream that is being captured: captured work runs at each launch of the graph,
    /// when the ring slot is another step's or gone, and not when the ring waits for it. No driver
    /// call while no capture is known of, unless the set
    /// [asks](super::InputBuffersBuilder::check_captures) every time.
    #[inline]
    pub(super) fn refuse_capture(
        &self,
        stream: &Stream,
        call: fn(&Api) -> &'static str,
    ) -> Result<(), StageError> {
        let driver = stream.context().driver();
        if !driver.may_be_capturing() || stream.capture_status()? == CaptureStatus::Inactive {
            return Ok(());
        }
        let code = CudaError::STREAM_CAPTURE_UNSUPPORTED;
        Err(Error::Driver { call: call(driver.api()), code }.into())
    }

    /// The readers of a ring slot in place, where there can be any.
    pub(super) fn in_place(&self, index: usize) -> Option<&InPlace> {
        self.in_place.get(index).map(|read| &**read)
    }

    /// Frees a ring slot whose launch never runs, as if the device had read it.
    pub(super) fn release_lost(&self, index: usize) -> Result<(), StageError> {
        self.check_fork()?;
        if self.ring.in_flight().any(|at| at == index) {
            // What it was to change was noted as changed.
            self.tear_tables()?;
            self.host.mark_lost(index, &self.context)?;
            if let Some(read) = self.in_place.get(index) {
                read.give_up();
            }
        }
        Ok(())
    }
}

impl Transfer {
    /// Waits for the streams that were given copies to the host which no event ends.
    fn settle_tails(&self) -> Result<(), Error> {
        let unknown = Error::Driver { call: "Fetch::submit", code: CudaError::NOT_READY };
        self.ring.in_flight().try_for_each(|index| {
            // A set is dropped by its last owner: what is in flight can be claimed, and is not
            // submitted again.
            let Some(claim) = self.ring.claim_at(index, |_| Ok::<_, Error>(true))? else {
                return Ok(());
            };
            let settled = match &claim.tail {
                // After the tail: the words of a set of inputs may have been given up by now.
                Some((_, tail)) => self.host.is_done(index).and_then(|is_done| {
                    if is_done { Ok(()) } else { tail.event()?.ok_or(unknown)?.synchronize() }
                }),
                None => Ok(()),
            };
            claim.put_back();
            settled
        })
    }

    /// Gives graphs and memory back within the scope of the drop: one by one behind it, each would
    /// ask for the context.
    fn give_back(&mut self) {
        for index in 0..self.ring.len() {
            let claim = self.ring.claim_at(index, |_| Ok::<_, Infallible>(true));
            if let Ok(Some(mut claim)) = claim {
                claim.graphs = Cache::new(0);
                // What else it has may be others', whose drops come behind the scope.
                claim.put_back();
            }
        }
        self.graphs.end();
        self.host.give_back();
        self.device = Arc::default();
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        // Others' captures are not to be disturbed; an error is that of a driver that is no more.
        let context = self.context.clone();
        let _work = context.work();
        // The driver takes the memory back only when the device is done with it, and cannot be
        // trusted to know: copies of graphs are no pending work of the memory.
        let settled = self.ring.in_flight().try_for_each(|index| self.host.settle(index));
        let settled = settled.and_then(|()| self.settle_tails());
        if settled.is_err() {
            context.release().note(context.driver(), settled);
            self.host.leak();
        }
        self.give_back();
    }
}

/// The counts of a step, and its bucket if it has one.
pub(super) type Fitting<'a> = (Counts, Option<&'a Bucket>);

/// The counts, if they are no more than `max`.
#[inline]
fn within(counts: Counts, max: Counts) -> Result<Counts, StageError> {
    if counts.is_within(max) { Ok(counts) } else { Err(StageError::too_large(counts, max)) }
}

/// How a set is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) depth: usize,
    pub(super) deadline: Duration,
    pub(super) max_graphs: usize,
    pub(super) max_graph_bytes: usize,
    /// Whether streams are asked whether they are captured, each time.
    pub(super) check_captures: bool,
    /// What says that a ring slot's copies are done.
    pub(super) completion: Completion,
    /// Whether reads on another stream are ordered by nodes.
    pub(super) read_events: bool,
}
