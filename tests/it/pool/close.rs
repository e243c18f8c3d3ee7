//! The end of a pool: what is in use then is leaked, which is counted and told, and nothing else
//! is.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use wharf::graph::{CaptureMode, CaptureScope};
use wharf::pool::{Buffer, LeakReport, Pool};
use wharf::{Context, Driver, Error, Stream};

use super::{context, device_pool, gate, pinned_pool, streams};
use crate::backend::{Config, Simulator, binder, on_machine};
use crate::deadline::SHORT;

/// What drops could not give back.
fn heard(driver: &Driver) -> Receiver<Error> {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    driver.on_drop_error(move |error| tell.lock().unwrap().send(*error).unwrap()).unwrap();
    told
}

fn on_a_machine(test: fn(&Driver)) {
    on_machine(&Arc::new(Simulator::new(Config::default())), test);
}

/// Where the classes of small blocks share granules, one of those.
const GRANULE: usize = 2 << 20;

/// A pool with megabytes that the device is done with, and a small block of which `use_it` has made
/// a use that does not end.
fn with_one_stuck(context: &Context, pool: &Pool, use_it: impl FnOnce(&Buffer<u8>)) {
    let [stream] = streams(context);
    let idle: Vec<Buffer<u8>> = [100, 70_000, 3 << 20, 64 << 20]
        .iter()
        .map(|size| pool.alloc(*size, &stream).unwrap())
        .collect();
    idle.iter().for_each(|buffer| buffer.fill(1, &stream).unwrap());
    let stuck: Buffer<u8> = pool.alloc(100, &stream).unwrap();
    use_it(&stuck);
    drop((idle, stuck));
    stream.synchronize().unwrap();
}

/// The pool ends by `end`: what is told is one granule, once.
fn one_granule_is_leaked(
    driver: &Driver,
    pool: fn(&Context) -> Pool,
    end: impl FnOnce(&Context, Pool, &Stream),
) {
    let told = heard(driver);
    let context = context(driver);
    let [captured] = streams(&context);
    end(&context, pool(&context), &captured);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [Error::Leaked { bytes: GRANULE }]);
    assert_eq!(context.drop_errors(), 1);
}

fn closed_while_captured(context: &Context, pool: Pool, captured: &Stream) {
    let capture = CaptureScope::begin(captured, CaptureMode::default()).unwrap();
    with_one_stuck(context, &pool, |stuck| stuck.record_use(captured).unwrap());
    let LeakReport { buffers, in_use, .. } = pool.close(SHORT).unwrap_err();
    assert_eq!((buffers, in_use), (Vec::new(), 256));
    drop(capture);
}

fn dropped_while_captured(context: &Context, pool: Pool, captured: &Stream) {
    let capture = CaptureScope::begin(captured, CaptureMode::default()).unwrap();
    with_one_stuck(context, &pool, |stuck| stuck.record_use(captured).unwrap());
    drop(pool);
    drop(capture);
}

fn closed_while_busy(context: &Context, pool: Pool, busy: &Stream) {
    let shut = gate(busy);
    with_one_stuck(context, &pool, |stuck| stuck.record_use(busy).unwrap());
    let error = pool.close(SHORT).unwrap_err();
    assert!(error.to_string().contains("256 bytes"), "{error}");
    drop(shut);
    busy.synchronize().unwrap();
}

#[test]
fn close_beside_a_capture_says_what_is_in_use_and_leaks_only_its_granule() {
    on_a_machine(|driver| one_granule_is_leaked(driver, device_pool, closed_while_captured));
    on_a_machine(|driver| one_granule_is_leaked(driver, pinned_pool, closed_while_captured));
}

#[test]
fn the_drop_of_a_pool_with_one_block_in_use_leaks_only_its_granule_and_tells() {
    on_a_machine(|driver| one_granule_is_leaked(driver, device_pool, dropped_while_captured));
    on_a_machine(|driver| one_granule_is_leaked(driver, pinned_pool, dropped_while_captured));
}

#[test]
fn close_at_its_limit_says_what_the_device_still_uses() {
    on_a_machine(|driver| one_granule_is_leaked(driver, device_pool, closed_while_busy));
}

#[test]
fn close_says_what_the_stream_of_an_ended_thread_may_still_use() {
    on_a_machine(|driver| {
        one_granule_is_leaked(driver, device_pool, |context, pool, _| {
            let bind = binder();
            let (other, buffer) = thread::scope(|scope| {
                let started = scope.spawn(|| {
                    let _bound = bind();
                    let stream = Stream::per_thread(context);
                    let buffer: Buffer<u8> = pool.alloc(100, &stream).unwrap();
                    buffer.fill(1, &stream).unwrap();
                    (stream, buffer)
                });
                started.join().unwrap()
            });
            drop((other, buffer));
            assert_eq!(pool.close(SHORT).unwrap_err().in_use, 256);
        });
    });
}

/// A clone keeps the pool, and what is in use comes back through it.
#[test]
fn close_of_a_clone_leaks_nothing() {
    on_a_machine(|driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = device_pool(&context);
        let shut = gate(&stream);
        let buffer: Buffer<u8> = pool.alloc(100, &stream).unwrap();
        buffer.record_use(&stream).unwrap();
        drop(buffer);
        assert_eq!(pool.clone().close(SHORT).unwrap_err().in_use, 256);
        drop(shut);
        stream.synchronize().unwrap();
        assert_eq!(pool.close(SHORT), Ok(()));
        assert_eq!(context.drop_errors(), 0);
    });
}
