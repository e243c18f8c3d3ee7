//! The part of a set that its handles share: memory, and what says when it may be used again.

use std::sync::Arc;
use std::time::Duration;

use wharf_sys::Api;

use super::cache::{Account, Cache};
use super::error::StageError;
use super::graphs::Graphs;
use super::guard::Guard;
use super::in_place::{InPlace, Reading};
use super::launches::Launches;
use super::names::Names;
use super::plan::Plan;
use super::region::{DeviceRegion, HostRegion};
use super::ring::{Claim, Ring};
use super::state::{Extras, SlotState};
use crate::driver::{CaptureElsewhere, Context, HomeWord};
use crate::error::{CudaError, Error};
use crate::lockfree::step_word::Begun;
use crate::stream::{CaptureStatus, Stream};
use crate::sync::atomic::Ordering::Relaxed;
use crate::timeline::Sentinel;

/// A set of buffers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ring: Ring<SlotState>,
    pub(super) plan: Arc<Plan>,
    pub(super) names: Arc<Names>,
    pub(super) graphs: Graphs,
    pub(super) launches: Launches,
    /// The readers of each ring slot in place; empty where no slot is zero-copy.
    pub(super) in_place: Box<[Arc<InPlace>]>,
    /// Of the device memory, which embedded graphs write too.
    pub(super) guard: Arc<Guard>,
    /// 0 in a forked child.
    home: HomeWord,
    pub(super) options: Options,
    /// Present where streams are asked each time.
    _elsewhere: Option<CaptureElsewhere>,
    pub(super) sentinel: Sentinel,
    pub(super) host: HostRegion,
    pub(super) device: Arc<DeviceRegion>,
    pub(super) context: Context,
}

impl Shared {
    pub(super) fn new(
        plan: Arc<Plan>,
        names: Arc<Names>,
        device: Arc<DeviceRegion>,
        guard: Arc<Guard>,
        options: &Options,
        context: &Context,
    ) -> Result<Self, Error> {
        let depth = options.depth;
        let host = HostRegion::new(context, plan.size.max(1), depth)?;
        // Only zero-copy slots are read in place, and few sets have any.
        let read_in_place = if plan.has_zero_copy { depth } else { 0 };
        let state = |index| SlotState {
            graphs: Cache::new(plan.buckets.len()),
            fields: plan.fields(),
            memory: host.slot(index),
            has_extras: false,
            extras: Extras::default(),
        };
        Ok(Self {
            ring: Ring::new((0..depth).map(state), SlotState::forget),
            home: HomeWord::new(1)?,
            plan,
            names,
            graphs: Graphs::new(Account::new(options.max_graphs, options.max_graph_bytes)),
            launches: Launches::new(depth),
            in_place: (0..read_in_place).map(|_| Arc::default()).collect(),
            guard,
            options: *options,
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
        Arc::as_ptr(&self.plan).addr()
    }

    /// Refuses a forked child before pinned memory is looked at.
    #[inline]
    pub(super) fn check_fork(&self) -> Result<(), Error> {
        if self.home.get().load(Relaxed) == 0 { Err(Error::Forked) } else { Ok(()) }
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

    /// Notes a launch, before the ring slot is handed to the device.
    #[inline]
    pub(super) fn launched(&self, index: usize, stream: &Stream, begun: Begun) {
        self.launches.note(index, stream);
        if !self.guard.is_in_order(begun, stream) {
            self.launched_out_of_order(index, stream, begun);
        }
    }

    #[cold]
    fn launched_out_of_order(&self, index: usize, stream: &Stream, begun: Begun) {
        let in_place = self.in_place.get(index);
        self.guard.launched(begun, stream, in_place);
        // After the above, which ends the reads of the step before: that may have had the same ring
        // slot.
        if let Some(read) = in_place {
            read.reset();
        }
    }

    /// The readers of a ring slot in place, where there can be any.
    pub(super) fn in_place(&self, index: usize) -> Option<&InPlace> {
        self.in_place.get(index).map(|read| &**read)
    }

    /// Frees a ring slot whose launch never runs, as if the device had read it.
    pub(super) fn release_lost(&self, index: usize) -> Result<(), StageError> {
        self.check_fork()?;
        if self.ring.in_flight().any(|at| at == index) {
            self.host.mark_lost(index, &self.context)?;
            if let Some(read) = self.in_place.get(index) {
                read.give_up();
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Waits for what reads a ring slot in place, before the set goes.
    fn settle(&self, read: &Arc<InPlace>) -> Result<(), Error> {
        if read.synchronize()? {
            return Ok(());
        }
        // Its streams have been given all that reads it: the set goes.
        let unknown = Error::Driver { call: "Staged::consumed_by", code: CudaError::NOT_READY };
        let ends = self.guard.ends_of_last(read).map_err(|_| unknown)?;
        if ends.is_empty() {
            Err(unknown)
        } else {
            ends.iter().try_for_each(|end| end.synchronize())
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
            if let Some(read) = self.in_place.get(index) {
                self.settle(read)?;
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
    /// Whether streams are asked whether they are captured, each time.
    pub(super) check_captures: bool,
}
