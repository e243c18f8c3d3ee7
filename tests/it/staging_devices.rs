#![expect(unsafe_code, reason = "refers to memory of the test's")]
//! One write for several devices: every byte on each.

use std::cell::RefCell;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;

use softcuda::Schedule;
use wharf::staging::{
    BuildError, InputBuffers, InputBuffersBuilder, Instantiation, Layout, Len, Pad, PeerBuffers,
    ShapeFault, SlotFault, StageError, Submission,
};
use wharf::sys::bindings::{CUgraphExec, CUresult, CUstream};
use wharf::{Context, CudaError, Driver, Error, Stream};

use crate::backend::{Config, Simulator, on_machine};
use crate::staging_faults::RESTORING;
use crate::staging_rig::{Checker, Noise};

const WAYS: [(Layout, Submission); 4] = [
    (Layout::PerSlot, Submission::Graph),
    (Layout::PerSlot, Submission::Calls),
    (Layout::Packed, Submission::Graph),
    (Layout::Packed, Submission::Calls),
];
const DEVICES: usize = 3;

fn machine(schedule: Schedule, version: u32) -> Arc<Simulator> {
    let config = Config { devices: 3, schedule, version, ..Config::default() };
    Arc::new(Simulator::new(config))
}

fn contexts(driver: &Driver) -> [Context; DEVICES] {
    [0, 1, 2].map(|ordinal| Context::retain(&driver.device(ordinal).unwrap()).unwrap())
}

fn builder(context: &Context, way: (Layout, Submission)) -> InputBuffersBuilder {
    InputBuffers::builder(context)
        .slot::<u32>("ids", Len::Tokens)
        .slot_rows_padded::<u64>("mrope", 3, Len::Tokens, Pad::Value(7))
        .buckets([2, 4])
        .max_tokens(9)
        .layout(way.0)
        .submission(way.1)
}

/// Stages a step of noise on each device, and compares there.
fn stage(
    inputs: &PeerBuffers,
    streams: &[&Stream],
    tokens: usize,
    seed: u64,
    checker: &Checker,
) -> Result<(), StageError> {
    let (ids, mrope) = (inputs.slot_id("ids").unwrap(), inputs.slot_id("mrope").unwrap());
    let mut step = inputs.begin(tokens, 1)?;
    let mut noise = Noise(seed);
    step.write::<u32>(ids).fill_with(|| (noise.next() >> 32) as u32);
    for row in step.write_rows::<u64, 3>(mrope)? {
        row.fill_with(|| noise.next());
    }
    let padded = step.padded().tokens;
    for (staged, stream) in step.submit(streams)?.into_iter().zip(streams) {
        let mut noise = Noise(seed);
        let mut wanted: Vec<_> = (0..tokens).map(|_| (noise.next() >> 32) as u32).collect();
        wanted.resize(padded, 0);
        let bytes = wanted.iter().flat_map(|it| it.to_ne_bytes()).collect();
        let mut all = vec![(staged.device_ptr(ids), bytes)];
        for row in 0..3 {
            let mut wanted: Vec<_> = (0..tokens).map(|_| noise.next()).collect();
            wanted.resize(padded, 7);
            let at = row * staged.row_stride(mrope).unwrap() * 8;
            let bytes = wanted.iter().flat_map(|it| it.to_ne_bytes()).collect();
            all.push((staged.device_ptr(mrope) + at as u64, bytes));
        }
        checker.compare(stream, all, tokens);
    }
    Ok(())
}

/// Steps in and above buckets, on two streams of each device.
fn every_device_has_every_byte(driver: &Driver) {
    let contexts = contexts(driver);
    for (way, depth) in WAYS.into_iter().flat_map(|way| (1..=3).map(move |depth| (way, depth))) {
        let inputs = builder(&contexts[0], way).ring_depth(depth);
        let inputs = inputs.build_on(&contexts[1..]).unwrap();
        let streams = [(); 2].map(|()| contexts.each_ref().map(|it| Stream::new(it).unwrap()));
        let (checker, mut noise) = (Checker::default(), Noise(depth as u64));
        assert_eq!(inputs.devices(), DEVICES);
        for _ in 0..12 {
            let chosen: Vec<_> = (0..DEVICES).map(|at| &streams[noise.below(2)][at]).collect();
            let tokens = 1 + noise.below(9);
            stage(&inputs, &chosen, tokens, noise.next(), &checker).unwrap();
        }
        streams.iter().flatten().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{way:?}, depth {depth}");
        let [own, other] = [0, 2].map(|at| inputs.static_buffers(at).unwrap());
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        assert_ne!(own.device_ptr(ids, 2), other.device_ptr(ids, 2));
        assert!(inputs.static_buffers(DEVICES).is_none());
    }
}

#[test]
fn one_write_comes_to_every_device() {
    let newest = Config::default().version;
    let schedules = [Schedule::Async, Schedule::Eager, Schedule::Late];
    let random = (1..4).map(Schedule::Random);
    for schedule in schedules.into_iter().chain(random) {
        on_machine(&machine(schedule, newest), every_device_has_every_byte);
    }
    on_machine(&machine(Schedule::Async, 11_040), every_device_has_every_byte);
}

/// A ring slot that one device has not read is not another step's.
#[test]
fn the_slowest_device_holds_the_ring() {
    on_machine(&machine(Schedule::Async, Config::default().version), |driver| {
        let contexts = contexts(driver);
        let inputs = builder(&contexts[0], WAYS[0]).ring_depth(1);
        let inputs = inputs.deadline(std::time::Duration::ZERO).build_on(&contexts[1..]).unwrap();
        let streams = contexts.each_ref().map(|context| Stream::new(context).unwrap());
        let checker = Checker::default();
        // The last device is held back.
        let (open, gate) = std::sync::mpsc::channel::<()>();
        streams[2].add_callback(move |_| gate.recv().unwrap()).unwrap();
        let all = streams.each_ref();
        stage(&inputs, &all, 3, 1, &checker).unwrap();
        streams[..2].iter().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(inputs.try_begin(1, 1).map(drop), Err(StageError::WouldBlock));
        let stalled = inputs.begin(1, 1).map(drop).unwrap_err();
        assert!(matches!(stalled, StageError::Stalled(_)), "{stalled}");
        open.send(()).unwrap();
        streams[2].synchronize().unwrap();
        stage(&inputs, &all, 3, 2, &checker).unwrap();
        streams.iter().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

/// A wait without success says of no device that it works which was not asked.
#[test]
fn a_wait_in_vain_has_asked_each_device_whether_it_works() {
    let machine = machine(Schedule::Async, Config::default().version);
    on_machine(&machine, |driver| {
        let contexts = contexts(driver);
        let inputs = builder(&contexts[0], WAYS[0]).deadline(std::time::Duration::ZERO);
        let inputs = inputs.ring_depth(1).build_on(&contexts[1..]).unwrap();
        let held = inputs.begin(1, 1).unwrap();
        for device in 1..=DEVICES as u64 {
            let (call, code) = ("cuStreamQuery", CudaError::OPERATING_SYSTEM);
            machine.fail(call, device, code);
            let lost = inputs.begin(1, 1).map(drop).unwrap_err();
            assert_eq!(lost, StageError::Driver(Error::Driver { call, code }), "{device}");
        }
        let stalled = inputs.begin(1, 1).map(drop).unwrap_err();
        assert!(matches!(stalled, StageError::Stalled(_)), "{stalled}");
        drop(held);
        drop(inputs.begin(1, 1).unwrap());
    });
}

/// The first device has read it, and the others have not been given it yet.
#[test]
fn a_ring_slot_on_its_way_to_other_devices_is_no_other_steps() {
    let machine = machine(Schedule::Eager, Config::default().version);
    let _bound = machine.bind();
    // SAFETY: softcuda's functions and the one below have the signatures of the rows and live for
    // ever.
    let driver = unsafe {
        Driver::from_fns(|row| match row.name {
            "cuGraphLaunch" => observed_launch as *mut c_void,
            _ => ::softcuda::entry_point(row.name, row.version),
        })
    };
    let contexts = contexts(&driver.unwrap());
    let inputs = builder(&contexts[0], WAYS[0]).ring_depth(1).build_on(&contexts[1..]).unwrap();
    let inputs = Rc::new(inputs);
    let streams = contexts.each_ref().map(|context| Stream::new(context).unwrap());
    let (found, checker) = (Rc::new(RefCell::new(Vec::new())), Checker::default());
    let (asked, noted) = (Rc::clone(&inputs), Rc::clone(&found));
    AT_LAUNCH.set(Some(Box::new(move || {
        noted.borrow_mut().push(asked.try_begin(1, 1).map(drop));
    })));
    stage(&inputs, &streams.each_ref(), 3, 1, &checker).unwrap();
    AT_LAUNCH.set(None);
    streams.iter().for_each(|stream| stream.synchronize().unwrap());
    assert_eq!(*found.borrow(), [(); DEVICES].map(|()| Err(StageError::WouldBlock)));
    inputs.try_begin(1, 1).map(drop).unwrap();
    assert_eq!(checker.wrong(), Vec::<String>::new());
}

thread_local! {
    /// What the thread's launches call first.
    static AT_LAUNCH: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

unsafe extern "C" fn observed_launch(exec: CUgraphExec, stream: CUstream) -> CUresult {
    type Real = unsafe extern "C" fn(CUgraphExec, CUstream) -> CUresult;
    AT_LAUNCH.with_borrow_mut(|look| look.iter_mut().for_each(|look| look()));
    let real = ::softcuda::entry_point("cuGraphLaunch", 10_000);
    // SAFETY: softcuda's function has the signature of the row.
    let real = unsafe { std::mem::transmute::<*mut c_void, Real>(real) };
    // SAFETY: the caller's arguments.
    unsafe { real(exec, stream) }
}

/// By `mem::swap`, since a step for several devices is written as any step is.
#[test]
fn a_step_that_was_exchanged_goes_to_no_device() {
    on_machine(&machine(Schedule::Async, Config::default().version), |driver| {
        let contexts = contexts(driver);
        let inputs = builder(&contexts[0], WAYS[0]).build_on(&contexts[1..]).unwrap();
        let alone = builder(&contexts[0], WAYS[0]).build().unwrap();
        let streams = contexts.each_ref().map(|context| Stream::new(context).unwrap());
        let all = streams.each_ref();
        let begin = || {
            let mut step = inputs.begin(2, 1).unwrap();
            step.write::<u32>(inputs.slot_id("ids").unwrap()).fill(1);
            step.write_rows_from::<u64>(inputs.slot_id("mrope").unwrap(), &[0; 6]).unwrap();
            step
        };
        let mut foreign = alone.begin(2, 1).unwrap();
        foreign.write::<u32>(alone.slot_id("ids").unwrap()).fill(1);
        foreign.write_rows_from::<u64>(alone.slot_id("mrope").unwrap(), &[0; 6]).unwrap();
        let mut step = begin();
        std::mem::swap(&mut *step, &mut foreign);
        assert_eq!(step.submit(&all).map(drop), Err(StageError::Exchanged));
        // What is left of it is a step for the first device.
        foreign.submit(&streams[0]).unwrap();
        let [mut one, mut other] = [(); 2].map(|()| begin());
        std::mem::swap(&mut *one, &mut *other);
        for step in [one, other] {
            assert_eq!(step.submit(&all).map(drop), Err(StageError::Exchanged));
        }
        // Nothing was lost: all ring slots are there.
        streams.iter().for_each(|stream| stream.synchronize().unwrap());
        let steps = [(); 3].map(|()| inputs.try_begin(1, 1).unwrap());
        drop(steps);
        let checker = Checker::default();
        stage(&inputs, &all, 2, 1, &checker).unwrap();
        streams.iter().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

/// Each call fails in turn, of building too; the step is staged again and every device has it.
#[test]
fn a_device_that_refuses_leaves_the_set_usable() {
    const CODE: CudaError = CudaError::OPERATING_SYSTEM;
    fn run(driver: &Driver, way: (Layout, Submission), arm: impl FnOnce()) -> Vec<Error> {
        let contexts = contexts(driver);
        let _current = contexts[0].enter().unwrap();
        let streams = contexts.each_ref().map(|context| Stream::new(context).unwrap());
        let (checker, mut failures) = (Checker::default(), Vec::new());
        arm();
        let inputs = loop {
            let set = builder(&contexts[0], way).ring_depth(2);
            match set.instantiation(Instantiation::Eager).build_on(&contexts[1..]) {
                Ok(inputs) => break inputs,
                Err(BuildError::Driver(error)) => failures.push(error),
                Err(error) => panic!("{error}"),
            }
        };
        for (seed, tokens) in [2, 2, 9, 3].into_iter().enumerate() {
            loop {
                match stage(&inputs, &streams.each_ref(), tokens, seed as u64, &checker) {
                    Ok(()) => break,
                    Err(StageError::Driver(error)) => failures.push(error),
                    Err(error) => panic!("{error}"),
                }
            }
            streams.iter().for_each(|stream| stream.synchronize().unwrap());
        }
        assert_eq!(checker.wrong(), Vec::<String>::new(), "{failures:?}");
        failures
    }
    for way in [WAYS[0], WAYS[3]] {
        let new = || machine(Schedule::Async, Config::default().version);
        let (machine, mut calls) = (new(), Vec::new());
        on_machine(&machine, |driver| {
            let mut before = Vec::new();
            assert_eq!(run(driver, way, || before = machine.all_calls()), []);
            for (name, count) in machine.all_calls() {
                let known = before.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
                calls.extend((1..=count - known).map(|nth| (name, nth)));
            }
        });
        // With these the test looks, or puts back what was.
        let looking = ["cuStreamAddCallback", "cuStreamSynchronize", "cuCtxSetCurrent"];
        calls.retain(|call| !looking.contains(&call.0) && !RESTORING.contains(&call.0));
        calls.retain(|call| call.0 != "cuCtxGetCurrent");
        let mut failed = 0;
        for (call, nth) in calls {
            let machine = new();
            on_machine(&machine, |driver| {
                let failures = run(driver, way, || machine.fail(call, nth, CODE));
                assert!(
                    failures.is_empty() || failures == [Error::Driver { call, code: CODE }],
                    "{call} {nth}: {failures:?}"
                );
                failed += failures.len();
            });
        }
        assert!(failed > 20, "{failed}");
    }
}

#[test]
fn misuse_of_several_devices_is_refused() {
    on_machine(&machine(Schedule::Async, Config::default().version), |driver| {
        let contexts = contexts(driver);
        let inputs = builder(&contexts[0], WAYS[0]).build_on(&contexts[1..]).unwrap();
        let streams = contexts.each_ref().map(|context| Stream::new(context).unwrap());
        let [first, second, third] = streams.each_ref();
        let checker = Checker::default();
        let few = stage(&inputs, &[first, second], 2, 1, &checker).unwrap_err();
        assert_eq!(few, StageError::Streams { wanted: 3, given: 2 });
        let crossed = stage(&inputs, &[first, third, second], 2, 1, &checker).unwrap_err();
        assert_eq!(crossed, StageError::OtherDevice { wanted: 1, given: 2 });
        let mut step = inputs.begin(2, 1).unwrap();
        let elsewhere = [1_u32, 2];
        // SAFETY: the step is refused before it reads.
        unsafe { step.refer(inputs.slot_id("ids").unwrap(), &raw const elsewhere, ()) }.unwrap();
        step.write_rows_from(inputs.slot_id("mrope").unwrap(), &[0_u64; 6]).unwrap();
        let refused = step.submit(&[first, second, third]).map(drop).unwrap_err();
        let wanted = SlotFault::Shape(ShapeFault::ManyDevices);
        assert_eq!(refused, StageError::Slot { slot: "ids".into(), fault: wanted });
        let table = builder(&contexts[0], WAYS[0]).persistent::<u32>("t", 1, 1, 1);
        let refused = table.build_on(&contexts[1..]).map(drop).unwrap_err();
        assert_eq!(refused, BuildError::PeerSlot("t".into()));
        stage(&inputs, &[first, second, third], 2, 1, &checker).unwrap();
        streams.iter().for_each(|stream| stream.synchronize().unwrap());
        assert_eq!(checker.wrong(), Vec::<String>::new());
    });
}

/// An address is one device's, and so is what reads it.
#[test]
fn addresses_and_read_events_of_several_devices_are_refused() {
    on_machine(&machine(Schedule::Async, Config::default().version), |driver| {
        let contexts = contexts(driver);
        let refused =
            |builder: InputBuffersBuilder| builder.build_on(&contexts[1..]).map(drop).unwrap_err();
        let passed = builder(&contexts[0], WAYS[0]).dynamic::<u32>("passed");
        assert_eq!(refused(passed), BuildError::PeerSlot("passed".into()));
        let events = builder(&contexts[0], WAYS[0]).read_events(true);
        assert_eq!(refused(events), BuildError::ReadEventsOfPeers);
    });
}
