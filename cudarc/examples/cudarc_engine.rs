//! An engine on cudarc and wharf, without unsafe: cudarc captures a graph that reads wharf's static
//! buffers, writes wharf's results and a block of wharf's pool; results come back by wharf's
//! fetches, of its own memory and of cudarc's, and through pinned memory of wharf's.
//! Right bytes, and nothing left at the end, whatever goes first.
//!
//! `cudarc_engine [SEED]`, with a driver such as softcuda's; the seed is that of the order of
//! drops.
#![forbid(unsafe_code)]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaGraph, CudaStream};
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::staging::{InputBuffers, Len, OutputBuffers, Pad, SlotId};
use wharf::{Context, Driver};
use wharf_cudarc::{
    BorrowedStream, DeviceView, FetchFrom, HostSource, HostTarget, OutputView, Recording,
    StaticView,
};

const TOKENS: usize = 8;
const LIMIT: Duration = Duration::from_secs(600);

/// Everything that an order of drops is drawn for.
struct Engine {
    cuda: Option<Arc<CudaContext>>,
    model_queue: Option<Arc<CudaStream>>,
    context: Option<Context>,
    copies: Option<BorrowedStream>,
    model: Option<BorrowedStream>,
    inputs: Option<InputBuffers>,
    outputs: Option<Arc<OutputBuffers>>,
    graph: Option<CudaGraph>,
    seen: Option<Buffer<i32>>,
    pools: Option<[Pool; 2]>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(0), |seed| seed.parse())?;
    let driver = Driver::load()?;
    run(&driver)?.end(seed);
    driver.wait_deferred(LIMIT)?;
    assert!(!driver.device(0)?.is_primary_active()?);
    Ok(())
}

/// Fifty steps; what is left then.
fn run(driver: &Driver) -> Result<Engine, Box<dyn Error>> {
    let cuda = CudaContext::new(0)?;
    let context = wharf_cudarc::context(&cuda, driver)?;
    let (copy_queue, model_queue) = (cuda.new_stream()?, cuda.new_stream()?);
    let copies = BorrowedStream::new(&copy_queue, &context)?;
    let model = BorrowedStream::new(&model_queue, &context)?;
    let (inputs, outputs) = sets(&context)?;
    let slots = [inputs.slot_id::<i32>("ids")?, inputs.slot_id::<i32>("mapping")?];
    let (echo, theirs) = (outputs.slot_id::<i32>("echo")?, outputs.slot_id::<i32>("theirs")?);
    let device = DeviceMemoryResource::new(&context, 64 << 20)?;
    let pinned = PinnedMemoryResource::new(&context, 64 << 20, PinnedOptions::default())?;
    let pools = [Pool::builder().build(device)?, Pool::builder().build(pinned)?];
    let seen: Buffer<i32> = pools[0].alloc(TOKENS, &model)?;
    let mapped: Buffer<i32> = pools[0].alloc(TOKENS, &model)?;

    let graph = capture((&inputs, slots), (&outputs, echo), &model, [&seen, &mapped])?;
    let mut cudarcs = model_queue.alloc_zeros::<i32>(TOKENS)?;
    let mut result: Buffer<i32> = pools[1].alloc(TOKENS, &model)?;
    for number in 0..50 {
        let tokens = 1 + number as usize % TOKENS;
        let mut step = inputs.begin(tokens, 1)?;
        step.write(slots[0]).fill(number);
        step.write(slots[1]).fill(number + 1);
        let staged = step.submit(&copies)?;
        let reader = staged.reader(&model)?;
        graph.launch()?;
        reader.end()?;
        model_queue.memcpy_dtod(&DeviceView::new(&mapped, &model)?, &mut cudarcs)?;
        let mut fetch = FetchFrom::new(outputs.begin(tokens, 1)?, &model);
        fetch.source(theirs, &cudarcs)?;
        let pending = fetch.submit()?;
        let back = model_queue.clone_dtoh(&DeviceView::new(&mapped, &model)?)?;
        let mut target = HostTarget::new(result, &model, LIMIT);
        model_queue.memcpy_dtoh(&DeviceView::new(&seen, &model)?, &mut target)?;
        result = target.into_buffer()?;
        model_queue.synchronize()?;
        let there = pending.wait(LIMIT)?;
        assert_eq!(there.read(echo)?, vec![number; tokens]);
        assert_eq!(there.read(theirs)?, vec![number + 1; tokens]);
        let padded = if tokens <= 4 { 4 } else { TOKENS };
        let expected = |value, pad| move |i| if i < tokens { value } else { pad };
        assert!(
            (0..padded).map(expected(number, 0)).eq(result.host_mut(LIMIT)?[..padded].to_vec())
        );
        assert!((0..padded).map(expected(number + 1, -1)).eq(back[..padded].to_vec()));
    }
    there_and_back(&pools, &model_queue, &model, result)?;

    drop((mapped, cudarcs));
    drop(copy_queue);
    Ok(Engine {
        cuda: Some(cuda),
        model_queue: Some(model_queue),
        context: Some(context),
        copies: Some(copies),
        model: Some(model),
        inputs: Some(inputs),
        outputs: Some(outputs),
        graph: Some(graph),
        seen: Some(seen),
        pools: Some(pools),
    })
}

fn sets(context: &Context) -> Result<(InputBuffers, Arc<OutputBuffers>), Box<dyn Error>> {
    let inputs = InputBuffers::builder(context)
        .slot::<i32>("ids", Len::Tokens)
        .slot_padded::<i32>("mapping", Len::Tokens, Pad::Value(-1))
        .buckets([4, TOKENS])
        .ring_depth(2)
        .build()?;
    let outputs = OutputBuffers::builder(context)
        .slot::<i32>("echo", Len::Tokens)
        .slot::<i32>("theirs", Len::Tokens)
        .buckets([4, TOKENS])
        .build()?;
    Ok((inputs, Arc::new(outputs)))
}

/// The model: it copies both slots, and the first to the results.
fn capture(
    (inputs, slots): (&InputBuffers, [SlotId<i32>; 2]),
    (results, echo): (&Arc<OutputBuffers>, SlotId<i32>),
    model: &BorrowedStream,
    outputs: [&Buffer<i32>; 2],
) -> Result<CudaGraph, Box<dyn Error>> {
    let recording = Recording::begin(model)?;
    for (slot, output) in slots.into_iter().zip(outputs) {
        let slot = StaticView::new(inputs, slot, TOKENS, model).ok_or("no such bucket")?;
        model.cudarc().memcpy_dtod(&slot, &mut DeviceView::new(output, model)?)?;
    }
    let mut echo = OutputView::new(results, echo, TOKENS, model).ok_or("no such bucket")?;
    model.cudarc().memcpy_dtod(&DeviceView::new(outputs[0], model)?, &mut echo)?;
    Ok(recording.end()?.ok_or("an empty graph")?)
}

/// Pinned memory of wharf's goes to memory of cudarc's, and from there to the device memory of a
/// pool.
fn there_and_back(
    pools: &[Pool; 2],
    queue: &Arc<CudaStream>,
    stream: &BorrowedStream,
    mut pinned: Buffer<i32>,
) -> Result<(), Box<dyn Error>> {
    pinned.host_mut(LIMIT)?.fill(7);
    let view = pinned.into_host(LIMIT).map_err(|(_, error)| error)?;
    let mut theirs = queue.alloc_zeros::<i32>(TOKENS)?;
    queue.memcpy_htod(&HostSource::new(&view, stream)?, &mut theirs)?;
    let ours: Buffer<i32> = pools[0].alloc(TOKENS, stream)?;
    queue.memcpy_dtod(&theirs, &mut DeviceView::new(&ours, stream)?)?;
    let back = queue.clone_dtoh(&DeviceView::new(&ours, stream)?)?;
    queue.synchronize()?;
    assert_eq!(back, [7; TOKENS]);
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
                6 => drop(self.graph.take()),
                7 => drop(self.seen.take()),
                8 => drop(self.outputs.take()),
                _ => drop(self.pools.take()),
            }
        }
    }
}
