//! Rounds of all schemes, ratios, calls.

#![expect(unsafe_code, reason = "lets the device write blocks")]

use std::thread;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use wharf::{Context, Stream};

use super::caching::Caching;
use super::driver_pool::DriverPool;
use super::ours::Ours;
use super::{Failure, Machine, Scheme};
use crate::machine::{Start, float, ns, pin, thread_time};

/// What to run.
#[derive(Args, Clone, Copy, Debug)]
pub struct Options {
    /// Threads, each with a stream of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Blocks of each thread in each round.
    #[arg(long, default_value_t = 20_000)]
    blocks: usize,
    /// Rounds of each scheme.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// Runs all schemes in turn, on a machine each; the table of what they cost.
///
/// # Errors
///
/// What the driver said.
pub fn run(options: &Options) -> Result<Table, Failure> {
    let contenders: [Box<dyn Contender>; 3] = [
        Seated::contender("wharf: Pool", options, Ours::new)?,
        Seated::contender("mutex a class, event a free", options, |context| {
            Ok(Caching::new(context))
        })?,
        Seated::contender("cuMemAllocAsync, cuMemFreeAsync", options, |_| Ok(DriverPool))?,
    ];
    for contender in &contenders {
        contender.round(options.blocks)?;
    }
    let before: Vec<_> = contenders.iter().map(|contender| contender.calls()).collect();
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..options.rounds.max(1) {
        for (contender, times) in contenders.iter().zip(&mut times) {
            times.push(contender.round(options.blocks)?);
        }
    }
    let blocks = options.rounds.max(1) * options.threads * options.blocks;
    let per_block = |calls: u64| float(calls) / float(blocks as u64);
    let rows = contenders.iter().zip(before).zip(&mut times).map(|((contender, before), times)| {
        times.sort_by(f64::total_cmp);
        let calls = contender.calls().into_iter().map(|(name, calls)| {
            let earlier = before.iter().find(|other| other.0 == name).map_or(0, |other| other.1);
            (name, per_block(calls - earlier))
        });
        Row { name: contender.name(), time: times[times.len() / 4], calls: calls.collect() }
    });
    Ok(table(&rows.collect::<Vec<_>>()))
}

/// A scheme at its machine, whatever its type.
trait Contender {
    fn name(&self) -> &'static str;

    /// The processor time of a thread for a block, in nanoseconds.
    fn round(&self, blocks: usize) -> Result<f64, Failure>;

    fn calls(&self) -> Vec<(&'static str, u64)>;
}

/// A scheme at its machine.
struct Seated<S> {
    name: &'static str,
    scheme: S,
    streams: Vec<Stream>,
    // Last, for the others are of it.
    machine: Machine,
}

impl<S: Scheme + 'static> Seated<S> {
    fn contender(
        name: &'static str,
        options: &Options,
        scheme: impl FnOnce(&Context) -> Result<S, Failure>,
    ) -> Result<Box<dyn Contender>, Failure> {
        let machine = Machine::new()?;
        let bound = machine.bind();
        let streams = (0..options.threads)
            .map(|_| Stream::new(machine.context()))
            .collect::<Result<_, _>>()?;
        let scheme = scheme(machine.context())?;
        drop(bound);
        Ok(Box::new(Self { name, scheme, streams, machine }))
    }

    /// One thread's part of a round.
    fn cycle(&self, stream: &Stream, seed: u64, blocks: usize) -> Result<(), Failure> {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..blocks {
            let size = 256 << random.u32(0..=12);
            let block = self.scheme.alloc(size, stream)?;
            // SAFETY: the block is at least as large, and freed behind this in stream order.
            unsafe { stream.fill_d8(self.scheme.address(&block), 1, WRITTEN) }?;
            self.scheme.free(block, stream)?;
        }
        Ok(())
    }
}

impl<S: Scheme + 'static> Contender for Seated<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn round(&self, blocks: usize) -> Result<f64, Failure> {
        let start = Start::new(self.streams.len());
        thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(&self.streams)
                .map(|(seed, stream)| {
                    let start = &start;
                    scope.spawn(move || {
                        pin(usize::try_from(seed)?);
                        let _bound = self.machine.bind();
                        // An engine's threads have their context current.
                        let _scope = self.machine.context().enter()?;
                        start.wait();
                        let begin = thread_time();
                        self.cycle(stream, seed, blocks)?;
                        let time = thread_time() - begin;
                        stream.synchronize()?;
                        Ok::<_, Failure>(ns(time) / float(blocks as u64))
                    })
                })
                .collect();
            let times =
                threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?);
            let times = times.collect::<Result<Vec<_>, Failure>>()?;
            Ok(times.iter().sum::<f64>() / float(times.len() as u64))
        })
    }

    fn calls(&self) -> Vec<(&'static str, u64)> {
        self.machine.calls()
    }
}

/// What a scheme cost.
struct Row {
    name: &'static str,
    time: f64,
    /// Calls for a block, by name.
    calls: Vec<(&'static str, f64)>,
}

/// The first row is compared with the others.
fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(["scheme", "ns", "ratio", "calls", "of these"]);
    for column in table.column_iter_mut().skip(1).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        let total: f64 = row.calls.iter().map(|call| call.1).sum();
        let named = row.calls.iter().filter(|call| call.1 >= 0.005);
        let named: Vec<_> = named.map(|(name, calls)| format!("{name} {calls:.2}")).collect();
        table.add_row([
            row.name.to_owned(),
            format!("{:.0}", row.time),
            format!("{:.2}", rows[0].time / row.time),
            format!("{total:.2}"),
            named.join(", "),
        ]);
    }
    table
}

/// Bytes that the device writes to a block.
const WRITTEN: usize = 64;
