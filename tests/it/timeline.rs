#![expect(unsafe_code, reason = "borrows streams by raw handle; captures through the table")]
//! Tickets: complete when the device is, whatever happens to the stream.

use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use wharf::stream::CaptureStatus;
use wharf::sys::bindings::{CUgraph, CUstreamCaptureMode};
use wharf::timeline::WaitError;
use wharf::{Context, CudaError, DeviceAttribute, Driver, Error, Stream};

use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::deadline::{LONG, SHORT};

on_each_driver!(
    a_ticket_completes_behind_the_work,
    a_marked_ticket_completes_unasked,
    tickets_complete_in_order,
    a_deadline_says_what_was_waited_for,
    a_ticket_outlives_its_stream,
    a_borrowed_stream_is_a_stream,
    a_capture_gets_no_marker,
    a_stream_dropped_in_a_capture_reports_nothing,
    a_per_thread_stream_belongs_to_its_thread,
    threads_wait_for_one_stream,
);

fn stream(driver: &Driver) -> Stream {
    Stream::new(&context(driver)).unwrap()
}

fn context(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

/// Holds the stream up until the result is dropped.
fn gate(stream: &Stream) -> Sender<()> {
    let (open, closed) = channel::<()>();
    let wait = move || assert!(closed.recv().is_err());
    stream.add_callback(move |_| wait()).unwrap();
    open
}

fn a_ticket_completes_behind_the_work(driver: &Driver) {
    let stream = stream(driver);
    let gate = gate(&stream);
    let ticket = stream.ticket().unwrap();
    assert!(!ticket.is_complete() && !ticket.poll().unwrap() && !ticket.poll().unwrap());
    drop(gate);
    ticket.wait(LONG).unwrap();
    assert!(ticket.is_complete() && ticket.poll().unwrap());
}

fn a_marked_ticket_completes_unasked(driver: &Driver) {
    let stream = stream(driver);
    let ticket = stream.ticket().unwrap();
    assert!(stream.mark().unwrap());
    stream.synchronize().unwrap();
    assert!(ticket.poll().unwrap());
}

fn tickets_complete_in_order(driver: &Driver) {
    let stream = stream(driver);
    let first = stream.ticket().unwrap();
    stream.mark().unwrap();
    let held = gate(&stream);
    let second = stream.ticket().unwrap();
    assert!(first.number() < second.number());
    first.wait(LONG).unwrap();
    assert!(!second.poll().unwrap());
    drop(held);
    second.wait(LONG).unwrap();
}

fn a_deadline_says_what_was_waited_for(driver: &Driver) {
    let stream = stream(driver);
    let gate = gate(&stream);
    let ticket = stream.ticket().unwrap();
    let WaitError::Deadline(stalled) = ticket.wait(SHORT).unwrap_err() else {
        panic!("no deadline")
    };
    assert_eq!((stalled.stream, stalled.ticket), (stream.as_raw().addr(), ticket.number()));
    assert!(stalled.marked && stalled.completed < stalled.ticket && stalled.age >= SHORT);
    assert!(stalled.probes > 0);
    let text = stalled.to_string();
    assert!(text.contains(&format!("{:#x}", stalled.stream)), "{text}");
    drop(gate);
    ticket.wait(LONG).unwrap();
}

fn a_ticket_outlives_its_stream(driver: &Driver) {
    let stream = stream(driver);
    let gate = gate(&stream);
    let ticket = stream.ticket().unwrap();
    drop(stream);
    assert!(!ticket.poll().unwrap());
    drop(gate);
    ticket.wait(LONG).unwrap();
}

fn a_borrowed_stream_is_a_stream(driver: &Driver) {
    let context = context(driver);
    let owner = Stream::new(&context).unwrap();
    // SAFETY: `owner` outlives it.
    let borrowed = unsafe { Stream::borrow_raw(owner.as_raw(), &context) };
    let gate = gate(&owner);
    let tickets = [owner.ticket().unwrap(), borrowed.ticket().unwrap()];
    assert!(tickets.iter().all(|ticket| !ticket.poll().unwrap()));
    drop(borrowed);
    drop(gate);
    for ticket in tickets {
        ticket.wait(LONG).unwrap();
    }
}

/// Captures what `body` does, in each mode; how many nodes it left, or the driver's error.
fn capture(stream: &Stream, body: impl Fn()) -> Vec<Result<usize, CudaError>> {
    let modes = [
        CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL,
        CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
        CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
    ];
    let api = stream.context().driver().api();
    let _scope = stream.context().enter().unwrap();
    let in_mode = |mode| {
        // SAFETY: the stream is alive and not captured.
        unsafe { api.stream_begin_capture.call(stream.as_raw(), mode) }.unwrap();
        body();
        let mut graph: CUgraph = ptr::null_mut();
        // SAFETY: `graph` is valid for writes.
        let ended = unsafe { api.stream_end_capture.call(stream.as_raw(), &raw mut graph) };
        ended.map_err(|error| error.code().unwrap())?;
        let mut nodes = 0;
        // SAFETY: the graph is alive; a null list asks for the number.
        unsafe { api.graph_get_nodes.call(graph, ptr::null_mut(), &raw mut nodes) }.unwrap();
        // SAFETY: ours.
        unsafe { api.graph_destroy.call(graph) }.unwrap();
        Ok(nodes)
    };
    modes.map(in_mode).to_vec()
}

fn a_capture_gets_no_marker(driver: &Driver) {
    let (captured, other) = (stream(driver), stream(driver));
    let before = captured.ticket().unwrap();
    let bind = binder();
    let nodes = capture(&captured, || {
        let inside = captured.ticket().unwrap();
        assert!(!captured.mark().unwrap() && !inside.poll().unwrap() && !before.poll().unwrap());
        assert!(matches!(inside.wait(SHORT), Err(WaitError::Deadline(stalled)) if !stalled.marked));
        let elsewhere = other.ticket().unwrap();
        elsewhere.wait(LONG).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _bound = bind();
                assert!(!before.poll().unwrap());
                elsewhere.wait(LONG).unwrap();
                stream(driver).ticket().unwrap().wait(LONG).unwrap();
            });
        });
        assert_eq!(captured.capture_status().unwrap(), CaptureStatus::Active);
    });
    assert_eq!(nodes, [Ok(0), Ok(0), Ok(0)]);
    before.wait(LONG).unwrap();
}

fn a_stream_dropped_in_a_capture_reports_nothing(driver: &Driver) {
    let owner = stream(driver);
    let mut tickets = Vec::new();
    let nodes = capture(&owner, || {
        // SAFETY: `owner` outlives it.
        let borrowed = unsafe { Stream::borrow_raw(owner.as_raw(), owner.context()) };
        let ticket = borrowed.ticket().unwrap();
        drop(borrowed);
        assert!(!ticket.poll().unwrap());
    });
    assert_eq!(nodes, [Ok(0), Ok(0), Ok(0)]);
    // SAFETY: `owner` outlives it.
    let borrowed = unsafe { Stream::borrow_raw(owner.as_raw(), owner.context()) };
    tickets.push(borrowed.ticket().unwrap());
    drop(borrowed);
    tickets[0].wait(LONG).unwrap();
}

fn a_per_thread_stream_belongs_to_its_thread(driver: &Driver) {
    let stream = Stream::per_thread(&context(driver));
    let ticket = stream.ticket().unwrap();
    let bind = binder();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _bound = bind();
            assert_eq!(stream.ticket().unwrap_err(), Error::OtherThread);
            assert_eq!(stream.mark().unwrap_err(), Error::OtherThread);
            assert!(!ticket.poll().unwrap());
        });
    });
    ticket.wait(LONG).unwrap();
}

fn threads_wait_for_one_stream(driver: &Driver) {
    let stream = stream(driver);
    let gate = gate(&stream);
    let bind = binder();
    thread::scope(|scope| {
        for _ in 0..4 {
            let (ticket, bind) = (stream.ticket().unwrap(), bind.clone());
            scope.spawn(move || {
                let _bound = bind();
                ticket.wait(LONG).unwrap();
            });
        }
        drop(gate);
    });
}

#[test]
fn markers_are_words_where_the_device_has_them_and_events_elsewhere() {
    let without = vec![(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS.as_raw(), 0)];
    for (attributes, words) in [(Vec::new(), true), (without, false)] {
        let machine = Arc::new(Simulator::new(Config { attributes, ..Config::default() }));
        on_machine(&machine, |driver| {
            let stream = stream(driver);
            let tickets: Vec<_> = (0..1000).map(|_| stream.ticket().unwrap()).collect();
            assert_eq!(machine.calls("cuStreamWriteValue64") + machine.calls("cuEventRecord"), 0);
            stream.mark().unwrap();
            // That of the stream would complete them by itself.
            stream.context().synchronize().unwrap();
            assert!(tickets.iter().all(|ticket| ticket.poll().unwrap()));
            assert_eq!(machine.calls("cuStreamWriteValue64"), u64::from(words));
            assert_eq!(machine.calls("cuEventRecord"), u64::from(!words));
            // All of them are complete by one question.
            assert_eq!(machine.calls("cuEventQuery"), u64::from(!words));
            assert_eq!(machine.calls("cuStreamQuery"), 0);
        });
        assert_eq!(machine.leaks(), Vec::<String>::new());
    }
}

#[test]
fn the_device_may_see_the_word_elsewhere() {
    let machine = Arc::new(Simulator::new(Config { registered_alias: true, ..Config::default() }));
    on_machine(&machine, a_ticket_completes_behind_the_work);
    on_machine(&machine, a_marked_ticket_completes_unasked);
}

#[test]
fn a_fault_of_the_device_ends_every_wait() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let stream = stream(driver);
        let held = gate(&stream);
        let (unmarked, marked) = (stream.ticket().unwrap(), stream.ticket().unwrap());
        stream.mark().unwrap();
        let bind = binder();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let _bound = bind();
                marked.wait(LONG)
            });
            machine.fault_devices(CudaError::ILLEGAL_ADDRESS);
            drop(held);
            let failed = |error| {
                let WaitError::Driver(error) = error else { return false };
                error.code() == Some(CudaError::ILLEGAL_ADDRESS)
            };
            assert!(failed(waiter.join().unwrap().unwrap_err()));
            assert!(failed(unmarked.wait(LONG).unwrap_err()));
        });
        assert!(!marked.is_complete());
        drop(stream);
    });
}
