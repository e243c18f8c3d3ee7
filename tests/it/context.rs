#![expect(unsafe_code, reason = "borrows contexts by raw handle")]
//! Contexts and the time during which they are current.

use core::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use wharf::driver::EventKind;
use wharf::graph::GraphDefinition;
use wharf::memory::{ManagedMemoryResource, MemoryResource};
use wharf::staging::{InputBuffers, Len};
use wharf::stream::StreamKind;
use wharf::sys::bindings::{CUcontext, CUpointer_attribute};
use wharf::{Context, CudaError, Driver, Error, Event, EventPool, Stream};

use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};

on_each_driver!(
    a_scope_restores_what_was_current,
    scopes_nest,
    scopes_out_of_order_are_harmless,
    a_borrowed_context_is_not_released,
    null_is_no_context,
    any_thread_may_enter,
    calls_leave_the_current_context_as_it_was,
    closing_one_clone_keeps_the_others,
);

fn retained(driver: &Driver) -> Context {
    Context::retain(&driver.device(0).unwrap()).unwrap()
}

fn current(driver: &Driver) -> CUcontext {
    let mut raw = ptr::null_mut();
    // SAFETY: `raw` is valid for writes for the whole call.
    unsafe { driver.api().ctx_get_current.call(&raw mut raw) }.unwrap();
    raw
}

fn a_scope_restores_what_was_current(driver: &Driver) {
    let context = retained(driver);
    let before = current(driver);
    {
        let scope = context.enter().unwrap();
        assert_eq!(scope.as_raw(), context.as_raw());
        assert_eq!(current(driver), context.as_raw());
        assert!(context.is_entered());
    }
    assert_eq!(current(driver), before);
    assert!(!context.is_entered());
}

fn scopes_nest(driver: &Driver) {
    let (context, other) = (retained(driver), Other::new(driver));
    let outer = context.enter().unwrap();
    let inner = other.context.enter().unwrap();
    assert_eq!(current(driver), other.context.as_raw());
    let innermost = other.context.enter().unwrap();
    drop(innermost);
    assert_eq!(current(driver), other.context.as_raw());
    drop(inner);
    assert_eq!(current(driver), context.as_raw());
    drop(outer);
    assert_eq!(current(driver), ptr::null_mut());
}

fn scopes_out_of_order_are_harmless(driver: &Driver) {
    let (context, other) = (retained(driver), Other::new(driver));
    let outer = context.enter().unwrap();
    let inner = other.context.enter().unwrap();
    drop(outer);
    assert!(!context.is_entered() && !other.context.is_entered());
    // What is current is no longer known, so calls ask the driver and get it right.
    assert!(Stream::new(&other.context).unwrap().query().unwrap());
    assert!(Stream::new(&context).unwrap().query().unwrap());
    drop(inner);
    // SAFETY: null takes the current context off the thread.
    unsafe { driver.api().ctx_set_current.call(ptr::null_mut()) }.unwrap();
}

fn a_borrowed_context_is_not_released(driver: &Driver) {
    let context = retained(driver);
    // SAFETY: the context is retained for longer than it is borrowed.
    let borrowed = unsafe { Context::borrow_raw(context.as_raw(), driver) }.unwrap();
    assert_eq!(borrowed, context);
    assert_eq!(borrowed.device(), context.device());
    borrowed.close().unwrap();
    let scope = context.enter().unwrap();
    let found = Context::current(driver).unwrap().unwrap();
    assert_eq!(found, context);
    drop(found);
    drop(scope);
    assert!(Context::current(driver).unwrap().is_none());
    context.synchronize().unwrap();
}

fn null_is_no_context(driver: &Driver) {
    // SAFETY: null is refused before anything is done with it.
    let error = unsafe { Context::borrow_raw(ptr::null_mut(), driver) }.unwrap_err();
    assert_eq!(error.code(), Some(CudaError::INVALID_CONTEXT));
}

fn any_thread_may_enter(driver: &Driver) {
    let context = retained(driver);
    let stream = Stream::new(&context).unwrap();
    let bind = binder();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _bound = bind();
                for _ in 0..10 {
                    assert!(stream.query().unwrap());
                    let _scope = context.enter().unwrap();
                    assert_eq!(current(driver), context.as_raw());
                }
            });
        }
    });
}

fn calls_leave_the_current_context_as_it_was(driver: &Driver) {
    let (context, other) = (retained(driver), Other::new(driver));
    let stream = Stream::new(&context).unwrap();
    for before in [ptr::null_mut(), other.context.as_raw(), context.as_raw()] {
        // SAFETY: null, or a context that is alive.
        unsafe { driver.api().ctx_set_current.call(before) }.unwrap();
        stream.synchronize().unwrap();
        context.stream_priorities().unwrap();
        drop(Stream::new(&context).unwrap());
        assert_eq!(current(driver), before);
    }
    // SAFETY: null takes the current context off the thread.
    unsafe { driver.api().ctx_set_current.call(ptr::null_mut()) }.unwrap();
}

fn closing_one_clone_keeps_the_others(driver: &Driver) {
    let context = retained(driver);
    context.clone().close().unwrap();
    context.synchronize().unwrap();
    assert_eq!(context.drop_errors(), 0);
}

/// A context beside the primary one, as an engine may have made it.
struct Other {
    context: Context,
}

impl Other {
    fn new(driver: &Driver) -> Self {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is valid for writes for the whole call.
        unsafe {
            driver.api().ctx_create.call(&raw mut raw, 0, driver.device(0).unwrap().as_raw())
        }
        .unwrap();
        let mut popped = ptr::null_mut();
        // SAFETY: `popped` is valid for writes for the whole call.
        unsafe { driver.api().ctx_pop_current.call(&raw mut popped) }.unwrap();
        // SAFETY: destroyed by the drop below, after the last use.
        Self { context: unsafe { Context::borrow_raw(raw, driver) }.unwrap() }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and its streams are gone.
        unsafe { self.context.driver().api().ctx_destroy.call(self.context.as_raw()) }.unwrap();
    }
}

#[test]
fn inside_a_scope_no_call_asks_what_is_current() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = retained(driver);
        let stream = Stream::new(&context).unwrap();
        let _scope = context.enter().unwrap();
        let (asked, set) = (machine.calls("cuCtxGetCurrent"), machine.calls("cuCtxSetCurrent"));
        for _ in 0..10 {
            stream.query().unwrap();
            let _again = context.enter().unwrap();
        }
        assert_eq!(machine.calls("cuCtxGetCurrent"), asked);
        assert_eq!(machine.calls("cuCtxSetCurrent"), set);
    });
}

#[test]
fn outside_a_scope_a_current_context_costs_one_question() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = retained(driver);
        let stream = Stream::new(&context).unwrap();
        // SAFETY: the context is alive.
        unsafe { driver.api().ctx_set_current.call(context.as_raw()) }.unwrap();
        let (asked, set) = (machine.calls("cuCtxGetCurrent"), machine.calls("cuCtxSetCurrent"));
        stream.query().unwrap();
        assert_eq!(machine.calls("cuCtxGetCurrent"), asked + 1);
        assert_eq!(machine.calls("cuCtxSetCurrent"), set);
    });
}

#[test]
fn an_error_in_a_drop_is_counted_and_told() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let (heard, errors) = mpsc::channel();
        driver.on_drop_error(move |error| heard.send(*error).unwrap()).unwrap();
        assert!(driver.on_drop_error(|_| ()).is_err(), "the hook is set once");
        let context = retained(driver);

        machine.fail("cuStreamDestroy", 1, CudaError::OPERATING_SYSTEM);
        drop(Stream::new(&context).unwrap());
        assert_eq!(context.drop_errors(), 1);
        let (call, code) = ("cuStreamDestroy", CudaError::OPERATING_SYSTEM);
        assert_eq!(errors.try_iter().collect::<Vec<_>>(), [Error::Driver { call, code }]);

        machine.fail("cuStreamDestroy", 1, CudaError::DEINITIALIZED);
        drop(Stream::new(&context).unwrap());
        assert_eq!(context.drop_errors(), 1, "a driver that is going away is no error");

        let streams = machine.leaks().iter().filter(|line| line.starts_with("stream")).count();
        assert_eq!(streams, 2, "leaked rather than dangling");
    });
}

/// Runs `inside` on a machine of two devices, in a scope of the first one's context, in which other
/// code has made the second one's current and left it so. The stream and the event were made
/// before.
fn with_a_stale_scope(inside: impl FnOnce(&Simulator, &Stream, &Event, &Context)) {
    let machine = Arc::new(Simulator::new(Config { devices: 2, ..Config::default() }));
    on_machine(&machine, |driver| {
        let [first, second] =
            [0, 1].map(|ordinal| Context::retain(&driver.device(ordinal).unwrap()).unwrap());
        let (stream, event) =
            (Stream::new(&first).unwrap(), Event::new(&first, EventKind::Ordering).unwrap());
        let _scope = first.enter().unwrap();
        // SAFETY: the context is alive.
        unsafe { driver.api().ctx_set_current.call(second.as_raw()) }.unwrap();
        inside(&machine, &stream, &event, &second);
        assert_eq!(current(driver), second.as_raw(), "calls leave what they find");
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

fn context_of_stream(stream: &Stream) -> CUcontext {
    let mut raw = ptr::null_mut();
    let ask = &stream.context().driver().api().stream_get_ctx;
    // SAFETY: `raw` is valid for writes and the stream is alive.
    unsafe { ask.call(stream.as_raw(), &raw mut raw) }.unwrap();
    raw
}

#[test]
fn what_is_made_in_a_stale_scope_is_of_the_right_device() {
    with_a_stale_scope(|_, before, _, _| {
        let first = before.context();
        for stream in [
            Stream::new(first).unwrap(),
            Stream::with_priority(0, StreamKind::Blocking, first).unwrap(),
        ] {
            assert_eq!(context_of_stream(&stream), first.as_raw());
            // An event of another context is refused.
            stream.record(&Event::new(first, EventKind::Ordering).unwrap()).unwrap();
            stream.record(&EventPool::new(first, EventKind::Timing, 1).event().unwrap()).unwrap();
            let ticket = stream.ticket().unwrap();
            ticket.wait(Duration::from_secs(600)).unwrap();
        }
        // SAFETY: the context is alive as long as the result.
        let borrowed = unsafe { Context::borrow_raw(first.as_raw(), first.driver()) }.unwrap();
        assert_eq!(borrowed.device(), first.device());
    });
}

#[test]
fn memory_of_a_stale_scope_is_of_the_right_device() {
    with_a_stale_scope(|_, stream, _, _| {
        let first = stream.context();
        let inputs = InputBuffers::builder(first)
            .slot::<i32>("ids", Len::Tokens)
            .buckets([8])
            .build()
            .unwrap();
        let address = inputs.slot("ids").unwrap().address.unwrap();
        assert_eq!(ordinal_of(first.driver(), address), 0);
        let mut step = inputs.begin(8, 1).unwrap();
        step.write(inputs.slot_id::<i32>("ids").unwrap()).fill(1);
        step.submit(stream).unwrap();
        inputs.wait().unwrap();
        let resource = ManagedMemoryResource::new(first, 1 << 20).unwrap();
        // SAFETY: the first and only commit.
        unsafe { resource.commit(0, resource.granularity()) }.unwrap();
        assert_eq!(ordinal_of(first.driver(), resource.base()), 0);
    });
}

fn ordinal_of(driver: &Driver, address: u64) -> i32 {
    let mut ordinal = -1_i32;
    let attribute = CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL;
    let ask = &driver.api().pointer_get_attribute;
    // SAFETY: the attribute is an `int`, and `ordinal` is valid for writes.
    unsafe { ask.call((&raw mut ordinal).cast(), attribute, address) }.unwrap();
    ordinal
}

#[test]
fn a_synchronize_in_a_stale_scope_waits_for_the_right_context() {
    with_a_stale_scope(|_, stream, _, _| {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        stream.add_callback(move |_| flag.store(true, Ordering::Release)).unwrap();
        stream.context().synchronize().unwrap();
        assert!(ran.load(Ordering::Acquire));
    });
}

#[test]
fn with_verify_scopes_every_call_makes_sure_and_without_it_none_asks() {
    with_a_stale_scope(|machine, stream, event, second| {
        let (first, driver) = (stream.context(), stream.context().driver());
        let mut graph = GraphDefinition::new(first).unwrap();
        graph.host_func(|| {}, &[]).unwrap();
        let mut exec = graph.instantiate().unwrap();
        // The default stream is the current context's, and the event another's.
        let legacy = Stream::legacy(first);
        assert!(legacy.record(event).is_err());
        driver.verify_scopes(true);
        legacy.record(event).unwrap();
        exec.launch(&legacy).unwrap();
        legacy.synchronize().unwrap();
        assert!(first.is_entered(), "that is about the scope");
        driver.verify_scopes(false);
        // SAFETY: the context is alive.
        unsafe { driver.api().ctx_set_current.call(first.as_raw()) }.unwrap();
        let asked = machine.calls("cuCtxGetCurrent");
        exec.launch(stream).unwrap();
        stream.query().unwrap();
        stream.synchronize().unwrap();
        assert_eq!(machine.calls("cuCtxGetCurrent"), asked);
        // SAFETY: as above; the rest of the test expects it.
        unsafe { driver.api().ctx_set_current.call(second.as_raw()) }.unwrap();
    });
}
