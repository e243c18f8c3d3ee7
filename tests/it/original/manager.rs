//! The manager by names, and its factory.

use std::sync::Arc;

use wharf::element::DType;
use wharf::forecast::Frequency;
use wharf::manager::BufferSpec;
use wharf::manager::{
    Input, InputFault, InputManager, ManagerError, StagedInput, create_input_buffers,
};
use wharf::memory::MemoryKind;
use wharf::staging::{BuildError, SlotError, StageError};
use wharf::tier::Tier;
use wharf::{Context, Driver, Stream};

use super::context_and_stream;
use crate::backend::{machine, on_each_driver};
use crate::deadline::{LONG, SHORT};
use crate::graph_rig::{Gate, until_dropped};
use crate::memory_kinds::{pattern, read};

on_each_driver!(
    input_buffer_manager_has_the_default_slots,
    register_slot_refuses_a_name_that_is_there,
    get_slot_finds_a_slot_by_its_name,
    stage_inputs_copies_the_first_tokens_and_passes_the_rest,
    stage_inputs_overwrites_nothing_in_flight,
    stage_inputs_refuses_what_does_not_fit,
    get_static_tensors_live_as_long_as_a_graph_that_uses_them,
    release_all_waits_for_the_device,
    create_input_buffer_manager_offers_four_choices,
    create_input_buffer_manager_with_tiers_moves_inputs,
    create_input_buffer_manager_with_a_forecast_makes_graphs_ahead,
);

fn spec(shape: &[usize], dtype: DType) -> BufferSpec {
    BufferSpec::new(shape, dtype, MemoryKind::Device).unwrap()
}

fn i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|word| i64::from_ne_bytes(word.try_into().unwrap())).collect()
}

/// What a static slot has after a step.
fn staged(context: &Context, address: u64, len: usize) -> Vec<i64> {
    i64s(&read(context, address, 8 * len))
}

fn input_buffer_manager_has_the_default_slots(driver: &Driver) {
    let (context, _) = context_and_stream(driver);
    let manager =
        InputManager::builder(&context).inputs(|inputs| inputs.ring_depth(1)).build().unwrap();
    let slots: Vec<_> = manager.static_tensors().collect();
    assert_eq!(slots.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["input_ids", "positions"]);
    for (name, view) in slots {
        assert_eq!((view.dtype, view.len), (DType::I64, 256 * 4096), "{name}");
    }
}

/// In the original the first buffer is leaked.
fn register_slot_refuses_a_name_that_is_there(driver: &Driver) {
    let (context, _) = context_and_stream(driver);
    for (name, is_static) in [("positions", true), ("input_ids", false), ("mine", true)] {
        let builder = InputManager::builder(&context).max_batch_size(2).max_seq_len(8);
        let builder = builder.register_slot("mine", spec(&[16], DType::F32), true);
        let error =
            builder.register_slot(name, spec(&[16], DType::F32), is_static).build().unwrap_err();
        assert_eq!(error, ManagerError::Build(BuildError::DuplicateSlot(name.into())));
    }
}

fn get_slot_finds_a_slot_by_its_name(driver: &Driver) {
    let (context, _) = context_and_stream(driver);
    let builder = InputManager::builder(&context).max_batch_size(2).max_seq_len(8);
    let manager = builder.register_slot("mask", spec(&[16, 3], DType::U8), true).build().unwrap();
    let slot = manager.slot("mask").unwrap();
    assert_eq!((&*slot.name, slot.dtype, slot.is_static), ("mask", DType::U8, true));
    assert_eq!(manager.spec("mask"), Some(&spec(&[16, 3], DType::U8)));
    assert_eq!(manager.slot("else").unwrap_err(), SlotError::Unknown("else".into()));
    // On the hot path a slot is a typed number.
    let typed = manager.inputs().slot_id::<u8>("mask").unwrap();
    assert_eq!(typed.index(), slot.index);
}

fn stage_inputs_copies_the_first_tokens_and_passes_the_rest(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let builder = InputManager::builder(&context).max_batch_size(2).max_seq_len(8);
    let builder = builder.register_slot("rows", spec(&[16, 2], DType::I64), true);
    let mut manager =
        builder.register_slot("other", spec(&[5], DType::F32), false).build().unwrap();
    let [ids, rows] = [vec![1, 2, 3, 4, 5], (0..20).collect::<Vec<i64>>()];
    let floats = [0.5_f32; 5];
    let unknown = Input::Device { address: 0x1000, dtype: DType::U8, len: 9 };
    let inputs = [
        ("input_ids", Input::from(&ids[..])),
        ("other", Input::from(&floats)),
        ("rows", Input::from(&rows[..])),
        ("unknown", unknown),
    ];
    let mut addresses = Vec::new();
    for _ in 0..3 {
        let step = manager.stage_inputs(&inputs, 3, &stream).unwrap();
        stream.synchronize().unwrap();
        let (view, wide) = (step.view("input_ids").unwrap(), step.view("rows").unwrap());
        assert_eq!((view.len, wide.len), (3, 6));
        assert_eq!(staged(&context, view.address, 3), [1, 2, 3]);
        assert_eq!(staged(&context, wide.address, 6), [0, 1, 2, 3, 4, 5]);
        let Some(StagedInput::Passed(Input::Host { bytes, .. })) = step.get("other") else {
            panic!()
        };
        assert_eq!(bytes.as_ptr(), floats.as_ptr().cast(), "untouched");
        assert!(matches!(
            step.get("unknown"),
            Some(StagedInput::Passed(Input::Device { address: 0x1000, len: 9, .. }))
        ));
        assert!(step.get("positions").is_none() && step.made_ahead().is_ok());
        addresses.push((view.address, wide.address));
    }
    assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    // What is not given stays as it was, whatever an earlier step left in the ring slot that is
    // taken.
    let gate = Gate::close(&stream);
    for ids in [[9_i64; 3], [1, 2, 3]] {
        manager.stage_inputs(&[("input_ids", Input::from(&ids))], 3, &stream).unwrap();
    }
    gate.open();
    stream.synchronize().unwrap();
    let step = manager.stage_inputs(&[("positions", Input::from(&[7_i64]))], 1, &stream).unwrap();
    assert_eq!(step.iter().len(), 1);
    drop(step);
    stream.synchronize().unwrap();
    assert_eq!(staged(&context, addresses[0].0, 3), [1, 2, 3]);
}

/// The original writes to a source that an earlier copy still reads, and to a destination that the
/// device does.
fn stage_inputs_overwrites_nothing_in_flight(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let builder = InputManager::builder(&context).max_batch_size(1).max_seq_len(8);
    let mut manager =
        builder.inputs(|inputs| inputs.ring_depth(2).deadline(SHORT)).build().unwrap();
    let seen = manager.allocate(&spec(&[8 * 3], DType::I64), &stream).unwrap();
    let wharf::manager::Allocation::Buffer(seen) = seen else { panic!("{seen:?}") };
    let seen = seen.cast::<i64>().unwrap();
    let gate = Gate::close(&stream);
    let mut source = [0_i64; 8];
    let (mut staged, mut step) = (0, 0);
    while staged < 2 {
        source.fill(10 + step);
        let inputs = [("input_ids", Input::from(&source))];
        let view = manager.stage_inputs(&inputs, 8, &stream).unwrap().view("input_ids").unwrap();
        // The engine reads the slot behind each step.
        copy(&stream, &seen, step, view.address);
        // The source may be written at once.
        source.fill(-1);
        (staged, step) = (staged + 1, step + 1);
    }
    let inputs = [("input_ids", Input::from(&source))];
    let error = manager.stage_inputs(&inputs, 8, &stream).unwrap_err();
    assert!(matches!(error, ManagerError::Stage(StageError::Stalled(_))), "{error}");
    gate.open();
    stream.synchronize().unwrap();
    let mut back = [0; 24];
    seen.copy_to_slice(&mut back, &stream).unwrap();
    assert_eq!(back[..16], [[10; 8], [11; 8]].concat());
}

/// Copies what a step staged to a part of a buffer, in the stream's order.
#[expect(unsafe_code, reason = "copies from a slot's address")]
fn copy(stream: &Stream, to: &wharf::pool::Buffer<i64>, step: i64, from: u64) {
    // SAFETY: the use is noted below, and the part lies in the buffer.
    let address = unsafe { to.as_device_ptr() }.unwrap() + 64 * step.cast_unsigned();
    // SAFETY: 64 bytes of the buffer, and of the slot, which lives longer than the stream's work.
    unsafe { stream.copy_dtod(address, from, 64) }.unwrap();
    to.record_use(stream).unwrap();
}

fn stage_inputs_refuses_what_does_not_fit(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let builder = InputManager::builder(&context).max_batch_size(2).max_seq_len(8);
    let mut manager = builder.register_slot("short", spec(&[4], DType::I32), true).build().unwrap();
    let mut fault = |name: &'static str, input, tokens| match manager
        .stage_inputs(&[(name, input)], tokens, &stream)
        .unwrap_err()
    {
        ManagerError::Input { name: of, fault } if *of == *name => fault,
        error => panic!("{error}"),
    };
    let ids = [1_i64; 4];
    assert_eq!(
        fault("input_ids", Input::from(&[1_i32; 4]), 4),
        InputFault::Type { wanted: DType::I64, given: DType::I32 }
    );
    assert_eq!(fault("input_ids", Input::from(&ids), 5), InputFault::Short { wanted: 5, given: 4 });
    assert_eq!(
        fault("short", Input::from(&[1_i32; 8]), 5),
        InputFault::Capacity { tokens: 4, given: 5 }
    );
    let device = Input::Device { address: 0x1000, dtype: DType::I64, len: 4 };
    assert_eq!(fault("input_ids", device, 4), InputFault::NotOnHost);
    let twice = [("input_ids", Input::from(&ids)), ("input_ids", Input::from(&ids))];
    let error = manager.stage_inputs(&twice, 4, &stream).unwrap_err();
    assert!(error.to_string().contains("given twice"), "{error}");
    let error = manager.stage_inputs(&[], 17, &stream).unwrap_err();
    assert!(matches!(error, ManagerError::Stage(StageError::TooLarge { .. })), "{error}");
    manager.stage_inputs(&[("input_ids", Input::from(&ids))], 4, &stream).unwrap();
}

/// In the original nothing keeps them alive.
fn get_static_tensors_live_as_long_as_a_graph_that_uses_them(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let mut manager = create_input_buffers(&context, 1, 8, false, false).unwrap();
    let (_, view) = manager.static_tensors().next().unwrap();
    let pool = super::device_pool(&context);
    let to = pool.alloc::<i64>(8, &stream).unwrap();
    let mut graph = wharf::graph::GraphDefinition::new(&context).unwrap();
    add_copy(&mut graph, &to, view.address);
    manager.inputs().static_buffers().keep_alive_in(&mut graph).unwrap();
    let (owner, dropped) = crate::graph_rig::Owner::new();
    graph.keep_alive(Arc::new(owner)).unwrap();
    let mut exec = graph.instantiate().unwrap();
    manager.stage_inputs(&[("input_ids", Input::from(&[9_i64; 8]))], 8, &stream).unwrap();
    manager.release_all().map_err(|(_, error)| error).unwrap();
    exec.launch(&stream).unwrap();
    to.record_use(&stream).unwrap();
    let mut back = [0; 8];
    to.copy_to_slice(&mut back, &stream).unwrap();
    assert_eq!(back, [9; 8]);
    if let Some(machine) = machine() {
        assert_eq!(machine.violations(), Vec::new());
    }
    drop(exec);
    until_dropped(driver, &dropped);
}

#[expect(unsafe_code, reason = "a node names raw addresses")]
fn add_copy(graph: &mut wharf::graph::GraphDefinition, to: &wharf::pool::Buffer<i64>, from: u64) {
    // SAFETY: the use is noted with the launch, and the buffer outlives the graph.
    let to = unsafe { to.as_device_ptr() }.unwrap();
    // SAFETY: 64 bytes each; the graph keeps the slot, and the test the buffer.
    unsafe { graph.memcpy(wharf::graph::Copy1d::dtod(to, from, 64), &[]) }.unwrap();
}

/// The original releases while copies and graphs use the slots.
fn release_all_waits_for_the_device(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let builder = InputManager::builder(&context).max_batch_size(1).max_seq_len(8);
    let mut manager = builder.inputs(|inputs| inputs.deadline(SHORT)).build().unwrap();
    let gate = Gate::close(&stream);
    manager.stage_inputs(&[("input_ids", Input::from(&[9_i64; 8]))], 8, &stream).unwrap();
    let (manager, error) = manager.release_all().unwrap_err();
    assert!(matches!(error, ManagerError::Stage(StageError::Stalled(_))), "{error}");
    gate.open();
    stream.synchronize().unwrap();
    manager.release_all().map_err(|(_, error)| error).unwrap();
}

fn create_input_buffer_manager_offers_four_choices(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    for (tiered, predictive) in [(false, false), (false, true), (true, false), (true, true)] {
        let made = create_input_buffers(&context, 4, 32, tiered, predictive).unwrap();
        let builder = InputManager::builder(&context).max_batch_size(4).max_seq_len(32);
        let built = builder.tiered(tiered).predictive(predictive).build().unwrap();
        for mut manager in [made, built] {
            assert_eq!(manager.tiers().is_some(), tiered);
            assert_eq!(manager.pool().is_some(), !tiered);
            assert_eq!(manager.warm().is_some(), predictive);
            assert_eq!(manager.warm_blocks().is_some(), predictive && !tiered);
            assert_eq!(manager.slot("positions").unwrap().dtype, DType::I64);
            assert_eq!(manager.inputs().max().tokens, 128);
            manager
                .stage_inputs(&[("positions", Input::from(&[3_i64; 128]))], 128, &stream)
                .unwrap();
            assert_eq!(manager.predict_next_sizes(1), if predictive { vec![128] } else { vec![] });
            manager.release_all().map_err(|(_, error)| error).unwrap();
        }
    }
    let error = create_input_buffers(&context, usize::MAX, 2, false, false).unwrap_err();
    assert_eq!(error, ManagerError::Build(BuildError::TooLarge));
}

fn create_input_buffer_manager_with_tiers_moves_inputs(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let tiers =
        wharf::tier::TieredPool::builder(&context).device(2 << 20).pinned(16 << 20).wait(LONG);
    let builder = InputManager::builder(&context).max_batch_size(1).max_seq_len(8).tiers(tiers);
    let mut manager = builder.build().unwrap();
    let adapter = BufferSpec::new(&[1 << 20], DType::U8, MemoryKind::Pinned).unwrap();
    let mut adapters = Vec::new();
    for seed in 0..4_u8 {
        let memory = manager.allocate(&adapter, &stream).unwrap();
        let wharf::manager::Allocation::Object(mut object) = memory else { panic!("{memory:?}") };
        object
            .pin_mut(Tier::Pinned, &stream)
            .unwrap()
            .copy_from_slice(&pattern(seed, 1 << 20))
            .unwrap();
        adapters.push(object);
    }
    for (seed, adapter) in (0..).zip(&adapters) {
        let inputs = [("input_ids", Input::from(&[1_i64; 8])), ("adapter", Input::Object(adapter))];
        let step = manager.stage_inputs(&inputs, 8, &stream).unwrap();
        let Some(StagedInput::Held(held)) = step.get("adapter") else { panic!("{step:?}") };
        assert_eq!((held.tier(), adapter.tier()), (Tier::Device, Tier::Device));
        let mut back = vec![0; 1 << 20];
        held.copy_to_slice(&mut back).unwrap();
        assert!(back == pattern(seed, 1 << 20), "adapter {seed}");
    }
    let stats = manager.tiers().unwrap().stats();
    assert!(
        stats.tier(Tier::Device).moved == 4 << 20 && stats.tier(Tier::Device).used <= 2 << 20,
        "{stats:?}"
    );
}

fn create_input_buffer_manager_with_a_forecast_makes_graphs_ahead(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let builder = InputManager::builder(&context).max_batch_size(4).max_seq_len(64);
    let mut manager = builder.forecast(wharf::forecast::ContextModel::new(), 2).build().unwrap();
    let ids = [1_i64; 64];
    for tokens in [8, 16, 64].repeat(80) {
        let step =
            manager.stage_inputs(&[("input_ids", Input::from(&ids))], tokens, &stream).unwrap();
        assert!(step.made_ahead().is_ok());
        drop(step);
        stream.synchronize().unwrap();
        manager.prewarm().unwrap();
        // Room for two sizes in three ring slots.
        assert!(manager.inputs().graphs().count <= 6, "{:?}", manager.inputs().graphs());
    }
    let (warm, made) = (manager.warm().unwrap().stats(), manager.inputs().graphs_made());
    assert!(warm.used > 150 && warm.wasted < 20, "{warm:?}");
    assert!(made.ahead > made.by_steps && made.by_steps < 60, "{made:?}");
    // The original's rule, kept for comparison, starts with the largest batch.
    let builder = InputManager::builder(&context).max_batch_size(4).max_seq_len(64);
    let manager = builder.forecast(Frequency::new(256), 2).build().unwrap();
    assert_eq!(manager.predict_next_sizes(3), [256]);
}
