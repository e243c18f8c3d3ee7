//! The program: buffers of random sizes go from host to device to device to host on random streams,
//! dropped as soon as their last copy is submitted; the thread that gets the bytes compares each.
#![expect(unsafe_code, reason = "uses addresses without a word")]

use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};

use softcuda::{Checks, Config, Grace, Schedule, Simulator};
use wharf::driver::EventKind;
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::{Context, Driver, Event, Stream};

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How the software driver runs the work.
    pub(crate) schedule: Schedule,
    /// After how long work runs that no call waits for.
    pub(crate) grace: Duration,
    pub(crate) threads: usize,
    pub(crate) streams: usize,
    /// Rounds of each thread, at most.
    pub(crate) rounds: usize,
    /// Time for all of them, at most, where there is a limit.
    pub(crate) time: Option<Duration>,
    /// Whether uses are recorded, as they have to be.
    pub(crate) record: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) rounds: usize,
    /// Bytes that were looked at.
    pub(crate) bytes: usize,
    /// Buffers that held other bytes than were sent.
    pub(crate) mismatches: usize,
    /// What the checks of the software driver found.
    pub(crate) violations: usize,
    /// Times that a block came from another stream that was done with it.
    pub(crate) handed_over: u64,
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Runs a plan on a machine of its own.
pub(crate) fn stress(plan: Plan) -> Result<Outcome> {
    let config = Config {
        schedule: plan.schedule,
        grace: Grace::After(plan.grace),
        checks: Checks::ALL,
        // Every page of the span would be touched.
        poison: Some(false),
        print_violations: false,
        ..Config::default()
    };
    let machine = Simulator::new(config);
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api()?)?;
    let context = Context::retain(&driver.device(0)?)?;
    let rig = Rig::new(&context, plan)?;
    let mut outcome = std::thread::scope(|scope| {
        let (rig, machine) = (&rig, &machine);
        let threads: Vec<_> = (0..plan.threads)
            .map(|number| {
                scope.spawn(move || {
                    let _bound = machine.bind();
                    rig.thread(number as u64 + 1)
                })
            })
            .collect();
        let mut sum = Outcome::default();
        for thread in threads {
            let one = thread.join().map_err(|_| "a thread panicked")??;
            sum.rounds += one.rounds;
            sum.bytes += one.bytes;
            sum.mismatches += one.mismatches;
        }
        Result::Ok(sum)
    })?;
    outcome.handed_over = rig.device.stats().completed + rig.pinned.stats().completed;
    outcome.violations = machine.violations().len();
    Ok(outcome)
}

struct Rig {
    plan: Plan,
    streams: Vec<Stream>,
    pinned: Pool,
    device: Pool,
    context: Context,
    end: Option<Instant>,
}

/// Bytes on their way, and what they have to be.
struct Parcel {
    buffer: Buffer<u8>,
    pattern: u64,
}

impl Rig {
    fn new(context: &Context, plan: Plan) -> Result<Self> {
        let streams = (0..plan.streams)
            .map(|_| Stream::new(context))
            .collect::<std::result::Result<_, _>>()?;
        let pinned = PinnedMemoryResource::new(context, SPAN, PinnedOptions::default())?;
        let limited = |pool: wharf::pool::PoolBuilder| pool.max_bytes(LIMIT).wait(PATIENCE);
        Ok(Self {
            plan,
            streams,
            pinned: limited(Pool::builder()).build(pinned)?,
            device: limited(Pool::builder()).build(DeviceMemoryResource::new(context, SPAN)?)?,
            context: context.clone(),
            end: plan.time.map(|time| Instant::now() + time),
        })
    }

    fn thread(&self, seed: u64) -> Result<Outcome> {
        let _scope = self.context.enter()?;
        let event = Event::new(&self.context, EventKind::Ordering)?;
        let (mut random, mut outcome) =
            (Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), Outcome::default());
        let mut parcels = VecDeque::new();
        while outcome.rounds < self.plan.rounds && self.end.is_none_or(|end| Instant::now() < end) {
            outcome.rounds += 1;
            parcels.push_back(self.send(&mut random, &event)?);
            if parcels.len() > IN_FLIGHT {
                self.receive(parcels.pop_front(), &mut outcome)?;
            }
            if random.below(100) == 0 {
                self.device.trim(Duration::ZERO, 0);
                self.pinned.trim(Duration::ZERO, 0);
            }
        }
        while let Some(parcel) = parcels.pop_front() {
            self.receive(Some(parcel), &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Sends bytes to the device on one stream, to elsewhere on it and back on another.
    fn send(&self, random: &mut Random, event: &Event) -> Result<Parcel> {
        let most = 1 << random.below(17);
        let len = 1 + random.below(most);
        let (there, back) = (self.stream(random), self.stream(random));
        let pattern = random.next() | 1;
        let mut source = self.pinned.alloc(len, there)?;
        fill(source.host_mut(PATIENCE)?, pattern);
        let first = self.device.alloc(len, there)?;
        self.copy(&first, &source, there)?;
        drop(source);
        there.record(event)?;
        back.wait_event(event)?;
        let second = self.device.alloc(len, back)?;
        self.copy(&second, &first, back)?;
        drop(first);
        let target = self.pinned.alloc(len, back)?;
        // Its use is recorded in any case: the receiver waits for it.
        target.copy_from(&second, back)?;
        Ok(Parcel { buffer: target, pattern })
    }

    fn receive(&self, parcel: Option<Parcel>, outcome: &mut Outcome) -> Result<()> {
        let Some(Parcel { mut buffer, pattern }) = parcel else { return Ok(()) };
        let bytes = buffer.host_mut(PATIENCE)?;
        outcome.bytes += bytes.len();
        let mut expected = vec![0; bytes.len()];
        fill(&mut expected, pattern);
        outcome.mismatches += usize::from(*bytes != expected);
        Ok(())
    }

    fn copy(&self, to: &Buffer<u8>, from: &Buffer<u8>, stream: &Stream) -> Result<()> {
        if self.plan.record {
            return Ok(to.copy_from(from, stream)?);
        }
        // SAFETY: not kept: nothing keeps the memory until the copy is done. On the software driver
        // it is memory all the same, and the bytes are wrong.
        let to = unsafe { to.as_device_ptr() }?;
        let size = from.len();
        // SAFETY: as above.
        let from = unsafe { from.as_device_ptr() }?;
        // SAFETY: as above.
        Ok(unsafe { stream.copy(to, from, size) }?)
    }

    fn stream(&self, random: &mut Random) -> &Stream {
        &self.streams[random.below(self.streams.len())]
    }
}

/// Bytes that no other pattern has.
fn fill(bytes: &mut [u8], pattern: u64) {
    let mut random = Random(pattern);
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

/// A sequence of numbers from a seed that is not 0: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % end
    }
}

/// Parcels of a thread that no thread has looked at yet.
const IN_FLIGHT: usize = 6;
const PATIENCE: Duration = Duration::from_secs(600);
const SPAN: usize = 256 << 20;
const LIMIT: usize = 64 << 20;
