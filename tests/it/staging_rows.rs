//! Slots of several rows: every byte of every row, with its padding.

use std::sync::Arc;

use softcuda::Schedule;
use wharf::graph::GraphDefinition;
use wharf::staging::{
    Forgotten, InputBuffers, InputBuffersBuilder, Layout, Len, Pad, ShapeFault, SlotFault, SlotId,
    StageError, Staged, Submission,
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
const MAX: usize = 13;

fn builder(context: &Context, way: (Layout, Submission)) -> InputBuffersBuilder {
    InputBuffers::builder(context)
        .slot::<u32>("ids", Len::Tokens)
        .slot_rows_padded::<u64>("mrope", 3, Len::Tokens, Pad::RepeatLast)
        .slot_rows_padded::<u16>("marks", 2, Len::Requests.plus(1), Pad::Value(9))
        .when_forgotten(Forgotten::Pad)
        .slot_rows::<u8>("bytes", 4, Len::Tokens)
        .buckets([2, 5, 8])
        .max_tokens(MAX)
        .layout(way.0)
        .submission(way.1)
}

struct Ids {
    ids: SlotId<u32>,
    mrope: SlotId<u64>,
    marks: SlotId<u16>,
    bytes: SlotId<u8>,
}

impl Ids {
    fn of(inputs: &InputBuffers) -> Self {
        Self {
            ids: inputs.slot_id("ids").unwrap(),
            mrope: inputs.slot_id("mrope").unwrap(),
            marks: inputs.slot_id("marks").unwrap(),
            bytes: inputs.slot_id("bytes").unwrap(),
        }
    }

    /// Fills a step. Returns the rows that the device must have, without padding.
    fn fill(&self, step: &mut wharf::staging::Step<'_>, noise: &mut Noise) -> Rows {
        let Self { ids, mrope, marks, bytes } = *self;
        let (tokens, mut rows) = (step.counts().tokens, Rows::default());
        step.write(ids).fill(1);
        for (to, row) in step.write_rows::<_, 3>(mrope).unwrap().into_iter().zip(&mut rows.mrope) {
            to.fill_with(|| noise.next());
            row.extend_from_slice(to);
        }
        if noise.below(3) > 0 {
            for (to, row) in
                step.write_rows::<_, 2>(marks).unwrap().into_iter().zip(&mut rows.marks)
            {
                to.fill_with(|| (noise.next() >> 48) as u16);
                row.extend_from_slice(to);
            }
        }
        let from: Vec<u8> = (0..4 * tokens).map(|_| (noise.next() >> 56) as u8).collect();
        step.write_rows_from(bytes, &from).unwrap();
        for (row, from) in rows.bytes.iter_mut().zip(from.chunks(tokens)) {
            row.extend_from_slice(from);
        }
        rows
    }

    fn expected(&self, staged: &Staged<'_>, rows: Rows) -> Vec<(u64, Vec<u8>)> {
        let padded = staged.padded();
        let mut all = Vec::new();
        for (at, mut row) in rows.mrope.into_iter().enumerate() {
            row.resize(padded.tokens, *row.last().unwrap());
            let stride = 8 * staged.row_stride(self.mrope).unwrap();
            let bytes = row.iter().flat_map(|it| it.to_ne_bytes()).collect();
            all.push((staged.device_ptr(self.mrope) + (at * stride) as u64, bytes));
        }
        for (at, mut row) in rows.marks.into_iter().enumerate() {
            row.resize(padded.requests + 1, 9);
            let stride = 2 * staged.row_stride(self.marks).unwrap();
            let bytes = row.iter().flat_map(|it| it.to_ne_bytes()).collect();
            all.push((staged.device_ptr(self.marks) + (at * stride) as u64, bytes));
        }
        for (at, mut row) in rows.bytes.into_iter().enumerate() {
            row.resize(padded.tokens, 0);
            let stride = staged.row_stride(self.bytes).unwrap();
            all.push((staged.device_ptr(self.bytes) + (at * stride) as u64, row));
        }
        all
    }
}

#[derive(Default)]
struct Rows {
    mrope: [Vec<u64>; 3],
    marks: [Vec<u16>; 2],
    bytes: [Vec<u8>; 4],
}

/// Sizes in buckets and above them, on two streams.
fn steps_have_rows(driver: &Driver) {
    let context = context(driver);
    for way in WAYS {
        let inputs = builder(&context, way).ring_depth(2).build().unwrap();
        let (ids, checker, mut noise) = (Ids::of(&inputs), Checker::default(), Noise(6));
        let streams = [(); 2].map(|()| Stream::new(&context).unwrap());
        for number in 0..16 {
            let (tokens, stream) = (1 + noise.below(MAX), &streams[noise.below(2)]);
            let mut step = inputs.begin(tokens, 1).unwrap();
            let rows = ids.fill(&mut step, &mut noise);
            let staged = step.submit(stream).unwrap();
            let statics = inputs.static_buffers();
            if staged.bucket().is_some() {
                assert_eq!(statics.row_stride(ids.mrope, tokens), staged.row_stride(ids.mrope));
                assert_eq!(statics.len(ids.mrope, tokens), Some(3 * staged.padded().tokens));
            }
            let per_slot = way.0 == Layout::PerSlot;
            let stride = if per_slot { MAX } else { staged.padded().tokens };
            assert_eq!(staged.row_stride(ids.mrope), Some(stride));
            assert_eq!(staged.row_stride(ids.ids), None);
            checker.compare(stream, ids.expected(&staged, rows), number);
        }
        streams.iter().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{way:?}");
    }
}

#[test]
fn rows_arrive_with_their_padding() {
    on_softcuda(steps_have_rows);
    for seed in 2..8 {
        let config = Config { schedule: Schedule::Random(seed), ..Config::default() };
        on_machine(&Arc::new(Simulator::new(config)), steps_have_rows);
    }
}

/// In the engine's own graph, and in a view that has the rows at their places.
#[test]
fn rows_in_embedded_graphs_and_views() {
    on_softcuda(|driver| {
        let context = context(driver);
        let before = Inventory::now();
        let set = builder(&context, WAYS[0]).build().unwrap();
        let view = set.view(&["bytes", "marks", "mrope", "ids"]).unwrap().buckets([3, 6]);
        let view = view.build().unwrap();
        let (stream, checker, mut noise) =
            (Stream::new(&context).unwrap(), Checker::default(), Noise(1));
        for (number, inputs) in [&set, &view, &set, &view].into_iter().enumerate() {
            let (ids, embedded) = (Ids::of(inputs), inputs.embed(3).unwrap());
            let mut engine = GraphDefinition::new(&context).unwrap();
            embedded.as_child_of(&mut engine, &[]).unwrap();
            let mut engine = engine.instantiate().unwrap();
            for mut step in [embedded.begin(3, 1).unwrap(), inputs.begin(2, 1).unwrap()] {
                let (rows, is_engine) =
                    (ids.fill(&mut step, &mut noise), step.counts().tokens == 3);
                let staged = if is_engine {
                    step.submit_with(&stream, || Ok::<_, StageError>(engine.launch(&stream)?))
                } else {
                    step.submit(&stream)
                };
                let staged = staged.unwrap();
                assert_eq!(staged.row_stride(ids.mrope), Some(MAX));
                checker.compare(&stream, ids.expected(&staged, rows), number);
            }
            stream.synchronize().unwrap();
        }
        assert_eq!(checker.wrong(), Vec::<String>::new());
        drop((set, view, stream));
        before.restored(driver);
    });
}

/// As by code that has the number of rows from a model's description.
#[test]
fn a_slot_of_one_row_is_written_as_rows() {
    on_softcuda(|driver| {
        let context = context(driver);
        for way in WAYS {
            let set = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens);
            let set = set.slot_rows_padded::<u64>("one", 1, Len::Tokens, Pad::Value(7));
            let set = set.buckets([2, 5]).max_tokens(MAX).layout(way.0).submission(way.1);
            let inputs = set.build().unwrap();
            let ids = inputs.slot_id::<u32>("ids").unwrap();
            let one = inputs.slot_id::<u64>("one").unwrap();
            let (stream, checker) = (Stream::new(&context).unwrap(), Checker::default());
            for (number, tokens) in [3, 5, 11, 1, 12].into_iter().enumerate() {
                let mut step = inputs.begin(tokens, 1).unwrap();
                step.write_rows_from(ids, &vec![1; tokens]).unwrap();
                let [row] = step.write_rows(one).unwrap();
                row.fill(number as u64);
                let staged = step.submit(&stream).unwrap();
                let mut wanted = vec![number as u64; tokens];
                wanted.resize(staged.padded().tokens, 7);
                let bytes = wanted.iter().flat_map(|it| it.to_ne_bytes()).collect();
                checker.compare(&stream, vec![(staged.device_ptr(one), bytes)], number);
            }
            stream.synchronize().unwrap();
            assert_eq!(checker.wrong(), Vec::<String>::new(), "{way:?}");
        }
    });
}

/// One node and one call, however many rows.
#[test]
fn rows_are_one_node() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let set = InputBuffers::builder(&context).slot_rows::<u64>("mrope", 3, Len::Tokens);
        let inputs = set.buckets([8]).max_tokens(64).ring_depth(1).build().unwrap();
        let (mrope, stream) = (inputs.slot_id("mrope").unwrap(), Stream::new(&context).unwrap());
        let _current = context.enter().unwrap();
        for number in 0..3 {
            let mut step = inputs.begin(8, 1).unwrap();
            step.write_rows::<u64, 3>(mrope).unwrap().into_iter().for_each(|row| row.fill(1));
            let before: u64 = machine.all_calls().iter().map(|call| call.1).sum();
            let copied = machine.bytes().htod;
            step.submit(&stream).unwrap();
            let after: u64 = machine.all_calls().iter().map(|call| call.1).sum();
            inputs.wait().unwrap();
            assert_eq!(machine.bytes().htod - copied, 3 * 8 * 8);
            assert!(number == 0 || after - before == 1, "{}", after - before);
        }
        assert_eq!(machine.calls("cuGraphAddMemcpyNode"), 1);
    });
}

/// Each call of a step with rows fails in turn; the next brings every byte.
#[test]
fn a_step_with_rows_that_fails_has_not_happened() {
    const CODE: CudaError = CudaError::OPERATING_SYSTEM;
    fn run(driver: &Driver, way: (Layout, Submission), arm: impl FnOnce()) -> Vec<StageError> {
        let context = context(driver);
        let _current = context.enter().unwrap();
        let inputs = builder(&context, way).ring_depth(1).build().unwrap();
        let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
        let (checker, mut noise, mut failures) = (Checker::default(), Noise(2), Vec::new());
        arm();
        for (number, tokens) in [2, 2, 11, 4].into_iter().enumerate() {
            let staged = inputs.begin(tokens, 1).and_then(|mut step| {
                let rows = ids.fill(&mut step, &mut noise);
                Ok((step.submit(&stream)?, rows))
            });
            match staged {
                Ok((staged, rows)) => {
                    checker.compare(&stream, ids.expected(&staged, rows), number);
                    stream.synchronize().unwrap();
                }
                Err(error) => failures.push(error),
            }
        }
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{failures:?}");
        failures
    }
    for way in WAYS {
        let machine = Arc::new(Simulator::new(Config::default()));
        let mut calls = Vec::new();
        on_machine(&machine, |driver| {
            let mut before = Vec::new();
            assert_eq!(run(driver, way, || before = machine.all_calls()), []);
            for (name, count) in machine.all_calls() {
                let known = before.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
                calls.extend((1..=count - known).map(|nth| (name, nth)));
            }
        });
        let looking = ["cuStreamAddCallback", "cuStreamSynchronize"];
        calls.retain(|call| !looking.contains(&call.0) && !RESTORING.contains(&call.0));
        assert!(calls.len() > 5, "{calls:?}");
        let mut failed = 0;
        for (call, nth) in calls {
            let machine = Arc::new(Simulator::new(Config::default()));
            on_machine(&machine, |driver| {
                let failures = run(driver, way, || machine.fail(call, nth, CODE));
                let wanted = StageError::Driver(Error::Driver { call, code: CODE });
                // What only the end of the set calls has no step to tell.
                assert!(failures.is_empty() || failures == [wanted], "{call} {nth}: {failures:?}");
                failed += failures.len();
            });
        }
        assert!(failed > 3, "{failed}");
    }
}

#[test]
fn misuse_of_rows_is_refused() {
    on_softcuda(|driver| {
        let context = context(driver);
        let inputs = builder(&context, WAYS[0]).build().unwrap();
        let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
        let fault = |error| match error {
            StageError::Slot { fault, .. } => fault,
            error => panic!("{error}"),
        };
        let mut step = inputs.begin(3, 1).unwrap();
        let refused = fault(step.write_rows::<_, 2>(ids.mrope).map(drop).unwrap_err());
        assert_eq!(refused, SlotFault::Shape(ShapeFault::Rows { wanted: 3, given: 2 }));
        let refused = fault(step.write_rows::<_, 2>(ids.ids).map(drop).unwrap_err());
        assert_eq!(refused, SlotFault::Shape(ShapeFault::Rows { wanted: 1, given: 2 }));
        let refused = fault(step.write_rows_from(ids.mrope, &[0; 8]).unwrap_err());
        assert_eq!(refused, SlotFault::Length { wanted: 9, given: 8 });
        let refused = fault(step.write_from(ids.mrope, &[0; 3]).unwrap_err());
        assert_eq!(refused, SlotFault::Shape(ShapeFault::HasRows));
        let other = builder(&context, WAYS[0]).build().unwrap();
        let foreign = Ids::of(&other).mrope;
        assert_eq!(fault(step.write_rows_from(foreign, &[0; 9]).unwrap_err()), SlotFault::Foreign);
        // Not all of what must be written.
        step.write(ids.ids).fill(1);
        let forgotten = fault(step.submit(&stream).map(drop).unwrap_err());
        assert_eq!(forgotten, SlotFault::Forgotten);
    });
}
