//! In the middle of anybody's capture: grow, trim, drop, exhaust and reclaim. The capture stays
//! valid, nothing of ours is in the graph, and it replays.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf::graph::{CaptureMode, CaptureScope, NodeKind};
use wharf::pool::{Buffer, Pool};
use wharf::slab::AllocError;
use wharf::{Context, DeviceAttribute, Driver, Stream};

use super::{BLOCK, context, pinned_pool, small_pool, streams};
use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(
    a_global_capture_is_left_alone,
    a_thread_local_capture_is_left_alone,
    a_relaxed_capture_is_left_alone,
    memory_of_a_captured_stream_comes_back_afterwards,
);

const MODES: [CaptureMode; 3] =
    [CaptureMode::Global, CaptureMode::ThreadLocal, CaptureMode::Relaxed];

/// Everything that a pool does, at the limit and below, beside a capture of `captured`.
fn disturb(context: &Context, pool: &Pool, captured: &Stream) {
    let [stream] = streams(context);
    let some: Vec<Buffer<u8>> =
        [100, 70_000, 3 << 20].iter().map(|&size| pool.alloc(size, &stream).unwrap()).collect();
    some.iter().for_each(|buffer| buffer.fill(1, &stream).unwrap());
    drop(some);
    // For the captured stream itself, and dropped there.
    let on_captured: Buffer<u8> = pool.alloc(5000, captured).unwrap();
    on_captured.record_use(captured).unwrap();
    drop(on_captured);
    let again: Buffer<u8> = pool.alloc(5000, captured).unwrap();
    assert!(!again.is_idle());
    let held: Vec<Buffer<u8>> =
        std::iter::from_fn(|| pool.alloc(BLOCK, &stream).ok()).take(20).collect();
    assert!(held.len() < 20);
    assert!(matches!(pool.alloc::<u8>(BLOCK, &stream), Err(AllocError::Exhausted(_))));
    assert!(matches!(pool.alloc::<u8>(BLOCK, captured), Err(AllocError::Exhausted(_))));
    drop(held);
    stream.synchronize().unwrap();
    pool.trim(Duration::ZERO, 0);
    let pinned = pinned_pool(context);
    let mut host: Buffer<u8> = pinned.alloc(1 << 20, &stream).unwrap();
    host.host_mut(LONG).unwrap().fill(3);
    drop(host);
    pinned.trim(Duration::ZERO, 0);
    pinned.close(LONG).unwrap();
}

fn left_alone(driver: &Driver, mode: CaptureMode, elsewhere: bool) {
    let context = context(driver);
    let [captured, other] = streams(&context);
    let pool = small_pool(&context, 4);
    let (source, target): (Buffer<i32>, Buffer<i32>) =
        (pool.alloc(1000, &captured).unwrap(), pool.alloc(1000, &captured).unwrap());
    let used_before: Buffer<u8> = pool.alloc(9000, &captured).unwrap();
    used_before.fill(1, &captured).unwrap();
    let used_by_both: Buffer<u8> = pool.alloc(9000, &captured).unwrap();
    used_by_both.slice(..4500).unwrap().fill(1, &captured).unwrap();
    used_by_both.slice(4500..).unwrap().fill(1, &other).unwrap();
    let scope = CaptureScope::begin(&captured, mode).unwrap();
    target.copy_from(&source, &captured).unwrap();
    drop((used_before, used_by_both));
    if elsewhere {
        let bind = binder();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _bound = bind();
                disturb(&context, &pool, &captured);
            });
        });
    } else {
        disturb(&context, &pool, &captured);
    }
    let graph = scope.end().unwrap();
    assert_eq!(graph.nodes().map(|node| node.kind).collect::<Vec<_>>(), [NodeKind::Memcpy]);
    let mut exec = graph.instantiate().unwrap();
    for value in [5, -9] {
        source.copy_from_slice(&[value; 1000], &captured).unwrap();
        target.fill(0, &captured).unwrap();
        exec.launch(&captured).unwrap();
        let mut back = [0; 1000];
        target.copy_to_slice(&mut back, &captured).unwrap();
        assert_eq!(back, [value; 1000], "{mode:?}");
    }
    drop((source, target, exec));
    pool.close(LONG).unwrap();
}

fn a_global_capture_is_left_alone(driver: &Driver) {
    left_alone(driver, CaptureMode::Global, false);
    left_alone(driver, CaptureMode::Global, true);
}

fn a_thread_local_capture_is_left_alone(driver: &Driver) {
    left_alone(driver, CaptureMode::ThreadLocal, false);
    left_alone(driver, CaptureMode::ThreadLocal, true);
}

fn a_relaxed_capture_is_left_alone(driver: &Driver) {
    left_alone(driver, CaptureMode::Relaxed, false);
    left_alone(driver, CaptureMode::Relaxed, true);
}

fn memory_of_a_captured_stream_comes_back_afterwards(driver: &Driver) {
    let context = context(driver);
    let [captured, other] = streams(&context);
    let pool = small_pool(&context, 1);
    let buffer: Buffer<u8> = pool.alloc(BLOCK, &captured).unwrap();
    buffer.fill(1, &captured).unwrap();
    let scope = CaptureScope::begin(&captured, CaptureMode::ThreadLocal).unwrap();
    drop(buffer);
    assert!(pool.alloc::<u8>(BLOCK, &other).is_err());
    let graph = scope.end().unwrap();
    assert!(graph.is_empty());
    let buffer: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
    assert_eq!(buffer.info().generation, 2);
}

#[test]
fn captures_are_left_alone_where_markers_are_events() {
    let attributes = vec![(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS.as_raw(), 0)];
    let machine = Arc::new(Simulator::new(Config { attributes, ..Config::default() }));
    on_machine(&machine, |driver| {
        MODES.into_iter().for_each(|mode| {
            left_alone(driver, mode, false);
            left_alone(driver, mode, true);
        });
    });
}
