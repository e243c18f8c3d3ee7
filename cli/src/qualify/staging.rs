//! Staging: bytes, sources, and inputs that are still used.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use wharf::Stream;
use wharf::pool::Buffer;
use wharf::staging::{InputBuffers, Instantiation, Layout, Len, Reader, StageError};

use super::pools::pinned_pool;
use super::{LIMIT, Outcome, Stand, ensure, kept, raw};
use crate::generate::Generator;
use crate::replay::{Preset, ReplayError, Settings, run};
use crate::schedule::Scheduler;

pub(super) fn per_slot(stand: &Stand<'_>) -> Outcome {
    every_byte(stand, Layout::PerSlot)
}

pub(super) fn packed(stand: &Stand<'_>) -> Outcome {
    every_byte(stand, Layout::Packed)
}

/// Replays in which every byte is compared: rings of each depth, graphs made at the start and by
/// the steps, and steps without a graph.
fn every_byte(stand: &Stand<'_>, layout: Layout) -> Outcome {
    let (mut runs, mut bytes) = (0, 0);
    for ring_depth in 1..=4 {
        for (buckets, warm) in [(vec![8, 64, 2048], 0), (vec![8, 64, 512], 3), (vec![1], 0)] {
            let settings = Settings {
                preset: Preset::Vllm,
                layout,
                ring_depth,
                buckets,
                warm,
                verify: true,
                ..Settings::default()
            };
            let steps = Scheduler::new(Generator::new(ring_depth as u64).map(Ok)).take(STEPS);
            let outcome = run(stand.target, &settings, steps, stand.stop, |record| {
                bytes += record.bytes;
                Ok::<_, ReplayError>(())
            })?
            .whole()?;
            ensure(outcome.mismatches == 0, || {
                format!("depth {ring_depth}: {} bytes differ", outcome.mismatches)
            })?;
            runs += 1;
        }
    }
    kept(format!("{runs} runs of {STEPS} steps, depths 1 to 4, {bytes} bytes"))
}

/// While a stream is held up, its copies have not read their sources: a ring that is full refuses.
pub(super) fn ring(stand: &Stand<'_>) -> Outcome {
    for depth in 1..=4 {
        let inputs = small(stand, depth)?;
        let ids = inputs.slot_id::<u32>("ids")?;
        let stream = Stream::new(&stand.context)?;
        let gate = Gate::close(&stream)?;
        for number in 0..depth {
            let mut step = inputs.begin(8, 1)?;
            step.write(ids).fill(u32::try_from(number)?);
            step.submit(&stream)?;
        }
        let refused = matches!(inputs.try_begin(8, 1), Err(StageError::WouldBlock));
        gate.open();
        // Also before a failure is told: sources must not go while their copies run.
        stream.synchronize()?;
        ensure(refused, || {
            format!("depth {depth}: a source may be written while its copy waits for the stream")
        })?;
        drop(inputs.begin(8, 1)?);
    }
    kept("rings of depths 1 to 4, each full while the stream was held up")
}

/// One stream copies, another reads late: no step arrives over one that is still read.
pub(super) fn reader(stand: &Stand<'_>) -> Outcome {
    let (copies, consumer) = (Stream::new(&stand.context)?, Stream::new(&stand.context)?);
    let results = pinned_pool(&stand.context)?;
    let mut late: Vec<Buffer<u32>> = Vec::new();
    let inputs = small(stand, 3)?;
    let ids = inputs.slot_id::<u32>("ids")?;
    for number in 0..ROUNDS {
        let mut step = inputs.begin(8, 1)?;
        step.write(ids).fill(number);
        let staged = step.submit(&copies)?;
        // Every other step is read by a stream that only waits for it, and declares nothing.
        let reader = (number % 2 == 0).then(|| staged.reader(&consumer)).transpose()?;
        reader.is_none().then(|| staged.wait_on(&consumer)).transpose()?;
        let result: Buffer<u32> = results.alloc(8, &consumer)?;
        let gate = Gate::close(&consumer)?;
        raw::fetch(&result, staged.device_ptr(ids), &consumer)?;
        reader.map_or(Ok(()), Reader::end)?;
        late.push(result);
        // The next step's copy is submitted while this one's reader is still held up.
        let mut next = inputs.begin(8, 1)?;
        next.write(ids).fill(u32::MAX);
        next.submit(&copies)?;
        // Time for a copy that waits for nothing, though it must wait for the reader.
        let mut early = false;
        for _ in 0..TURNS {
            early |= copies.query()?;
            thread::yield_now();
        }
        gate.open();
        copies.synchronize()?;
        consumer.synchronize()?;
        ensure(!early, || format!("inputs were written over while step {number} was still read"))?;
    }
    for (number, mut result) in (0..).zip(late) {
        let found = result.host_mut(LIMIT)?;
        ensure(found.iter().all(|id| *id == number), || {
            format!("the reader of step {number} found another step's inputs")
        })?;
    }
    kept(format!("{ROUNDS} steps, each read by a stream that was held up"))
}

fn small(stand: &Stand<'_>, depth: usize) -> Result<InputBuffers, wharf::staging::BuildError> {
    InputBuffers::builder(&stand.context)
        .name("qualify")
        .slot::<u32>("ids", Len::Tokens)
        .buckets([8])
        .max_tokens(8)
        .ring_depth(depth)
        .instantiation(Instantiation::Eager)
        .build()
}

/// Holds a stream up until it is opened or dropped. Meanwhile nothing is made: a driver may let a
/// call that makes something wait for the device.
pub(super) struct Gate(#[expect(dead_code, reason = "its drop opens the gate")] Sender<()>);

impl Gate {
    pub(super) fn close(stream: &Stream) -> Result<Self, wharf::Error> {
        let (open, closed) = channel::<()>();
        // An error is the other end's drop, which is what is waited for.
        stream.add_callback(move |_| _ = closed.recv())?;
        Ok(Self(open))
    }

    pub(super) fn open(self) {
        drop(self);
    }
}

const STEPS: usize = 40;
/// How often a stream that must wait is asked whether it has.
const TURNS: usize = 500;
const ROUNDS: u32 = 24;
