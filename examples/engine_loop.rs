//! The loop of a serving engine: requests are decoded token by token on two streams.
//!
//! ```text
//!   stream `copies`     submit: one graph launch copies six inputs
//!                          |  reader: `compute` waits for the copy
//!   stream `compute`       +-> the engine's own graph of the bucket: a kernel reads the inputs
//!                              at fixed addresses, writes the next tokens
//!                              copy of the tokens to pinned memory
//!   host                wait for the tokens, append them to their requests, begin the next step
//! ```
//!
//! ```console
//! $ cargo run --example engine_loop
//! ```
//!
//! It runs on softcuda, under a schedule that does everything as late as the documentation of CUDA
//! allows, with all checks. The kernel is a native function; on a GPU the two lines that call
//! `Machine` are the engine's own module and `cuLaunchKernel`, and the rest stays as it is.

#![expect(clippy::print_stdout, reason = "an example prints its result")]
#![expect(clippy::cast_possible_truncation, reason = "the numbers are small")]
#![expect(unsafe_code, reason = "a kernel reads and writes raw addresses")]

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use softcuda::{Checks, Config, KernelArguments, Schedule, Simulator};
use wharf::graph::{CaptureMode, CaptureScope, GraphExec};
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::staging::{InputBuffers, Len, Pad, SlotId};
use wharf::{Context, Driver, Stream};

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Simulator::new(Config {
        schedule: Schedule::Late,
        checks: Checks::ALL,
        ..Config::default()
    });
    let _bound = machine.bind();
    machine.register_kernel("decode", &[8; 8], decode);
    let driver = Driver::from_api(machine.api()?)?; // on a GPU: Driver::load()?

    let context = Context::retain(&driver.device(0)?)?;
    let steps = {
        // The scope ends before the context does: calls inside it make no call to find the context.
        let _current = context.enter()?;
        let (copies, compute) = (Stream::new(&context)?, Stream::new(&context)?);
        let mut engine = Engine::new(&machine, &context, &compute)?;
        let mut requests = Request::some();
        let mut steps = 0;
        while engine.step(&copies, &compute, &mut requests)? {
            steps += 1;
        }
        for request in &requests {
            assert_eq!(request.tokens, request.expected(), "a token was computed of other inputs");
        }
        engine.close()?;
        steps
    };
    // What graphs kept alive is dropped before the context is.
    driver.wait_deferred(LIMIT)?;
    drop(context);

    assert!(machine.violations().is_empty(), "{:?}", machine.violations());
    assert!(machine.leaks().is_empty(), "{:?}", machine.leaks());
    println!("{steps} steps, every token as expected, no violation, nothing left");
    Ok(())
}

/// A request: its tokens so far, and how many there are to be.
struct Request {
    id: i64,
    prompt: i32,
    tokens: Vec<i32>,
    len: usize,
}

impl Request {
    /// Seven requests that end at different steps, so that steps are of different buckets.
    fn some() -> Vec<Self> {
        (0..7_u8)
            .map(|id| Self {
                id: id.into(),
                prompt: 1000 + i32::from(id),
                tokens: Vec::new(),
                len: 10 + 6 * usize::from(id),
            })
            .collect()
    }

    fn is_done(&self) -> bool {
        self.tokens.len() == self.len
    }

    fn last(&self) -> i32 {
        self.tokens.last().copied().unwrap_or(self.prompt)
    }

    fn position(&self) -> i64 {
        self.tokens.len() as i64
    }

    /// The place of the next token in the cache of keys and values.
    fn cache_slot(&self) -> i64 {
        self.id * 1024 + self.position()
    }

    /// The tokens that the kernel makes of the right inputs.
    fn expected(&self) -> Vec<i32> {
        let mut replay = Self { tokens: Vec::new(), ..*self };
        for _ in 0..self.len {
            let (position, slot) = (replay.position(), replay.cache_slot());
            replay.tokens.push(next_token(
                replay.last(),
                position,
                slot,
                replay.tokens.len() as i32 + 1,
                replay.id as i32,
                TEMPERATURE,
            ));
        }
        replay.tokens
    }
}

/// The slots of the inputs, by type.
struct Slots {
    input_ids: SlotId<i32>,
    positions: SlotId<i64>,
    slot_mapping: SlotId<i64>,
    seq_lens: SlotId<i32>,
    block_table: SlotId<i32>,
    temperatures: SlotId<f32>,
}

struct Engine<'a> {
    machine: &'a Simulator,
    inputs: InputBuffers,
    slots: Slots,
    /// The engine's own graph of each bucket.
    models: HashMap<usize, GraphExec>,
    /// Where the kernel writes. It stays as long as the graphs, which have its address.
    next_tokens: Buffer<i32>,
    /// Pinned memory for results.
    host: Pool,
    device: Pool,
}

impl<'a> Engine<'a> {
    fn new(
        machine: &'a Simulator,
        context: &Context,
        compute: &Stream,
    ) -> Result<Self, Box<dyn Error>> {
        let inputs = InputBuffers::builder(context)
            .slot::<i32>("input_ids", Len::Tokens)
            .slot::<i64>("positions", Len::Tokens)
            .slot_padded::<i64>("slot_mapping", Len::Tokens, Pad::Value(-1))
            .slot::<i32>("seq_lens", Len::Requests)
            .slot::<i32>("block_table", Len::Requests.times(BLOCKS))
            .slot::<f32>("temperatures", Len::Requests)
            .buckets([1, 2, 4, 8])
            .build()?;
        let slots = Slots {
            input_ids: inputs.slot_id("input_ids")?,
            positions: inputs.slot_id("positions")?,
            slot_mapping: inputs.slot_id("slot_mapping")?,
            seq_lens: inputs.slot_id("seq_lens")?,
            block_table: inputs.slot_id("block_table")?,
            temperatures: inputs.slot_id("temperatures")?,
        };
        let device = DeviceMemoryResource::new(context, 1 << 30)?;
        let device = Pool::builder().name("activations").max_bytes(64 << 20).build(device)?;
        let host = PinnedMemoryResource::new(context, 1 << 30, PinnedOptions::default())?;
        let host = Pool::builder().name("results").max_bytes(16 << 20).build(host)?;
        let next_tokens = device.alloc(inputs.max().requests, compute)?;
        let models = HashMap::new();
        Ok(Self { machine, inputs, slots, models, next_tokens, host, device })
    }

    /// Decodes one token of each request that is not done. Returns whether there was one.
    fn step(
        &mut self,
        copies: &Stream,
        compute: &Stream,
        requests: &mut [Request],
    ) -> Result<bool, Box<dyn Error>> {
        let mut batch: Vec<_> = requests.iter_mut().filter(|it| !it.is_done()).collect();
        if batch.is_empty() {
            return Ok(false);
        }
        let bucket = batch.len().next_power_of_two();
        if !self.models.contains_key(&bucket) {
            self.models.insert(bucket, self.capture(bucket, compute)?);
        }

        // Write the inputs in place, in pinned memory that the device has read.
        let mut step = self.inputs.begin(batch.len(), batch.len())?;
        let slots = &self.slots;
        for (to, request) in step.write(slots.input_ids).iter_mut().zip(&batch) {
            *to = request.last();
        }
        for (to, request) in step.write(slots.positions).iter_mut().zip(&batch) {
            *to = request.position();
        }
        for (to, request) in step.write(slots.slot_mapping).iter_mut().zip(&batch) {
            *to = request.cache_slot();
        }
        for (to, request) in step.write(slots.seq_lens).iter_mut().zip(&batch) {
            *to = request.tokens.len() as i32 + 1;
        }
        for (row, request) in step.write(slots.block_table).chunks_mut(BLOCKS).zip(&batch) {
            row.fill(request.id as i32);
        }
        step.write(slots.temperatures).fill(TEMPERATURE);

        // The copies are on their own stream; the model waits for them, and the next step's copies
        // wait for the model, both on the device.
        let staged = step.submit(copies)?;
        let reader = staged.reader(compute)?;
        let model = self.models.get_mut(&bucket).ok_or("captured above")?;
        model.launch(compute)?;
        reader.end()?;
        self.next_tokens.record_use(compute)?;

        let mut results: Buffer<i32> = self.host.alloc(self.next_tokens.len(), compute)?;
        results.copy_from(&self.next_tokens, compute)?;
        for (request, token) in batch.iter_mut().zip(results.host_mut(LIMIT)?) {
            request.tokens.push(*token);
        }
        Ok(true)
    }

    /// Captures the model for one bucket. The addresses are those of every step of the bucket.
    fn capture(&self, bucket: usize, compute: &Stream) -> Result<GraphExec, Box<dyn Error>> {
        let (slots, buffers) = (&self.slots, self.inputs.static_buffers());
        let inputs = [
            buffers.device_ptr(slots.input_ids, bucket),
            buffers.device_ptr(slots.positions, bucket),
            buffers.device_ptr(slots.slot_mapping, bucket),
            buffers.device_ptr(slots.seq_lens, bucket),
            buffers.device_ptr(slots.block_table, bucket),
            buffers.device_ptr(slots.temperatures, bucket),
        ];
        let mut arguments: Vec<u64> = inputs.into_iter().flatten().collect();
        // SAFETY: `step` records each use, on the stream that the buffer was allocated for, and
        // the buffer lives as long as the graphs.
        arguments.push(unsafe { self.next_tokens.as_device_ptr() }?);
        arguments.push(bucket as u64);

        let capture = CaptureScope::begin(compute, CaptureMode::default())?;
        self.machine.launch("decode", [1, 1, 1], &arguments, compute.as_raw())?;
        buffers.keep_alive_in_capture(compute)?;
        Ok(capture.end()?.instantiate()?)
    }

    /// Takes the engine down: graphs first, since they keep the inputs' memory alive.
    fn close(self) -> Result<(), Box<dyn Error>> {
        drop(self.models);
        self.inputs.release().map_err(|failed| failed.error)?;
        drop(self.next_tokens);
        self.device.close(LIMIT)?;
        self.host.close(LIMIT)?;
        Ok(())
    }
}

/// The kernel: addresses of six inputs and of the result, and the bucket.
fn decode(arguments: &KernelArguments) {
    let bucket = arguments.number(7) as usize;
    let input_ids: &[i32] = read(arguments, 0, bucket);
    let positions: &[i64] = read(arguments, 1, bucket);
    let slot_mapping: &[i64] = read(arguments, 2, bucket);
    let seq_lens: &[i32] = read(arguments, 3, bucket);
    let block_table: &[i32] = read(arguments, 4, bucket * BLOCKS);
    let temperatures: &[f32] = read(arguments, 5, bucket);
    arguments.writes(arguments.number(6), bucket * size_of::<i32>());
    // SAFETY: the launch names device memory of a token for each row, which the kernel alone
    // touches in its place in the stream.
    let next_tokens = unsafe { std::slice::from_raw_parts_mut(address(arguments, 6), bucket) };
    // Padding rows are mapped to -1.
    for row in (0..bucket).filter(|row| slot_mapping[*row] >= 0) {
        next_tokens[row] = next_token(
            input_ids[row],
            positions[row],
            slot_mapping[row],
            seq_lens[row],
            block_table[row * BLOCKS + BLOCKS - 1],
            temperatures[row],
        );
    }
}

/// What the model makes of a token's inputs: each of them matters.
fn next_token(id: i32, position: i64, slot: i64, len: i32, block: i32, temperature: f32) -> i32 {
    let sum = i64::from(id) * 31 + position * 7 + slot * 3 + i64::from(len) + i64::from(block);
    ((sum as f32 * temperature) as i64 % 32_000) as i32
}

/// The elements at the address that the argument holds, which the machine's check for races is told
/// of.
fn read<T>(arguments: &KernelArguments, index: usize, len: usize) -> &[T] {
    arguments.reads(arguments.number(index), len * size_of::<T>());
    // SAFETY: the launch names the slots' device memory, which holds `len` elements and is not
    // written before the kernel's place in the stream has passed.
    unsafe { std::slice::from_raw_parts(address(arguments, index), len) }
}

/// The address that the argument holds.
fn address<T>(arguments: &KernelArguments, index: usize) -> *mut T {
    std::ptr::with_exposed_provenance_mut(arguments.number(index) as usize)
}

/// How long a wait may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Blocks of the cache that a request has at most.
const BLOCKS: usize = 16;
const TEMPERATURE: f32 = 0.5;
