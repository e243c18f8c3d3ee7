#![expect(unsafe_code, reason = "copies without wharf, for comparison")]
//! The ways to stage a step, and to have memory for it, beside each other on this machine.
//!
//! The ways of a comparison take turns, so that whatever else the machine does meets all of them.

mod memory;

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use wharf::driver::EventKind;
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::Pool;
use wharf::staging::{Counts, Layout};
use wharf::{Context, Event, Stream};

use self::memory::{Buffers, Calls, DriverPool, FreeLists, Heap, SLOTS, Slabs, Source};
use super::inputs::Inputs;
use super::{Preset, ReplayError, Settings, run};
use crate::schedule::Step;
use crate::target::Target;

/// The cost of one way for the calling thread.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Way {
    /// A description of the way.
    pub name: &'static str,
    /// Calls of the driver, where they can be counted.
    pub driver_calls: Option<f64>,
    /// The median time, in nanoseconds.
    pub ns: f64,
}

/// Compares ways to stage a step of so many tokens and requests: by hand, and by graphs.
///
/// # Errors
///
/// [`ReplayError`]: the driver refused.
pub fn staging(
    target: &Target,
    preset: Preset,
    step: Step,
    rounds: usize,
) -> Result<Vec<Way>, ReplayError> {
    let settings = |layout| Settings {
        preset,
        layout,
        buckets: vec![step.tokens as usize],
        ..Settings::default()
    };
    let mut ways = [
        Measured::new("by hand: a copy for each input, an event"),
        Measured::new("one graph, a copy for each input"),
        Measured::new("one graph, one copy"),
    ];
    for turn in 0..TURNS {
        let rounds = (rounds * (turn + 1) / TURNS) - (rounds * turn / TURNS);
        by_hand(target, &settings(Layout::PerSlot), step, rounds, &mut ways[0])?;
        by_graph(target, &settings(Layout::PerSlot), step, rounds, &mut ways[1])?;
        by_graph(target, &settings(Layout::Packed), step, rounds, &mut ways[2])?;
    }
    Ok(ways.map(|way| way.way(target)).into())
}

/// Compares ways to have memory: of 64 blocks of 256 bytes to 1 MiB one after the other is freed,
/// and a new one allocated for it.
///
/// # Errors
///
/// [`ReplayError`]: the driver refused.
pub fn allocation(target: &Target, rounds: usize) -> Result<Vec<Way>, ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let stream = || Stream::new(&context);
    let mut ways: [(Measured, Box<dyn Source>); 6] = [
        (
            Measured::new("a mutex round free lists, one a size"),
            Box::new(FreeLists::new(&target.driver)),
        ),
        (Measured::new("wharf's slabs (SlabPool)"), Box::new(Slabs::new(&context)?)),
        (
            Measured::new("wharf's buffers, in a stream's order (Pool)"),
            Box::new(Buffers::new(&context, stream()?)?),
        ),
        (Measured::new("cuMemAlloc, cuMemFree"), Box::new(Calls::new(&target.driver))),
        (Measured::new("cuMemAllocAsync, cuMemFreeAsync"), Box::new(DriverPool::new(stream()?))),
        (Measured::new("std's allocator: memory of the host, for scale"), Box::new(Heap::new())),
    ];
    // The first turn fills the lists.
    for turn in 0..=rounds.div_ceil(BATCH) {
        for (measured, source) in &mut ways {
            let before = target.driver_calls();
            let start = Instant::now();
            for number in turn * BATCH..(turn + 1) * BATCH {
                source.replace(number % SLOTS, size(number as u64))?;
            }
            let time = start.elapsed();
            if turn > 0 {
                let calls =
                    target.driver_calls().zip(before).map_or(0, |(after, before)| after - before);
                measured.add(time, BATCH, calls);
            }
        }
    }
    context.synchronize()?;
    Ok(ways.into_iter().map(|(measured, _)| measured.way(target)).collect())
}

/// The size of a block: 48 sizes over twelve doublings, in no order.
fn size(number: u64) -> usize {
    let random = number.wrapping_mul(ODD).rotate_left(17).wrapping_mul(ODD);
    let of = |bits: u64, most: usize| usize::try_from(bits & 0xffff).unwrap_or(0) % most;
    let (doubling, quarter) = (of(random >> 48, 12), of(random >> 32, 4));
    (256 << doubling) * (4 + quarter) / 4
}

/// A copy for each input, and an event that says when their sources may be written again.
fn by_hand(
    target: &Target,
    settings: &Settings,
    step: Step,
    rounds: usize,
    measured: &mut Measured,
) -> Result<(), ReplayError> {
    let context = Context::retain(&target.driver.device(0)?)?;
    let _current = context.enter()?;
    let stream = Stream::new(&context)?;
    let counts = Counts { tokens: step.tokens as usize, requests: step.requests as usize };
    let inputs = Inputs::new(&context, settings)?;
    let padded = inputs.buffers.begin(counts.tokens, counts.requests)?.padded();
    let sizes: Vec<_> = inputs.fields.iter().map(|field| field.size(padded)).collect();
    let all: usize = sizes.iter().map(|size| size.next_multiple_of(ALIGN)).sum();
    let pinned = Pool::builder().build(PinnedMemoryResource::new(
        &context,
        4 * all,
        PinnedOptions::default(),
    )?)?;
    let device = Pool::builder().build(DeviceMemoryResource::new(&context, 4 * all)?)?;
    let (mut source, destination) =
        (pinned.alloc::<u8>(all, &stream)?, device.alloc::<u8>(all, &stream)?);
    let from = source.host_mut(Duration::ZERO)?.as_ptr();
    // SAFETY: the use is recorded below, before the buffer is dropped.
    let to = unsafe { destination.as_device_ptr() }?;
    let done = Event::new(&context, EventKind::Ordering)?;
    for _ in 0..rounds {
        done.synchronize()?;
        let before = target.driver_calls();
        let start = Instant::now();
        let mut offset = 0;
        for size in &sizes {
            // SAFETY: the range lies in both buffers, which live until the stream is done and are
            // not written.
            unsafe {
                stream.copy_htod(to + offset as u64, from.wrapping_add(offset).cast(), *size)
            }?;
            offset += size.next_multiple_of(ALIGN);
        }
        stream.record(&done)?;
        let time = start.elapsed();
        measured.add(
            time,
            1,
            target.driver_calls().zip(before).map_or(0, |(after, before)| after - before),
        );
    }
    Ok(stream.synchronize()?)
}

/// Steps through input buffers, as a replay runs them.
fn by_graph(
    target: &Target,
    settings: &Settings,
    step: Step,
    rounds: usize,
    measured: &mut Measured,
) -> Result<(), ReplayError> {
    let steps = std::iter::repeat_n(step, rounds).map(Ok);
    run(target, settings, steps, &AtomicBool::new(false), |record| {
        measured.add(record.begin + record.submit, 1, record.driver_calls.unwrap_or(0));
        Ok(())
    })?
    .whole()?;
    Ok(())
}

/// The times of one way so far.
struct Measured {
    name: &'static str,
    /// In hundredths of a nanosecond.
    times: Histogram<u64>,
    calls: u64,
    count: u64,
}

impl Measured {
    #[expect(clippy::expect_used, reason = "bounds and digits that are allowed")]
    fn new(name: &'static str) -> Self {
        Self {
            name,
            times: Histogram::new_with_max(100_000_000_000, 3).expect("bounds"),
            calls: 0,
            count: 0,
        }
    }

    /// Adds `count` operations that took `time` together, with so many driver calls.
    fn add(&mut self, time: Duration, count: usize, calls: u64) {
        let hundredths = time.as_nanos() * 100 / count.max(1) as u128;
        self.times.saturating_record(u64::try_from(hundredths).unwrap_or(u64::MAX));
        self.calls += calls;
        self.count += count as u64;
    }

    fn way(&self, target: &Target) -> Way {
        let each = self.calls as f64 / self.count.max(1) as f64;
        let ns = self.times.value_at_quantile(0.5) as f64 / 100.0;
        Way { name: self.name, driver_calls: target.software().map(|_| each), ns }
    }
}

const ALIGN: usize = 256;
/// The number of turns of the ways to stage.
const TURNS: usize = 5;
/// Blocks that are replaced in one turn, so that the clock costs little.
const BATCH: usize = 256;
/// Spreads neighbouring numbers over all bits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Choice, Software};

    #[test]
    fn sizes_are_spread_and_in_bounds() {
        let sizes: std::collections::BTreeSet<_> = (0..10_000).map(size).collect();
        assert_eq!((sizes.len(), sizes.first(), sizes.last()), (48, Some(&256), Some(&917_504)));
    }

    /// Whatever gave memory out has it back at the end.
    #[test]
    fn every_way_to_have_memory_gives_it_back() {
        let target = Target::new(Choice::Softcuda, Software::default()).unwrap();
        let machine = target.software().unwrap();
        let ways = allocation(&target, 1000).unwrap();
        assert_eq!(ways.len(), 6);
        let calls: Vec<_> = ways.iter().map(|way| way.driver_calls.unwrap()).collect();
        assert_eq!(calls[3..], [2.0, 2.0, 0.0]);
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}
