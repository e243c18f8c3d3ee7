#![expect(unsafe_code, reason = "borrows contexts by raw handle")]
//! Contexts and the time during which they are current.

use core::ptr;
use std::sync::{Arc, Mutex};
use std::thread;

use wharf::sys::bindings::CUcontext;
use wharf::{Context, CudaError, Driver, Stream};

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
        unsafe { driver.api().ctx_create.call(&raw mut raw, 0, driver.device(0).unwrap().as_raw()) }.unwrap();
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
    static HEARD: Mutex<Vec<(&str, CudaError)>> = Mutex::new(Vec::new());
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        driver.on_drop_error(|call, code| HEARD.lock().unwrap().push((call, code))).unwrap();
        assert!(driver.on_drop_error(|_, _| ()).is_err(), "the hook is set once");
        let context = retained(driver);

        machine.fail("cuStreamDestroy", 1, CudaError::OPERATING_SYSTEM);
        drop(Stream::new(&context).unwrap());
        assert_eq!(context.drop_errors(), 1);
        assert_eq!(*HEARD.lock().unwrap(), [("cuStreamDestroy", CudaError::OPERATING_SYSTEM)]);

        machine.fail("cuStreamDestroy", 1, CudaError::DEINITIALIZED);
        drop(Stream::new(&context).unwrap());
        assert_eq!(context.drop_errors(), 1, "a driver that is going away is no error");

        let streams = machine.leaks().iter().filter(|line| line.starts_with("stream")).count();
        assert_eq!(streams, 2, "leaked rather than dangling");
    });
}
