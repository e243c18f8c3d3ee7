//! A workload that leaves pools in a state worth looking at, and what they hold then.
//!
//! ```text
//! Step ──> per pool: scratch memory of the step, in place of the last step's
//!                    memory of each request that runs, from its first step to its last
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use wharf::memory::{
    Budget, DeviceMemoryResource, ManagedMemoryResource, PinnedMemoryResource, PinnedOptions,
};
use wharf::pool::{Buffer, Pool};
use wharf::report::Snapshot;
use wharf::slab::AllocError;
use wharf::{Context, Stream};

use crate::replay::ReplayError;
use crate::schedule::Step;
use crate::summary::{Origin, Together};
use crate::target::Target;
use crate::trace::TraceError;

/// The memory of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The device's.
    Device,
    /// Pinned (page-locked) memory of the host.
    Pinned,
    /// One address for host and device.
    Managed,
}

/// The contents of a pool at the end. Sizes are in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Mapped {
    /// Allocations that succeeded.
    pub allocations: u64,
    /// Allocations that found no room within the limit.
    pub refused: u64,
    /// The pool.
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

/// The outcome of a workload, as `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct Map {
    /// The version of this form, [`SCHEMA`].
    pub schema: u32,
    /// The version of this program.
    pub version: &'static str,
    /// The trace, and the seed of generated requests, whichever it was; set by the command.
    pub trace: Option<Origin>,
    /// See `trace`.
    pub seed: Option<u64>,
    /// The driver, `system` or `softcuda`.
    pub driver: &'static str,
    /// The device's name.
    pub device: String,
    /// Steps that ran.
    pub steps: u64,
    /// Whether the run was stopped by a signal.
    pub stopped: bool,
    /// What the pools committed together.
    pub together: Together,
    /// The pools.
    pub pools: Vec<Mapped>,
}

/// Runs `steps` in pools of the given kinds, each limited to `max_bytes` and all together to
/// `budget`, until they end or `stop` is set. An allocation that finds no room is counted, and its
/// step goes on without.
///
/// # Errors
///
/// [`ReplayError`]: the trace is broken, or the driver refused.
pub fn run(
    target: &Target,
    kinds: &[Kind],
    max_bytes: usize,
    budget: &Budget,
    steps: impl IntoIterator<Item = Result<Step, TraceError>>,
    stop: &AtomicBool,
) -> Result<Map, ReplayError> {
    let device = target.driver.device(0)?;
    let context = Context::retain(&device)?;
    let _current = context.enter()?;
    let stream = Stream::new(&context)?;
    let pools = kinds.iter().map(|kind| Tenant::new(*kind, &context, max_bytes, budget));
    let mut pools = pools.collect::<Result<Vec<_>, _>>()?;
    let (mut count, mut stopped) = (0, false);
    for step in steps {
        let step = step?;
        if stop.load(Ordering::Relaxed) {
            stopped = true;
            break;
        }
        for pool in &mut pools {
            pool.step(step, &stream)?;
        }
        count += 1;
    }
    let mapped = pools.iter().map(Tenant::map).collect();
    let together = Together::of(budget, budget.uses());
    // The device is done with the buffers before they go.
    stream.synchronize()?;
    let (schema, version) = (SCHEMA, env!("CARGO_PKG_VERSION"));
    let (driver, device, pools) = (target.name(), device.name()?, mapped);
    let (trace, seed) = (None, None);
    let steps = count;
    Ok(Map { schema, version, trace, seed, driver, device, steps, stopped, together, pools })
}

impl Kind {
    /// Its name, for files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Pinned => "pinned",
            Self::Managed => "managed",
        }
    }

    /// Bytes of scratch memory a token.
    fn scratch(self) -> usize {
        match self {
            Self::Device | Self::Managed => 8192, // activations: 4096 numbers of two bytes
            Self::Pinned => 168, // results: a token and its 20 likeliest alternatives
        }
    }

    /// Bytes of what request `number` holds while it runs: sizes of five doublings, and between
    /// them.
    fn held(self, number: u64) -> usize {
        let unit = match self {
            Self::Device | Self::Managed => 64 << 10,
            Self::Pinned => 4 << 10,
        };
        let spread = usize::try_from(number.wrapping_mul(ODD) >> 56).unwrap_or(0);
        (unit << (spread % 6)) + unit * (spread % 3) / 4
    }
}

/// A pool, and who lives in it.
struct Tenant {
    kind: Kind,
    pool: Pool,
    /// The last step's scratch memory, which the next may have in the order of the stream.
    scratch: Option<Buffer<u8>>,
    /// What the requests hold that run, the oldest first; nothing where there was no room.
    requests: VecDeque<Option<Buffer<u8>>>,
    begun: u64,
    allocations: u64,
    refused: u64,
}

impl Tenant {
    fn new(
        kind: Kind,
        context: &Context,
        max_bytes: usize,
        budget: &Budget,
    ) -> Result<Self, ReplayError> {
        let pool = Pool::builder().name(kind.name()).max_bytes(max_bytes).budget(budget);
        let pool = pool.track(true);
        let span = max_bytes.next_multiple_of(GRANULE);
        let pool = match kind {
            Kind::Device => pool.build(DeviceMemoryResource::new(context, span)?)?,
            Kind::Pinned => {
                pool.build(PinnedMemoryResource::new(context, span, PinnedOptions::default())?)?
            }
            Kind::Managed => pool.build(ManagedMemoryResource::new(context, span)?)?,
        };
        let requests = VecDeque::new();
        Ok(Self { kind, pool, scratch: None, requests, begun: 0, allocations: 0, refused: 0 })
    }

    fn step(&mut self, step: Step, stream: &Stream) -> Result<(), ReplayError> {
        self.scratch = None;
        // What ran before is used; what begins now will be.
        for held in self.requests.iter().flatten() {
            touch(held, stream)?;
        }
        let running = step.requests as usize;
        while self.requests.len() > running {
            self.requests.pop_front();
        }
        while self.requests.len() < running {
            let held = self.alloc(self.kind.held(self.begun), stream)?;
            self.requests.push_back(held);
            self.begun += 1;
        }
        self.scratch = self.alloc(step.tokens as usize * self.kind.scratch(), stream)?;
        self.scratch.iter().try_for_each(|scratch| touch(scratch, stream))
    }

    /// A buffer, `None` if there is no room for it.
    fn alloc(&mut self, size: usize, stream: &Stream) -> Result<Option<Buffer<u8>>, ReplayError> {
        match self.pool.alloc(size.max(1), stream) {
            Ok(buffer) => {
                self.allocations += 1;
                Ok(Some(buffer))
            }
            Err(AllocError::Exhausted(_) | AllocError::TooLarge { .. }) => {
                self.refused += 1;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn map(&self) -> Mapped {
        let Self { allocations, refused, .. } = *self;
        Mapped { allocations, refused, snapshot: Snapshot::of(&self.pool) }
    }
}

/// A little work in place of a model's.
fn touch(buffer: &Buffer<u8>, stream: &Stream) -> Result<(), ReplayError> {
    if let Some(part) = buffer.slice(..TOUCHED.min(buffer.len())) {
        part.fill(0, stream)?;
    }
    Ok(())
}

/// What the largest pages of devices and hosts are multiples or parts of.
const GRANULE: usize = 2 << 20;
/// The version of the form of [`Map`]; a change that a reader notices raises it.
pub const SCHEMA: u32 = 1;
/// Bytes of each buffer that the work touches.
const TOUCHED: usize = 64;
/// Spreads neighbouring numbers over all bits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
