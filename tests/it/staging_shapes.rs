#![expect(unsafe_code, reason = "writes device memory by raw address, as kernels do")]
//! Slots that the device writes, alone or behind the copy, and views of a set for a second model.

use std::sync::Arc;

use softcuda::Schedule;
use wharf::graph::{GraphDefinition, GraphExec};
use wharf::staging::{
    BuildError, Embedded, Forgotten, InputBuffers, InputBuffersBuilder, Layout, Len, Pad,
    ShapeFault, SlotError, SlotFault, StageError, Step, Submission, ViewFault,
};
use wharf::{Context, CudaError, Driver, Error, Stream};

use crate::backend::{Config, Simulator, on_machine, on_softcuda};
use crate::graph_rig::Inventory;
use crate::staging_faults::RESTORING;
use crate::staging_rig::{Checker, Noise, context};

/// Both layouts, in both ways to send a step.
const WAYS: [(Layout, Submission); 4] = [
    (Layout::PerSlot, Submission::Graph),
    (Layout::PerSlot, Submission::Calls),
    (Layout::Packed, Submission::Graph),
    (Layout::Packed, Submission::Calls),
];

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The pinned memory of a machine, as its driver counts it.
fn pinned(machine: &Simulator) -> usize {
    let registered = machine.leaks().into_iter().filter(|it| it.starts_with("Registered"));
    let sizes = registered.map(|it| {
        let size = it.rsplit(" of ").next().and_then(|it| it.strip_suffix(" bytes"));
        size.unwrap().parse::<usize>().unwrap()
    });
    sizes.sum()
}

/// M8: 32 MiB of embeddings that a kernel writes. With a ring of four they were 128 MiB pinned.
#[test]
fn embeddings_that_the_device_writes_take_no_pinned_memory() {
    for way in WAYS {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let plain = || {
                let set = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens);
                set.buckets([8, 2048]).ring_depth(4).layout(way.0).submission(way.1)
            };
            let before = pinned(&machine);
            let without = plain().build().unwrap();
            let (own, without) = (pinned(&machine) - before, without.memory());
            let before = pinned(&machine);
            let embeddings = Len::Tokens.times(8192);
            let inputs = plain().device_only::<u16>("embeddings", embeddings).build().unwrap();
            assert_eq!(pinned(&machine) - before, own);
            assert_eq!(inputs.memory().pinned, without.pinned);
            assert!(inputs.memory().device >= (32 << 20) + without.device - (2 << 20));

            // The kernel's bytes stay, whatever steps do.
            let (ids, slot) = (inputs.slot_id("ids").unwrap(), inputs.slot("embeddings").unwrap());
            let address = slot.address.unwrap();
            let embeddings = inputs.slot_id::<u16>("embeddings").unwrap();
            let (stream, checker) = (Stream::new(&context).unwrap(), Checker::default());
            // SAFETY: the set's memory, which nothing else uses.
            unsafe { stream.fill_d8(address, 5, 32 << 20) }.unwrap();
            let copied = machine.bytes().htod;
            for tokens in [8, 3, 8, 8] {
                let mut step = inputs.begin(tokens, 1).unwrap();
                step.write::<u32>(ids).fill(1);
                let staged = step.submit(&stream).unwrap();
                assert_eq!(staged.device_ptr(embeddings), address);
                let statics = inputs.static_buffers();
                assert_eq!(statics.device_ptr(embeddings, tokens), Some(address));
                assert_eq!(statics.len(embeddings, tokens), Some(8 * 8192));
            }
            checker.compare(&stream, vec![(address, vec![5; 32 << 20])], 0);
            stream.synchronize().unwrap();
            assert!(machine.bytes().htod - copied <= 4 * 256);
            assert_eq!(checker.wrong(), Vec::<String>::new());
        });
    }
}

/// What a step of each size has of a slot that the host and the device write.
fn device_overwrites(driver: &Driver) {
    let context = context(driver);
    for way in WAYS {
        let inputs = InputBuffers::builder(&context)
            .slot::<u32>("other", Len::Requests)
            .slot_overwritten::<u32>("ids", Len::Tokens, 77)
            .buckets([4, 8])
            .max_tokens(20)
            .ring_depth(2)
            .layout(way.0)
            .submission(way.1)
            .build()
            .unwrap();
        let other = inputs.slot_id::<u32>("other").unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        // What the step before has sampled, on the device.
        let sampled = InputBuffers::builder(&context).device_only::<u32>("ids", Len::Fixed(1));
        let sampled = sampled.slot::<u32>("one", Len::Tokens).buckets([1]).build().unwrap();
        let sampled_at = sampled.slot("ids").unwrap().address.unwrap();
        let [copies, model] = [(); 2].map(|()| Stream::new(&context).unwrap());
        let (checker, mut noise) = (Checker::default(), Noise(4));
        for number in 0..16_u32 {
            let tokens = [3, 8, 1, 20][number as usize % 4];
            let mut step = inputs.begin(tokens, 1).unwrap();
            step.write(other).fill(1);
            let mut wanted = vec![77; step.padded().tokens];
            if number % 5 != 4 {
                let known = noise.below(tokens);
                let elements = step.write_placeholders(ids).unwrap();
                assert_eq!(elements, vec![77; tokens]);
                elements[..known].fill(number);
                wanted[..known].fill(number);
            }
            let staged = step.submit(&copies).unwrap();
            // On a stream of its own every second time.
            let stream = if number % 2 == 0 { &model } else { &copies };
            let read = staged.reader(stream).unwrap();
            let (last, to) = (tokens - 1, staged.overwrite_ptr(ids).unwrap());
            assert_eq!(to, staged.device_ptr(ids));
            // SAFETY: one element of the slot, ordered by the stream.
            unsafe { stream.fill_d32(sampled_at, 1000 + number, 1) }.unwrap();
            // SAFETY: as above, and by the reader.
            unsafe { stream.copy_dtod(to + 4 * last as u64, sampled_at, 4) }.unwrap();
            wanted[last] = 1000 + number;
            checker.compare(stream, vec![(to, bytes(&wanted))], number as usize);
            read.end().unwrap();
            stream.synchronize().unwrap();
        }
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn placeholders_are_overwritten_behind_the_copy() {
    on_softcuda(device_overwrites);
    for seed in 2..8 {
        let config = Config { schedule: Schedule::Random(seed), ..Config::default() };
        on_machine(&Arc::new(Simulator::new(config)), device_overwrites);
    }
}

/// A target model's set.
fn target(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context)
        .count("logits", Len::Requests.times(2))
        .slot_padded::<u32>("ids", Len::Tokens, Pad::Value(9))
        .slot::<u32>("lens", Len::Requests)
        .when_forgotten(Forgotten::Pad)
        .slot::<u32>("indices", Len::count("logits"))
        .when_forgotten(Forgotten::Pad)
        .persistent::<u32>("table", 4, 6, 8)
        .device_only::<u32>("hidden", Len::Tokens)
        .buckets([4, 8, 16])
}

/// An engine's graph with a set's copies.
fn engine_of(context: &Context, embedded: &Embedded) -> GraphExec {
    let mut engine = GraphDefinition::new(context).unwrap();
    embedded.as_child_of(&mut engine, &[]).unwrap();
    engine.instantiate().unwrap()
}

/// Fills a step of either model with `number`, as well as one element of the table.
fn write_step(set: &InputBuffers, step: &mut Step<'_>, number: u32, at: usize) {
    step.set_count(set.count_id("logits").unwrap(), 1).unwrap();
    for name in ["ids", "indices", "own", "lens"] {
        if let Ok(slot) = set.slot_id(name) {
            step.write(slot).fill(number);
        }
    }
    step.patch(set.slot_id("table").unwrap(), at / 6, at % 6, &[number]).unwrap();
}

/// Two models in turn, on two streams: each has what its last step staged, padded by its own
/// ladder; what a view does not have stays.
fn two_models(driver: &Driver) {
    let context = context(driver);
    let before = Inventory::now();
    for submission in [Submission::Graph, Submission::Calls] {
        let target = target(&context).submission(submission).build().unwrap();
        let draft = target.view(&["ids", "table", "indices", "hidden"]).unwrap();
        let draft = draft.slot::<u32>("own", Len::Requests).buckets([3, 6, 12]).ring_depth(2);
        let draft = draft.build().unwrap();
        for name in ["ids", "table", "indices", "hidden"] {
            assert_eq!(draft.slot(name).unwrap().address, target.slot(name).unwrap().address);
        }
        let embedded = draft.embed(6).unwrap();
        let mut engine = engine_of(&context, &embedded);
        let streams = [(); 2].map(|()| Stream::new(&context).unwrap());
        let (checker, mut noise) = (Checker::default(), Noise(8));
        let (mut lens, mut table) = (vec![0; 16], vec![0; 24]);
        for number in 0..24_u32 {
            let is_draft = noise.below(2) == 0;
            let (stream, tokens) = (&streams[noise.below(2)], 1 + noise.below(6));
            let set = if is_draft { &draft } else { &target };
            let is_engine = is_draft && noise.below(3) == 0;
            let begun = if is_engine { embedded.begin(tokens, 1) } else { set.begin(tokens, 1) };
            let mut step = begun.unwrap();
            let (at, padded) = (noise.below(24), step.padded());
            write_step(set, &mut step, number, at);
            table[at] = number;
            if !is_draft {
                lens[..padded.requests].fill(0);
                lens[0] = number;
            }
            let launch = || Ok::<_, StageError>(engine.launch(stream)?);
            let staged =
                if is_engine { step.submit_with(stream, launch) } else { step.submit(stream) };
            let staged = staged.unwrap();
            let mut ids = vec![9; padded.tokens];
            ids[..tokens].fill(number);
            let mut indices = vec![0; 2 * padded.requests];
            indices[0] = number;
            let at = |name: &str| target.slot(name).unwrap().address.unwrap();
            let mut wanted = vec![
                (staged.device_ptr(set.slot_id::<u32>("ids").unwrap()), bytes(&ids)),
                (at("indices"), bytes(&indices)),
                (at("table"), bytes(&table)),
                (at("lens"), bytes(&lens)),
            ];
            assert_eq!(wanted[0].0, at("ids"));
            if is_draft {
                let own = staged.device_ptr(set.slot_id::<u32>("own").unwrap());
                wanted.push((own, bytes(&[number])));
            }
            checker.compare(stream, wanted, number as usize);
            assert_eq!(staged.padded().tokens % 3 == 0, is_draft);
        }
        streams.iter().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{submission:?}");
        // The view keeps the memory; its own is no more than a granule for the slot that it added.
        assert!(draft.memory().device <= 2 << 20);
        drop((target, embedded, engine));
        let address = draft.slot("ids").unwrap().address.unwrap();
        // SAFETY: the memory that the view keeps. It is given back behind the fill.
        unsafe { streams[0].fill_d8(address, 0, 4) }.unwrap();
    }
    before.restored(driver);
}

#[test]
fn two_models_share_the_inputs_of_one_set() {
    on_softcuda(two_models);
    for seed in 2..8 {
        let config = Config { schedule: Schedule::Random(seed), ..Config::default() };
        on_machine(&Arc::new(Simulator::new(config)), two_models);
    }
}

/// A step of the view comes behind the readers of the set's last step, and supersedes it.
#[test]
fn a_step_of_a_view_is_a_later_step() {
    on_softcuda(|driver| {
        let context = context(driver);
        let target = target(&context).build().unwrap();
        let draft = target.view(&["ids"]).unwrap().buckets([3]).build().unwrap();
        let [first, second, model] = [(); 3].map(|()| Stream::new(&context).unwrap());
        fn begin(set: &InputBuffers) -> Step<'_> {
            let mut step = set.begin(3, 1).unwrap();
            step.write(set.slot_id::<u32>("ids").unwrap()).fill(1);
            step
        }
        let staged = begin(&target).submit(&first).unwrap();
        let read = staged.reader(&model).unwrap();
        let open = begin(&draft).submit(&second).map(drop).unwrap_err();
        assert!(matches!(open, StageError::ReaderOpen { .. }), "{open}");
        read.end().unwrap();
        let later = begin(&draft).submit(&second).unwrap();
        assert_eq!(staged.wait_on(&model), Err(StageError::Superseded));
        later.wait_on(&model).unwrap();
        [first, second, model].iter().for_each(|stream| stream.synchronize().unwrap());
    });
}

#[test]
fn a_view_that_cannot_be_built_leaves_nothing() {
    const CODE: CudaError = CudaError::OPERATING_SYSTEM;
    let build = |set: &InputBuffers| {
        let view = set.view(&["ids", "table"]).unwrap().slot::<u32>("own", Len::Tokens);
        view.buckets([3, 6]).build()
    };
    let machine = Arc::new(Simulator::new(Config::default()));
    let mut calls = Vec::new();
    on_machine(&machine, |driver| {
        let set = target(&context(driver)).build().unwrap();
        let before = machine.all_calls();
        drop(build(&set).unwrap());
        for (name, count) in machine.all_calls() {
            let known = before.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
            calls.extend((1..=count - known).map(|nth| (name, nth)));
        }
    });
    assert!(calls.len() > 5, "{calls:?}");
    for (call, nth) in calls {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let set = target(&context(driver)).build().unwrap();
            let before = Inventory::now();
            machine.fail(call, nth, CODE);
            match build(&set) {
                Err(BuildError::Driver(error)) => {
                    assert_eq!(error, Error::Driver { call, code: CODE });
                }
                Ok(_) => assert!(RESTORING.contains(&call), "{call} {nth}"),
                Err(error) => panic!("{call} {nth}: {error}"),
            }
            build(&set).unwrap();
            if !RESTORING.contains(&call) {
                before.restored(driver);
            }
        });
    }
}

#[test]
fn misuse_of_shapes_is_refused() {
    on_softcuda(|driver| {
        let context = context(driver);
        let set = target(&context).build().unwrap();
        let (ids, hidden) =
            (set.slot_id::<u32>("ids").unwrap(), set.slot_id::<u32>("hidden").unwrap());
        let stream = Stream::new(&context).unwrap();
        let fault = |error| match error {
            StageError::Slot { fault: SlotFault::Shape(fault), .. } => fault,
            error => panic!("{error}"),
        };
        let mut step = set.begin(3, 1).unwrap();
        let refused = fault(step.write_from(hidden, &[1, 2, 3]).unwrap_err());
        assert_eq!(refused, ShapeFault::IsDeviceOnly);
        assert_eq!(fault(step.write_placeholders(ids).unwrap_err()), ShapeFault::NotOverwritten);
        step.write(ids).fill(1);
        let staged = step.submit(&stream).unwrap();
        assert_eq!(fault(staged.overwrite_ptr(ids).unwrap_err()), ShapeFault::NotOverwritten);
        let mut step = set.begin(3, 1).unwrap();
        step.write(ids).fill(1);
        assert!(step.write(hidden).is_empty());
        assert_eq!(fault(step.submit(&stream).map(drop).unwrap_err()), ShapeFault::IsDeviceOnly);

        let unknown = set.view(&["ids", "no"]).map(drop).unwrap_err();
        assert_eq!(unknown, SlotError::Unknown("no".into()));
        let view = || set.view(&["ids"]).unwrap();
        let refused = |builder: InputBuffersBuilder| match builder.build() {
            Err(BuildError::View { fault, .. }) => fault,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(view().buckets([17])), ViewFault::TooLong { wanted: 17, max: 16 });
        assert_eq!(refused(view().buckets([4]).layout(Layout::Packed)), ViewFault::NeedsPerSlot);
        let table = view().buckets([4]).persistent::<u32>("t", 1, 1, 1);
        assert_eq!(refused(table), ViewFault::Table);
        let zero_copy = view().buckets([4]).slot_zero_copy::<u32>("z", Len::Tokens, Pad::Zero);
        assert_eq!(refused(zero_copy), ViewFault::ZeroCopy);
        let packed = target(&context).layout(Layout::Packed).build().unwrap();
        assert_eq!(refused(packed.view(&["ids"]).unwrap().buckets([4])), ViewFault::NeedsPerSlot);
        let only = InputBuffers::builder(&context).device_only::<u32>("a", Len::Tokens);
        assert_eq!(only.buckets([4]).build().unwrap_err(), BuildError::NoSlots);
        stream.synchronize().unwrap();
    });
}
