//! Results: they come, beside later steps, and stay while they are read.

use std::error::Error as StdError;

use wharf::Stream;
use wharf::staging::{Instantiation, Layout, Len, OutputBuffers, Pending, SlotId, StageError};

use super::staging::Gate;
use super::{LIMIT, Outcome, Stand, ensure, kept, raw};

/// Rings of each depth in both layouts: the results of a step are read when the next is submitted.
pub(super) fn fetch(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let mut count = 0;
    for layout in [Layout::PerSlot, Layout::Packed] {
        for depth in 1..=4 {
            let set = Set::new(stand, layout, depth)?;
            let mut last: Option<(u32, Pending)> = None;
            for number in 0..ROUNDS {
                let next = set.step(number, &stream)?;
                // A ring of one has no room for two.
                let done =
                    if depth == 1 { Some((number, next)) } else { last.replace((number, next)) };
                done.map_or(Ok(()), |(number, pending)| set.check(&pending, number))?;
                count += 1;
            }
            last.map_or(Ok(()), |(number, pending)| set.check(&pending, number))?;
            stream.synchronize()?;
        }
    }
    kept(format!("{count} steps in rings of depths 1 to 4, both layouts"))
}

/// What the stream does behind a fetch is held up: the results come all the same.
pub(super) fn beside(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    let set = Set::new(stand, Layout::PerSlot, 2)?;
    for number in 0..ROUNDS {
        let pending = set.step(number, &stream)?;
        let gate = Gate::close(&stream)?;
        let came = set.check(&pending, number);
        gate.open();
        // Also before a failure is told: the set must not go while the stream uses it.
        stream.synchronize()?;
        came?;
    }
    kept(format!("{ROUNDS} steps, each read while what follows was held up"))
}

/// Results that are held are not overwritten: a ring of which all are held refuses.
pub(super) fn held(stand: &Stand<'_>) -> Outcome {
    let stream = Stream::new(&stand.context)?;
    for depth in 1..=4 {
        let set = Set::new(stand, Layout::PerSlot, depth as usize)?;
        let mut pending = Vec::new();
        for number in 0..depth {
            pending.push(set.step(number, &stream)?);
        }
        stream.synchronize()?;
        let refused = matches!(set.outputs.try_begin(1, 1), Err(StageError::WouldBlock));
        ensure(refused, || {
            format!("depth {depth}: results that the host holds may be overwritten")
        })?;
        drop(pending.remove(0));
        pending.push(set.step(depth, &stream)?);
        for (number, pending) in (1..).zip(&pending) {
            set.check(pending, number)?;
        }
        stream.synchronize()?;
    }
    kept("rings of depths 1 to 4, each full while its results were held")
}

/// Outputs of up to eight requests.
struct Set {
    outputs: OutputBuffers,
    slots: [SlotId<u32>; 2],
}

impl Set {
    fn new(stand: &Stand<'_>, layout: Layout, depth: usize) -> Result<Self, Box<dyn StdError>> {
        let outputs = OutputBuffers::builder(&stand.context)
            .name("qualify")
            .slot::<u32>("sampled", Len::Requests)
            .slot::<u32>("scores", Len::Requests.times(20))
            .buckets([4, 8])
            .layout(layout)
            .ring_depth(depth)
            .instantiation(Instantiation::Eager)
            .build()?;
        let slots = [outputs.slot_id("sampled")?, outputs.slot_id("scores")?];
        Ok(Self { outputs, slots })
    }

    /// Has the device write the results of step `number`, and fetches them.
    fn step(&self, number: u32, stream: &Stream) -> Result<Pending, Box<dyn StdError>> {
        let requests = requests(number);
        let buffers = self.outputs.static_buffers();
        for (part, slot) in (1..).zip(self.slots) {
            let place = buffers.device_ptr(slot, requests).zip(buffers.len(slot, requests));
            let (address, len) = place.ok_or("a slot has no device memory")?;
            raw::fill(address, number * 2 + part, len, stream)?;
        }
        Ok(self.outputs.fetch(requests, requests, stream)?)
    }

    /// Waits for the results of step `number`, and sees that they are the ones.
    fn check(&self, pending: &Pending, number: u32) -> Result<(), Box<dyn StdError>> {
        let results = pending.wait(LIMIT)?;
        for (part, slot) in (1..).zip(self.slots) {
            let found = results.read(slot)?;
            let wanted = requests(number) * if part == 1 { 1 } else { 20 };
            let same = found.len() == wanted && found.iter().all(|id| *id == number * 2 + part);
            ensure(same, || format!("the results of step {number} are not what was written"))?;
        }
        Ok(())
    }
}

/// Requests of a step, of both buckets.
fn requests(number: u32) -> usize {
    1 + number as usize % 8
}

const ROUNDS: u32 = 24;
