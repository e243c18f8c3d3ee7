//! What the views order, keep and refuse, on the driver that cudarc and wharf both load. Without
//! one each test says that it was skipped.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::panic,
    reason = "tests: a failure panics"
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cudarc::driver::{CudaContext, CudaStream, DevicePtr, DeviceSlice, sys};
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, HostError, Pool};
use wharf::staging::{InputBuffers, Len, OutputBuffers, SlotFault, StageError};
use wharf::{Context, CudaError, Driver, Error, LoadError};
use wharf_cudarc::{
    BorrowedStream, DeviceView, FetchFrom, HostSource, HostTarget, OutputView, Recording,
    StaticView,
};

const LIMIT: Duration = Duration::from_secs(600);

struct Rig {
    cuda: Arc<CudaContext>,
    queue: Arc<CudaStream>,
    context: Context,
    stream: BorrowedStream,
    device: Pool,
    pinned: Pool,
    /// Last: the tests share the primary context, and captures are of the whole process.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// The objects of a test, or none where there is no driver and none is demanded.
fn rig() -> Option<Rig> {
    let driver = match Driver::load() {
        Ok(driver) => driver,
        Err(LoadError::Library { .. } | LoadError::NoDevice)
            if std::env::var_os("WHARF_REQUIRE_GPU").is_none() =>
        {
            eprintln!("skipped: there is no CUDA driver here");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cuda = CudaContext::new(0).unwrap();
    let queue = cuda.new_stream().unwrap();
    let context = wharf_cudarc::context(&cuda, &driver).unwrap();
    let stream = BorrowedStream::new(&queue, &context).unwrap();
    let resource = DeviceMemoryResource::new(&context, 64 << 20).unwrap();
    let device = Pool::builder().build(resource).unwrap();
    let resource = PinnedMemoryResource::new(&context, 64 << 20, PinnedOptions::default());
    let pinned = Pool::builder().build(resource.unwrap()).unwrap();
    Some(Rig { cuda, queue, context, stream, device, pinned, _alone: alone })
}

#[test]
fn uses_of_views_are_recorded() {
    let Some(rig) = rig() else { return };
    let buffer: Buffer<i32> = rig.device.alloc(100, &rig.stream).unwrap();
    assert_eq!(buffer.info().uses, []);
    rig.queue.memset_zeros(&mut DeviceView::new(&buffer, &rig.stream).unwrap()).unwrap();
    assert_eq!(buffer.info().uses.len(), 1, "{:?}", buffer.info());
    // A second stream that the view is told of is ordered and recorded by itself.
    let queue = rig.cuda.new_stream().unwrap();
    let stream = BorrowedStream::new(&queue, &rig.context).unwrap();
    let view = DeviceView::new(&buffer, &rig.stream).unwrap().with(&stream);
    assert_eq!(queue.clone_dtoh(&view).unwrap().len(), 100);
    drop(view);
    assert_eq!(buffer.info().uses.len(), 2);
    queue.synchronize().unwrap();
}

#[test]
fn a_stream_that_a_view_does_not_know_is_waited_for() {
    let Some(rig) = rig() else { return };
    let buffer: Buffer<i32> = rig.device.alloc(1000, &rig.stream).unwrap();
    buffer.fill(5, &rig.stream).unwrap();
    let stranger = rig.cuda.new_stream().unwrap();
    // Behind the fill, though nothing but the view orders the two.
    let mut back = vec![0; 1000];
    stranger.memcpy_dtoh(&DeviceView::new(&buffer, &rig.stream).unwrap(), &mut back).unwrap();
    assert_eq!(back, [5; 1000]);
    assert_eq!(buffer.info().uses.len(), 1, "the stranger's copy is over");
}

#[test]
fn a_graph_keeps_what_was_captured() {
    let Some(rig) = rig() else { return };
    let buffer: Buffer<i32> = rig.device.alloc(8, &rig.stream).unwrap();
    let inputs = InputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let inputs = inputs.buckets([8]).build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let recording = Recording::begin(&rig.stream).unwrap();
    let slot = StaticView::new(&inputs, ids, 8, &rig.stream).unwrap();
    let mut view = DeviceView::new(&buffer, &rig.stream).unwrap();
    rig.queue.memcpy_dtod(&slot, &mut view).unwrap();
    // A step has no place in a capture, and does not disturb it.
    let mut step = inputs.begin(8, 1).unwrap();
    step.write(ids).fill(1);
    let refused = step.submit(&rig.stream).unwrap_err();
    assert!(matches!(refused, StageError::Driver(_)), "{refused:?}");
    let graph = recording.end().unwrap().unwrap();
    drop((slot, view));
    let address = buffer.info().address;
    drop((buffer, inputs));
    graph.launch().unwrap();
    let next: Buffer<i32> = rig.device.alloc(8, &rig.stream).unwrap();
    assert_ne!(next.info().address, address, "the graph writes there");
    rig.queue.synchronize().unwrap();
    drop(graph);
    rig.context.driver().wait_deferred(LIMIT).unwrap();
    let again: Buffer<i32> = rig.device.alloc(8, &rig.stream).unwrap();
    assert_eq!(again.info().address, address);
}

/// Event tracking is on: what cudarc says of its own slices does not hold for views.
#[test]
fn tracked_slices_break_a_capture_and_views_do_not() {
    let Some(rig) = rig() else { return };
    assert!(rig.cuda.is_event_tracking());
    let other = rig.cuda.new_stream().unwrap();
    let mut theirs = rig.queue.alloc_zeros::<i32>(8).unwrap();
    other.memset_zeros(&mut theirs).unwrap();
    let ours: Buffer<i32> = rig.device.alloc(8, &rig.stream).unwrap();
    rig.queue.memset_zeros(&mut DeviceView::new(&ours, &rig.stream).unwrap()).unwrap();
    rig.context.synchronize().unwrap();

    let recording = Recording::begin(&rig.stream).unwrap();
    rig.queue.memset_zeros(&mut DeviceView::new(&ours, &rig.stream).unwrap()).unwrap();
    assert!(recording.end().unwrap().is_some());

    let recording = Recording::begin(&rig.stream).unwrap();
    // The wait for the event from before the capture fails inside, which the end of it tells.
    let outcome = rig.queue.memset_zeros(&mut theirs).and_then(|()| rig.cuda.check_err());
    assert!(outcome.and_then(|()| recording.end().map(drop)).is_err());
    let _told = rig.cuda.check_err();
}

#[test]
fn pinned_memory_is_not_written_under_a_copy() {
    let Some(rig) = rig() else { return };
    let mut buffer: Buffer<i32> = rig.pinned.alloc(100_000, &rig.stream).unwrap();
    buffer.host_mut(LIMIT).unwrap().fill(3);
    let view = buffer.into_host(LIMIT).map_err(|(_, error)| error).unwrap();
    let source = HostSource::new(&view, &rig.stream).unwrap();
    let theirs = rig.queue.clone_htod(&source).unwrap();
    // The source is a view too, and goes with its use.
    let view = view.into_buffer().unwrap_err();
    drop(source);
    let mut buffer = view.into_buffer().unwrap();
    assert_eq!(buffer.info().uses.len(), 1);
    buffer.host_mut(LIMIT).unwrap().fill(4);
    let mut target = HostTarget::new(buffer, &rig.stream, LIMIT);
    rig.queue.memcpy_dtoh(&theirs, &mut target).unwrap();
    let mut buffer = target.into_buffer().unwrap();
    assert_eq!(buffer.host_mut(LIMIT).unwrap(), [3; 100_000]);
    // Another handle could give it to the device meanwhile, so no copy is made to it.
    let piece = buffer.slice(..1).unwrap();
    assert_eq!(buffer.host_mut(LIMIT).unwrap_err(), HostError::Shared);
    let mut target = HostTarget::new(buffer, &rig.stream, LIMIT);
    assert!(
        rig.queue.memcpy_dtoh(&theirs, &mut target).and_then(|()| rig.cuda.check_err()).is_err()
    );
    drop(piece);
    rig.queue.synchronize().unwrap();
}

#[test]
fn their_pinned_memory_is_the_source_of_a_step() {
    let Some(rig) = rig() else { return };
    let inputs = InputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let inputs = inputs.buckets([8]).build().unwrap();
    let ids = inputs.slot_id::<i32>("ids").unwrap();
    let zeros = rig.queue.alloc_zeros::<i32>(8).unwrap();
    let pinned = pinned_of(&rig, &zeros);
    let held = Arc::downgrade(&pinned);
    let mut step = inputs.begin(8, 1).unwrap();
    let short = Arc::new(short_of(&rig));
    let refused = wharf_cudarc::refer(&inputs, &mut step, ids, short).unwrap_err();
    assert!(matches!(refused, StageError::Slot { .. }), "{refused:?}");
    wharf_cudarc::refer(&inputs, &mut step, ids, pinned).unwrap();
    step.submit(&rig.stream).unwrap();
    assert!(held.upgrade().is_some(), "kept until the ring slot is used again");
    let view = StaticView::new(&inputs, ids, 8, &rig.stream).unwrap();
    assert_eq!(rig.queue.clone_dtoh(&view).unwrap(), [0; 8]);
    inputs.wait().unwrap();
    drop(inputs);
    assert!(held.upgrade().is_none());
}

#[test]
fn results_are_written_by_them_and_come_from_their_memory() {
    let Some(rig) = rig() else { return };
    let outputs = OutputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let outputs = Arc::new(outputs.slot::<i32>("own", Len::Tokens).buckets([8]).build().unwrap());
    let (ids, own) = (outputs.slot_id("ids").unwrap(), outputs.slot_id("own").unwrap());
    assert!(OutputView::new(&outputs, own, 9, &rig.stream).is_none());
    let mut view = OutputView::new(&outputs, own, 8, &rig.stream).unwrap();
    rig.queue.memcpy_htod(&[3; 8], &mut view).unwrap();
    let [theirs, short] = [9, 7].map(|len| rig.queue.clone_htod(&vec![4; len]).unwrap());
    let mut fetch = FetchFrom::new(outputs.begin(5, 1).unwrap(), &rig.stream);
    let refused = fetch.source(ids, &short).unwrap_err();
    let fault = SlotFault::Length { wanted: 8, given: 7 };
    assert!(matches!(refused, StageError::Slot { fault: it, .. } if it == fault), "no {fault:?}");
    fetch.source(ids, &theirs).unwrap();
    let pending = fetch.submit().unwrap();
    let results = pending.wait(LIMIT).unwrap();
    drop(theirs);
    assert_eq!(results.read(ids).unwrap(), [4; 5]);
    assert_eq!(results.read(own).unwrap(), [3; 5]);
    rig.queue.synchronize().unwrap();
}

/// A graph that writes results keeps the set.
#[test]
fn a_graph_keeps_the_results_that_it_writes() {
    let Some(rig) = rig() else { return };
    let outputs = OutputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let outputs = Arc::new(outputs.buckets([8]).build().unwrap());
    let ids = outputs.slot_id::<i32>("ids").unwrap();
    let held = Arc::downgrade(&outputs);
    let recording = Recording::begin(&rig.stream).unwrap();
    let mut view = OutputView::new(&outputs, ids, 8, &rig.stream).unwrap();
    rig.queue.memset_zeros(&mut view).unwrap();
    let graph = recording.end().unwrap().unwrap();
    drop((view, outputs));
    graph.launch().unwrap();
    rig.queue.synchronize().unwrap();
    assert!(held.upgrade().is_some());
    drop(graph);
    rig.context.driver().wait_deferred(LIMIT).unwrap();
    assert!(held.upgrade().is_none());
}

fn pinned_of(
    rig: &Rig,
    from: &cudarc::driver::CudaSlice<i32>,
) -> Arc<cudarc::driver::PinnedHostSlice<i32>> {
    let mut pinned = pinned(rig, from.len());
    rig.queue.memcpy_dtoh(from, &mut pinned).unwrap();
    Arc::new(pinned)
}

fn short_of(rig: &Rig) -> cudarc::driver::PinnedHostSlice<i32> {
    pinned(rig, 4)
}

#[expect(unsafe_code, reason = "cudarc's pinned memory is not initialised")]
fn pinned(rig: &Rig, len: usize) -> cudarc::driver::PinnedHostSlice<i32> {
    // SAFETY: every pattern of bits is a number.
    unsafe { rig.cuda.alloc_pinned::<i32>(len) }.unwrap()
}

#[test]
fn other_contexts_are_refused_and_may_be_others_than_primary() {
    let Some(rig) = rig() else { return };
    let own = CudaContext::new_non_primary(0, 0).unwrap();
    let queue = own.new_stream().unwrap();
    let refused = BorrowedStream::new(&queue, &rig.context).unwrap_err();
    assert_eq!(refused.code(), Some(CudaError::INVALID_CONTEXT));
    let context = wharf_cudarc::context(&own, rig.context.driver()).unwrap();
    let stream = BorrowedStream::new(&queue, &context).unwrap();
    let resource = DeviceMemoryResource::new(&context, 64 << 20).unwrap();
    let pool = Pool::builder().build(resource).unwrap();
    let buffer: Buffer<u8> = pool.alloc(10, &stream).unwrap();
    queue.memset_zeros(&mut DeviceView::new(&buffer, &stream).unwrap()).unwrap();
    assert_eq!(queue.clone_dtoh(&DeviceView::new(&buffer, &stream).unwrap()).unwrap(), [0; 10]);
    queue.synchronize().unwrap();
    // The context goes with the last of wharf's objects, whatever cudarc's do.
    drop((own, queue));
    buffer.fill(1, &stream).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn errors_come_by_the_context_where_a_trait_has_none() {
    let Some(rig) = rig() else { return };
    let buffer: Buffer<i32> = rig.device.alloc(8, &rig.stream).unwrap();
    let stranger = rig.cuda.new_stream().unwrap();
    let capture = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
    stranger.begin_capture(capture).unwrap();
    let view = DeviceView::new(&buffer, &rig.stream).unwrap();
    let (address, sync) = view.device_ptr(&stranger);
    assert_eq!((address, view.num_bytes()), (0, 32));
    drop(sync);
    let told = wharf_cudarc::from_cudarc(rig.cuda.check_err().unwrap_err());
    let code = CudaError::STREAM_CAPTURE_UNSUPPORTED;
    assert_eq!(told, Error::Driver { call: "cudarc", code });
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    stranger.end_capture(flags).unwrap();
}

/// What frees the source is behind the copy, whatever stream of cudarc's it was made on.
#[test]
fn a_source_may_be_dropped_when_the_fetch_was_submitted() {
    let Some(rig) = rig() else { return };
    let outputs = OutputBuffers::builder(&rig.context).slot::<i32>("ids", Len::Tokens);
    let outputs = Arc::new(outputs.buckets([8]).build().unwrap());
    let ids = outputs.slot_id("ids").unwrap();
    let other = rig.cuda.new_stream().unwrap();
    for (number, stream) in (0..4).zip([&rig.queue, &other].into_iter().cycle()) {
        let theirs = stream.clone_htod(&[number; 8]).unwrap();
        let mut fetch = FetchFrom::new(outputs.begin(5, 1).unwrap(), &rig.stream);
        fetch.source(ids, &theirs).unwrap();
        let pending = fetch.submit().unwrap();
        drop(theirs);
        let results = pending.wait(LIMIT).unwrap();
        assert_eq!(results.read(ids).unwrap(), [number; 5]);
    }
    rig.queue.synchronize().unwrap();
}
