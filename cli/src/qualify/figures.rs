//! What things cost on this machine, as its calling thread sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use wharf::graph::{CaptureMode, CaptureScope};
use wharf::memory::{DeviceMemoryResource, MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::staging::{Instantiation, Len, OutputBuffers, Pending};
use wharf::{Context, Error, Stream};

use super::raw::Range;
use super::{LIMIT, MIB};
use crate::generate::Generator;
use crate::replay::bench::{Way, allocation, staging};
use crate::replay::{Preset, ReplayError, Settings, run};
use crate::schedule::{Scheduler, Step};
use crate::target::Target;

/// All of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Single figures.
    pub values: Vec<Figure>,
    /// Figures of several sizes, for charts.
    pub series: Vec<Series>,
}

/// What something costs.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The measurement.
    pub topic: &'static str,
    /// Which way of it.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// Calls of the driver, where they are counted.
    pub driver_calls: Option<f64>,
}

/// A figure by another: a line of a chart.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// The chart that it is in.
    pub chart: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// The unit of the first number of a point.
    pub x: &'static str,
    /// The unit of the second.
    pub y: &'static str,
    /// The points.
    pub points: Vec<(f64, f64)>,
}

/// Takes the figures on the first device, until `stop` is set. What an error leaves are those that
/// were taken before it.
pub(super) fn take(
    target: &Target,
    stop: &AtomicBool,
    figures: &mut Figures,
) -> Result<(), ReplayError> {
    let parts: [Part; 6] = [commits, ways, steps, fetches, copies, growth];
    for part in parts {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        part(target, figures)?;
    }
    Ok(())
}

/// Takes some of the figures.
type Part = fn(&Target, &mut Figures) -> Result<(), ReplayError>;

impl Figures {
    fn add(
        &mut self,
        topic: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) {
        let (name, driver_calls) = (name.into(), None);
        self.values.push(Figure { topic, name, value, unit, driver_calls });
    }

    /// Percentiles of times in nanoseconds, as figures and as a line of a chart.
    fn percentiles(&mut self, topic: &'static str, chart: &'static str, times: &Histogram<u64>) {
        let quantiles =
            [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)];
        for (name, quantile) in quantiles {
            self.add(topic, name, times.value_at_quantile(quantile) as f64, "ns");
        }
        let percent = |quantile: f64| (times.value_at_quantile(quantile) as f64, quantile * 100.0);
        let points = (0..=100).map(|part| percent(f64::from(part) / 100.0)).collect();
        self.series.push(Series { chart, name: "steps within", x: "ns", y: "%", points });
    }

    fn ways(&mut self, topic: &'static str, ways: Vec<Way>) {
        for Way { name, driver_calls, ns } in ways {
            let (name, unit) = (name.to_owned(), "ns");
            self.values.push(Figure { topic, name, value: ns, unit, driver_calls });
        }
    }
}

/// The time to commit a piece, by its size.
fn commits(target: &Target, figures: &mut Figures) -> Result<(), ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let options = PinnedOptions::default();
    let pinned = by_size(|span| PinnedMemoryResource::new(&context, span, options))?;
    let device = by_size(|span| DeviceMemoryResource::new(&context, span))?;
    for (name, points) in [("pinned: pages and registration", pinned), ("device", device)] {
        if let Some((size, ms)) = points.last() {
            figures.add("commit", format!("{name}, {size:.0} MiB"), *ms, "ms");
        }
        let (chart, x, y) = ("Time to commit a piece", "MiB", "ms");
        figures.series.push(Series { chart, name, x, y, points });
    }
    Ok(())
}

/// The least of the times for each size, in MiB and milliseconds.
fn by_size<R: MemoryResource>(
    make: impl Fn(usize) -> Result<R, Error>,
) -> Result<Vec<(f64, f64)>, Error> {
    let mut points = Vec::new();
    for size in [2, 8, 32, 128].map(|size| size * MIB) {
        let resource = make(size)?;
        let size = size.next_multiple_of(resource.granularity());
        let mut least = Duration::MAX;
        for _ in 0..TURNS {
            let start = Instant::now();
            let range = Range::commit(&resource, 0, size)?;
            least = least.min(start.elapsed());
            range.decommit()?;
        }
        points.push((size as f64 / MIB as f64, milliseconds(least)));
    }
    Ok(points)
}

/// The ways to stage a step, and to have memory for one.
fn ways(target: &Target, figures: &mut Figures) -> Result<(), ReplayError> {
    let step = Step { start: 0, tokens: 64, requests: 64, prefill: 0, kv_blocks: 0 };
    figures.ways("staging 64 tokens", staging(target, Preset::Vllm, step, ROUNDS)?);
    figures.ways("a block freed, a block allocated", allocation(target, ROUNDS)?);
    Ok(())
}

/// The time of `begin` and `submit` in a replay.
fn steps(target: &Target, figures: &mut Figures) -> Result<(), ReplayError> {
    let Ok(mut times) = Histogram::<u64>::new_with_max(LONGEST, 3) else { return Ok(()) };
    let settings = Settings { buckets: vec![8, 64, 512, 2048], ..Settings::default() };
    let requests = Scheduler::new(Generator::new(1).map(Ok)).take(ROUNDS);
    run(target, &settings, requests, &AtomicBool::new(false), |record| {
        let time = (record.begin + record.submit).as_nanos();
        times.saturating_record(u64::try_from(time).unwrap_or(u64::MAX));
        Ok(())
    })?
    .whole()?;
    figures.percentiles("begin and submit", "Time to begin and submit a step", &times);
    Ok(())
}

/// The time of `fetch`, and of the read of results that are there.
fn fetches(target: &Target, figures: &mut Figures) -> Result<(), ReplayError> {
    let Ok(mut times) = Histogram::<u64>::new_with_max(LONGEST, 3) else { return Ok(()) };
    let mut reads = times.clone();
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let stream = Stream::new(&context)?;
    let outputs = OutputBuffers::builder(&context)
        .slot::<i32>("sampled", Len::Requests)
        .slot::<f32>("logprobs", Len::Requests.times(20))
        .buckets([8, 64, 256])
        .instantiation(Instantiation::Eager)
        .build()?;
    let sampled = outputs.slot_id::<i32>("sampled")?;
    let time = |start: Instant| u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut last = None;
    for number in 0..ROUNDS {
        let requests = 1 + number % 256;
        let start = Instant::now();
        let pending = outputs.fetch(requests, requests, &stream)?;
        times.saturating_record(time(start));
        let Some(before): Option<Pending> = last.replace(pending) else { continue };
        before.wait(LIMIT)?;
        let start = Instant::now();
        before.wait(LIMIT)?.read(sampled)?;
        reads.saturating_record(time(start));
    }
    stream.synchronize()?;
    figures.percentiles("fetch of results", "Time to fetch the results of a step", &times);
    let name = "read of results that are there, p50";
    figures.add("fetch of results", name, reads.value_at_quantile(0.5) as f64, "ns");
    Ok(())
}

/// The rate of copies to the device by their size, one after the other in a stream.
fn copies(target: &Target, figures: &mut Figures) -> Result<(), ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let stream = Stream::new(&context)?;
    let pinned = PinnedMemoryResource::new(&context, SPAN, PinnedOptions::default())?;
    let pinned = Pool::builder().build(pinned)?;
    let device = Pool::builder().build(DeviceMemoryResource::new(&context, SPAN)?)?;
    let largest = 64 * MIB;
    let from: Buffer<u8> = pinned.alloc(largest, &stream)?;
    let to: Buffer<u8> = device.alloc(largest, &stream)?;
    from.fill(1, &stream)?;
    let mut points = Vec::new();
    for size in [4 << 10, 64 << 10, MIB, 16 * MIB, largest] {
        let (Some(source), Some(there)) = (from.slice(..size), to.slice(..size)) else { break };
        there.copy_from(&source, &stream)?;
        stream.synchronize()?;
        let count = (largest / size).min(256);
        // The best of some turns: the others had to share the machine.
        let mut seconds = f64::MAX;
        for _ in 0..TURNS {
            let start = Instant::now();
            for _ in 0..count {
                there.copy_from(&source, &stream)?;
            }
            stream.synchronize()?;
            seconds = seconds.min(start.elapsed().as_secs_f64().max(1e-9));
        }
        points.push((size as f64 / 1024.0, (count * size) as f64 / seconds / 1e9));
    }
    let whole = points.last().map_or(1.0, |point| point.1);
    for (kib, rate) in &points {
        let share = 100.0 * rate / whole;
        figures.add("copies to the device", format!("{kib:.0} KiB each"), share, "% of one large");
    }
    figures.add("copies to the device", "one of 64 MiB", whole, "GB/s");
    let (chart, name) = ("Copies to the device, by their size", "pinned to device");
    figures.series.push(Series { chart, name, x: "KiB", y: "GB/s", points });
    Ok(())
}

/// Growth of a pool, alone and beside a capture of another stream.
fn growth(target: &Target, figures: &mut Figures) -> Result<(), ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let [stream, captured] = [Stream::new(&context)?, Stream::new(&context)?];
    for (name, is_captured) in [("alone", false), ("beside a capture", true)] {
        let device = DeviceMemoryResource::new(&context, SPAN)?;
        let pool = Pool::builder().build(device)?;
        let capture =
            is_captured.then(|| CaptureScope::begin(&captured, CaptureMode::Global).ok()).flatten();
        let start = Instant::now();
        let buffer: Buffer<u8> = pool.alloc(32 * MIB, &stream)?;
        figures.add("growth by 32 MiB", name, milliseconds(start.elapsed()), "ms");
        drop(capture);
        drop(buffer);
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const ROUNDS: usize = 2000;
/// How often what is timed whole is done.
const TURNS: usize = 5;
/// The longest time that is told from longer ones, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;
/// The addresses of a pool.
const SPAN: usize = 256 * MIB;
