//! The figures of a replay.

mod memory;
mod run;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use wharf::forecast::{Forecast, WarmStats};
use wharf::memory::Budget;

use self::memory::rest;
pub use self::memory::{Kind, Kinds, Together, Torches};
pub use self::run::{Origin, Run};
use crate::judge::Judge;
use crate::replay::{MemoryUse, Outcome, Record, TierUse};
use crate::schedule::padded;

/// The figures of a replay, as `--json` writes them. Sizes are in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The version of this form, [`SCHEMA`].
    pub schema: u32,
    /// What was run.
    pub run: Run,
    /// Steps that were staged.
    pub steps: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Requests that they served.
    pub requests: u64,
    /// The driver, `system` or `softcuda`.
    pub driver: &'static str,
    /// The device's name.
    pub device: String,
    /// The duration of the run.
    pub seconds: f64,
    /// Calls of the driver between the beginning of a step and its end, after the first
    /// [`WARM_UP`] steps; known on softcuda.
    pub driver_calls_per_step: Option<f64>,
    /// All calls of the driver, those of set-up, memory and consumer included; known on softcuda.
    pub driver_calls: Option<u64>,
    /// Bytes that the engine wrote, without padding.
    pub bytes_staged: u64,
    /// Bytes that were not on the device as they were written, where they were compared.
    pub verify_mismatches: Option<u64>,
    /// Steps that found no ring slot free.
    pub ring_waits: u64,
    /// Sources that changed before the device had read them, where that is looked for.
    pub ring_violations: Option<u64>,
    /// Graphs that were made.
    pub graphs: usize,
    /// The time that the calling thread spent in `begin` and `submit`.
    pub step_ns: Times,
    /// The most that was asked for and in use, of all kinds; each kind at its own peak.
    pub peak_live: u64,
    /// The most that the pools had obtained, to keep and to give out again.
    pub peak_reserved: u64,
    /// The share of the blocks in use at the peak that is beyond what was asked for.
    pub waste: f64,
    /// The share of what had been obtained that was not in use at the peak.
    pub idle: f64,
    /// The same by kind.
    pub memory: Kinds,
    /// The device's memory together: pools, tiers and sets.
    pub device_memory: Together,
    /// Steps whose results were fetched and read, for a server.
    pub results_read: Option<u64>,
    /// What PyTorch's allocators would have obtained for the device's allocations.
    pub torch: Torches,
    /// The accuracy of the forecast of step sizes.
    pub forecast: Foreseen,
    /// The use of tiers, if steps use tiered objects.
    pub tiers: Option<TierUse>,
    /// The comparison with the plan of an earlier run, if there was one.
    pub plan: Option<Planned>,
    /// Whether the run ended early, by a signal or an error.
    pub stopped: bool,
}

/// Times in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Times {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// The quality of a forecast: shares of the steps that are small enough for a graph.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Foreseen {
    /// The name of the forecast.
    pub source: &'static str,
    /// The padded size was the first forecast.
    pub hit1: f64,
    /// It was among the first three.
    pub hit3: f64,
    /// The use of the graphs that it prepared, if any.
    pub warm: Option<Warmth>,
}

/// The use of graphs that a forecast prepared.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Warmth {
    /// The share of steps small enough for a graph that had to make it.
    pub instantiated_share: f64,
    /// Graphs that steps had to make.
    pub instantiated: u64,
    /// Graphs that were made ahead: one for each ring slot and size.
    pub instantiated_ahead: u64,
    /// Sizes that were made ready ahead.
    pub prewarmed: u64,
    /// The number of those that were used.
    pub prewarmed_used: u64,
    /// The number of those that were released unused.
    pub prewarmed_wasted: u64,
}

/// A run by the plan of an earlier one.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Planned {
    /// The most memory that the earlier run had obtained, in bytes.
    pub first_peak_reserved: u64,
    /// The memory reserved at the start of this run, in bytes.
    pub reserved_at_start: u64,
    /// The most that it had obtained, against that of the earlier run.
    pub reserved_ratio: f64,
    /// The number of times that its pools may have grown after the start.
    pub grown_after_start: u64,
}

/// Memory and time of one moment, for a chart.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the replay began.
    pub time: Duration,
    /// Memory then.
    pub memory: MemoryUse,
}

/// Adds up records.
#[derive(Debug)]
pub struct Collector {
    steps: u64,
    tokens: u64,
    bytes: u64,
    waits: u64,
    /// Calls after the warm-up, and the steps that made them.
    calls: Option<(u64, u64)>,
    end: Duration,
    times: Histogram<u64>,
    peak: MemoryUse,
    latest: MemoryUse,
    /// The memory of the pools after the first step.
    first_reserved: Option<u64>,
    samples: Vec<Sample>,
    /// One of so many steps is sampled.
    stride: u64,
    source: &'static str,
    forecast: Box<dyn Forecast>,
    judge: Judge,
}

/// The settings of the run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The driver, `system` or `softcuda`.
    pub driver: &'static str,
    /// The device's name.
    pub device: String,
    /// What was run.
    pub run: Run,
    /// Requests that were served.
    pub requests: u64,
    /// All calls of the driver, where they are counted.
    pub driver_calls: Option<u64>,
    /// What the device's memory counted against.
    pub budget: Budget,
    /// Whether bytes were compared.
    pub verified: bool,
    /// The most memory that the earlier run had obtained whose plan this one goes by, in bytes.
    pub planned: Option<u64>,
}

impl Collector {
    /// Nothing yet; `forecast`, called `source`, is judged on the steps.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "bounds and digits that are allowed"
    )]
    pub fn new(source: &'static str, forecast: Box<dyn Forecast>) -> Self {
        Self {
            steps: 0,
            tokens: 0,
            bytes: 0,
            waits: 0,
            calls: None,
            end: Duration::ZERO,
            times: Histogram::new_with_max(LONGEST, 3).expect("bounds"),
            peak: MemoryUse::default(),
            latest: MemoryUse::default(),
            first_reserved: None,
            samples: Vec::with_capacity(SAMPLES),
            stride: 1,
            source,
            forecast,
            judge: Judge::default(),
        }
    }

    /// Adds a step.
    pub fn record(&mut self, record: &Record) {
        let Record { step, memory, .. } = *record;
        self.times.saturating_record(nanoseconds(record.begin + record.submit));
        // The first steps make graphs and grow pools.
        if self.steps >= WARM_UP
            && let Some(calls) = record.driver_calls
        {
            let (sum, steps) = self.calls.unwrap_or_default();
            self.calls = Some((sum + calls, steps + 1));
        }
        if self.steps.is_multiple_of(self.stride) {
            self.sample(Sample { time: record.start, memory });
        }
        self.steps += 1;
        self.tokens += u64::from(step.tokens);
        self.bytes += record.bytes;
        self.waits += u64::from(record.waited);
        self.end = record.start + record.begin + record.write + record.submit;
        for (peak, now) in
            [(&mut self.peak.device, memory.device), (&mut self.peak.pinned, memory.pinned)]
        {
            (peak.live, peak.peak_blocks) = (now.peak, now.peak_blocks);
            peak.reserved = peak.reserved.max(now.reserved);
        }
        self.latest = memory;
        self.first_reserved.get_or_insert(memory.device.reserved + memory.pinned.reserved);
        self.judge.next(&mut *self.forecast, padded(step.tokens));
    }

    /// The figures.
    pub fn summary(&self, setting: &Setting, outcome: &Outcome) -> Summary {
        let hits = self.judge.hits();
        let memory = Kinds {
            device: Kind::of(self.peak.device, self.latest.device),
            pinned: Kind::of(self.peak.pinned, self.latest.pinned),
        };
        let blocks = self.peak.device.peak_blocks + self.peak.pinned.peak_blocks;
        let peak_live = memory.device.peak_live + memory.pinned.peak_live;
        let peak_reserved = memory.device.peak_reserved + memory.pinned.peak_reserved;
        Summary {
            schema: SCHEMA,
            run: setting.run.clone(),
            steps: self.steps,
            tokens: self.tokens,
            requests: setting.requests,
            driver: setting.driver,
            device: setting.device.clone(),
            seconds: self.end.as_secs_f64(),
            driver_calls_per_step: self.calls.map(|(calls, steps)| calls as f64 / steps as f64),
            driver_calls: setting.driver_calls,
            bytes_staged: self.bytes,
            verify_mismatches: setting.verified.then_some(outcome.mismatches),
            ring_waits: self.waits,
            ring_violations: outcome.violations,
            graphs: outcome.graphs,
            step_ns: self.step_times(),
            peak_live,
            peak_reserved,
            waste: rest(peak_live, blocks),
            idle: rest(blocks, peak_reserved),
            memory,
            device_memory: Together::of(&setting.budget, outcome.uses.clone()),
            results_read: outcome.results,
            torch: Torches { native: outcome.torch[0], expandable: outcome.torch[1] },
            forecast: Foreseen {
                source: self.source,
                hit1: hits.first,
                hit3: hits.third,
                warm: outcome.warm.map(|warm| Warmth::of(warm, outcome)),
            },
            tiers: outcome.tiers,
            plan: setting.planned.map(|first| Planned {
                first_peak_reserved: first,
                reserved_at_start: self.first_reserved.unwrap_or(0),
                reserved_ratio: peak_reserved as f64 / first.max(1) as f64,
                grown_after_start: memory.device.grown + memory.pinned.grown,
            }),
            stopped: outcome.stopped || outcome.failed.is_some(),
        }
    }

    /// Memory over time, at evenly spread steps.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Percentiles of the time of a step, in nanoseconds.
    pub fn times(&self) -> &Histogram<u64> {
        &self.times
    }

    fn step_times(&self) -> Times {
        let quantile = |quantile| self.times.value_at_quantile(quantile);
        let (mean, max) = (self.times.mean(), self.times.max());
        Times { mean, p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999), max }
    }

    /// Keeps a sample; of a full set every other goes, so that a replay of any length has as many.
    fn sample(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
        }
        self.samples.push(sample);
    }
}

impl Warmth {
    fn of(warm: WarmStats, outcome: &Outcome) -> Self {
        Self {
            instantiated_share: outcome.made.by_steps as f64 / warm.uses.max(1) as f64,
            instantiated: outcome.made.by_steps,
            instantiated_ahead: outcome.made.ahead,
            prewarmed: warm.made,
            prewarmed_used: warm.used,
            prewarmed_wasted: warm.wasted,
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The version of the form of [`Summary`]; a change that a reader notices raises it.
pub const SCHEMA: u32 = 1;
/// After how many steps driver calls count: what is made at first use is made by then.
pub const WARM_UP: u64 = 100;
/// The longest time that is told from longer ones, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;
/// The number of samples of memory that are kept.
const SAMPLES: usize = 2048;
