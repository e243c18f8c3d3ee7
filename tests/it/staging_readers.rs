#![expect(unsafe_code, reason = "copies device memory by raw address; borrows streams")]
//! The guard of the destination: streams by what they are, readers by where they end.
//!
//! Reports: F1 to F5 of the staging reports, B1 of the embedding reports, A19 of the memory
//! reports.

use std::sync::mpsc::channel;
use std::thread;

use wharf::graph::{CaptureMode, CaptureScope};
use wharf::memory::{MemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::staging::{InputBuffers, InputBuffersBuilder, Len, SlotId, StageError, Staged};
use wharf::{Context, CudaError, Driver, Error, Stream};

use crate::backend::{binder, on_each_driver};
use crate::graph_rig::Gate;
use crate::staging_rig::{context, words};

on_each_driver!(
    the_default_streams_of_two_threads_are_two_streams,
    a_handle_that_comes_back_is_another_stream,
    an_old_step_does_not_disarm_the_guard_of_a_later_one,
    a_later_step_is_behind_the_copy_though_its_reader_is_known,
    a_stream_that_waited_and_declared_nothing_is_waited_for,
    a_second_reader_does_not_wait_for_the_first,
    the_null_stream_reads_as_any_other,
    what_is_read_on_the_steps_own_stream_is_waited_for,
    a_reader_whose_stream_is_gone_is_waited_for,
    a_read_ends_where_it_was_declared_to_end,
    the_end_of_a_reader_does_not_narrow_a_wait_of_the_same_stream,
    the_end_of_a_reader_does_not_narrow_what_reads_on_the_steps_own_stream,
    what_is_declared_consumed_is_the_whole_stream,
    a_step_is_refused_while_a_reader_is_open,
    a_step_is_refused_while_a_reader_is_captured,
);

/// A set of one slot, and pinned memory that steps are read into, a place a step.
pub(crate) struct Rig {
    pub(crate) context: Context,
    out: PinnedMemoryResource,
    pub(crate) inputs: InputBuffers,
    pub(crate) ids: SlotId<u32>,
}

impl Rig {
    pub(crate) fn new(context: &Context) -> Self {
        Self::with(context, builder(context))
    }

    /// With so many steps in flight.
    pub(crate) fn deep(depth: usize, context: &Context) -> Self {
        Self::with(context, builder(context).ring_depth(depth))
    }

    pub(crate) fn with(context: &Context, builder: InputBuffersBuilder) -> Self {
        let out = PinnedMemoryResource::new(context, 1, PinnedOptions::default()).unwrap();
        // SAFETY: the first and only commit.
        unsafe { out.commit(0, out.granularity()) }.unwrap();
        let inputs = builder.build().unwrap();
        Self { context: context.clone(), out, ids: inputs.slot_id("ids").unwrap(), inputs }
    }

    /// Stages four times `value` on a stream.
    pub(crate) fn stage(&self, value: u32, stream: &Stream) -> Result<Staged<'_>, StageError> {
        let mut step = self.inputs.begin(4, 1)?;
        step.write(self.ids).fill(value);
        step.submit(stream)
    }

    /// Reads what is staged, in the order of a stream.
    pub(crate) fn read(&self, place: usize, stream: &Stream) {
        let from = self.inputs.static_buffers().device_ptr(self.ids, 4).unwrap();
        // SAFETY: the place is this read's alone; both outlive the copy.
        unsafe { stream.copy_dtoh(self.place(place).cast(), from, 16) }.unwrap();
    }

    /// What was read at a place, once its stream is synchronised.
    pub(crate) fn found(&self, place: usize) -> [u32; 4] {
        // SAFETY: no copy to it is pending.
        unsafe { self.place(place).read() }
    }

    /// What is staged, behind a stream's work.
    pub(crate) fn last(&self, stream: &Stream) -> [u32; 4] {
        words(stream, self.inputs.static_buffers().device_ptr(self.ids, 4).unwrap())
    }

    fn place(&self, place: usize) -> *mut [u32; 4] {
        let base: *mut [u32; 4] =
            std::ptr::with_exposed_provenance_mut(usize::try_from(self.out.base()).unwrap());
        assert!(place < 4096);
        base.wrapping_add(place)
    }
}

pub(crate) fn builder(context: &Context) -> InputBuffersBuilder {
    InputBuffers::builder(context).slot::<u32>("ids", Len::Tokens).buckets([4, 8])
}

pub(crate) fn streams<const N: usize>(context: &Context) -> [Stream; N] {
    [(); N].map(|()| Stream::new(context).unwrap())
}

/// A step is behind a gate that is closed: other threads may run, and it is not complete.
pub(crate) fn assert_held(step: &Staged<'_>) {
    for _ in 0..1000 {
        thread::yield_now();
        assert!(!step.is_complete().unwrap());
    }
}

/// F1: thread 1 stages while its stream is held up, then thread 2 on its own default stream.
fn the_default_streams_of_two_threads_are_two_streams(driver: &Driver) {
    let rig = &Rig::new(&context(driver));
    let ((staged, is_staged), (go, may_go), bind) = (channel(), channel(), binder());
    thread::scope(|scope| {
        scope.spawn(move || {
            let _bound = bind();
            let stream = Stream::per_thread(&rig.context);
            let gate = Gate::close(&stream);
            rig.stage(1, &stream).unwrap();
            staged.send(()).unwrap();
            may_go.recv().unwrap();
            gate.open();
            stream.synchronize().unwrap();
        });
        is_staged.recv().unwrap();
        let stream = Stream::per_thread(&rig.context);
        rig.stage(2, &stream).unwrap();
        go.send(()).unwrap();
        assert_eq!(rig.last(&stream), [2; 4]);
    });
    rig.inputs.wait().unwrap();
    assert_eq!(rig.last(&Stream::new(&rig.context).unwrap()), [2; 4]);
}

/// F2, A19: a stream is dropped with its step in flight, and the next one has its handle.
fn a_handle_that_comes_back_is_another_stream(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let first = Stream::new(&rig.context).unwrap();
    let gate = Gate::close(&first);
    rig.stage(1, &first).unwrap();
    drop(first);
    let second = Stream::new(&rig.context).unwrap();
    rig.stage(2, &second).unwrap();
    gate.open();
    rig.inputs.wait().unwrap();
    assert_eq!(rig.last(&second), [2; 4]);
}

/// F3: a step whose ring slot another step has declares a reader.
fn an_old_step_does_not_disarm_the_guard_of_a_later_one(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [first, second, reader] = streams(&rig.context);
    let old = rig.stage(1, &first).unwrap();
    first.synchronize().unwrap();
    let gate = Gate::close(&first);
    rig.stage(2, &first).unwrap();
    assert_eq!(old.consumed_by(&reader), Err(StageError::Superseded));
    assert_eq!(old.wait_on(&reader), Err(StageError::Superseded));
    assert_eq!(old.reader(&reader).map(drop), Err(StageError::Superseded));
    rig.stage(3, &second).unwrap();
    gate.open();
    rig.inputs.wait().unwrap();
    assert_eq!(rig.last(&second), [3; 4]);
}

/// F3: a reader was declared, and has nothing to do; the copy itself is held up.
fn a_later_step_is_behind_the_copy_though_its_reader_is_known(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [first, second, reader] = streams(&rig.context);
    let gate = Gate::close(&first);
    rig.stage(1, &first).unwrap().consumed_by(&reader).unwrap();
    rig.stage(2, &second).unwrap();
    gate.open();
    rig.inputs.wait().unwrap();
    assert_eq!(rig.last(&second), [2; 4]);
}

/// F4: a model's stream waits for each step, reads it late, and says no more.
fn a_stream_that_waited_and_declared_nothing_is_waited_for(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, model] = streams(&rig.context);
    for step in 0..4 {
        rig.stage(u32::try_from(step).unwrap(), &copies).unwrap().wait_on(&model).unwrap();
        let gate = Gate::close(&model);
        rig.read(step, &model);
        thread::spawn(move || gate.open()).join().unwrap();
    }
    let gate = Gate::close(&model);
    rig.read(4, &model);
    let next = rig.stage(4, &copies).unwrap();
    assert!(!next.is_complete().unwrap());
    gate.open();
    model.synchronize().unwrap();
    assert_eq!([0, 1, 2, 3, 4].map(|step| rig.found(step)[3]), [0, 1, 2, 3, 3]);
}

/// F5: two readers of one step; the one that was declared first is held up.
fn a_second_reader_does_not_wait_for_the_first(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, first, second] = streams(&rig.context);
    for declare_late in [false, true] {
        let staged = rig.stage(1, &copies).unwrap();
        let readers = [&first, &second].map(|stream| staged.reader(stream).unwrap());
        let gate = Gate::close(&first);
        rig.read(0, &first);
        if declare_late {
            drop(readers);
            rig.read(1, &second);
            staged.consumed_by(&second).unwrap();
        } else {
            rig.read(1, &second);
            for reader in readers {
                reader.end().unwrap();
            }
        }
        second.synchronize().unwrap();
        let next = rig.stage(2, &copies).unwrap();
        assert!(!next.is_complete().unwrap());
        gate.open();
        first.synchronize().unwrap();
        assert_eq!((rig.found(0), rig.found(1), rig.last(&copies)), ([1; 4], [1; 4], [2; 4]));
    }
}

/// B1: the handle of the legacy default stream may be null.
fn the_null_stream_reads_as_any_other(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let copies = Stream::new(&rig.context).unwrap();
    // SAFETY: a default stream.
    let null = unsafe { Stream::borrow_raw(std::ptr::null_mut(), &rig.context) };
    for step in 0..4 {
        let staged = rig.stage(u32::try_from(step).unwrap(), &copies).unwrap();
        staged.wait_on(&null).unwrap();
        let gate = Gate::close(&null);
        rig.read(step, &null);
        staged.consumed_by(&null).unwrap();
        let next = rig.stage(9, &copies).unwrap();
        assert!(!next.is_complete().unwrap());
        gate.open();
    }
    null.synchronize().unwrap();
    assert_eq!([0, 1, 2, 3].map(|step| rig.found(step)[0]), [0, 1, 2, 3]);
}

/// Two micro-batches, each staged and read on a stream of its own.
fn what_is_read_on_the_steps_own_stream_is_waited_for(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let streams: [Stream; 2] = streams(&rig.context);
    let gates = [0, 1, 2, 3].map(|step| {
        let stream = &streams[step % 2];
        rig.stage(u32::try_from(step).unwrap(), stream).unwrap();
        let gate = Gate::close(stream);
        rig.read(step, stream);
        // The ring has three slots.
        if step == 0 {
            Some(gate)
        } else {
            drop(gate);
            None
        }
    });
    gates.into_iter().flatten().for_each(Gate::open);
    rig.context.synchronize().unwrap();
    assert_eq!([0, 1, 2, 3].map(|step| rig.found(step)[0]), [0, 1, 2, 3]);
}

/// Streams that come and go: one is dropped while it waits to read.
fn a_reader_whose_stream_is_gone_is_waited_for(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, model] = streams(&rig.context);
    rig.stage(1, &copies).unwrap().wait_on(&model).unwrap();
    let gate = Gate::close(&model);
    rig.read(0, &model);
    drop(model);
    let next = rig.stage(2, &copies).unwrap();
    assert!(!next.is_complete().unwrap());
    gate.open();
    copies.synchronize().unwrap();
    assert_eq!((rig.found(0), rig.last(&copies)), ([1; 4], [2; 4]));
}

/// What comes behind a declared read is no reason to wait.
fn a_read_ends_where_it_was_declared_to_end(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, model, own] = streams(&rig.context);
    for with_reader in [true, false] {
        let staged = rig.stage(1, &copies).unwrap();
        if with_reader {
            let read = staged.reader(&model).unwrap();
            assert_eq!(read.stream().as_raw(), model.as_raw());
            rig.read(0, &model);
        } else {
            staged.wait_on(&model).unwrap();
            rig.read(0, &model);
            staged.consumed_by(&model).unwrap();
        }
        let gate = Gate::close(&model);
        rig.stage(2, &copies).unwrap();
        copies.synchronize().unwrap();
        assert_eq!((rig.found(0), rig.last(&copies)), ([1; 4], [2; 4]));
        gate.open();
    }
    // Of the step's own stream too.
    let staged = rig.stage(3, &own).unwrap();
    staged.consumed_by(&own).unwrap();
    let gate = Gate::close(&own);
    rig.stage(4, &copies).unwrap();
    assert_eq!(rig.last(&copies), [4; 4]);
    gate.open();
    own.synchronize().unwrap();
}

/// Two components of an engine share a stream: one waits, the other has a reader.
fn the_end_of_a_reader_does_not_narrow_a_wait_of_the_same_stream(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, model] = streams(&rig.context);
    for wait in 0..3 {
        let staged = rig.stage(1, &copies).unwrap();
        let wait_at = |place| {
            if wait == place {
                staged.wait_on(&model).unwrap();
            }
        };
        wait_at(0);
        let read = staged.reader(&model).unwrap();
        wait_at(1);
        read.end().unwrap();
        wait_at(2);
        if wait == 2 {
            staged.reader(&model).unwrap().end().unwrap();
        }
        let gate = Gate::close(&model);
        rig.read(0, &model);
        let next = rig.stage(2, &copies).unwrap();
        assert_held(&next);
        gate.open();
        model.synchronize().unwrap();
        assert_eq!((rig.found(0), rig.last(&copies)), ([1; 4], [2; 4]));
    }
}

fn the_end_of_a_reader_does_not_narrow_what_reads_on_the_steps_own_stream(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [own, other] = streams(&rig.context);
    // Its second step is on the stream of its first.
    for earlier in 0..2 {
        for _ in 0..earlier {
            rig.stage(0, &own).unwrap();
        }
        rig.stage(1, &own).unwrap().reader(&own).unwrap().end().unwrap();
        let gate = Gate::close(&own);
        rig.read(0, &own);
        let next = rig.stage(2, &other).unwrap();
        assert_held(&next);
        gate.open();
        own.synchronize().unwrap();
        assert_eq!((rig.found(0), rig.last(&other)), ([1; 4], [2; 4]));
    }
}

/// It is the caller's word for all that the stream was given, whatever else was said of the stream.
fn what_is_declared_consumed_is_the_whole_stream(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, model] = streams(&rig.context);
    for stream in [&model, &copies] {
        for has_reader in [false, true] {
            let staged = rig.stage(1, &copies).unwrap();
            let read = has_reader.then(|| staged.reader(stream).unwrap());
            staged.wait_on(stream).unwrap();
            staged.consumed_by(stream).unwrap();
            if let Some(read) = read {
                read.end().unwrap();
            }
            let other = Stream::new(&rig.context).unwrap();
            let gate = Gate::close(stream);
            rig.stage(2, &other).unwrap();
            assert_eq!(rig.last(&other), [2; 4]);
            gate.open();
            stream.synchronize().unwrap();
        }
    }
}

fn a_step_is_refused_while_a_reader_is_open(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, model] = streams(&rig.context);
    let staged = rig.stage(1, &copies).unwrap();
    let (first, second) = (staged.reader(&model).unwrap(), staged.reader(&model).unwrap());
    drop(first);
    for stream in [&copies, &model] {
        let refused = rig.stage(2, stream).unwrap_err();
        assert_eq!(refused, StageError::ReaderOpen { stream: model.as_raw().addr() });
        assert!(refused.to_string().contains("drop it, or call `end`"), "{refused}");
    }
    // The step is still the last one.
    staged.reader(&copies).unwrap().end().unwrap();
    assert_eq!(rig.last(&copies), [1; 4]);
    second.end().unwrap();
    rig.stage(2, &copies).unwrap();
    assert_eq!(rig.last(&copies), [2; 4]);
}

fn a_step_is_refused_while_a_reader_is_captured(driver: &Driver) {
    let rig = Rig::new(&context(driver));
    let [copies, model] = streams(&rig.context);
    let unsupported = |call| {
        StageError::Driver(Error::Driver { call, code: CudaError::STREAM_CAPTURE_UNSUPPORTED })
    };
    let staged = rig.stage(1, &copies).unwrap();
    let read = staged.reader(&model).unwrap();
    let capture = CaptureScope::begin(&model, CaptureMode::default()).unwrap();
    assert_eq!(read.end(), Err(unsupported("cuEventRecord")));
    assert_eq!(staged.reader(&model).map(drop), Err(unsupported("cuStreamWaitEvent")));
    let refused = rig.stage(2, &copies).unwrap_err();
    assert_eq!(refused, StageError::ReaderCaptured { stream: model.as_raw().addr() });
    assert_eq!(capture.end().unwrap().nodes().count(), 0);
    rig.stage(2, &copies).unwrap();
    assert_eq!(rig.last(&copies), [2; 4]);
}
