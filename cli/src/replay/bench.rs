#![expect(unsafe_code, reason = "copies and allocates without wharf, for comparison")]
//! The ways to stage a step, and to have memory for it, beside each other on this machine.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use wharf::driver::EventKind;
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::Pool;
use wharf::staging::{Counts, Layout};
use wharf::{Context, Event, Stream};

use super::inputs::Inputs;
use super::{Preset, ReplayError, Settings, run};
use crate::schedule::Step;
use crate::target::Target;

/// What one way costs the calling thread.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Way {
    /// What it does.
    pub name: &'static str,
    /// Calls of the driver, where they can be counted.
    pub driver_calls: Option<f64>,
    /// The median time, in nanoseconds.
    pub ns: u64,
}

/// Compares ways to stage a step of so many tokens and requests: by hand, and by graphs.
///
/// # Errors
///
/// [`ReplayError`]: the driver refused.
pub fn staging(target: &Target, preset: Preset, step: Step, rounds: usize) -> Result<Vec<Way>, ReplayError> {
    let settings =
        |layout| Settings { preset, layout, buckets: vec![step.tokens as usize], ..Settings::default() };
    Ok(vec![
        by_hand(target, &settings(Layout::PerSlot), step, rounds)?,
        by_graph("one graph, a copy for each input", target, &settings(Layout::PerSlot), step, rounds)?,
        by_graph("one graph, one copy", target, &settings(Layout::Packed), step, rounds)?,
    ])
}

/// Compares ways to have `size` bytes of device memory for a step: from the driver, and from a pool in
/// the order of a stream.
///
/// # Errors
///
/// [`ReplayError`]: the driver refused.
pub fn allocation(target: &Target, size: usize, rounds: usize) -> Result<Vec<Way>, ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let stream = Stream::new(&context)?;
    let api = target.driver.api();
    let driver = measure(
        "cuMemAlloc and cuMemFree",
        target,
        rounds,
        || Ok(()),
        || {
            let mut address = 0;
            // SAFETY: the address is valid for writes; the context is current.
            unsafe { api.mem_alloc.call(&raw mut address, size) }?;
            // SAFETY: just allocated, and nobody uses it.
            Ok(unsafe { api.mem_free.call(address) }?)
        },
    )?;
    let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 16 * size)?)?;
    let pooled = measure(
        "a pool, in the order of a stream",
        target,
        rounds,
        || Ok(()),
        || {
            drop(pool.alloc::<u8>(size, &stream)?);
            Ok(())
        },
    )?;
    Ok(vec![driver, pooled])
}

/// A copy for each input, and an event that says when their sources may be written again.
fn by_hand(target: &Target, settings: &Settings, step: Step, rounds: usize) -> Result<Way, ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let stream = Stream::new(&context)?;
    let counts = Counts { tokens: step.tokens as usize, requests: step.requests as usize };
    let inputs = Inputs::new(&context, settings)?;
    let padded = inputs.buffers.begin(counts.tokens, counts.requests)?.padded();
    let sizes: Vec<_> = inputs.fields.iter().map(|field| field.size(padded)).collect();
    let all: usize = sizes.iter().map(|size| size.next_multiple_of(ALIGN)).sum();
    let pinned =
        Pool::builder().build(PinnedMemoryResource::new(&context, 4 * all, PinnedOptions::default())?)?;
    let device = Pool::builder().build(DeviceMemoryResource::new(&context, 4 * all)?)?;
    let (mut source, destination) = (pinned.alloc::<u8>(all, &stream)?, device.alloc::<u8>(all, &stream)?);
    let from = source.host_mut(Duration::ZERO)?.as_ptr();
    // SAFETY: the use is recorded below, before the buffer is dropped.
    let to = unsafe { destination.as_device_ptr() }?;
    let done = Event::new(&context, EventKind::Ordering)?;
    let settle = || Ok(done.synchronize()?);
    let way = measure("by hand: a copy for each input, an event", target, rounds, settle, || {
        let mut offset = 0;
        for size in &sizes {
            // SAFETY: the range lies in both buffers, which live until the stream is done and which nobody
            // writes.
            unsafe { stream.copy_htod(to + offset as u64, from.wrapping_add(offset).cast(), *size) }?;
            offset += size.next_multiple_of(ALIGN);
        }
        Ok(stream.record(&done)?)
    });
    stream.synchronize()?;
    way
}

/// Steps through input buffers, as a replay runs them.
fn by_graph(
    name: &'static str,
    target: &Target,
    settings: &Settings,
    step: Step,
    rounds: usize,
) -> Result<Way, ReplayError> {
    let mut times = histogram();
    let mut calls = 0;
    let steps = std::iter::repeat_n(step, rounds).map(Ok);
    run(target, settings, steps, &AtomicBool::new(false), |record| {
        times.saturating_record(nanoseconds(record.begin + record.submit));
        calls += record.driver_calls.unwrap_or(0);
        Ok(())
    })?;
    let driver_calls = target.software().map(|_| calls as f64 / rounds.max(1) as f64);
    Ok(Way { name, driver_calls, ns: times.value_at_quantile(0.5) })
}

/// Times `work`; `settle` comes before each round and does not count.
fn measure(
    name: &'static str,
    target: &Target,
    rounds: usize,
    mut settle: impl FnMut() -> Result<(), ReplayError>,
    mut work: impl FnMut() -> Result<(), ReplayError>,
) -> Result<Way, ReplayError> {
    let mut times = histogram();
    let mut calls = 0;
    for _ in 0..rounds {
        settle()?;
        let before = target.driver_calls();
        let start = Instant::now();
        work()?;
        times.saturating_record(nanoseconds(start.elapsed()));
        calls += target.driver_calls().zip(before).map_or(0, |(after, before)| after - before);
    }
    let driver_calls = target.software().map(|_| calls as f64 / rounds.max(1) as f64);
    Ok(Way { name, driver_calls, ns: times.value_at_quantile(0.5) })
}

#[expect(clippy::expect_used, reason = "bounds and digits that are allowed")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(1_000_000_000, 3).expect("bounds")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const ALIGN: usize = 256;
