#![expect(unsafe_code, reason = "captures by raw calls, forks")]
//! Captures that other code begins, forks, other devices, and graphs that are made ahead.

use std::ptr;
use std::sync::Arc;

use wharf::memory::{PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::staging::{
    Forgotten, InputBuffers, InputBuffersBuilder, Instantiation, Layout, Len, Pad, Reader,
    SlotFault, SlotId, StageError, Staged, StallCause,
};
use wharf::stream::StreamKind;
use wharf::sys::bindings::{CUgraph, CUstreamCaptureMode};
use wharf::{Context, CudaError, Driver, Error, Stream};

use crate::backend::{Config, Simulator, machine, on_each_driver, on_machine};
use crate::deadline::SHORT;
use crate::graph_rig::{Gate, Inventory};
use crate::staging_readers::assert_held;
use crate::staging_rig::{context, words};

on_each_driver!(
    a_capture_of_others_that_was_announced_is_not_spoiled,
    a_set_that_asks_each_time_does_not_spoil_a_capture,
    a_ring_slot_that_a_capture_took_is_given_up,
    a_read_that_ends_in_a_capture_not_known_of_does_not_stop_later_steps,
    the_legacy_stream_is_not_said_to_be_captured,
    a_forked_child_is_refused_and_touches_nothing,
    eager_graphs_are_those_of_the_smallest_buckets,
    graphs_that_are_made_ahead_are_sent_ahead,
);

fn small(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8]).max_tokens(16)
}

fn stage<'a>(
    inputs: &'a InputBuffers,
    value: u32,
    tokens: usize,
    stream: &Stream,
) -> Result<Staged<'a>, StageError> {
    let mut step = inputs.begin(tokens, 1)?;
    step.write(inputs.slot_id("ids").unwrap()).fill(value);
    step.submit(stream)
}

/// A capture as an engine begins it, by the driver itself.
struct Foreign<'a>(&'a Stream);

impl<'a> Foreign<'a> {
    fn begin(stream: &'a Stream) -> Self {
        let context = stream.context();
        let _scope = context.enter().unwrap();
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
        let begin = &context.driver().api().stream_begin_capture;
        // SAFETY: the stream is alive, and its context is current.
        unsafe { begin.call(stream.as_raw(), mode) }.unwrap();
        Self(stream)
    }

    /// Ends it and destroys the graph. Returns whether the capture was good.
    fn end(self) -> Result<(), Error> {
        let _scope = self.0.context().enter().unwrap();
        let api = self.0.context().driver().api();
        let mut graph: CUgraph = ptr::null_mut();
        // SAFETY: the stream is alive, and `graph` valid for writes for the whole call.
        unsafe { api.stream_end_capture.call(self.0.as_raw(), &raw mut graph) }?;
        // SAFETY: made by the capture, destroyed once.
        unsafe { api.graph_destroy.call(graph) }
    }
}

/// Every call of staging on a stream that other code captures is refused, and the capture is good.
fn refuses(inputs: &InputBuffers) {
    let context = inputs.context();
    let [stream, other] = [(); 2].map(|()| Stream::new(context).unwrap());
    let refused = |call| {
        StageError::Driver(Error::Driver { call, code: CudaError::STREAM_CAPTURE_UNSUPPORTED })
    };
    let embedded = inputs.embed(4).unwrap();
    let staged = stage(inputs, 1, 4, &other).unwrap();
    let read = staged.reader(&stream).unwrap();
    let capture = Foreign::begin(&stream);
    assert_eq!(read.end(), Err(refused("cuEventRecord")));
    assert_eq!(staged.wait_on(&stream), Err(refused("cuStreamWaitEvent")));
    assert_eq!(staged.reader(&stream).map(drop), Err(refused("cuStreamWaitEvent")));
    assert_eq!(staged.consumed_by(&stream), Err(refused("cuEventRecord")));
    for tokens in [4, 12] {
        assert_eq!(stage(inputs, 2, tokens, &stream).unwrap_err(), refused("cuGraphLaunch"));
    }
    let mut step = embedded.begin(4, 1).unwrap();
    step.write(inputs.slot_id::<u32>("ids").unwrap()).fill(3);
    let outcome = step.submit_with::<StageError>(&stream, || panic!("launched"));
    assert_eq!(outcome.unwrap_err(), refused("cuGraphLaunch"));
    capture.end().unwrap();
    // No ring slot was lost.
    for value in 0..8 {
        let staged = stage(inputs, value, 4, &stream).unwrap();
        let found: [u32; 4] =
            words(&stream, staged.device_ptr(inputs.slot_id::<u32>("ids").unwrap()));
        assert_eq!(found, [value; 4]);
    }
}

/// F8, T2.
fn a_capture_of_others_that_was_announced_is_not_spoiled(driver: &Driver) {
    let (context, before) = (context(driver), Inventory::now());
    for layout in [Layout::PerSlot, Layout::Packed] {
        let inputs = small(&context).layout(layout).ring_depth(1).build().unwrap();
        let (first, second) = (driver.capture_elsewhere(), driver.capture_elsewhere());
        drop(first);
        refuses(&inputs);
        drop(second);
        inputs.wait().unwrap();
    }
    before.restored(driver);
}

fn a_set_that_asks_each_time_does_not_spoil_a_capture(driver: &Driver) {
    let (context, before) = (context(driver), Inventory::now());
    refuses(&small(&context).ring_depth(1).check_captures(true).build().unwrap());
    before.restored(driver);
}

/// F8: what was not known of takes a ring slot, which is not lost for good.
fn a_ring_slot_that_a_capture_took_is_given_up(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    for tokens in [4, 12] {
        let inputs = small(&context).ring_depth(1).deadline(SHORT).build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        let capture = Foreign::begin(&stream);
        stage(&inputs, 1, tokens, &stream).unwrap();
        capture.end().unwrap();
        // Where the device cannot write words, a graph's launch leaves the ring slot as it was.
        if let Err(error) = inputs.begin(4, 1) {
            if let StageError::Stalled(stall) = &error {
                assert_eq!((stall.ring_slot, stall.cause), (0, StallCause::Copy));
                assert!(error.to_string().contains("`release_lost`"), "{error}");
            }
            // SAFETY: the graph that the launch went into is destroyed.
            unsafe { inputs.release_lost(0) }.unwrap();
        }
        for value in [5, 6] {
            let staged = stage(&inputs, value, 4, &stream).unwrap();
            assert_eq!(words(&stream, staged.device_ptr(ids)), [value; 4]);
            // SAFETY: nothing is pending.
            unsafe { inputs.release_lost(0) }.unwrap();
        }
        // SAFETY: there is no such ring slot.
        unsafe { inputs.release_lost(7) }.unwrap();
    }
}

/// The record of the end goes into the capture, and the event is of no use outside.
fn a_read_that_ends_in_a_capture_not_known_of_does_not_stop_later_steps(driver: &Driver) {
    let context = context(driver);
    let [copies, model] = [(); 2].map(|()| Stream::new(&context).unwrap());
    let unsupported = |call| Error::Driver { call, code: CudaError::STREAM_CAPTURE_UNSUPPORTED };
    let refused = Err(StageError::Driver(unsupported("cuEventRecord")));
    for has_zero_copy in [false, true] {
        let mut set = small(&context);
        if has_zero_copy {
            set = set
                .slot_zero_copy::<u32>("flags", Len::Fixed(4), Pad::Zero)
                .forgotten(Forgotten::Pad);
        }
        let inputs = set.build().unwrap();
        let ids = inputs.slot_id::<u32>("ids").unwrap();
        for with_reader in [true, false] {
            let staged = stage(&inputs, 1, 4, &copies).unwrap();
            let read = with_reader.then(|| staged.reader(&model).unwrap());
            if !with_reader {
                staged.wait_on(&model).unwrap();
            }
            let capture = Foreign::begin(&model);
            let ended = read.map_or_else(|| staged.consumed_by(&model), Reader::end);
            assert_eq!(ended, refused);
            // The next step does not join the capture.
            let next = stage(&inputs, 9, 4, &copies).unwrap_err();
            assert_eq!(next, StageError::ReaderCaptured { stream: model.as_raw().addr() });
            capture.end().unwrap();
            let gate = Gate::close(&model);
            let next = stage(&inputs, 2, 4, &copies).unwrap();
            assert_held(&next);
            gate.open();
            for value in 3..9 {
                let staged = stage(&inputs, value, 4, &copies).unwrap();
                assert_eq!(words(&copies, staged.device_ptr(ids)), [value; 4]);
            }
        }
    }
}

/// A step cannot wait for it beside a capture of a blocking stream, and that is to be ended.
fn the_legacy_stream_is_not_said_to_be_captured(driver: &Driver) {
    let context = context(driver);
    let (copies, legacy) = (Stream::new(&context).unwrap(), Stream::legacy(&context));
    let blocking = Stream::with_priority(0, StreamKind::Blocking, &context).unwrap();
    let inputs = small(&context).build().unwrap();
    stage(&inputs, 1, 4, &copies).unwrap().wait_on(&legacy).unwrap();
    let capture = Foreign::begin(&blocking);
    let refused = stage(&inputs, 2, 4, &copies).unwrap_err();
    assert_eq!(refused, StageError::ReaderCaptured { stream: legacy.as_raw().addr() });
    let text = refused.to_string();
    assert!(text.contains("a blocking stream of its context is being captured"), "{text}");
    capture.end().unwrap();
    stage(&inputs, 2, 4, &copies).unwrap();
}

/// What a child of this process finds: everything is refused, and nothing ends it before its end.
fn a_forked_child_is_refused_and_touches_nothing(driver: &Driver) {
    let (context, before) = (context(driver), Inventory::now());
    let (stream, other) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let inputs = small(&context).ring_depth(4).build().unwrap();
    let (ids, embedded) = (inputs.slot_id::<u32>("ids").unwrap(), inputs.embed(4).unwrap());
    let staged = stage(&inputs, 1, 4, &stream).unwrap();
    let (read, mut step) = (staged.reader(&other).unwrap(), inputs.begin(4, 1).unwrap());
    step.write(ids).fill(2);
    // SAFETY: the child makes calls that are refused, drops what it has, and ends.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let forked = StageError::Driver(Error::Forked);
        let begun = [inputs.begin(4, 1), inputs.try_begin(4, 1), embedded.begin(4, 1)];
        let mut is_refused =
            begun.into_iter().all(|begun| begun.map(drop).as_ref() == Err(&forked));
        // The slot's memory is the child's own.
        step.write(ids).fill(7);
        is_refused &= step.write_from(ids, &[1; 4]) == Err(forked.clone());
        is_refused &= step.submit(&stream).map(drop) == Err(forked.clone());
        is_refused &= staged.wait_on(&other) == Err(forked.clone());
        is_refused &= staged.consumed_by(&other) == Err(forked.clone());
        is_refused &= staged.reader(&other).map(drop) == Err(forked.clone());
        is_refused &= staged.is_complete() == Err(forked.clone());
        is_refused &= read.end() == Err(forked.clone());
        is_refused &= inputs.wait() == Err(forked.clone());
        is_refused &= inputs.prewarm(4) == Err(forked.clone());
        is_refused &= inputs.embed(4).map(drop) == Err(forked.clone());
        // SAFETY: nothing is pending in this process.
        is_refused &= unsafe { inputs.release_lost(0) } == Err(forked);
        drop((inputs, embedded, stream, other));
        // SAFETY: ends the child without what the parent registered for its own end.
        unsafe { libc::_exit(i32::from(!is_refused)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    // The child changed nothing here.
    read.end().unwrap();
    let staged = step.submit(&stream).unwrap();
    assert_eq!(words(&stream, staged.device_ptr(ids)), [2; 4]);
    drop((embedded, inputs, stream, other));
    before.restored(driver);
}

/// F7: a ladder of more graphs than there may be.
fn eager_graphs_are_those_of_the_smallest_buckets(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let ladder =
        || small(&context).buckets(1..=20).max_tokens(20).instantiation(Instantiation::Eager);
    let by_count = ladder().ring_depth(2).max_graphs(11).build().unwrap();
    let by_bytes = ladder().ring_depth(2).max_graph_bytes(11 * 3 * 1024).build().unwrap();
    for inputs in [by_count, by_bytes] {
        assert_eq!((inputs.graphs().count, inputs.graphs_made().ahead), (11, 11));
        for tokens in (1..=5).chain(1..=5) {
            stage(&inputs, 1, tokens, &stream).unwrap();
            stream.synchronize().unwrap();
        }
        assert_eq!(inputs.graphs_made().by_steps, 0);
    }
}

fn graphs_that_are_made_ahead_are_sent_ahead(driver: &Driver) {
    let context = context(driver);
    let uploads = || machine().map(|machine| machine.calls("cuGraphUpload"));
    let before = uploads();
    let inputs = small(&context).ring_depth(2).build().unwrap();
    assert_eq!(inputs.prewarm(4).unwrap(), 2);
    assert_eq!(uploads(), before.map(|before| before + 2));
    let _eager = small(&context).ring_depth(2).instantiation(Instantiation::Eager).build().unwrap();
    assert_eq!(uploads(), before.map(|before| before + 6));
}

/// Streams and buffers of another device are refused by name, before anything is submitted.
#[test]
fn what_is_of_another_device_is_refused() {
    let machine = Arc::new(Simulator::new(Config { devices: 2, ..Config::default() }));
    on_machine(&machine, |driver| {
        let [here, there] =
            [0, 1].map(|ordinal| Context::retain(&driver.device(ordinal).unwrap()).unwrap());
        let [own, foreign] = [&here, &there].map(|context| Stream::new(context).unwrap());
        let inputs = small(&here).build().unwrap();
        let ids: SlotId<u32> = inputs.slot_id("ids").unwrap();
        let other_device = StageError::OtherDevice { wanted: 0, given: 1 };
        for tokens in [4, 12] {
            assert_eq!(stage(&inputs, 1, tokens, &foreign).unwrap_err(), other_device);
        }
        let staged = stage(&inputs, 1, 4, &own).unwrap();
        assert_eq!(staged.wait_on(&foreign), Err(other_device.clone()));
        assert_eq!(staged.consumed_by(&foreign), Err(other_device.clone()));
        assert_eq!(staged.reader(&foreign).map(drop), Err(other_device.clone()));
        let pinned = PinnedMemoryResource::new(&there, 2 << 20, PinnedOptions::default()).unwrap();
        let buffer: Buffer<u32> =
            Pool::builder().build(pinned).unwrap().alloc(4, &foreign).unwrap();
        let mut step = inputs.begin(4, 1).unwrap();
        let fault = SlotFault::OtherDevice { wanted: 0, given: Some(1) };
        assert_eq!(
            step.refer_buffer(ids, &buffer),
            Err(StageError::Slot { slot: "ids".into(), fault })
        );
        step.write(ids).fill(4);
        let staged = step.submit(&own).unwrap();
        assert_eq!(words(&own, staged.device_ptr(ids)), [4; 4]);
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
