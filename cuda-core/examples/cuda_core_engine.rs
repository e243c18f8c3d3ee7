//! An engine on cuda-core, cuda-async and wharf, without unsafe: a graph of cuda-async's reads
//! wharf's static buffers and writes wharf's results and a block of a pool; results come back
//! by wharf's fetches, of its own memory and of cuda-core's. Right bytes, and nothing left at the
//! end, whatever goes first.
//!
//! `cuda_core_engine [SEED]`, with a driver such as softcuda's; the seed is that of the order of
//! drops.
#![forbid(unsafe_code)]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuda_async::cuda_graph::CudaGraph;
use cuda_async::device_operation::DeviceOp;
use cuda_core::{DeviceBuffer, PinnedHostBuffer};
use wharf::memory::DeviceMemoryResource;
use wharf::pool::Pool;
use wharf::staging::{InputBuffers, Len, OutputBuffers, Pad};
use wharf::{Context, Driver};
use wharf_cuda_core::{
    BorrowedStream, FetchFrom, copy, device_buffer, input_buffer, output_buffer, refer,
};

const TOKENS: usize = 8;
const LIMIT: Duration = Duration::from_secs(600);

/// Everything that an order of drops is drawn for.
struct Engine {
    cuda: Option<Arc<cuda_core::Context>>,
    model_queue: Option<Arc<cuda_core::Stream>>,
    context: Option<Context>,
    copies: Option<BorrowedStream>,
    model: Option<BorrowedStream>,
    inputs: Option<InputBuffers>,
    outputs: Option<Arc<OutputBuffers>>,
    graph: Option<CudaGraph<()>>,
    seen: Option<DeviceBuffer<i32>>,
    pool: Option<Pool>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?;
    let driver = Driver::load()?;
    let cuda = cuda_core::Context::new(0)?;
    let context = wharf_cuda_core::context(&cuda, &driver)?;
    let (copy_queue, model_queue) = (cuda.new_stream()?, cuda.new_stream()?);
    let copies = BorrowedStream::new(&copy_queue, &context)?;
    let model = BorrowedStream::new(&model_queue, &context)?;
    let inputs = InputBuffers::builder(&context)
        .slot::<i32>("ids", Len::Tokens)
        .slot_padded::<i32>("mapping", Len::Tokens, Pad::Value(-1))
        .buckets([4, TOKENS])
        .ring_depth(2)
        .build()?;
    let slots = [inputs.slot_id::<i32>("ids")?, inputs.slot_id::<i32>("mapping")?];
    let outputs = OutputBuffers::builder(&context)
        .slot::<i32>("echo", Len::Tokens)
        .slot::<i32>("mapped", Len::Tokens)
        .buckets([4, TOKENS])
        .build()?;
    let results = [outputs.slot_id::<i32>("echo")?, outputs.slot_id("mapped")?];
    let outputs = Arc::new(outputs);
    let pool = Pool::builder().build(DeviceMemoryResource::new(&context, 64 << 20)?)?;

    let [ids, mapping] = [
        input_buffer(&inputs, slots[0], TOKENS, &model)?,
        input_buffer(&inputs, slots[1], TOKENS, &model)?,
    ];
    let mut echo = output_buffer(&outputs, results[0], TOKENS, &model)?;
    let mut seen = device_buffer(pool.alloc::<i32>(TOKENS, &model)?, &model, LIMIT)?;
    let announced = driver.capture_elsewhere();
    let graph = CudaGraph::scope(&model_queue, |scope| {
        scope.record(copy(&ids, &mut seen)?)?;
        scope.record(copy(&seen, &mut echo)?)?;
        scope.record(copy(&mapping, &mut seen)?)
    })?;
    drop((announced, ids, mapping, echo));

    for number in 0..50 {
        let tokens = 1 + number as usize % TOKENS;
        let padded = if tokens <= 4 { 4 } else { TOKENS };
        let mut step = inputs.begin(tokens, 1)?;
        // Every other step's ids are read in cuda-core's pinned memory.
        if number % 2 == 0 {
            step.write(slots[0]).fill(number);
        } else {
            let mut pinned = PinnedHostBuffer::zeroed(&cuda, padded)?;
            pinned[..tokens].fill(number);
            refer(&inputs, &mut step, slots[0], Arc::new(pinned))?;
        }
        step.write(slots[1]).fill(number + 1);
        let staged = step.submit(&copies)?;
        let reader = staged.reader(&model)?;
        graph.launch().sync_on(&model_queue)?;
        reader.end()?;
        let mut fetch = FetchFrom::new(outputs.begin(tokens, 1)?, &model);
        fetch.source(results[1], &seen)?;
        let pending = fetch.submit()?;
        let there = pending.wait(LIMIT)?;
        assert_eq!(there.read(results[0])?, vec![number; tokens]);
        assert_eq!(there.read(results[1])?, vec![number + 1; tokens]);
        let whole = seen.to_host_vec(&model_queue)?;
        assert!(whole[tokens..padded].iter().all(|mapped| *mapped == -1));
    }

    drop(copy_queue);
    let context_of_all = Arc::downgrade(&cuda);
    let engine = Engine {
        cuda: Some(cuda),
        model_queue: Some(model_queue),
        context: Some(context),
        copies: Some(copies),
        model: Some(model),
        inputs: Some(inputs),
        outputs: Some(outputs),
        graph: Some(graph),
        seen: Some(seen),
        pool: Some(pool),
    };
    engine.end(seed);
    driver.wait_deferred(LIMIT)?;
    // cuda-core gives resources up on a thread of its own, the context last. The primary context
    // stays active: cuda-async has one of its own for the life of the process.
    let start = Instant::now();
    while context_of_all.strong_count() > 0 {
        assert!(start.elapsed() < LIMIT, "something still holds the context");
        std::thread::yield_now();
    }
    Ok(())
}

impl Engine {
    fn end(mut self, mut seed: u64) {
        let mut order: Vec<_> = (0..10).collect();
        for last in (1..order.len()).rev() {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, (seed >> 33) as usize % (last + 1));
        }
        for part in order {
            match part {
                0 => drop(self.cuda.take()),
                1 => drop(self.model_queue.take()),
                2 => drop(self.context.take()),
                3 => drop(self.copies.take()),
                4 => drop(self.model.take()),
                5 => drop(self.inputs.take()),
                6 => drop(self.outputs.take()),
                7 => drop(self.graph.take()),
                8 => drop(self.seen.take()),
                _ => drop(self.pool.take()),
            }
        }
    }
}
