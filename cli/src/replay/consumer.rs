//! What stands for the model: it reads a step's inputs in stream order, and is done some time
//! later.
#![expect(unsafe_code, reason = "copies inputs back and reads what came")]

use core::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ptr, slice, thread};

use wharf::driver::EventKind;
use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::MemoryPlan;
use wharf::staging::{Counts, Reader, Staged};
use wharf::{Error, Event, Stream};

use super::engine::{Engine, MemoryUse, Results, TorchUse, Workload};
use super::inputs::Inputs;
use super::{ReplayError, SLICE, Settings};
use crate::schedule::Step;

/// The steps in flight, one a lane.
pub(super) struct Consumer<'a> {
    inputs: &'a Inputs,
    stream: &'a Stream,
    engine: Engine,
    lanes: Vec<Lane>,
    /// Where inputs are copied back to, if they are compared.
    mirror: Option<Mirror>,
    verify: bool,
    mismatches: u64,
    /// Whether inputs are staged on another stream.
    is_apart: bool,
}

struct Lane {
    done: Event,
    flight: Option<Flight>,
}

/// A step in flight.
struct Flight {
    number: u64,
    counts: Counts,
    padded: Counts,
    /// Where in the lane's part of the mirror each input begins, and its bytes.
    places: Vec<(usize, usize)>,
    results: Results,
}

impl<'a> Consumer<'a> {
    pub(super) fn new(
        inputs: &'a Inputs,
        stream: &'a Stream,
        settings: &Settings,
    ) -> Result<Self, ReplayError> {
        let context = stream.context();
        let lane = || {
            Ok::<_, Error>(Lane { done: Event::new(context, EventKind::Ordering)?, flight: None })
        };
        let lanes = (0..settings.ring_depth).map(|_| lane()).collect::<Result<Vec<_>, _>>()?;
        // Copies back cost time on the stream, so they are made only to be compared.
        let mirror = settings.verify.then(|| Mirror::new(stream, lanes.len())).transpose()?;
        Ok(Self {
            inputs,
            stream,
            engine: Engine::new(context, stream, settings)?,
            lanes,
            mirror,
            verify: settings.verify,
            mismatches: 0,
            is_apart: settings.memory == Workload::Serving,
        })
    }

    pub(super) fn memory(&self) -> MemoryUse {
        self.engine.memory()
    }

    /// The blocks of device and of pinned memory that the pools have needed so far.
    pub(super) fn needed(&self) -> [MemoryPlan; 2] {
        self.engine.needed()
    }

    /// What PyTorch's allocators would have obtained for the same.
    pub(super) fn torch(&self) -> [TorchUse; 2] {
        self.engine.torch()
    }

    /// Waits for the step that has the lane of step `number`; false if told to stop before that was
    /// done.
    pub(super) fn make_room(
        &mut self,
        number: usize,
        stop: &AtomicBool,
    ) -> Result<bool, ReplayError> {
        let lane = number % self.lanes.len();
        if self.lanes[lane].flight.is_none() {
            return Ok(true);
        }
        let mut tries = 0;
        while !self.lanes[lane].done.query()? {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            tries += 1;
            // allow-sleep: waiting in the driver would not hear a request to stop.
            if tries < EAGER { thread::yield_now() } else { thread::sleep(SLICE / 1000) }
        }
        self.retire(lane)?;
        Ok(true)
    }

    /// Takes a step over: uses the memory that it needs, and copies its inputs back if they are
    /// compared.
    pub(super) fn consume(
        &mut self,
        number: usize,
        step: &Step,
        staged: &Staged<'_>,
    ) -> Result<(), ReplayError> {
        let lane = number % self.lanes.len();
        let (counts, padded) = (staged.counts(), staged.padded());
        // Inputs that were staged on another stream are read from here on.
        let reader = self.is_apart.then(|| staged.reader(self.stream)).transpose()?;
        let results = self.engine.step(number as u64, step, padded, self.stream)?;
        let places = match &self.mirror {
            Some(mirror) => mirror.copy(lane, self.inputs.places(staged), self.stream)?,
            None => Vec::new(),
        };
        reader.map_or(Ok(()), Reader::end)?;
        // After the copies: the lane is free when the host may read its mirror.
        self.stream.record(&self.lanes[lane].done)?;
        self.lanes[lane].flight =
            Some(Flight { number: number as u64, counts, padded, places, results });
        Ok(())
    }

    /// Waits for all steps, and says how many bytes were wrong, and how many steps' results were
    /// fetched and read. When told to stop, only for those that are done soon.
    pub(super) fn finish(mut self, stop: &AtomicBool) -> Result<(u64, Option<u64>), ReplayError> {
        if !stop.load(Ordering::Relaxed) {
            self.stream.synchronize()?;
        }
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].flight.is_some() && self.lanes[lane].done.query()? {
                self.retire(lane)?;
            }
        }
        Ok((self.mismatches, self.engine.fetched()))
    }

    /// Compares what the lane's step copied back, and is done with its results.
    fn retire(&mut self, lane: usize) -> Result<(), ReplayError> {
        let Some(flight) = self.lanes[lane].flight.take() else { return Ok(()) };
        for (field, (start, size)) in self.inputs.fields.iter().zip(&flight.places) {
            let Some(mirror) = &self.mirror else { break };
            let found = mirror.bytes(lane, *start, *size);
            self.mismatches += field.mismatches(found, flight.number, flight.counts, flight.padded);
        }
        self.mismatches += self.engine.read(flight.results, flight.number, self.verify)?;
        Ok(())
    }
}

impl Drop for Consumer<'_> {
    /// The device writes to the mirror, and must be done before that goes. If it cannot be waited
    /// for, nothing runs in the stream any more.
    fn drop(&mut self) {
        if self.stream.synchronize().is_ok() {
            (0..self.lanes.len()).for_each(|lane| _ = self.retire(lane));
        }
    }
}

/// Pinned memory that inputs are copied back to, a part for each lane.
struct Mirror {
    memory: PinnedMemoryResource,
    part: usize,
}

impl Mirror {
    fn new(stream: &Stream, lanes: usize) -> Result<Self, Error> {
        let memory =
            PinnedMemoryResource::new(stream.context(), lanes * PART, PinnedOptions::default())?;
        // SAFETY: the resource was just made, and has no other owner.
        unsafe { memory.commit(0, memory.size()) }?;
        Ok(Self { memory, part: PART })
    }

    /// Copies inputs to a lane's part, in the stream's order; where each begins there, and its
    /// bytes.
    fn copy(
        &self,
        lane: usize,
        places: impl Iterator<Item = (u64, usize)>,
        stream: &Stream,
    ) -> Result<Vec<(usize, usize)>, Error> {
        let mut end = 0;
        let mut copied = Vec::new();
        for (address, size) in places {
            let size = size.min(self.part - end);
            let to: *mut c_void = self.at(lane, end).cast();
            // SAFETY: the range lies in the lane's part, which no other step uses until this one is
            // retired; the input stays until the next step is staged, which this stream orders
            // behind.
            unsafe { stream.copy_dtoh(to, address, size) }?;
            copied.push((end, size));
            end += size.next_multiple_of(ALIGN);
        }
        Ok(copied)
    }

    /// The bytes copied there by a step whose event is complete.
    fn bytes(&self, lane: usize, start: usize, size: usize) -> &[u8] {
        // SAFETY: committed, initialised by the system and by a copy that is done, and written
        // again only by the lane's next step.
        unsafe { slice::from_raw_parts(self.at(lane, start), size) }
    }

    fn at(&self, lane: usize, start: usize) -> *mut u8 {
        let address = self.memory.base() + (lane * self.part + start) as u64;
        // Linux on 64-bit machines only: an address of the host fits.
        ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or(0))
    }
}

/// A lane's part of the mirror: more than the inputs of the largest step.
const PART: usize = 1 << 20;
const ALIGN: usize = 64;
/// The number of queries of a step in flight before the thread sleeps between queries.
const EAGER: u32 = 2000;

#[cfg(test)]
mod tests {
    use wharf::Context;

    use super::*;
    use crate::target::{Choice, Software, Target};

    /// Writes a step as `written` and looks whether the device has it as `wanted`.
    fn mismatches(written: u64, wanted: usize) -> u64 {
        let target = Target::new(Choice::Softcuda, Software::default()).unwrap();
        let context = Context::retain(&target.driver.device(0).unwrap()).unwrap();
        let stream = Stream::new(&context).unwrap();
        let settings = Settings { buckets: vec![8, 2048], verify: true, ..Settings::default() };
        let inputs = Inputs::new(&context, &settings).unwrap();
        let mut consumer = Consumer::new(&inputs, &stream, &settings).unwrap();
        let mut step = inputs.buffers.begin(5, 2).unwrap();
        inputs.write(&mut step, written);
        let staged = step.submit(&stream).unwrap();
        let step = Step { start: 0, tokens: 5, requests: 2, prefill: 0, kv_blocks: 0 };
        consumer.consume(wanted, &step, &staged).unwrap();
        consumer.finish(&AtomicBool::new(false)).unwrap().0
    }

    #[test]
    fn what_is_not_as_written_is_found() {
        assert_eq!(mismatches(7, 7), 0);
        // Of every input at least some bytes.
        assert!(mismatches(7, 8) > 5 * 4 + 2 * 64 * 4);
    }
}
