#![expect(unsafe_code, reason = "takes events over by raw handle")]
//! Events and their pool.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use wharf::driver::EventKind;
use wharf::graph::{CaptureMode, CaptureScope};
use wharf::{Context, CudaError, Driver, Event, EventPool, Stream};

use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};

on_each_driver!(
    an_unrecorded_event_is_complete,
    an_event_completes_with_its_stream,
    a_query_leaves_the_captures_of_other_streams_valid,
    time_passes_between_events,
    time_needs_timing_events,
    a_pool_uses_events_again,
    a_full_pool_destroys,
    events_outlive_their_pool,
    threads_share_a_pool,
    handles_change_hands,
);

fn context(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

fn an_unrecorded_event_is_complete(driver: &Driver) {
    let event = Event::new(&context(driver), EventKind::Ordering).unwrap();
    assert!(event.query().unwrap());
    event.synchronize().unwrap();
}

fn an_event_completes_with_its_stream(driver: &Driver) {
    let context = context(driver);
    for kind in [EventKind::Ordering, EventKind::BlockingWait, EventKind::Timing] {
        let stream = Stream::new(&context).unwrap();
        let event = Event::new(&context, kind).unwrap();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let wait = move || gate.recv().unwrap();
        stream.add_callback(move |_| wait()).unwrap();
        stream.record(&event).unwrap();
        assert!(!event.query().unwrap());
        open.send(()).unwrap();
        event.synchronize().unwrap();
        assert!(event.query().unwrap());
        assert_eq!(event.kind(), kind);
    }
}

fn a_query_leaves_the_captures_of_other_streams_valid(driver: &Driver) {
    let context = context(driver);
    let [captured, stream] = [0, 1].map(|_| Stream::new(&context).unwrap());
    let event = Event::new(&context, EventKind::Ordering).unwrap();
    stream.record(&event).unwrap();
    stream.synchronize().unwrap();
    for mode in [CaptureMode::Global, CaptureMode::ThreadLocal, CaptureMode::Relaxed] {
        let capture = CaptureScope::begin(&captured, mode).unwrap();
        assert_eq!(event.query(), Ok(true));
        assert!(capture.end().unwrap().is_empty());
    }
}

fn time_passes_between_events(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (begin, end) = (timed(&context), timed(&context));
    stream.record(&begin).unwrap();
    stream.record(&end).unwrap();
    end.synchronize().unwrap();
    assert!(end.elapsed_since(&begin).unwrap() >= 0.0);
}

fn timed(context: &Context) -> Event {
    Event::new(context, EventKind::Timing).unwrap()
}

fn time_needs_timing_events(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let (begin, end) = (timed(&context), Event::new(&context, EventKind::Ordering).unwrap());
    stream.record(&begin).unwrap();
    stream.record(&end).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(end.elapsed_since(&begin).unwrap_err().code(), Some(CudaError::INVALID_HANDLE));
    assert_eq!(
        timed(&context).elapsed_since(&begin).unwrap_err().code(),
        Some(CudaError::INVALID_HANDLE)
    );
}

fn a_pool_uses_events_again(driver: &Driver) {
    let pool = EventPool::new(&context(driver), EventKind::Ordering, 4);
    let first = pool.event().unwrap().as_raw();
    assert_eq!(pool.kept(), 1);
    let event = pool.event().unwrap();
    assert_eq!(event.as_raw(), first);
    assert_eq!(pool.kept(), 0);
    event.close().unwrap();
    assert_eq!((pool.kept(), pool.capacity()), (1, 4));
}

fn a_full_pool_destroys(driver: &Driver) {
    let pool = EventPool::new(&context(driver), EventKind::Ordering, 2);
    let out: Vec<_> = (0..5).map(|_| pool.event().unwrap()).collect();
    let handles: HashSet<_> = out.iter().map(Event::as_raw).collect();
    assert_eq!(handles.len(), 5, "no event is handed out twice");
    drop(out);
    assert_eq!(pool.kept(), 2);
}

fn events_outlive_their_pool(driver: &Driver) {
    let context = context(driver);
    let pool = EventPool::new(&context, EventKind::Ordering, 2);
    let (kept, out) = (pool.event().unwrap(), pool.event().unwrap());
    drop(kept);
    drop(pool);
    assert!(out.query().unwrap());
}

fn threads_share_a_pool(driver: &Driver) {
    let context = context(driver);
    let stream = Stream::new(&context).unwrap();
    let pool = EventPool::new(&context, EventKind::Ordering, 4);
    let bind = binder();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _bound = bind();
                let _scope = context.enter().unwrap();
                for _ in 0..50 {
                    let (one, two) = (pool.event().unwrap(), pool.event().unwrap());
                    assert_ne!(one.as_raw(), two.as_raw());
                    stream.record(&one).unwrap();
                    stream.wait_event(&one).unwrap();
                }
            });
        }
    });
    stream.synchronize().unwrap();
    assert!(pool.kept() <= 4);
    assert_eq!(context.drop_errors(), 0);
}

fn handles_change_hands(driver: &Driver) {
    let context = context(driver);
    let raw = Event::new(&context, EventKind::Ordering).unwrap().into_raw();
    // SAFETY: an event of this context and kind, given away by its owner.
    let event = unsafe { Event::from_raw(raw, EventKind::Ordering, &context) };
    assert_eq!(event.as_raw(), raw);
    event.close().unwrap();
}

#[test]
fn a_pool_saves_driver_calls() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let pool = EventPool::new(&context(driver), EventKind::Ordering, 4);
        for _ in 0..100 {
            drop(pool.event().unwrap());
        }
        assert_eq!(machine.calls("cuEventCreate"), 1);
        assert_eq!(machine.calls("cuEventDestroy"), 0);
    });
    assert_eq!(machine.calls("cuEventDestroy"), 1);
    assert_eq!(machine.leaks(), Vec::<String>::new());
}
