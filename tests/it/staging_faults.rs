//! Every call of the driver on the way of a set and of its steps fails in turn.

use std::sync::Arc;
use wharf::staging::{
    BuildError, Forgotten, InputBuffers, Layout, Len, Pad, StageError, Submission,
};
use wharf::{Context, CudaError, Error, Stream};

use crate::backend::{Config, Simulator, on_machine};
use crate::graph_rig::Inventory;
use crate::staging_rig::{Checker, Ids, builder, context};

const CODE: CudaError = CudaError::OPERATING_SYSTEM;
const LAYOUTS: [Layout; 2] = [Layout::PerSlot, Layout::Packed];
/// Both layouts by graphs, and calls.
const WAYS: [(Layout, Submission); 3] = [
    (Layout::PerSlot, Submission::Graph),
    (Layout::Packed, Submission::Graph),
    (Layout::Packed, Submission::Calls),
];

/// A device that can write words, and one that cannot.
fn machines() -> [fn() -> Arc<Simulator>; 2] {
    [
        || Arc::new(Simulator::new(Config::default())),
        || Arc::new(Simulator::new(Config { version: 11_040, ..Config::default() })),
    ]
}

/// The calls that `body` makes on a machine, each by name and which of that name.
fn calls_of(machine: &Simulator, body: impl FnOnce()) -> Vec<(&'static str, u64)> {
    let before = machine.all_calls();
    body();
    let count = |name| before.iter().find(|call| call.0 == name).map_or(0, |call| call.1);
    let calls = machine.all_calls().into_iter();
    calls.flat_map(|(name, calls)| (1..=calls - count(name)).map(move |nth| (name, nth))).collect()
}

#[test]
fn a_set_that_cannot_be_built_leaves_nothing() {
    for (make, layout) in
        machines().into_iter().flat_map(|make| LAYOUTS.map(|layout| (make, layout)))
    {
        let build = |context: &Context| builder(context).layout(layout).build();
        let mut calls = Vec::new();
        let machine = make();
        on_machine(&machine, |driver| {
            let context = context(driver);
            calls = calls_of(&machine, || drop(build(&context).unwrap()));
        });
        for (call, nth) in calls {
            let machine = make();
            on_machine(&machine, |driver| {
                let context = context(driver);
                let before = Inventory::now();
                machine.fail(call, nth, CODE);
                match build(&context) {
                    Err(BuildError::Driver(error)) => {
                        assert_eq!(error, Error::Driver { call, code: CODE });
                    }
                    Ok(set) => {
                        // What only restores or gives back has no caller to tell.
                        drop(set);
                        assert!(RESTORING.contains(&call), "{call} {nth}");
                    }
                    Err(error) => panic!("{call} {nth}: {error}"),
                }
                build(&context).unwrap();
                if !RESTORING.contains(&call) {
                    before.restored(driver);
                }
            });
        }
    }
}

/// How often the drop of a set asks for the current context, and a build before it.
fn questions(fault: Option<&str>) -> [u64; 2] {
    let machine = Arc::new(Simulator::new(Config::default()));
    let mut asked = [0; 2];
    on_machine(&machine, |driver| {
        let context = context(driver);
        driver.on_drop_error(|_| ()).unwrap();
        let count = || machine.calls("cuCtxGetCurrent");
        let start = count();
        let set = builder(&context).build().unwrap();
        let built = count();
        if let Some(call) = fault {
            machine.fail(call, 1, CODE);
        }
        drop(set);
        asked = [built - start, count() - built];
    });
    asked
}

#[test]
fn a_build_and_a_drop_ask_for_the_context_once() {
    assert_eq!(questions(None), [1, 1]);
}

/// A hook may leave another context current, and captures in force.
#[test]
fn a_drop_asks_for_the_context_again_when_a_hook_has_run() {
    let [_, asked] = questions(Some("cuMemHostUnregister"));
    assert!(asked > 1, "{asked}");
}

/// Calls whose failure in a drop leaks what they would have given back, or changes nothing.
pub(crate) const RESTORING: &[&str] = &[
    "cuCtxSetCurrent",
    "cuThreadExchangeStreamCaptureMode",
    "cuStreamDestroy",
    "cuEventDestroy",
    "cuMemHostUnregister",
    "cuMemUnmap",
    "cuMemRelease",
    "cuMemAddressFree",
    "cuCtxGetCurrent",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphReleaseUserObject",
    "cuUserObjectRelease",
];

/// The step fails with the call's error, the next step works and brings every byte.
#[test]
fn a_step_that_fails_has_not_happened() {
    for (make, way) in machines().into_iter().flat_map(|make| WAYS.map(|way| (make, way))) {
        let mut calls = Vec::new();
        let machine = make();
        on_machine(&machine, |driver| {
            let (context, inputs) = set(&context(driver), way);
            let _current = context.enter().unwrap();
            let stream = Stream::new(&context).unwrap();
            calls = calls_of(&machine, || assert_eq!(run(&inputs, &stream, None), 0));
        });
        let mut failed = 0;
        // With these the test looks.
        calls.retain(|call| !["cuStreamAddCallback", "cuStreamSynchronize"].contains(&call.0));
        for (call, nth) in calls {
            let machine = make();
            on_machine(&machine, |driver| {
                let context = context(driver);
                let _current = context.enter().unwrap();
                let before = Inventory::now();
                let (_, inputs) = set(&context, way);
                let stream = Stream::new(&context).unwrap();
                machine.fail(call, nth, CODE);
                let failures = run(&inputs, &stream, Some(call));
                assert!(
                    failures == 1 || RESTORING.contains(&call),
                    "{call} {nth}: {failures} failed"
                );
                failed += failures;
                drop((inputs, stream));
                if failures == 1 && !RESTORING.contains(&call) {
                    before.restored(driver);
                }
            });
        }
        assert!(failed > 5, "{failed}");
    }
}

fn set(context: &Context, way: (Layout, Submission)) -> (Context, InputBuffers) {
    let set = builder(context).layout(way.0).submission(way.1).ring_depth(2);
    (context.clone(), set.build().unwrap())
}

/// Steps in buckets and above, on two streams, each tried until it succeeds; how many tries failed.
fn run(inputs: &InputBuffers, stream: &Stream, call: Option<&str>) -> u64 {
    let (ids, checker) = (Ids::of(inputs), Checker::default());
    let mut failures = 0;
    for (number, tokens) in [3, 3, 3, 700, 3, 700].into_iter().enumerate() {
        loop {
            let staged = inputs.begin(tokens, 2).and_then(|mut step| {
                ids.fill(&mut step, number as u64);
                step.submit(stream)
            });
            match staged {
                Ok(staged) => {
                    checker.compare(stream, ids.expected(&staged, number as u64), number);
                    // So that every run uses the same ring slots.
                    stream.synchronize().unwrap();
                    break;
                }
                Err(StageError::Driver(Error::Driver { call: named, code })) => {
                    assert_eq!((Some(named), code), (call, CODE));
                    failures += 1;
                }
                Err(error) => panic!("{call:?}: {error}"),
            }
        }
    }
    assert_eq!(checker.wrong(), Vec::<String>::new(), "{call:?}");
    failures
}

/// Skipping a copy and taking it up again, and waiting for readers: the same.
#[test]
fn rarer_calls_fail_cleanly() {
    for call in ["cuGraphNodeSetEnabled", "cuStreamWaitEvent", "cuEventRecord"] {
        let machine = machines()[0]();
        on_machine(&machine, |driver| {
            let context = context(driver);
            let set = InputBuffers::builder(&context).slot::<u32>("a", Len::Tokens).buckets([4]);
            let set =
                set.slot_padded::<u32>("b", Len::Tokens, Pad::Keep).when_forgotten(Forgotten::Keep);
            let inputs = set.build().unwrap();
            let (a, b) = (inputs.slot_id::<u32>("a").unwrap(), inputs.slot_id::<u32>("b").unwrap());
            let (first, second) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
            let stage = |stream, both| {
                let mut step = inputs.begin(3, 1)?;
                step.write(a).fill(1);
                if both {
                    step.write(b).fill(1);
                }
                step.submit(stream)
            };
            stage(&first, true).unwrap();
            machine.fail(call, 1, CODE);
            let failed = match call {
                "cuGraphNodeSetEnabled" => stage(&first, false).map(drop),
                "cuStreamWaitEvent" => stage(&second, true).map(drop),
                _ => stage(&first, true).and_then(|staged| staged.consumed_by(&second)),
            };
            assert_eq!(failed, Err(StageError::Driver(Error::Driver { call, code: CODE })));
            for both in [false, true, false] {
                stage(&second, both).unwrap();
            }
            inputs.wait().unwrap();
        });
        assert_eq!(machine.leaks(), Vec::<String>::new(), "{call}");
    }
}

/// After a device fault nothing completes: waiting is an error, not a hang, and the drop ends.
#[test]
fn a_device_fault_is_an_error() {
    for (make, way) in machines().into_iter().flat_map(|make| WAYS.map(|way| (make, way))) {
        let machine = make();
        on_machine(&machine, |driver| {
            let context = context(driver);
            let (_, inputs) = set(&context, way);
            let (ids, stream) = (Ids::of(&inputs), Stream::new(&context).unwrap());
            let gate = crate::graph_rig::Gate::close(&stream);
            for number in 0..2 {
                let mut step = inputs.begin(3, 1).unwrap();
                ids.fill(&mut step, number);
                step.submit(&stream).unwrap();
            }
            machine.fault_devices(CudaError::ILLEGAL_ADDRESS);
            gate.open();
            match inputs.begin(3, 1) {
                Err(StageError::Driver(error)) => {
                    assert_eq!(error.code(), Some(CudaError::ILLEGAL_ADDRESS));
                }
                other => panic!("{other:?}"),
            }
        });
    }
}
