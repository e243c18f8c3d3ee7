//! Persistent tables, of which a step sends what changed: every byte of the table after every step.

use std::sync::{Arc, Mutex};
use std::thread;

use softcuda::Schedule;
use wharf::staging::{
    InputBuffers, InputBuffersBuilder, Layout, Len, ShapeFault, SlotFault, SlotId, StageError,
    Staged, Step, Submission,
};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, binder, on_machine, on_softcuda};
use crate::staging_rig::{Checker, Noise, context};

const ROWS: usize = 24;
pub(crate) const COLS: usize = 40;
const PATCHED: usize = 96;

/// Both layouts, in both ways to send a step.
pub(crate) const WAYS: [(Layout, Submission); 4] = [
    (Layout::PerSlot, Submission::Graph),
    (Layout::PerSlot, Submission::Calls),
    (Layout::Packed, Submission::Graph),
    (Layout::Packed, Submission::Calls),
];

pub(crate) fn builder(context: &Context, way: (Layout, Submission)) -> InputBuffersBuilder {
    InputBuffers::builder(context)
        .slot::<u32>("ids", Len::Tokens)
        .persistent::<u16>("table", ROWS, COLS, PATCHED)
        .slot::<u32>("lens", Len::Requests)
        .persistent::<u64>("seeds", 1, ROWS, 8)
        .buckets([2, 8])
        .max_tokens(16)
        .layout(way.0)
        .submission(way.1)
}

/// A set with tables, and what the device must have of them.
pub(crate) struct Rig {
    pub(crate) inputs: InputBuffers,
    pub(crate) ids: SlotId<u32>,
    pub(crate) lens: SlotId<u32>,
    pub(crate) table: SlotId<u16>,
    pub(crate) seeds: SlotId<u64>,
    pub(crate) model: Model,
}

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) table: Vec<u16>,
    pub(crate) seeds: Vec<u64>,
}

impl Rig {
    pub(crate) fn new(inputs: InputBuffers) -> Self {
        let model = Model { table: vec![0; ROWS * COLS], seeds: vec![0; ROWS] };
        let [ids, lens] = ["ids", "lens"].map(|name| inputs.slot_id(name).unwrap());
        let table = inputs.slot_id("table").unwrap();
        let seeds = inputs.slot_id("seeds").unwrap();
        Self { inputs, ids, lens, table, seeds, model }
    }

    /// Fills a step, with a few patches in any order, and returns the tables behind it.
    pub(crate) fn fill(&self, step: &mut Step<'_>, noise: &mut Noise) -> Model {
        let mut model = self.model.clone();
        step.write(self.ids).fill(7);
        step.write(self.lens).fill(8);
        let mut left = PATCHED;
        for _ in 0..noise.below(5) {
            let (row, col) = (noise.below(ROWS), noise.below(COLS));
            let len = noise.below((COLS - col).min(left) + 1);
            let elements: Vec<u16> = (0..len).map(|_| (noise.next() >> 48) as u16).collect();
            step.patch(self.table, row, col, &elements).unwrap();
            model.table[row * COLS + col..][..len].copy_from_slice(&elements);
            left -= len;
        }
        if noise.below(3) == 0 {
            let (at, seed) = (noise.below(ROWS), noise.next());
            step.patch(self.seeds, 0, at, &[seed]).unwrap();
            model.seeds[at] = seed;
        }
        model
    }

    pub(crate) fn expected(&self, staged: &Staged<'_>) -> Vec<(u64, Vec<u8>)> {
        let table = self.model.table.iter().flat_map(|it| it.to_ne_bytes()).collect();
        let seeds = self.model.seeds.iter().flat_map(|it| it.to_ne_bytes()).collect();
        let ids = staged.counts().tokens;
        vec![
            (staged.device_ptr(self.table), table),
            (staged.device_ptr(self.seeds), seeds),
            (staged.device_ptr(self.ids), 7_u32.to_ne_bytes().repeat(ids)),
        ]
    }
}

/// Sizes in buckets and above them.
const SIZES: [usize; 5] = [1, 2, 5, 16, 8];

/// Steps in turn on two streams, as many as go round each ring several times.
fn steps_patch(driver: &Driver) {
    let context = context(driver);
    for (way, depth) in WAYS.into_iter().flat_map(|way| (1..=4).map(move |depth| (way, depth))) {
        let mut rig = Rig::new(builder(&context, way).ring_depth(depth).build().unwrap());
        let streams = [(); 2].map(|()| Stream::new(&context).unwrap());
        let (checker, mut noise) = (Checker::default(), Noise(depth as u64));
        for number in 0..20 {
            let stream = &streams[noise.below(2)];
            let mut step = rig.inputs.begin(SIZES[number % SIZES.len()], 1).unwrap();
            if noise.below(4) == 0 {
                // Never submitted: nothing of it is seen.
                rig.fill(&mut step, &mut noise);
                drop(step);
                continue;
            }
            let model = rig.fill(&mut step, &mut noise);
            rig.model = model;
            let staged = step.submit(stream).unwrap();
            checker.compare(stream, rig.expected(&staged), number);
        }
        streams.iter().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{way:?}, depth {depth}");
    }
}

#[test]
fn a_table_has_what_all_steps_so_far_have_patched() {
    on_softcuda(steps_patch);
}

#[test]
fn the_same_under_random_schedules() {
    for seed in 2..14 {
        let config = Config { schedule: Schedule::Random(seed), ..Config::default() };
        on_machine(&Arc::new(Simulator::new(config)), steps_patch);
    }
}

/// Line 3 of what staging has to show: 4 bytes changed of 1 MiB, on every ring slot.
#[test]
fn one_element_of_a_table_of_a_mebibyte_stages_4_kib_at_most() {
    for (depth, way) in (1..=4).flat_map(|depth| WAYS.map(|way| (depth, way))) {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let set = InputBuffers::builder(&context)
                .slot::<u32>("ids", Len::Tokens)
                .persistent::<u32>("table", 256, 1024, 512)
                .layout(way.0)
                .submission(way.1);
            let inputs = set.buckets([8]).ring_depth(depth).build().unwrap();
            let (ids, table) = (inputs.slot_id("ids").unwrap(), inputs.slot_id("table").unwrap());
            let (stream, checker) = (Stream::new(&context).unwrap(), Checker::default());
            let (mut wanted, mut noise) = (vec![0_u32; 256 * 1024], Noise(3));
            let mut slots = vec![0; depth];
            for number in 0..3 * depth {
                let before = machine.bytes().htod;
                let mut step = inputs.begin(8, 8).unwrap();
                step.write::<u32>(ids).fill(1);
                let (row, col, value) =
                    (noise.below(256), noise.below(1024), (noise.next() >> 32) as u32);
                step.patch(table, row, col, &[value]).unwrap();
                wanted[row * 1024 + col] = value;
                slots[step.ring_slot()] += 1;
                let staged = step.submit(&stream).unwrap();
                let bytes = wanted.iter().flat_map(|it| it.to_ne_bytes()).collect();
                checker.compare(&stream, vec![(staged.device_ptr(table), bytes)], number);
                if number % depth == depth - 1 {
                    inputs.wait().unwrap();
                }
                let staged = machine.bytes().htod - before;
                // Copies are counted where they run, which may be a step later.
                assert!(staged <= 4096, "{staged} bytes");
            }
            stream.synchronize().unwrap();
            assert_eq!(checker.wrong(), Vec::<String>::new());
            // A packed layout copies up to where the next slot would start.
            let most = (3 * depth * (256 + 4)) as u64;
            assert!(machine.bytes().htod <= most, "{} bytes", machine.bytes().htod);
        });
    }
}

/// In the steady state patches are one call, whatever their number; where the driver has no
/// batches, one a range.
#[test]
fn patches_are_one_call() {
    for (version, calls) in [(Config::default().version, 2), (11_040, 4)] {
        let machine = Arc::new(Simulator::new(Config { version, ..Config::default() }));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let rig = Rig::new(builder(&context, WAYS[0]).ring_depth(1).build().unwrap());
            let stream = Stream::new(&context).unwrap();
            let _current = context.enter().unwrap();
            for number in 0..4 {
                let mut step = rig.inputs.begin(2, 2).unwrap();
                step.write(rig.ids).fill(1);
                step.write(rig.lens).fill(1);
                for row in [1, 3, 5] {
                    step.patch(rig.table, row, 3, &[1, 2]).unwrap();
                }
                let before: u64 = machine.all_calls().iter().map(|call| call.1).sum();
                step.submit(&stream).unwrap();
                let after: u64 = machine.all_calls().iter().map(|call| call.1).sum();
                if number > 0 {
                    assert_eq!(after - before, calls, "driver {version}");
                }
                rig.inputs.wait().unwrap();
            }
        });
    }
}

/// Threads with streams of their own patch rows of their own; at last the table has all.
#[test]
fn threads_patch_one_table() {
    on_softcuda(|driver| {
        let context = context(driver);
        let rig = Rig::new(builder(&context, WAYS[0]).ring_depth(3).build().unwrap());
        let (table, bind) = (Mutex::new(vec![0_u16; ROWS * COLS]), binder());
        thread::scope(|scope| {
            for thread in 0..3 {
                let (rig, table, context, bind) = (&rig, &table, &context, bind.clone());
                scope.spawn(move || {
                    let _bound = bind();
                    let (stream, mut noise) = (Stream::new(context).unwrap(), Noise(thread));
                    for _ in 0..10 {
                        let row = 3 * noise.below(ROWS / 3) + usize::try_from(thread).unwrap();
                        let value = (noise.next() >> 48) as u16;
                        let mut step = rig.inputs.begin(2, 1).unwrap();
                        step.write(rig.ids).fill(7);
                        step.write(rig.lens).fill(8);
                        step.patch(rig.table, row, 1, &[value; 4]).unwrap();
                        table.lock().unwrap()[row * COLS + 1..][..4].fill(value);
                        step.submit(&stream).unwrap();
                    }
                    stream.synchronize().unwrap();
                });
            }
        });
        let (stream, checker) = (Stream::new(&context).unwrap(), Checker::default());
        let mut step = rig.inputs.begin(2, 1).unwrap();
        step.write(rig.ids).fill(7);
        step.write(rig.lens).fill(8);
        let staged = step.submit(&stream).unwrap();
        let bytes = table.lock().unwrap().iter().flat_map(|it| it.to_ne_bytes()).collect();
        checker.compare(&stream, vec![(staged.device_ptr(rig.table), bytes)], 0);
        stream.synchronize().unwrap();
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

#[test]
fn misuse_of_tables_is_refused_and_changes_nothing() {
    on_softcuda(|driver| {
        let context = context(driver);
        let mut rig = Rig::new(builder(&context, WAYS[0]).build().unwrap());
        let other = Rig::new(builder(&context, WAYS[0]).build().unwrap());
        let (stream, checker) = (Stream::new(&context).unwrap(), Checker::default());
        let mut step = rig.inputs.begin(2, 1).unwrap();
        step.write(rig.ids).fill(7);
        step.write(rig.lens).fill(8);
        let fault = |result: Result<(), StageError>| match result.unwrap_err() {
            StageError::Slot { fault: SlotFault::Shape(fault), .. } => fault,
            error => panic!("{error}"),
        };
        for (row, col, len) in [(ROWS, 0, 1), (0, COLS, 1), (0, COLS - 1, 2), (0, usize::MAX, 1)] {
            let outside = ShapeFault::OutOfTable { row, col, len, rows: ROWS, cols: COLS };
            assert_eq!(fault(step.patch(rig.table, row, col, &vec![9; len])), outside);
        }
        step.patch(rig.table, 0, COLS, &[]).unwrap();
        step.patch(rig.table, 1, 0, &[1; COLS]).unwrap();
        step.patch(rig.table, 2, 0, &[2; COLS]).unwrap();
        let many = ShapeFault::TooManyPatched { wanted: 3 * COLS, max: PATCHED };
        assert_eq!(fault(step.patch(rig.table, 3, 0, &[3; COLS])), many);
        assert_eq!(fault(step.patch(rig.ids, 0, 0, &[1])), ShapeFault::NotPersistent);
        let foreign = step.patch(other.table, 0, 0, &[9]).unwrap_err();
        assert!(matches!(foreign, StageError::Slot { fault: SlotFault::Foreign, .. }), "{foreign}");
        assert!(
            step.write_from(rig.table, &[1])
                .is_err_and(|error| { error.to_string().contains("call `patch`") })
        );
        rig.model.table[COLS..2 * COLS].fill(1);
        rig.model.table[2 * COLS..3 * COLS].fill(2);
        let staged = step.submit(&stream).unwrap();
        checker.compare(&stream, rig.expected(&staged), 0);
        // Written as a slot, it is found when the step is submitted.
        let mut step = rig.inputs.begin(2, 1).unwrap();
        assert!(step.write(rig.table).is_empty());
        let fault = fault(step.submit(&stream).map(drop));
        assert_eq!(fault, ShapeFault::IsPersistent);
        stream.synchronize().unwrap();
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}
