//! A per-thread default stream is used on its own thread, or not at all.

use std::thread;
use std::time::Duration;

use wharf::driver::EventKind;
use wharf::graph::{CaptureMode, CaptureScope, GraphDefinition, GraphError};
use wharf::pool::Buffer;
use wharf::sys::constants::STREAM_PER_THREAD;
use wharf::tier::{Tier, TieredPool};
use wharf::{Driver, Error, Event, Stream};

use super::{alloc_of, borrow, context, device_pool, gate, machine};
use crate::backend::{binder, on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(
    another_thread_gets_no_block_that_a_per_thread_stream_uses,
    memory_of_a_thread_that_has_ended_comes_back,
);

/// Runs `body` on a thread of its own.
fn elsewhere<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    let bind = binder();
    thread::scope(|scope| {
        let bound = || {
            let _bound = bind();
            body()
        };
        scope.spawn(bound).join().unwrap()
    })
}

fn another_thread_gets_no_block_that_a_per_thread_stream_uses(driver: &Driver) {
    let context = context(driver);
    let pool = device_pool(&context);
    let here = Stream::per_thread(&context);
    let held = gate(&here);
    let buffer: Buffer<u8> = pool.alloc(1000, &here).unwrap();
    buffer.fill(1, &here).unwrap();
    let address = buffer.info().address;
    drop(buffer);
    elsewhere(|| {
        let refused = pool.alloc::<u8>(1000, &here).unwrap_err();
        assert_eq!(refused, Error::OtherThread.into(), "{refused}");
        let there = Stream::per_thread(&context);
        let buffer: Buffer<u8> = pool.alloc(1000, &there).unwrap();
        assert_ne!(buffer.info().address, address, "its stream still writes there");
        buffer.fill(2, &there).unwrap();
        let mut bytes = [0; 1000];
        buffer.copy_to_slice(&mut bytes, &there).unwrap();
        assert_eq!(bytes, [2; 1000]);
    });
    drop(held);
    assert_eq!(pool.alloc::<u8>(1000, &here).unwrap().info().address, address);
}

fn memory_of_a_thread_that_has_ended_comes_back(driver: &Driver) {
    let context = context(driver);
    let pool = device_pool(&context);
    elsewhere(|| {
        let stream = Stream::per_thread(&context);
        pool.alloc::<u8>(1000, &stream).unwrap().fill(1, &stream).unwrap();
    });
    context.synchronize().unwrap();
    pool.trim(Duration::ZERO, 0);
    assert_eq!(pool.retired(), 0);
}

#[test]
fn every_call_with_another_threads_stream_is_refused_before_anything_is_submitted() {
    let machine = machine();
    on_machine(&machine, |driver| {
        let context = context(driver);
        let (pool, tiers) =
            (device_pool(&context), TieredPool::builder(&context).pinned(4 << 20).build().unwrap());
        let (own, here) = (Stream::new(&context).unwrap(), borrow(STREAM_PER_THREAD, &context));
        let buffer: Buffer<u8> = pool.alloc(1000, &own).unwrap();
        let other: Buffer<u8> = pool.alloc(1000, &own).unwrap();
        let mut object = tiers.alloc(1000, Tier::Pinned).unwrap();
        let event = Event::new(&context, EventKind::Ordering).unwrap();
        let mut exec = GraphDefinition::new(&context).unwrap().instantiate().unwrap();
        here.timeline().unwrap();
        elsewhere(|| {
            let _scope = context.enter().unwrap();
            let before = machine.all_calls();
            let graph = |error: GraphError| match error {
                GraphError::Driver(error) => error,
                other => panic!("{other}"),
            };
            let mut bytes = [0; 1000];
            let refused = [
                buffer.fill(1, &here),
                buffer.copy_from(&other, &here),
                buffer.copy_from_slice(&[1; 1000], &here),
                buffer.copy_to_slice(&mut bytes, &here),
                buffer.record_use(&here),
                buffer.acquire(&here),
                here.query().map(drop),
                here.synchronize(),
                here.record(&event),
                here.wait_event(&event),
                here.capture_status().map(drop),
                here.kind().map(drop),
                here.priority().map(drop),
                here.ticket().map(drop),
                here.timeline().map(drop),
                here.mark().map(drop),
                here.add_callback(|_| ()),
                here.launch_host_func(&|| ()),
                exec.launch(&here).map_err(graph),
                exec.upload(&here).map_err(graph),
                CaptureScope::begin(&here, CaptureMode::Global).map(drop).map_err(graph),
            ];
            for (number, outcome) in refused.into_iter().enumerate() {
                assert_eq!(outcome, Err(Error::OtherThread), "call {number}");
            }
            assert!(pool.alloc::<u8>(1000, &here).is_err());
            assert!(object.pin(Tier::Pinned, &here).is_err());
            assert!(object.pin_mut(Tier::Pinned, &here).is_err());
            let after = machine.all_calls();
            assert_eq!(after, before, "the driver was called");
        });
        buffer.fill(1, &here).unwrap();
        object.pin_mut(Tier::Pinned, &here).unwrap().copy_from_slice(&[1; 1000]).unwrap();
        assert!(buffer.wait(LONG).is_ok());
    });
}

#[test]
fn a_pool_outlives_5000_threads_with_default_streams_of_their_own() {
    on_machine(&machine(), |driver| {
        let context = context(driver);
        let pool = device_pool(&context);
        let mut kept: Vec<Buffer<u8>> = Vec::new();
        for number in 0..5000 {
            kept.push(elsewhere(|| {
                let stream = Stream::per_thread(&context);
                let buffer = alloc_of(number, &pool, &stream, &context);
                buffer.fill(1, &stream).unwrap();
                buffer
            }));
        }
        assert!(kept.iter().all(|buffer| buffer.wait(LONG).is_ok()));
    });
}
