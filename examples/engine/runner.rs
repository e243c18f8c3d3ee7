//! The runner: what a step writes, launches and reads.

#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]
#![expect(unsafe_code, reason = "graphs have addresses of buffers")]

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use softcuda::Simulator;
use wharf::graph::{CaptureMode, CaptureScope, GraphExec};
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool};
use wharf::staging::{
    Counts, InputBuffers, Instantiation, Len, OutputBuffers, Pad, Pending, SlotId,
};
use wharf::{Context, Stream};

use crate::model::{BLOCK, BLOCKS, PLACEHOLDER, PLACES, QUERY};
use crate::request::{Request, Work};

/// How long a wait may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The slots of the inputs.
struct Slots {
    ids: SlotId<i32>,
    positions: SlotId<i32>,
    starts: SlotId<i32>,
    places: SlotId<i32>,
    tables: SlotId<i32>,
    samples: SlotId<i32>,
}

pub(crate) struct Runner {
    inputs: InputBuffers,
    slots: Slots,
    outputs: OutputBuffers,
    results: SlotId<i32>,
    /// The engine's own graph of each bucket.
    models: Vec<GraphExec>,
    /// Steps whose results were not read, and the requests of each.
    ahead: VecDeque<(Pending, Vec<usize>)>,
    /// What the device knows of each request: its last token and next position; and its cache.
    last: Buffer<i32>,
    cache: Buffer<u64>,
}

impl Runner {
    pub(crate) fn new(
        machine: &Simulator,
        context: &Context,
        stream: &Stream,
    ) -> Result<Self, Box<dyn Error>> {
        // Decoding steps of so many requests, and steps with prefill.
        let decode = [1, 2, 4, 8].map(|requests| Counts { tokens: QUERY * requests, requests });
        let buckets = || decode.into_iter().chain([Counts { tokens: 48, requests: 8 }]);
        let inputs = InputBuffers::builder(context)
            .slot::<i32>("ids", Len::Tokens)
            .slot::<i32>("positions", Len::Tokens)
            .slot_padded::<i32>("starts", Len::Requests.plus(1), Pad::RepeatLast)
            .slot_padded::<i32>("places", Len::Requests, Pad::Value(-1))
            .slot::<i32>("tables", Len::Requests.times(BLOCKS))
            .slot::<i32>("samples", Len::Requests)
            .buckets_of(buckets())
            .instantiation(Instantiation::Eager)
            .build()?;
        let outputs = OutputBuffers::builder(context)
            .slot::<i32>("results", Len::Requests.times(QUERY + 1))
            .buckets_of(buckets())
            .instantiation(Instantiation::Eager)
            .build()?;
        let slot = |name| inputs.slot_id::<i32>(name);
        let slots = Slots {
            ids: slot("ids")?,
            positions: slot("positions")?,
            starts: slot("starts")?,
            places: slot("places")?,
            tables: slot("tables")?,
            samples: slot("samples")?,
        };
        let device = DeviceMemoryResource::new(context, 64 << 20)?;
        let device = Pool::builder().name("cache").build(device)?;
        let last = device.alloc(2 * PLACES, stream)?;
        last.fill(0, stream)?;
        let cache = device.alloc(PLACES * BLOCKS * BLOCK, stream)?;
        cache.fill(0, stream)?;
        let results = outputs.slot_id("results")?;
        let (models, ahead) = (Vec::new(), VecDeque::new());
        let mut runner = Self { inputs, slots, outputs, results, models, ahead, last, cache };
        for bucket in runner.inputs.buckets().collect::<Vec<_>>() {
            let model = runner.capture(machine, bucket, stream)?;
            runner.models.push(model);
        }
        Ok(runner)
    }

    /// The engine's graph of a bucket. The addresses are those of every step of the bucket.
    fn capture(
        &self,
        machine: &Simulator,
        bucket: Counts,
        stream: &Stream,
    ) -> Result<GraphExec, Box<dyn Error>> {
        let (slots, inputs) = (&self.slots, self.inputs.static_buffers());
        let outputs = self.outputs.static_buffers();
        let input = |slot| inputs.device_ptr(slot, bucket).ok_or("no bucket");
        // SAFETY: used on this stream alone, on which they were allocated; they live as long as the
        // graphs.
        let last = unsafe { self.last.as_device_ptr() }?;
        // SAFETY: as above.
        let cache = unsafe { self.cache.as_device_ptr() }?;
        let [ids, positions, starts, places] = [
            input(slots.ids)?,
            input(slots.positions)?,
            input(slots.starts)?,
            input(slots.places)?,
        ];
        let (tables, samples) = (input(slots.tables)?, input(slots.samples)?);
        let results = outputs.device_ptr(self.results, bucket).ok_or("no bucket")?;
        let requests = bucket.requests as u64;
        let capture = CaptureScope::begin(stream, CaptureMode::ThreadLocal)?;
        let raw = stream.as_raw();
        let arguments = [ids, positions, starts, places, last, requests];
        machine.launch("prepare", [1, 1, 1], &arguments, raw)?;
        let arguments =
            [ids, positions, starts, places, tables, samples, last, cache, results, requests];
        machine.launch("forward", [1, 1, 1], &arguments, raw)?;
        inputs.keep_alive_in_capture(stream)?;
        outputs.keep_alive_in_capture(stream)?;
        Ok(capture.end()?.instantiate()?)
    }

    /// The size of the next step.
    pub(crate) fn wanted(&self, requests: &[Request]) -> Counts {
        let works: Vec<_> = requests.iter().filter_map(Request::work).collect();
        let tokens = works.iter().map(|work| work.tokens()).sum();
        Counts { tokens, requests: works.len() }
    }

    /// One step, padded to what the ranks have agreed on; then reads the results of the step
    /// before.
    pub(crate) fn step(
        &mut self,
        stream: &Stream,
        requests: &mut [Request],
        padded: Counts,
    ) -> Result<(), Box<dyn Error>> {
        let Counts { tokens, requests: count } = self.wanted(requests);
        let slots = &self.slots;
        let mut step = self.inputs.begin_padded(tokens, count, padded)?;
        let all =
            (slots.ids, slots.positions, slots.starts, slots.places, slots.tables, slots.samples);
        let (ids, positions, starts, places, tables, samples) = step.write_many(all)?;
        let (mut at, mut batch) = (0, Vec::new());
        starts[0] = 0;
        for (place, request) in requests.iter_mut().enumerate() {
            let Some(work) = request.work() else { continue };
            let (row, end) = (batch.len(), at + work.tokens());
            samples[row] = request.fill(work, &mut ids[at..end], &mut positions[at..end]);
            (starts[row + 1], places[row]) = (end as i32, place as i32);
            for (index, block) in tables[row * BLOCKS..][..BLOCKS].iter_mut().enumerate() {
                *block = (place + PLACES * index) as i32;
            }
            at = end;
            batch.push(place);
        }
        let bucket = step.bucket().ok_or("the ranks have agreed on a bucket")?;
        step.submit(stream)?;
        self.models[bucket].launch(stream)?;
        let pending = self.outputs.begin_padded(tokens, count, padded)?.submit(stream)?;
        self.ahead.push_back((pending, batch));
        if self.ahead.len() > 1 {
            self.read(requests)?;
        }
        Ok(())
    }

    /// Reads the results of the steps that are left.
    pub(crate) fn drain(&mut self, requests: &mut [Request]) -> Result<(), Box<dyn Error>> {
        while !self.ahead.is_empty() {
            self.read(requests)?;
        }
        Ok(())
    }

    /// Waits for the oldest results, and hands them to their requests.
    fn read(&mut self, requests: &mut [Request]) -> Result<(), Box<dyn Error>> {
        let Some((pending, batch)) = self.ahead.pop_front() else { return Ok(()) };
        let results = pending.wait(LIMIT)?.read(self.results)?;
        for (request, result) in batch.into_iter().zip(results.chunks(QUERY + 1)) {
            let (sampled, count) = result.split_at(QUERY);
            requests[request].accept(&sampled[..count[0] as usize]);
        }
        Ok(())
    }

    /// Takes the runner down: graphs first, since they keep the sets' memory alive.
    pub(crate) fn close(self, stream: &Stream) -> Result<(), Box<dyn Error>> {
        drop(self.models);
        self.inputs.release().map_err(|failed| failed.error)?;
        // What the graphs did with them.
        self.last.record_use(stream)?;
        self.cache.record_use(stream)?;
        Ok(())
    }
}

impl Request {
    /// Writes the tokens of a step. Returns how many of them sample at most.
    fn fill(&mut self, work: Work, ids: &mut [i32], positions: &mut [i32]) -> i32 {
        match work {
            Work::Decode => {
                ids.fill(PLACEHOLDER);
                positions.fill(PLACEHOLDER);
                QUERY as i32
            }
            Work::Prefill(tokens) => {
                let start = self.prefilled;
                self.prefilled += tokens;
                ids.copy_from_slice(&self.prompt[start..self.prefilled]);
                let all = positions.iter_mut().zip(start..);
                all.for_each(|(to, position)| *to = position as i32);
                i32::from(self.prefilled == self.prompt.len())
            }
        }
    }
}
