//! Results that cannot be had: what is refused, and what a failed call leaves.

use std::sync::Arc;

use wharf::graph::{CaptureMode, CaptureScope};
use wharf::memory::{PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::staging::{
    BuildError, Counts, Layout, Len, OutputBuffers, OutputBuffersBuilder, SlotError, SlotFault,
    StageError,
};
use wharf::{CudaError, Driver, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::LONG;
use crate::graph_rig::Gate;
use crate::outputs_rig::{OutputIds, outputs};
use crate::staging_outputs::{LAYOUTS, device_pool, small};
use crate::staging_rig::context;

on_each_driver!(
    what_cannot_be_fetched_is_refused,
    what_a_set_cannot_be_is_refused,
    a_captured_stream_is_refused,
);

fn what_cannot_be_fetched_is_refused(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let ((outputs, words), (_other, foreign)) = (small(&context, 1), small(&context, 1));
    let fault = |error| match error {
        StageError::Slot { fault, .. } => fault,
        error => panic!("{error}"),
    };
    assert!(matches!(outputs.slot_id::<i64>("words"), Err(SlotError::Type { .. })));
    assert!(matches!(outputs.slot_id::<u32>("other"), Err(SlotError::Unknown(_))));
    assert!(matches!(outputs.fetch(17, 1, &stream), Err(StageError::TooLarge { max: 16, .. })));
    let pinned = PinnedMemoryResource::new(&context, 1 << 20, PinnedOptions::default()).unwrap();
    let pinned: Buffer<u32> = Pool::builder().build(pinned).unwrap().alloc(8, &stream).unwrap();
    let short: Buffer<u32> = device_pool(&context).alloc(7, &stream).unwrap();
    let mut fetch = outputs.begin(5, 1).unwrap();
    assert_eq!(fault(fetch.source_buffer(foreign, &short).unwrap_err()), SlotFault::Foreign);
    let length = SlotFault::Length { wanted: 8, given: 7 };
    assert_eq!(fault(fetch.source_buffer(words, &short).unwrap_err()), length);
    let refused = fault(fetch.source_buffer(words, &pinned).unwrap_err());
    assert!(matches!(refused, SlotFault::NotDevice { .. }));
    // The fetch goes on.
    let pending = fetch.submit(&stream).unwrap();
    let results = pending.wait(LONG).unwrap();
    assert_eq!(fault(results.read(foreign).unwrap_err()), SlotFault::Foreign);
    assert_eq!(results.read(words).unwrap(), [0; 5]);
}

#[expect(unsafe_code, reason = "names device memory by raw address")]
fn what_a_set_cannot_be_is_refused(driver: &Driver) {
    let context = context(driver);
    let builder = || OutputBuffers::builder(&context);
    let refused = |set: OutputBuffersBuilder| set.build().unwrap_err();
    // SAFETY: nothing is built.
    let stray = unsafe { builder().source(256) }.slot::<u32>("words", Len::Tokens).buckets([4]);
    assert_eq!(refused(stray), BuildError::NoSlotBefore("source"));
    let packed = builder().slot::<u32>("words", Len::Tokens).buckets([4]).layout(Layout::Packed);
    // SAFETY: nothing is built.
    let packed = unsafe { packed.source(256) };
    assert_eq!(refused(packed), BuildError::SourceNeedsPerSlot("words".into()));
    assert_eq!(refused(builder().buckets([4])), BuildError::NoSlots);
    let set = builder().slot::<u32>("words", Len::Tokens);
    assert_eq!(refused(set.clone().buckets([4]).ring_depth(0)), BuildError::RingDepth(0));
    assert_eq!(refused(set.buckets([4, 4])), BuildError::Bucket(4));
}

/// By a capture that is known: nothing is put into it, and the ring slot is free.
fn a_captured_stream_is_refused(driver: &Driver) {
    let context = context(driver);
    let (stream, other) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let (outputs, words) = small(&context, 2);
    let pending = outputs.fetch(4, 1, &other).unwrap();
    let scope = CaptureScope::begin(&stream, CaptureMode::ThreadLocal).unwrap();
    let code = |error| match error {
        StageError::Driver(wharf::Error::Driver { code, .. }) => code,
        error => panic!("{error}"),
    };
    let unsupported = CudaError::STREAM_CAPTURE_UNSUPPORTED;
    assert_eq!(code(outputs.fetch(4, 1, &stream).unwrap_err()), unsupported);
    assert_eq!(code(pending.source_free_on(&stream).unwrap_err()), unsupported);
    assert_eq!(scope.end().unwrap().nodes().count(), 0);
    let again = outputs.fetch(4, 1, &stream).unwrap();
    assert_eq!(again.wait(LONG).unwrap().read(words).unwrap(), [0; 4]);
    assert_eq!(pending.wait(LONG).unwrap().read(words).unwrap(), [0; 4]);
}

/// A device that has failed never writes the word: the wait ends with the driver's error.
#[test]
fn results_of_a_device_that_fails_are_an_error() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let stream = Stream::new(&context).unwrap();
        let (outputs, _words) = small(&context, 1);
        let gate = Gate::close(&stream);
        let pending = outputs.fetch(4, 1, &stream).unwrap();
        machine.fault_devices(CudaError::ILLEGAL_ADDRESS);
        gate.open();
        assert!(matches!(pending.wait(LONG), Err(StageError::Driver(_))));
        drop(pending);
        assert!(matches!(outputs.begin(4, 1), Err(StageError::Driver(_))));
    });
}

/// Every call on the way of a fetch fails in turn: the ring slot is free, and the next fetch right.
#[test]
fn a_fetch_that_fails_has_not_happened() {
    for layout in LAYOUTS {
        let run = |machine: &Arc<Simulator>, fail: Option<(&'static str, u64)>| {
            on_machine(machine, |driver| {
                let context = context(driver);
                let _current = context.enter().unwrap();
                let outputs = outputs(&context).layout(layout).ring_depth(1).build().unwrap();
                let (ids, stream) = (OutputIds::of(&outputs), Stream::new(&context).unwrap());
                let counts = Counts { tokens: 5, requests: 2 };
                ids.compute(&stream, counts, 1);
                stream.synchronize().unwrap();
                let before = machine.all_calls();
                if let Some((call, nth)) = fail {
                    machine.fail(call, nth, CudaError::OPERATING_SYSTEM);
                }
                let pending = outputs.fetch(5, 2, &stream);
                let calls = machine.all_calls();
                let failed = pending.is_err();
                drop(pending);
                stream.synchronize().unwrap();
                ids.check(&outputs.fetch(5, 2, &stream).unwrap(), 1);
                let count = |name| before.iter().find(|it| it.0 == name).map_or(0, |it| it.1);
                let each = |(name, calls)| (1..=calls - count(name)).map(move |nth| (name, nth));
                (failed, calls.into_iter().flat_map(each).collect::<Vec<_>>())
            })
        };
        let new = || Arc::new(Simulator::new(Config::default()));
        let (_, calls) = run(&new(), None);
        assert!(calls.iter().any(|call| call.0 == "cuGraphLaunch"));
        let failed = calls.iter().filter(|call| run(&new(), Some(**call)).0).count();
        assert!(failed > 5, "{failed} of {calls:?}");
    }
}
