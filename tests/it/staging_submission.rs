#![expect(unsafe_code, reason = "stands for functions of the driver")]
//! Steps that are sent by calls of the stream, and which way a set takes.

use std::ffi::c_void;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wharf::staging::{
    InputBuffers, InputBuffersBuilder, Instantiation, Layout, Len, StageError, Submission,
};
use wharf::sys::bindings::{CUdeviceptr, CUgraphExec, CUresult, CUstream};
use wharf::{Context, Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine, on_softcuda};
use crate::graph_rig::Gate;
use crate::staging_rig::{Checker, Ids, MAX_REQUESTS, MAX_TOKENS, Noise, builder, context, words};

on_each_driver!(
    calls_are_guarded_as_graphs_are,
    a_set_in_flight_is_dropped_behind_its_calls,
    a_full_ring_of_calls_is_waited_for,
);

const LAYOUTS: [Layout; 2] = [Layout::PerSlot, Layout::Packed];

fn small(context: &Context) -> InputBuffersBuilder {
    let set = InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]);
    set.submission(Submission::Calls)
}

/// Of all sizes, under every schedule, in both layouts.
#[test]
fn every_byte_arrives_by_calls() {
    on_softcuda(|driver| {
        for (layout, depth) in
            LAYOUTS.into_iter().flat_map(|layout| (1..=3).map(move |depth| (layout, depth)))
        {
            let context = context(driver);
            let set = builder(&context).layout(layout).ring_depth(depth);
            let inputs = set.submission(Submission::Calls).build().unwrap();
            let (ids, checker) = (Ids::of(&inputs), Checker::default());
            let (stream, mut noise) = (Stream::new(&context).unwrap(), Noise(3));
            for number in 0..24 {
                let most = if noise.below(4) == 0 { MAX_TOKENS } else { 64 };
                let tokens = 1 + noise.below(most);
                let requests = 1 + noise.below(tokens.min(MAX_REQUESTS));
                let mut step = inputs.begin(tokens, requests).unwrap();
                ids.fill(&mut step, number as u64);
                let staged = step.submit(&stream).unwrap();
                checker.compare(&stream, ids.expected(&staged, number as u64), number);
            }
            stream.synchronize().unwrap();
            assert_eq!(checker.wrong(), Vec::<String>::new(), "{layout:?}, {depth}");
            assert_eq!(inputs.graphs().count, 0);
        }
    });
}

/// The packed copy and the word.
#[test]
fn a_packed_step_is_two_calls() {
    for (layout, wanted) in [(Layout::Packed, 2), (Layout::PerSlot, 13)] {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let _current = context.enter().unwrap();
            let set = builder(&context).layout(layout).instantiation(Instantiation::Eager);
            let inputs = set.submission(Submission::Calls).build().unwrap();
            let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
            let total = || machine.all_calls().iter().map(|call| call.1).sum::<u64>();
            for number in 0..100 {
                let mut step = loop {
                    match inputs.try_begin(5, 3) {
                        Ok(step) => break step,
                        Err(StageError::WouldBlock) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                };
                let before = total();
                ids.fill(&mut step, number);
                step.submit(&stream).unwrap();
                // The first finds no stream to rely on.
                let calls = total() - before;
                assert!(number == 0 || calls == wanted, "{layout:?}, step {number}: {calls}");
            }
            inputs.wait().unwrap();
            assert_eq!(machine.calls("cuGraphInstantiateWithFlags"), 0);
        });
    }
}

/// A copy stream, and a model that reads on its own: no step overwrites what is read.
fn calls_are_guarded_as_graphs_are(driver: &Driver) {
    let context = context(driver);
    let [copies, model] = [(); 2].map(|()| Stream::new(&context).unwrap());
    for layout in LAYOUTS {
        let inputs = small(&context).layout(layout).build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        let mut found = Vec::new();
        for value in 0..6 {
            let mut step = inputs.begin(8, 1).unwrap();
            step.write(ids).fill(value);
            let gate = Gate::close(&copies);
            let staged = step.submit(&copies).unwrap();
            let reader = staged.reader(&model).unwrap();
            gate.open();
            found.push(words::<8>(&model, staged.device_ptr(ids)));
            reader.end().unwrap();
            if value == 3 {
                staged.wait_on(&model).unwrap();
                staged.consumed_by(&model).unwrap();
            }
        }
        assert_eq!(found, [0, 1, 2, 3, 4, 5].map(|value| [value; 8]));
    }
}

/// No event ends the copies: the streams that have them are waited for.
fn a_set_in_flight_is_dropped_behind_its_calls(driver: &Driver) {
    let context = context(driver);
    let [first, second] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let inputs = small(&context).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let gate = Gate::close(&first);
    for stream in [&first, &second] {
        let mut step = inputs.begin(8, 1).unwrap();
        step.write(ids).fill(1);
        step.submit(stream).unwrap();
    }
    let opens = thread::spawn(move || gate.open());
    drop(inputs);
    opens.join().unwrap();
    // Had the drop not waited, the copies would have no source.
    first.synchronize().unwrap();
    second.synchronize().unwrap();
    assert_eq!(context.drop_errors(), 0);
}

fn a_full_ring_of_calls_is_waited_for(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let inputs = small(&context).ring_depth(1).build().unwrap();
    let ids = inputs.slot_id::<u32>("ids").unwrap();
    let gate = Gate::close(&stream);
    let mut step = inputs.begin(8, 1).unwrap();
    step.write(ids).fill(1);
    step.submit(&stream).unwrap();
    assert_eq!(inputs.try_begin(8, 1).unwrap_err(), StageError::WouldBlock);
    gate.open();
    let mut step = inputs.begin(8, 1).unwrap();
    step.write(ids).fill(2);
    let staged = step.submit(&stream).unwrap();
    assert_eq!(words(&stream, staged.device_ptr(ids)), [2; 8]);
}

/// With a table whose launch is slow a set takes calls, with one whose copy is slow graphs.
#[test]
fn the_faster_way_is_taken() {
    for (slow, wanted) in
        [("cuGraphLaunch", Submission::Calls), ("cuMemcpyHtoDAsync", Submission::Graph)]
    {
        let machine = Arc::new(Simulator::new(Config::default()));
        let _bound = machine.bind();
        // SAFETY: softcuda's functions and those below have the signatures of the rows and live for
        // ever.
        let driver = unsafe {
            Driver::from_fns(|row| match row.name {
                "cuGraphLaunch" if slow == row.name => slow_launch as *mut c_void,
                "cuMemcpyHtoDAsync" if slow == row.name => slow_copy as *mut c_void,
                _ => ::softcuda::entry_point(row.name, row.version),
            })
        };
        let context = context(&driver.unwrap());
        let set = || {
            let set = InputBuffers::builder(&context).slot::<u32>("ids", Len::Tokens);
            set.buckets([4, 8]).layout(Layout::Packed)
        };
        let inputs = set().submission(Submission::Fastest).build().unwrap();
        let submission = inputs.submission();
        assert_eq!(submission.by, wanted, "{submission}");
        let times = submission.measured.unwrap();
        assert!(times.graph.max(times.calls) >= SLOW, "{submission}");
        assert_eq!(set().build().unwrap().submission().measured, None);
        // The measurement has left nothing behind: the set works.
        let (stream, ids) = (Stream::new(&context).unwrap(), inputs.slot_id::<u32>("ids").unwrap());
        for value in 1..5 {
            let mut step = inputs.begin(3, 1).unwrap();
            step.write(ids).fill(value);
            let staged = step.submit(&stream).unwrap();
            assert_eq!(words(&stream, staged.device_ptr(ids)), [value, value, value, 0]);
        }
    }
}

/// To measure is to send steps of zeros, and the memory is the target's.
#[test]
fn a_view_that_takes_the_faster_way_leaves_what_is_staged() {
    on_softcuda(|driver| {
        let (context, fastest) = (context(driver), Submission::Fastest);
        for by in [Submission::Graph, Submission::Calls, fastest] {
            let target = small(&context).submission(by).build().unwrap();
            let (ids, stream) = (target.slot_id("ids").unwrap(), Stream::new(&context).unwrap());
            let mut step = target.begin(8, 1).unwrap();
            step.write::<u32>(ids).fill(7);
            let staged = step.submit(&stream).unwrap();
            stream.synchronize().unwrap();
            let view = target.view(&["ids"]).unwrap().buckets([2, 6]).submission(fastest);
            let view = view.build().unwrap();
            assert_eq!(words(&stream, staged.device_ptr(ids)), [7; 8], "{by:?}");
            assert_eq!(view.submission(), target.submission());
            let own = target.view(&["ids"]).unwrap().buckets([2]).submission(Submission::Calls);
            assert_eq!(own.build().unwrap().submission().by, Submission::Calls);
        }
    });
}

/// What a slow call takes: far longer than any other call here.
const SLOW: Duration = Duration::from_millis(20);

fn spin() {
    let start = Instant::now();
    while start.elapsed() < SLOW {
        std::hint::spin_loop();
    }
}

unsafe extern "C" fn slow_launch(exec: CUgraphExec, stream: CUstream) -> CUresult {
    type Real = unsafe extern "C" fn(CUgraphExec, CUstream) -> CUresult;
    spin();
    let real = ::softcuda::entry_point("cuGraphLaunch", 10_000);
    // SAFETY: softcuda's function has the signature of the row.
    let real = unsafe { std::mem::transmute::<*mut c_void, Real>(real) };
    // SAFETY: the caller's arguments.
    unsafe { real(exec, stream) }
}

unsafe extern "C" fn slow_copy(
    to: CUdeviceptr,
    from: *const c_void,
    size: usize,
    stream: CUstream,
) -> CUresult {
    type Real = unsafe extern "C" fn(CUdeviceptr, *const c_void, usize, CUstream) -> CUresult;
    spin();
    let real = ::softcuda::entry_point("cuMemcpyHtoDAsync", 3020);
    // SAFETY: softcuda's function has the signature of the row.
    let real = unsafe { std::mem::transmute::<*mut c_void, Real>(real) };
    // SAFETY: the caller's arguments.
    unsafe { real(to, from, size, stream) }
}
