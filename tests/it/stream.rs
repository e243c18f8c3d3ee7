#![expect(unsafe_code, reason = "copies by raw address; captures through the table")]
//! Streams.

use core::ptr;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use wharf::driver::EventKind;
use wharf::stream::{CaptureStatus, StreamKind};
use wharf::sys::bindings::{CUgraph, CUstreamCaptureMode};
use wharf::{Context, CudaError, Driver, Error, Event, Stream};

use crate::backend::{Config, Simulator, on_each_driver, on_machine};

on_each_driver!(
    streams_tell_kind_and_priority,
    a_stream_runs_in_order,
    events_order_streams,
    a_dropped_stream_does_not_wait,
    a_panic_in_a_callback_is_counted,
    an_owner_dropped_in_a_callback_leaks,
    a_refused_callback_is_dropped,
    a_captured_function_runs_at_every_launch,
    capture_is_told,
    a_relaxed_thread_allocates_beside_a_capture,
    copies_and_fills_arrive,
    nothing_to_copy_is_no_call,
    default_streams_work,
    handles_change_hands,
    a_stream_has_a_number_that_no_other_had,
);

fn context(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

fn streams_tell_kind_and_priority(driver: &Driver) {
    let context = context(driver);
    assert_eq!(Stream::new(&context).unwrap().kind().unwrap(), StreamKind::NonBlocking);
    let (greatest, least) = context.stream_priorities().unwrap().into_inner();
    assert!(greatest <= least);
    for kind in [StreamKind::Blocking, StreamKind::NonBlocking] {
        let stream = Stream::with_priority(greatest, kind, &context).unwrap();
        assert_eq!(stream.kind().unwrap(), kind);
        assert_eq!(stream.priority().unwrap(), greatest);
        let beyond = Stream::with_priority(greatest - 100, kind, &context).unwrap();
        assert_eq!(beyond.priority().unwrap(), greatest);
        assert_eq!(stream.context(), &context);
    }
}

fn a_stream_runs_in_order(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    for number in 0..20 {
        let seen = Arc::clone(&seen);
        stream.add_callback(move |outcome| seen.lock().unwrap().push((number, outcome))).unwrap();
    }
    stream.synchronize().unwrap();
    assert!(stream.query().unwrap());
    let expected: Vec<_> = (0..20).map(|number| (number, Ok(()))).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    assert_eq!(Arc::strong_count(&seen), 1, "closures are gone once they have run");
}

fn events_order_streams(driver: &Driver) {
    let context = context(driver);
    let (producer, consumer) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let ready = Event::new(&context, EventKind::Ordering).unwrap();
    let (open, gate) = channel::<()>();
    let order = Arc::new(Mutex::new(Vec::new()));
    let push = |what: &'static str| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(what)
    };
    let produced = push("produced");
    producer
        .add_callback(move |_| {
            gate.recv().unwrap();
            produced();
        })
        .unwrap();
    producer.record(&ready).unwrap();
    consumer.wait_event(&ready).unwrap();
    let consumed = push("consumed");
    consumer.add_callback(move |_| consumed()).unwrap();
    // What is waited for was noted at the wait: the event may go, a later record does not count.
    drop(ready);
    assert!(!consumer.query().unwrap());
    open.send(()).unwrap();
    consumer.synchronize().unwrap();
    producer.synchronize().unwrap();
    assert_eq!(*order.lock().unwrap(), ["produced", "consumed"]);
}

fn a_dropped_stream_does_not_wait(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (open, gate) = channel::<()>();
    let (done, finished) = channel::<()>();
    stream
        .add_callback(move |_| {
            gate.recv().unwrap();
            done.send(()).unwrap();
        })
        .unwrap();
    drop(stream);
    // Had the drop waited, this line would not be reached: the callback waits for it.
    open.send(()).unwrap();
    finished.recv().unwrap();
    context.synchronize().unwrap();
}

fn a_panic_in_a_callback_is_counted(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    stream.add_callback(|_| std::panic::resume_unwind(Box::new("on purpose"))).unwrap();
    stream.add_callback(|_| std::panic::resume_unwind(Box::new(Bomb))).unwrap();
    let after = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&after);
    stream
        .add_callback(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    stream.synchronize().unwrap();
    assert_eq!(context.callback_panics(), 2);
    assert_eq!(after.load(Ordering::SeqCst), 1, "the stream goes on");
}

/// What a panic carries may panic too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

fn an_owner_dropped_in_a_callback_leaks(driver: &Driver) {
    let context = context(driver);
    let (stream, victim) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    stream.add_callback(move |_| drop(victim)).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(context.drop_errors(), 1, "the driver permits no call there");
}

fn a_refused_callback_is_dropped(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    let witness = Arc::new(());
    let held = Arc::clone(&witness);
    begin_capture(&stream);
    let error = stream.add_callback(move |_| drop(held)).unwrap_err();
    assert_eq!(
        (error.call(), error.code()),
        ("cuStreamAddCallback", Some(CudaError::STREAM_CAPTURE_UNSUPPORTED))
    );
    assert_eq!(Arc::strong_count(&witness), 1);
    let error = end_capture(&stream).unwrap_err();
    assert_eq!(error.code(), Some(CudaError::STREAM_CAPTURE_INVALIDATED));
    stream.synchronize().unwrap();
}

fn a_captured_function_runs_at_every_launch(driver: &Driver) {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    fn count() {
        RUNS.fetch_add(1, Ordering::SeqCst);
    }
    let context = context(driver);
    let api = driver.api();
    let stream = Stream::new(&context).unwrap();
    let before = RUNS.load(Ordering::SeqCst);
    begin_capture(&stream);
    stream.launch_host_func(&count).unwrap();
    let graph = end_capture(&stream).unwrap();
    let _scope = context.enter().unwrap();
    let mut exec = ptr::null_mut();
    // SAFETY: the graph is alive and `exec` is valid for writes for the whole call.
    unsafe { api.graph_instantiate_with_flags.call(&raw mut exec, graph, 0) }.unwrap();
    for _ in 0..3 {
        // SAFETY: the executable graph and the stream are alive.
        unsafe { api.graph_launch.call(exec, stream.as_raw()) }.unwrap();
    }
    stream.synchronize().unwrap();
    assert!(RUNS.load(Ordering::SeqCst) >= before + 3);
    // SAFETY: made above, and its launches are done.
    unsafe { api.graph_exec_destroy.call(exec) }.unwrap();
    // SAFETY: made by the capture above.
    unsafe { api.graph_destroy.call(graph) }.unwrap();
}

fn capture_is_told(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    assert_eq!(stream.capture_status().unwrap(), CaptureStatus::Inactive);
    begin_capture(&stream);
    assert_eq!(stream.capture_status().unwrap(), CaptureStatus::Active);
    assert_eq!(stream.query().unwrap_err().code(), Some(CudaError::STREAM_CAPTURE_UNSUPPORTED));
    assert_eq!(stream.capture_status().unwrap(), CaptureStatus::Invalidated);
    let error = end_capture(&stream).unwrap_err();
    assert_eq!(error.code(), Some(CudaError::STREAM_CAPTURE_INVALIDATED));
    assert_eq!(stream.capture_status().unwrap(), CaptureStatus::Inactive);
    assert!(stream.query().unwrap());
}

fn a_relaxed_thread_allocates_beside_a_capture(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    begin_capture(&stream);
    let relaxed = driver.relax_capture().unwrap();
    let again = driver.relax_capture().unwrap();
    drop(DeviceMemory::new(&context, 64));
    drop(again);
    drop(DeviceMemory::new(&context, 64));
    drop(relaxed);
    assert_eq!(stream.capture_status().unwrap(), CaptureStatus::Active);
    // Bound again, the thread may not: the driver refuses, and the capture is spoilt.
    let _scope = context.enter().unwrap();
    let mut address = 0;
    // SAFETY: `address` is valid for writes for the whole call.
    let error = unsafe { driver.api().mem_alloc.call(&raw mut address, 64) }.unwrap_err();
    assert_eq!(error.code(), Some(CudaError::STREAM_CAPTURE_UNSUPPORTED));
    let error = end_capture(&stream).unwrap_err();
    assert_eq!(error.code(), Some(CudaError::STREAM_CAPTURE_INVALIDATED));
}

fn begin_capture(stream: &Stream) {
    let _scope = stream.context().enter().unwrap();
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    let api = stream.context().driver().api();
    // SAFETY: the stream is alive.
    unsafe { api.stream_begin_capture.call(stream.as_raw(), mode) }.unwrap();
}

fn end_capture(stream: &Stream) -> Result<CUgraph, Error> {
    let _scope = stream.context().enter().unwrap();
    let mut graph = ptr::null_mut();
    let api = stream.context().driver().api();
    // SAFETY: the stream is alive and `graph` is valid for writes for the whole call.
    unsafe { api.stream_end_capture.call(stream.as_raw(), &raw mut graph) }.map(|()| graph)
}

fn copies_and_fills_arrive(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (from, to) = (DeviceMemory::new(&context, 64), DeviceMemory::new(&context, 64));
    let source: Vec<u8> = (0..64).collect();
    let mut result = vec![0_u8; 64];
    // SAFETY: `source` and the device memory are 64 bytes; a pageable source may go on return.
    unsafe { stream.copy_htod(from.0, source.as_ptr().cast(), 64) }.unwrap();
    // SAFETY: both are 64 bytes and live until the stream has been waited for.
    unsafe { stream.copy_dtod(to.0, from.0, 64) }.unwrap();
    // SAFETY: the first 8 of 64 bytes.
    unsafe { stream.fill_d8(to.0, 0xaa, 8) }.unwrap();
    // SAFETY: the next 8 bytes, as 4 words of 16 bits.
    unsafe { stream.fill_d16(to.0 + 8, 0xbbcc, 4) }.unwrap();
    // SAFETY: the next 8 bytes, as 2 words of 32 bits.
    unsafe { stream.fill_d32(to.0 + 16, 0x1122_3344, 2) }.unwrap();
    // SAFETY: both are 64 bytes and live until the stream has been waited for.
    unsafe { stream.copy_dtoh(result.as_mut_ptr().cast(), to.0, 64) }.unwrap();
    stream.synchronize().unwrap();
    let mut expected = source;
    expected[..8].fill(0xaa);
    expected[8..16].copy_from_slice(&[0xcc, 0xbb].repeat(4));
    expected[16..24].copy_from_slice(&[0x44, 0x33, 0x22, 0x11].repeat(2));
    assert_eq!(result, expected);
}

fn nothing_to_copy_is_no_call(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    // SAFETY: no byte is read or written.
    unsafe { stream.copy_htod(0, ptr::null(), 0) }.unwrap();
    // SAFETY: no byte is read or written.
    unsafe { stream.copy_dtoh(ptr::null_mut(), 0, 0) }.unwrap();
    // SAFETY: no byte is read or written.
    unsafe { stream.copy_dtod(0, 0, 0) }.unwrap();
    // SAFETY: no byte is written.
    unsafe { stream.fill_d8(0, 1, 0) }.unwrap();
}

fn default_streams_work(driver: &Driver) {
    let context = context(driver);
    for stream in [Stream::legacy(&context), Stream::per_thread(&context)] {
        let (sent, received) = channel();
        stream.add_callback(move |outcome| sent.send(outcome).unwrap()).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(received.recv().unwrap(), Ok(()));
        stream.close().unwrap();
    }
    assert_eq!(context.drop_errors(), 0);
}

fn handles_change_hands(driver: &Driver) {
    let context = context(driver);
    let raw = Stream::new(&context).unwrap().into_raw();
    // SAFETY: the stream is destroyed below, after the borrow.
    let borrowed = unsafe { Stream::borrow_raw(raw, &context) };
    assert!(borrowed.query().unwrap());
    drop(borrowed);
    // SAFETY: a stream of this context, given away by its owner.
    let owned = unsafe { Stream::from_raw(raw, &context) };
    assert!(owned.query().unwrap());
    assert_eq!(owned.as_raw(), raw);
    owned.close().unwrap();
}

/// Device memory, freed on drop.
struct DeviceMemory(u64, Context);

impl DeviceMemory {
    fn new(context: &Context, size: usize) -> Self {
        let _scope = context.enter().unwrap();
        let mut address = 0;
        // SAFETY: `address` is valid for writes for the whole call.
        unsafe { context.driver().api().mem_alloc.call(&raw mut address, size) }.unwrap();
        Self(address, context.clone())
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let _scope = self.1.enter().unwrap();
        // SAFETY: allocated in `new`, and the stream that used it has been waited for.
        unsafe { self.1.driver().api().mem_free.call(self.0) }.unwrap();
    }
}

fn a_stream_has_a_number_that_no_other_had(driver: &Driver) {
    let context = context(driver);
    let numbers: HashSet<_> = (0..100).map(|_| Stream::new(&context).unwrap().id()).collect();
    assert_eq!(numbers.len(), 100);
}

#[test]
fn a_callback_hears_of_a_lost_context() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let stream = Stream::new(&context).unwrap();
        let (open, gate) = channel::<()>();
        let wait = move || gate.recv().unwrap();
        stream.add_callback(move |_| wait()).unwrap();
        let (heard, outcome) = channel();
        stream.add_callback(move |outcome| heard.send(outcome).unwrap()).unwrap();
        machine.fault_devices(CudaError::ILLEGAL_ADDRESS);
        open.send(()).unwrap();
        assert_eq!(outcome.recv().unwrap(), Err(CudaError::ILLEGAL_ADDRESS));
        assert_eq!(stream.query().unwrap_err().code(), Some(CudaError::ILLEGAL_ADDRESS));
    });
}
