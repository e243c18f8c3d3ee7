//! Faults that were reported elsewhere. Each test is named after its report. These have no test
//! here:
//!
//! * `vllm#32799`, `vllm#54269`, un-pinning to dodge a race, a wait without a deadline: see
//!   `timeline` and `the_host_waits_for_the_device`.
//! * `cudarc#579`, `pytorch#160420`, `TensorRT-LLM#17429`, `sglang#31424`, write-combined by
//!   default, NUMA, long registrations, fork: properties of the memory resources, tested there.
//! * `rmm#1887`, `pytorch#118550`, contention of a lock: there is none; `bench/` measures.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wharf::graph::{CaptureMode, CaptureScope, NodeKind};
use wharf::memory::DeviceMemoryResource;
use wharf::pool::{Buffer, Pool, RawError};
use wharf::slab::AllocError;
use wharf::{Driver, Stream};

use super::{BLOCK, SPAN, builder, context, device_pool, gate, pinned_pool, small_pool, streams};
use crate::backend::{binder, on_each_driver};
use crate::deadline::{LONG, SHORT};
use crate::graph_rig::until_sole;

on_each_driver!(
    vllm_24527_a_pinned_source_is_not_overwritten,
    onnxruntime_32121_a_graph_keeps_its_source,
    cudarc_590_no_event_of_ours_enters_a_capture,
    vllm_46933_pinning_beside_a_capture,
    pytorch_159594_exhaustion_in_a_capture_frees_nothing_of_it,
    cuda_jl_1230_no_memory_node_in_a_graph,
    pytorch_95823_rounding_wastes_little,
    pytorch_192722_a_class_fixes_the_block_size,
    wgpu_1441_idle_memory_goes_back,
    rmm_850_other_streams_memory_is_the_last_resort,
    rmm_1245_a_full_pool_reclaims_once_and_goes_on,
    cubecl_1401_a_handle_of_an_earlier_life_is_found,
    pytorch_host_a_slow_stream_holds_up_no_other,
    rmm_1887_a_thread_that_grows_stops_no_other,
);

fn vllm_24527_a_pinned_source_is_not_overwritten(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let (pinned, device) = (pinned_pool(&context), device_pool(&context));
    let held = gate(&stream);
    let targets: Vec<Buffer<i64>> = (0..4)
        .map(|step| {
            // A new source each step, as if it were one that is rewritten.
            let mut source: Buffer<i64> = pinned.alloc(1000, &stream).unwrap();
            // The stream's own memory may be in flight still: then the host may not have it.
            if source.host_mut(SHORT).is_err() {
                source = pinned.alloc(1000, &stream).unwrap();
            }
            source.host_mut(LONG).unwrap().fill(step);
            let target: Buffer<i64> = device.alloc(1000, &stream).unwrap();
            target.copy_from(&source, &stream).unwrap();
            // Kept by the copy, not by this.
            drop(source);
            target
        })
        .take(1)
        .collect();
    let mut again: Buffer<i64> = pinned.alloc(1000, &stream).unwrap();
    assert!(again.host_mut(SHORT).is_err(), "the copy out of it has not run");
    drop(held);
    again.host_mut(LONG).unwrap().fill(-1);
    let mut back = [7; 1000];
    targets[0].copy_to_slice(&mut back, &stream).unwrap();
    assert_eq!(back, [0; 1000]);
}

fn onnxruntime_32121_a_graph_keeps_its_source(driver: &Driver) {
    let context = context(driver);
    let [stream, other] = streams(&context);
    let (pinned, device) = (pinned_pool(&context), device_pool(&context));
    let mut source: Buffer<i32> = pinned.alloc(1000, &stream).unwrap();
    source.host_mut(LONG).unwrap().fill(42);
    let target: Buffer<i32> = device.alloc(1000, &stream).unwrap();
    let scope = CaptureScope::begin(&stream, CaptureMode::ThreadLocal).unwrap();
    target.copy_from(&source, &stream).unwrap();
    let kept = Arc::new((source, target.slice(..).unwrap()));
    scope.keep_alive(Arc::clone(&kept)).unwrap();
    let mut exec = scope.end().unwrap().instantiate().unwrap();
    for _ in 0..20 {
        let mut other_run: Buffer<i32> = pinned.alloc(1000, &other).unwrap();
        other_run.host_mut(LONG).unwrap().fill(-1);
    }
    exec.launch(&stream).unwrap();
    let mut back = [0; 1000];
    target.copy_to_slice(&mut back, &stream).unwrap();
    assert_eq!(back, [42; 1000]);
    drop(exec);
    until_sole(driver, &kept);
}

/// What `body` leaves in a graph.
fn captured(stream: &Stream, body: impl FnOnce()) -> Vec<NodeKind> {
    let scope = CaptureScope::begin(stream, CaptureMode::Global).unwrap();
    body();
    scope.end().unwrap().nodes().map(|node| node.kind).collect()
}

fn cudarc_590_no_event_of_ours_enters_a_capture(driver: &Driver) {
    let context = context(driver);
    let [stream, other] = streams(&context);
    let pool = device_pool(&context);
    let before: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    before.fill(1, &stream).unwrap();
    let nodes = captured(&stream, || {
        drop(before);
        let inside: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
        inside.record_use(&stream).unwrap();
        assert!(!inside.is_idle());
        assert!(inside.wait(SHORT).is_err());
        drop(inside);
        drop(pool.alloc::<u8>(5000, &other).unwrap());
        pool.trim(Duration::ZERO, 0);
    });
    assert_eq!(nodes, []);
    // Nothing is left behind that a later call would stumble over.
    stream.synchronize().unwrap();
    pool.close(LONG).unwrap();
}

fn vllm_46933_pinning_beside_a_capture(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let bind = binder();
    let nodes = captured(&stream, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let _bound = bind();
                let [own] = streams(&context);
                let pinned = pinned_pool(&context);
                let mut buffer: Buffer<u8> = pinned.alloc(BLOCK, &own).unwrap();
                buffer.host_mut(LONG).unwrap()[0] = 1;
            });
        });
    });
    assert_eq!(nodes, []);
}

fn pytorch_159594_exhaustion_in_a_capture_frees_nothing_of_it(driver: &Driver) {
    let context = context(driver);
    let [stream, other] = streams(&context);
    let pool = small_pool(&context, 2);
    let named: Buffer<u8> = pool.alloc(BLOCK, &stream).unwrap();
    let free: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
    drop(free);
    let nodes = captured(&stream, || {
        named.fill(1, &stream).unwrap();
        let one: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
        for of in [&stream, &other] {
            assert!(matches!(pool.alloc::<u8>(BLOCK, of), Err(AllocError::Exhausted(_))));
        }
        drop(one);
    });
    assert_eq!(nodes, [NodeKind::Memset]);
}

fn cuda_jl_1230_no_memory_node_in_a_graph(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let nodes = captured(&stream, || {
        for size in [100, 10_000, 1 << 20, 9 << 20] {
            let buffer: Buffer<u8> = pool.alloc(size, &stream).unwrap();
            buffer.fill(1, &stream).unwrap();
        }
    });
    assert_eq!(nodes, [NodeKind::Memset; 4]);
}

fn pytorch_95823_rounding_wastes_little(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    for size in [1_025, 40_000, 130 << 10, 2_100_000, 17 << 20, 33 << 20] {
        let buffer: Buffer<u8> = pool.alloc(size, &stream).unwrap();
        let block = buffer.info().size;
        assert!(block >= size && block - size <= size / 4, "{block} for {size}");
        drop(buffer);
        // Reuse is as strict as the first allocation.
        let smaller: Buffer<u8> = pool.alloc(size * 3 / 4, &stream).unwrap();
        assert!(smaller.info().size - size * 3 / 4 <= size / 4, "{smaller:?}");
    }
}

fn pytorch_192722_a_class_fixes_the_block_size(driver: &Driver) {
    let context = context(driver);
    let [stream, other] = streams(&context);
    let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
    let pool = builder().wait(LONG).build(resource).unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut held = Vec::<Buffer<u8>>::new();
    for _ in 0..2000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let size = usize::try_from(random >> 40).unwrap() % (1 << (1 + (random >> 33) % 24)) + 1;
        let of = if random & 1 << 32 == 0 { &stream } else { &other };
        if held.len() > 8 {
            drop(held.swap_remove(usize::try_from(random >> 50).unwrap() % held.len()));
        }
        let buffer: Buffer<u8> = pool.alloc(size, of).unwrap();
        buffer.record_use(of).unwrap();
        assert!(buffer.info().size >= size);
        let range = |buffer: &Buffer<u8>| {
            let start = buffer.info().address;
            start..start + buffer.len() as u64
        };
        let (start, end) = (range(&buffer).start, range(&buffer).end);
        assert!(held.iter().map(range).all(|other| end <= other.start || other.end <= start));
        held.push(buffer);
    }
}

fn wgpu_1441_idle_memory_goes_back(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    // Sizes that grow: each misses what the one before has left.
    for size in (1..=40).map(|step| step * 200_000) {
        let buffer: Buffer<u8> = pool.alloc(size, &stream).unwrap();
        buffer.fill(1, &stream).unwrap();
    }
    stream.synchronize().unwrap();
    assert!(pool.slab_stats().reserved > 0);
    // The first trim puts a marker behind the last use, and a later one finds it complete.
    while pool.slab_stats().reserved > 0 {
        assert_eq!(pool.trim(Duration::ZERO, 0).lost, 0);
    }
    assert!(pool.blocks().is_empty());
}

fn rmm_850_other_streams_memory_is_the_last_resort(driver: &Driver) {
    let context = context(driver);
    let [user, other] = streams(&context);
    let pool = small_pool(&context, 2);
    let held = gate(&user);
    let first: Buffer<u8> = pool.alloc(BLOCK, &user).unwrap();
    first.fill(1, &user).unwrap();
    drop(first);
    // Growth comes before a wait, and completed memory before growth.
    let second: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
    assert_eq!((pool.stats().cross_stream, pool.stats().waits), (0, 0));
    let address = second.info().address;
    drop(second);
    let third: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
    assert_eq!((third.info().address, pool.stats().waits), (address, 0));
    let fourth: Buffer<u8> = pool.alloc(BLOCK, &other).unwrap();
    assert_eq!((pool.stats().cross_stream, pool.stats().waits), (1, 1));
    drop((third, fourth, held));
}

fn rmm_1245_a_full_pool_reclaims_once_and_goes_on(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = small_pool(&context, 1);
    let mut live = Vec::new();
    // Small blocks, of which one in eight stays: nothing large is free in one piece.
    for number in 0..100 {
        let buffer: Buffer<u8> = pool.alloc(100_000, &stream).unwrap();
        if number % 8 == 0 {
            live.push(buffer);
        }
    }
    assert!(matches!(pool.alloc::<u8>(BLOCK, &stream), Err(AllocError::Exhausted(_))));
    drop(live);
    let whole: Buffer<u8> = pool.alloc(BLOCK, &stream).unwrap();
    assert_eq!(pool.stats().exhausted, 1);
    drop(whole);
}

fn cubecl_1401_a_handle_of_an_earlier_life_is_found(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let raw = pool.alloc::<u8>(1000, &stream).unwrap().into_raw().unwrap();
    drop(pool.take_raw(raw).unwrap());
    pool.trim(Duration::ZERO, 0);
    assert!(matches!(pool.take_raw(raw), Err(RawError::Stale { .. })));
    // The same record, with another block.
    let other: Buffer<u8> = pool.alloc(500_000, &stream).unwrap();
    assert!(matches!(pool.take_raw(raw), Err(RawError::Stale { .. })));
    drop(other);
}

fn pytorch_host_a_slow_stream_holds_up_no_other(driver: &Driver) {
    let context = context(driver);
    let [slow, quick, third] = streams(&context);
    let pool = small_pool(&context, 2);
    let held = gate(&slow);
    // First into every list there may be.
    let first: Buffer<u8> = pool.alloc(BLOCK, &slow).unwrap();
    first.fill(1, &slow).unwrap();
    drop(first);
    let second: Buffer<u8> = pool.alloc(BLOCK, &quick).unwrap();
    let address = second.info().address;
    second.fill(1, &quick).unwrap();
    drop(second);
    assert!(quick.mark().unwrap());
    quick.synchronize().unwrap();
    let next: Buffer<u8> = pool.alloc(BLOCK, &third).unwrap();
    assert_eq!((next.info().address, pool.stats().cross_stream), (address, 0));
    drop(held);
}

fn rmm_1887_a_thread_that_grows_stops_no_other(driver: &Driver) {
    let context = context(driver);
    let streams: [Stream; 4] = streams(&context);
    let resource = DeviceMemoryResource::new(&context, SPAN).unwrap();
    let pool: Pool = builder().build(resource).unwrap();
    let bind = binder();
    thread::scope(|scope| {
        for stream in &streams {
            let (pool, bind) = (&pool, bind.clone());
            scope.spawn(move || {
                let _bound = bind();
                for round in 0..200 {
                    let buffer: Buffer<u8> = pool.alloc(1 + round * 10_000, stream).unwrap();
                    buffer.fill(1, stream).unwrap();
                }
            });
        }
    });
    pool.close(LONG).unwrap();
}
