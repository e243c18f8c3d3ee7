//! The original's names, one after the other.

use std::error::Error;
use std::io::Write;

use wharf::element::DType;
use wharf::forecast::{Forecast, Frequency, WarmSet};
use wharf::graph::GraphDefinition;
use wharf::manager::{BufferPool, BufferSpec, SimplePool};
use wharf::manager::{Input, InputManager, StagedInput, create_input_buffers};
use wharf::memory::{DeviceMemoryResource, MemoryKind};
use wharf::pool::{BlockPrewarm, Pool};
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Driver, Stream};

/// Prints what each of them does.
pub(crate) fn run(output: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let machine = softcuda::Simulator::new(softcuda::Config::default());
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api()?)?;
    let context = Context::retain(&driver.device(0)?)?;
    let stream = Stream::new(&context)?;
    entries(output, &context, &stream)?;
    pools(output, &context, &stream)?;
    tiers(output, &context, &stream)?;
    forecasts(output, &context, &stream)?;
    manager(output, &machine, &context, &stream)?;
    factory(output, &context, &stream)
}

/// `BufferSpec`, `BufferState`, `BufferEntry`.
fn entries(
    output: &mut impl Write,
    context: &Context,
    stream: &Stream,
) -> Result<(), Box<dyn Error>> {
    let spec = BufferSpec::new(&[256, 4096], DType::F8E4M3, MemoryKind::Device)?;
    writeln!(output, "BufferSpec: {spec} is {} bytes", spec.size_bytes()?)?;
    let huge = BufferSpec::new(&[usize::MAX, 2], DType::I64, MemoryKind::Device)?;
    if let Err(error) = huge.size_bytes() {
        writeln!(output, "  one that has no size: {error}")?;
    }
    let pool = Pool::builder().build(DeviceMemoryResource::new(context, SPAN)?)?;
    let buffer = pool.allocate(&spec, stream)?;
    write!(output, "BufferState: {:?}", buffer.info().state)?;
    buffer.fill(0, stream)?;
    write!(output, ", {:?}", buffer.info().state)?;
    writeln!(
        output,
        "\nBufferEntry: {} uses, generation {}",
        buffer.info().use_count,
        buffer.info().generation
    )?;
    let Ok(raw) = buffer.into_raw() else { return Err("there are other handles".into()) };
    drop(pool.take_raw(raw)?);
    writeln!(output, "  released it is {:?}", pool.inspect(raw)?.state)?;
    if let Err(error) = pool.take_raw(raw) {
        writeln!(output, "  released twice: {error}")?;
    }
    Ok(())
}

/// `BufferPool`, `SimpleBufferPool`.
fn pools(
    output: &mut impl Write,
    context: &Context,
    stream: &Stream,
) -> Result<(), Box<dyn Error>> {
    let simple = SimplePool::new(DeviceMemoryResource::new(context, SPAN)?, 2)?;
    let pool: &dyn BufferPool<Buffer = _> = &simple;
    let spec = |len| BufferSpec::new(&[len], DType::F32, MemoryKind::Device);
    let held = [pool.allocate(&spec(1000)?, stream)?, pool.allocate(&spec(1000)?, stream)?];
    writeln!(output, "BufferPool: allocate, release, clear, for every pool")?;
    if let Err(error) = pool.allocate(&spec(1000)?, stream) {
        writeln!(output, "SimpleBufferPool: at most two buffers: {error}")?;
    }
    for buffer in held {
        pool.release(buffer)?;
    }
    let smaller = pool.allocate(&spec(990)?, stream)?;
    writeln!(
        output,
        "  another shape has the block again: generation {}",
        smaller.info().generation
    )?;
    pool.release(smaller)?;
    pool.clear();
    Ok(())
}

/// `HierarchicalBufferPool`.
fn tiers(
    output: &mut impl Write,
    context: &Context,
    stream: &Stream,
) -> Result<(), Box<dyn Error>> {
    let pool = TieredPool::builder(context).device(4 << 20).pinned(64 << 20).build()?;
    let mut layers = Vec::new();
    for number in 0..4_u8 {
        let mut layer = pool.alloc(2 << 20, Tier::Pinned)?;
        layer.pin_mut(Tier::Pinned, stream)?.copy_from_slice(&vec![number; 2 << 20])?;
        layers.push(layer);
    }
    for layer in &layers {
        drop(layer.pin(Tier::Device, stream)?);
    }
    let on_device = layers.iter().filter(|layer| layer.tier() == Tier::Device).count();
    let moved = pool.stats().tier(Tier::Device).moved >> 20;
    writeln!(
        output,
        "HierarchicalBufferPool: four layers used, {on_device} on the device now, {moved} MiB \
         moved up"
    )?;
    Ok(())
}

/// `PredictiveBufferManager`: `record_usage`, `predict_next_sizes`, `prewarm`.
fn forecasts(
    output: &mut impl Write,
    context: &Context,
    stream: &Stream,
) -> Result<(), Box<dyn Error>> {
    let mut sizes = Frequency::new(256);
    write!(output, "PredictiveBufferManager: at first {:?}", sizes.predict_next_sizes(3))?;
    [8, 16, 8].into_iter().for_each(|size| sizes.record_usage(size));
    writeln!(output, ", then {:?}", sizes.predict_next_sizes(3))?;
    let pool = Pool::builder().build(DeviceMemoryResource::new(context, SPAN)?)?;
    let model = wharf::forecast::ContextModel::new();
    let mut prewarm = BlockPrewarm::new(&pool, WarmSet::new(model, 4).ahead(2));
    for size in [1 << 20, 3 << 20].repeat(20) {
        drop(pool.alloc::<u8>(size, stream)?);
        prewarm.record_usage(size, stream)?;
    }
    let stats = prewarm.warm().stats();
    writeln!(output, "  prewarm: {} of {} sizes found no block ready", stats.missed, stats.uses)?;
    prewarm.clear(stream)?;
    Ok(())
}

/// `InputBufferManager`, `register_slot`, `InputSlot`, `stage_inputs`,
/// `get_static_tensors`, `release_all`.
fn manager(
    output: &mut impl Write,
    machine: &softcuda::Simulator,
    context: &Context,
    stream: &Stream,
) -> Result<(), Box<dyn Error>> {
    let mask = BufferSpec::new(&[512, 4], DType::U8, MemoryKind::Device)?;
    let builder = InputManager::builder(context).max_batch_size(4).max_seq_len(128);
    let mut manager = builder.register_slot("mask", mask, true).build()?;
    let slots: Vec<_> =
        manager.static_tensors().map(|(name, view)| format!("{name} {}", view.len)).collect();
    writeln!(output, "InputBufferManager: {}", slots.join(", "))?;
    let slot = manager.slot("mask")?;
    writeln!(output, "register_slot, get_slot, InputSlot: {} of {}", slot.name, slot.dtype)?;
    let twice = InputManager::builder(context).register_slot("positions", mask, true).build();
    if let Err(error) = twice {
        writeln!(output, "  registered twice: {error}")?;
    }
    // A graph that uses the static slots keeps them alive.
    let mut graph = GraphDefinition::new(context)?;
    manager.inputs().static_buffers().keep_alive_in(&mut graph)?;
    writeln!(
        output,
        "get_static_tensors: {} slots at addresses that never change",
        manager.static_tensors().count()
    )?;
    let (ids, elsewhere) = ([3_i64, 1, 4, 1, 5], [0.5_f32; 2]);
    let inputs = [("input_ids", Input::from(&ids)), ("temperature", Input::from(&elsewhere))];
    let before = machine.calls("cuGraphLaunch");
    let step = manager.stage_inputs(&inputs, 3, stream)?;
    for (name, input) in step.iter() {
        match input {
            StagedInput::Static(view) => {
                writeln!(output, "stage_inputs: {name}, the first {} in its slot", view.len)?;
            }
            _ => writeln!(output, "stage_inputs: {name} passes through")?,
        }
    }
    drop(step);
    writeln!(output, "  {} graph launch", machine.calls("cuGraphLaunch") - before)?;
    if let Err(error) = manager.stage_inputs(&[("input_ids", Input::from(&elsewhere))], 2, stream) {
        writeln!(output, "  of the wrong type: {error}")?;
    }
    manager.release_all().map_err(|(_, error)| error)?;
    writeln!(output, "release_all: waited for the device")?;
    Ok(())
}

/// `create_input_buffer_manager`.
fn factory(
    output: &mut impl Write,
    context: &Context,
    stream: &Stream,
) -> Result<(), Box<dyn Error>> {
    let mut manager = create_input_buffers(context, 8, 64, true, true)?;
    let adapter = BufferSpec::new(&[1 << 20], DType::U8, MemoryKind::Pinned)?;
    let adapter = manager.allocate(&adapter, stream)?;
    let ids = [1_i64; 64];
    for tokens in [8, 16, 64].repeat(20) {
        let inputs = [("input_ids", Input::from(&ids)), ("adapter", Input::from(&adapter))];
        let step = manager.stage_inputs(&inputs, tokens, stream)?;
        // The engine launches its graph here.
        step.made_ahead().map_err(Clone::clone)?;
    }
    let next = manager.predict_next_sizes(1);
    let moved = manager.tiers().map_or(0, |tiers| tiers.stats().tier(Tier::Device).moved >> 20);
    writeln!(
        output,
        "create_input_buffer_manager(8, 64, tiered, predictive): next {next:?}, {moved} MiB \
         moved up"
    )?;
    Ok(())
}

/// Addresses of a pool, in bytes.
const SPAN: usize = 64 << 20;
