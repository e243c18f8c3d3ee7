//! A serving engine's loop without the model: each step stages its inputs, allocates its buffers
//! and compares the bytes that arrived.
//!
//! ```text
//! Step ─> wait for the step that had the lane ─> begin ─> write ─> submit ─> consume ─> ...
//!         its buffers are free again             └─ timed, calls counted ─┘ copies the inputs
//!         its copied bytes are compared                                    back, records an event
//! ```
//!
//! As many steps are in flight as the ring has slots, as in an engine that samples while the
//! device works on later steps.

mod adapters;
pub mod bench;
mod consumer;
mod engine;
mod error;
mod field;
mod foresight;
mod inputs;
mod results;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf::forecast::{WarmSet, WarmStats};
use wharf::memory::{Budget, BudgetUse};
use wharf::pool::MemoryPlan;
use wharf::staging::{Counts, GraphsMade, Layout, Prewarm, StageError};
use wharf::{Context, Stream};

use self::adapters::Adapters;
pub use self::adapters::TierUse;
use self::consumer::Consumer;
pub use self::engine::{KindUse, MemoryUse, TorchUse, Workload};
pub use self::error::ReplayError;
pub use self::foresight::{Foresight, RunPlan, SizeRecorder};
use self::inputs::Inputs;
pub use self::inputs::Preset;
use crate::schedule::{self, Step};
use crate::target::Target;
use crate::trace::TraceError;

/// The settings of a replay.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose inputs are staged.
    pub preset: Preset,
    /// The layout of slots in memory.
    pub layout: Layout,
    /// The largest number of steps in flight.
    pub ring_depth: usize,
    /// The sizes that steps are padded to, in tokens.
    pub buckets: Vec<usize>,
    /// Whether every byte is compared on the device's side.
    pub verify: bool,
    /// Whether a step waits for its virtual time.
    pub realtime: bool,
    /// The forecast of step sizes.
    pub foresight: Foresight,
    /// For how many sizes graphs are kept, made ahead as foreseen; 0: for all, made at the start.
    pub warm: usize,
    /// Blocks of device and of pinned memory that are reserved at the start.
    pub reserve: Option<[MemoryPlan; 2]>,
    /// The time after which unused blocks are released before a pool grows.
    pub keep_idle: Duration,
    /// What steps allocate on the device.
    pub memory: Workload,
    /// What all of the device's memory counts against: activations, inputs, results, adapters.
    pub budget: Budget,
    /// Whether each step also uses one of many adapters that move between tiers.
    pub tiered: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let buckets = all_sizes().collect();
        Self {
            preset: Preset::default(),
            layout: Layout::default(),
            ring_depth: 3,
            buckets,
            verify: false,
            realtime: false,
            foresight: Foresight::default(),
            warm: 0,
            reserve: None,
            keep_idle: Duration::ZERO,
            memory: Workload::default(),
            budget: Budget::new(usize::MAX),
            tiered: false,
        }
    }
}

impl Settings {
    /// Graphs made ahead by the forecast, if there is one.
    fn prewarm(&self) -> Option<Prewarm> {
        let warm = || WarmSet::new(self.foresight.forecast(), self.warm).ahead(AHEAD);
        (self.warm > 0).then(|| Prewarm::new(warm()))
    }

    /// The violations that the software driver found, where it checks sources.
    fn violations(&self, target: &Target) -> Option<u64> {
        let checked = self.verify && target.checks_sources();
        target.software().filter(|_| checked).map(|machine| machine.violations().len() as u64)
    }
}

/// The sizes that steps are padded to by default, in tokens.
fn all_sizes() -> impl Iterator<Item = usize> {
    let larger = [640, 768, 1024, 1280, 1536, 1792, schedule::TOKENS];
    schedule::sizes().chain(larger).map(|size| size as usize)
}

/// The record of one step.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The step.
    pub step: Step,
    /// When it began, since the replay did.
    pub start: Duration,
    /// The time of `begin`.
    pub begin: Duration,
    /// The time of the writing.
    pub write: Duration,
    /// The time of `submit`.
    pub submit: Duration,
    /// Bytes that the engine wrote, without padding.
    pub bytes: u64,
    /// Calls that the driver got between `begin` and the end of `submit`, where they can be
    /// counted.
    pub driver_calls: Option<u64>,
    /// Whether no ring slot was free.
    pub waited: bool,
    /// Memory afterwards.
    pub memory: MemoryUse,
}

/// The outcome of a replay.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Bytes that were not on the device as they had been written.
    pub mismatches: u64,
    /// Times that a source changed while the device still had to read it; known on softcuda, where
    /// bytes are compared.
    pub violations: Option<u64>,
    /// Graphs that are kept at the end.
    pub graphs: usize,
    /// Graphs that were made.
    pub made: GraphsMade,
    /// The use of the sizes that were prepared, if any.
    pub warm: Option<WarmStats>,
    /// The use of the adapters, if any.
    pub tiers: Option<TierUse>,
    /// The blocks of device and of pinned memory that the pools needed.
    pub needed: [MemoryPlan; 2],
    /// What PyTorch's native allocator, and the one with expandable segments, would have obtained
    /// for the device's allocations.
    pub torch: [TorchUse; 2],
    /// What each had of the device's memory at the end, and at most.
    pub uses: Vec<BudgetUse>,
    /// Steps whose results were fetched and read, for a server.
    pub results: Option<u64>,
    /// Why the replay ended early, if it was not told to: the rest is of the steps until then.
    pub failed: Option<ReplayError>,
    /// Whether a signal asked to stop.
    pub stopped: bool,
}

/// Runs `steps` on the first device of `target`, until they end or `stop` is set, and shows each to
/// `watch`. An error of a step, of the trace or of `watch` ends it too, and is part of the outcome.
///
/// # Errors
///
/// [`ReplayError`]: the driver refused what the steps need, before the first of them.
pub fn run(
    target: &Target,
    settings: &Settings,
    steps: impl IntoIterator<Item = Result<Step, TraceError>>,
    stop: &AtomicBool,
    mut watch: impl FnMut(&Record) -> Result<(), ReplayError>,
) -> Result<Outcome, ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let stream = Stream::new(&context)?;
    stream.set_name("staging");
    // A server's inputs come on a stream of their own, beside the last step's work.
    let apart = (settings.memory == Workload::Serving).then(|| Stream::new(&context));
    let apart = apart.transpose()?;
    let compute = apart.as_ref().unwrap_or(&stream);
    wharf::profile::name_thread("replay");
    let inputs = Inputs::new(&context, settings)?;
    let consumer = Consumer::new(&inputs, compute, settings)?;
    let adapters = settings.tiered.then(|| Adapters::new(&context, compute, settings));
    let (adapters, prewarm) = (adapters.transpose()?, settings.prewarm());
    let start = Instant::now();
    let mut replay =
        Replay { target, settings, inputs: &inputs, consumer, adapters, prewarm, start, stop };
    let (mut stopped, mut failed) = (false, None);
    for (number, step) in steps.into_iter().enumerate() {
        let went_on = step
            .map_err(ReplayError::from)
            .and_then(|step| replay.step(number, step, &stream, compute))
            .and_then(|record| record.map_or(Ok(false), |record| watch(&record).map(|()| true)));
        match went_on {
            Ok(true) => continue,
            Ok(false) => stopped = true,
            Err(error) => failed = Some(error),
        }
        break;
    }
    Ok(Outcome { stopped, ..replay.finish(failed) })
}

/// A replay under way.
struct Replay<'a> {
    target: &'a Target,
    settings: &'a Settings,
    inputs: &'a Inputs,
    consumer: Consumer<'a>,
    adapters: Option<Adapters>,
    prewarm: Option<Prewarm>,
    start: Instant,
    stop: &'a AtomicBool,
}

impl Replay<'_> {
    /// Runs a step; `None` if it was told to stop meanwhile.
    fn step(
        &mut self,
        number: usize,
        step: Step,
        stream: &Stream,
        compute: &Stream,
    ) -> Result<Option<Record>, ReplayError> {
        let Self { settings, inputs, stop, start, .. } = *self;
        if settings.realtime {
            sleep_until(start + Duration::from_micros(step.start), stop);
        }
        if !self.consumer.make_room(number, stop)? || stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(prewarm) = &mut self.prewarm {
            prewarm.settle(&inputs.buffers)?;
        }
        self.adapters.as_mut().map_or(Ok(()), |adapters| adapters.step(compute))?;
        let apart = (&mut self.consumer, stream);
        let Some(mut record) = one(self.target, inputs, apart, number, step, start, stop)? else {
            return Ok(None);
        };
        if let Some(prewarm) = &mut self.prewarm {
            prewarm.record_usage(&inputs.buffers, counts(&step))?;
        }
        record.memory = self.consumer.memory();
        Ok(Some(record))
    }

    /// Waits for the steps, and says what came of them; `failed` is what ended them, if anything.
    fn finish(self, mut failed: Option<ReplayError>) -> Outcome {
        let Self { target, settings, inputs, consumer, adapters, prewarm, stop, .. } = self;
        let (needed, torch) = (consumer.needed(), consumer.torch());
        let uses = settings.budget.uses();
        // What ended the replay may have left nothing that can be waited for.
        let finished = consumer.finish(stop);
        let (mut mismatches, results) = finished.unwrap_or_else(|error| {
            failed.get_or_insert(error);
            (0, None)
        });
        mismatches += adapters.as_ref().map_or(0, Adapters::mismatches);
        Outcome {
            mismatches,
            violations: settings.violations(target),
            graphs: inputs.buffers.graphs().count,
            made: inputs.buffers.graphs_made(),
            warm: prewarm.map(|prewarm| prewarm.warm().stats()),
            tiers: adapters.map(|adapters| adapters.usage()),
            needed,
            torch,
            uses,
            results,
            failed,
            stopped: false,
        }
    }
}

impl Outcome {
    /// The outcome of a replay that nothing but its end or a signal has ended.
    ///
    /// # Errors
    ///
    /// What has ended it.
    pub fn whole(mut self) -> Result<Self, ReplayError> {
        self.failed.take().map_or(Ok(self), Err)
    }
}

fn counts(step: &Step) -> Counts {
    Counts { tokens: step.tokens as usize, requests: step.requests as usize }
}

/// Stages a step and consumes it; `None` if it was told to stop meanwhile.
fn one(
    target: &Target,
    inputs: &Inputs,
    (consumer, stream): (&mut Consumer<'_>, &Stream),
    number: usize,
    step: Step,
    start: Instant,
    stop: &AtomicBool,
) -> Result<Option<Record>, ReplayError> {
    let Counts { tokens, requests } = counts(&step);
    let calls = target.driver_calls();
    let began = Instant::now();
    let (mut waited, mut staging) = (false, inputs.buffers.try_begin(tokens, requests));
    // A wait for a slot ends at its deadline, so that a request to stop is noticed.
    while let Err(StageError::WouldBlock | StageError::Stalled(_)) = staging {
        if stop.load(Ordering::Relaxed) || began.elapsed() > PATIENCE {
            break;
        }
        waited = true;
        staging = inputs.buffers.begin(tokens, requests);
    }
    let mut staging = match staging {
        Err(StageError::WouldBlock) => return Ok(None),
        Err(StageError::Stalled(_)) if stop.load(Ordering::Relaxed) => return Ok(None),
        other => other?,
    };
    let claimed = Instant::now();
    let bytes = inputs.write(&mut staging, number as u64);
    let written = Instant::now();
    let staged = staging.submit(stream)?;
    let submitted = Instant::now();
    // Counted before the consumer adds calls of its own.
    let driver_calls = target.driver_calls().zip(calls).map(|(after, before)| after - before);
    consumer.consume(number, &step, &staged)?;
    Ok(Some(Record {
        step,
        start: began - start,
        begin: claimed - began,
        write: written - claimed,
        submit: submitted - written,
        bytes,
        driver_calls,
        waited,
        memory: MemoryUse::default(),
    }))
}

/// Sleeps in slices, so that a request to stop is heard.
fn sleep_until(moment: Instant, stop: &AtomicBool) {
    while let Some(left) =
        moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // allow-sleep: a replay in real time begins a step at its time, not before.
        std::thread::sleep(left.min(SLICE));
    }
}

/// How many of the foreseen sizes have their graphs made ahead; the others are too seldom used
/// before the forecast changes.
const AHEAD: usize = 2;
/// The longest wait of a step for a ring slot.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest delay of a request to stop.
const SLICE: Duration = Duration::from_millis(100);
