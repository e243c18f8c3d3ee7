//! One thread, and what a buffer promises.

use std::time::Duration;

use wharf::element::{DType, F16};
use wharf::manager::{BufferPool, BufferSpec};
use wharf::memory::{ManagedMemoryResource, MemoryKind};
use wharf::pool::{Buffer, BufferState, HostError, RawBuffer, RawError};
use wharf::slab::AllocError;
use wharf::{CudaError, Driver, Stream};

use super::{SPAN, builder, context, device_pool, gate, pinned_pool, streams};
use crate::backend::on_each_driver;
use crate::deadline::{LONG, SHORT};

on_each_driver!(
    bytes_arrive,
    fills_repeat_every_size,
    the_same_stream_has_its_memory_back_at_once,
    another_stream_has_it_when_it_is_done,
    memory_of_two_streams_waits_for_both,
    a_new_owner_on_another_stream_comes_behind_the_old,
    more_streams_than_places_wait_for_each_other,
    pieces_keep_the_block,
    bare_handles_are_taken_back_once,
    the_host_waits_for_the_device,
    a_wait_may_be_without_limit,
    sizes_are_checked,
    buffers_outlive_their_pool,
    a_closed_pool_names_what_is_alive,
    every_state_is_seen,
    specs_choose_their_pool,
);

fn bytes_arrive(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let managed = builder().build(ManagedMemoryResource::new(&context, SPAN).unwrap()).unwrap();
    let data: Vec<i64> = (0..10_000).map(|number| number * 31 - 7).collect();
    for pool in [device_pool(&context), pinned_pool(&context), managed] {
        let (first, second): (Buffer<i64>, Buffer<i64>) = (
            pool.alloc(data.len(), &stream).unwrap(),
            pool.alloc(data.len() + 5, &stream).unwrap(),
        );
        first.copy_from_slice(&data, &stream).unwrap();
        second.copy_from(&first, &stream).unwrap();
        drop(first);
        let mut back = vec![0; data.len() + 5];
        second.copy_to_slice(&mut back, &stream).unwrap();
        assert_eq!(back[..data.len()], data);
        assert!(format!("{second:?}").contains("10005 x i64"));
    }
}

fn a_wait_may_be_without_limit(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = builder()
        .wait(Duration::MAX)
        .build(ManagedMemoryResource::new(&context, SPAN).unwrap())
        .unwrap();
    let mut bytes: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    bytes.fill(1, &stream).unwrap();
    bytes.wait(Duration::MAX).unwrap();
    assert_eq!(bytes.host_mut(Duration::MAX).unwrap(), [1; 1000]);
    stream.ticket().unwrap().wait(Duration::MAX).unwrap();
    drop(bytes);
    pool.close(Duration::MAX).unwrap();
}

fn fills_repeat_every_size(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let bytes: Buffer<i8> = pool.alloc(1001, &stream).unwrap();
    bytes.fill(-3, &stream).unwrap();
    let halves: Buffer<F16> = pool.alloc(1001, &stream).unwrap();
    halves.fill(F16(0x3c00), &stream).unwrap();
    let words: Buffer<f32> = pool.alloc(1001, &stream).unwrap();
    words.fill(0.5, &stream).unwrap();
    let longs: Buffer<i64> = pool.alloc(1001, &stream).unwrap();
    longs.fill(-1, &stream).unwrap();
    assert_eq!(longs.fill(1, &stream).unwrap_err().code(), Some(CudaError::NOT_SUPPORTED));
    let (mut a, mut b, mut c, mut d) =
        (vec![0; 1001], vec![F16(0); 1001], vec![0.0; 1001], vec![0; 1001]);
    bytes.copy_to_slice(&mut a, &stream).unwrap();
    halves.copy_to_slice(&mut b, &stream).unwrap();
    words.copy_to_slice(&mut c, &stream).unwrap();
    longs.copy_to_slice(&mut d, &stream).unwrap();
    assert!(a.iter().all(|&value| value == -3) && b.iter().all(|&value| value == F16(0x3c00)));
    assert!(c.iter().all(|&value| value == 0.5) && d.iter().all(|&value| value == -1));
}

fn the_same_stream_has_its_memory_back_at_once(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let held = gate(&stream);
    for size in [1000, 100_000, 20 << 20] {
        let first: Buffer<u8> = pool.alloc(size, &stream).unwrap();
        first.fill(1, &stream).unwrap();
        let address = first.info().address;
        drop(first);
        let second: Buffer<u8> = pool.alloc(size, &stream).unwrap();
        assert_eq!(second.info().address, address);
        assert!(!second.is_idle());
    }
    drop(held);
}

fn another_stream_has_it_when_it_is_done(driver: &Driver) {
    let context = context(driver);
    let [user, other] = streams(&context);
    let pool = device_pool(&context);
    let held = gate(&user);
    let first: Buffer<u8> = pool.alloc(1 << 20, &user).unwrap();
    first.fill(1, &user).unwrap();
    let address = first.info().address;
    drop(first);
    let second: Buffer<u8> = pool.alloc(1 << 20, &other).unwrap();
    assert_ne!(second.info().address, address);
    drop(held);
    user.mark().unwrap();
    user.synchronize().unwrap();
    let third: Buffer<u8> = loop {
        // Where completion is known by events, a call has to ask.
        pool.trim(Duration::MAX, usize::MAX);
        let third: Buffer<u8> = pool.alloc(1 << 20, &other).unwrap();
        if third.info().address == address {
            break third;
        }
    };
    assert!(third.is_idle());
}

fn memory_of_two_streams_waits_for_both(driver: &Driver) {
    let context = context(driver);
    let [one, two, three] = streams(&context);
    let pool = device_pool(&context);
    let (first_gate, second_gate) = (gate(&one), gate(&two));
    let buffer: Buffer<u8> = pool.alloc(1 << 20, &one).unwrap();
    buffer.fill(1, &one).unwrap();
    buffer.fill(2, &two).unwrap();
    let address = buffer.info().address;
    drop(buffer);
    let is_free_for = |stream: &Stream| {
        pool.trim(Duration::MAX, usize::MAX);
        let buffers: Vec<Buffer<u8>> =
            (0..2).map(|_| pool.alloc(1 << 20, stream).unwrap()).collect();
        buffers.iter().any(|buffer| buffer.info().address == address)
    };
    assert!(!is_free_for(&one) && !is_free_for(&two) && !is_free_for(&three));
    drop(first_gate);
    one.synchronize().unwrap();
    assert!(!is_free_for(&one) && !is_free_for(&three));
    drop(second_gate);
    two.synchronize().unwrap();
    while !is_free_for(&three) {}
}

fn a_new_owner_on_another_stream_comes_behind_the_old(driver: &Driver) {
    let context = context(driver);
    let [first, second] = streams(&context);
    let (device, pinned) = (device_pool(&context), pinned_pool(&context));
    let source: Buffer<u8> = device.alloc(1 << 20, &first).unwrap();
    source.fill(7, &first).unwrap();
    let mut target: Buffer<u8> = pinned.alloc(1 << 20, &first).unwrap();
    let held = gate(&first);
    target.copy_from(&source, &first).unwrap();
    let address = source.info().address;
    drop(source);
    // For the first stream, so it has the memory at once; used on the second, which must wait.
    let next: Buffer<u8> = device.alloc(1 << 20, &first).unwrap();
    assert_eq!(next.info().address, address);
    next.fill(9, &second).unwrap();
    drop(held);
    assert!(target.host_mut(LONG).unwrap().iter().all(|&byte| byte == 7));
    let mut back = vec![0; 1 << 20];
    next.copy_to_slice(&mut back, &second).unwrap();
    assert!(back.iter().all(|&byte| byte == 9));
    assert!(device.stats().waits >= 1);
}

fn more_streams_than_places_wait_for_each_other(driver: &Driver) {
    let context = context(driver);
    let streams: [Stream; 20] = streams(&context);
    let pool = device_pool(&context);
    let buffer: Buffer<u8> = pool.alloc(1 << 20, &streams[0]).unwrap();
    let gates: Vec<_> = streams.iter().map(gate).collect();
    // Pieces of one block, which they all use.
    for (index, stream) in streams.iter().enumerate() {
        buffer.slice(index..=index).unwrap().fill(5, stream).unwrap();
    }
    assert!(!buffer.is_idle() && pool.stats().waits >= 12 && pool.stats().leaked == 0);
    let address = buffer.info().address;
    drop(buffer);
    let other: Buffer<u8> = pool.alloc(1 << 20, &streams[3]).unwrap();
    assert_ne!(other.info().address, address);
    drop(gates);
    drop(other);
    pool.close(LONG).unwrap();
}

fn pieces_keep_the_block(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let whole: Buffer<i32> = pool.alloc(1000, &stream).unwrap();
    let address = whole.info().address;
    assert!(whole.slice(..1001).is_none() && whole.slice(1000..).unwrap().is_empty());
    let (head, tail) = (whole.slice(..600).unwrap(), whole.slice(600..).unwrap());
    head.fill(1, &stream).unwrap();
    tail.fill(2, &stream).unwrap();
    assert_eq!(whole.info().handles, 3);
    let mut back = vec![0; 1000];
    whole.copy_to_slice(&mut back, &stream).unwrap();
    assert!(
        back[..600].iter().all(|&value| value == 1) && back[600..].iter().all(|&value| value == 2)
    );
    drop((whole, head));
    let other: Buffer<i32> = pool.alloc(1000, &stream).unwrap();
    assert_ne!(other.info().address, address);
    let bytes = tail.cast::<u8>().unwrap();
    assert_eq!(bytes.len(), 1600);
    let odd = bytes.slice(1..9).unwrap();
    assert!(odd.cast::<i64>().is_err());
    drop(bytes);
    let next: Buffer<i32> = pool.alloc(1000, &stream).unwrap();
    assert_eq!(next.info().address, address);
}

fn bare_handles_are_taken_back_once(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let (pool, other) = (device_pool(&context), device_pool(&context));
    let buffer: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    let piece = buffer.slice(..10).unwrap();
    let buffer = buffer.into_raw().unwrap_err();
    drop(piece);
    let raw = buffer.into_raw().unwrap();
    let copy = RawBuffer::from_words(raw.to_words());
    assert_eq!((copy, copy.size()), (raw, 5000));
    assert!(matches!(other.take_raw(raw), Err(RawError::WrongPool { .. })));
    let [id, address, size, life] = raw.to_words();
    assert!(pool.take_raw(RawBuffer::from_words([id, address, size + 1000, life])).is_err());
    assert!(pool.take_raw(RawBuffer::from_words([id, address + 300, size, life])).is_err());
    assert!(pool.take_raw(RawBuffer::from_words([id, address, size, life + 9])).is_err());
    let buffer = pool.take_raw(raw).unwrap();
    assert!(matches!(pool.take_raw(raw), Err(RawError::Stale { generation: 1, current: 1, .. })));
    drop(buffer);
    let again: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    assert_eq!(again.info().address, raw.address());
    assert!(matches!(pool.take_raw(raw), Err(RawError::Stale { generation: 1, current: 2, .. })));
    let again = again.into_raw().unwrap();
    assert!(pool.take_raw(raw).is_err());
    drop(pool.take_raw(again).unwrap());
}

fn the_host_waits_for_the_device(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let (device, pinned) = (device_pool(&context), pinned_pool(&context));
    let mut source: Buffer<i32> = pinned.alloc(1000, &stream).unwrap();
    source.host_mut(LONG).unwrap().fill(11);
    let mut target: Buffer<i32> = device.alloc(1000, &stream).unwrap();
    let held = gate(&stream);
    target.copy_from(&source, &stream).unwrap();
    let Err(HostError::Busy(error)) = source.host_mut(SHORT) else { panic!("not busy") };
    assert!(error.to_string().contains("ticket"), "{error}");
    assert!(matches!(target.host_mut(SHORT), Err(HostError::Kind(MemoryKind::Device))));
    drop(held);
    source.host_mut(LONG).unwrap().fill(12);
    let piece = source.slice(..1).unwrap();
    assert_eq!(source.host_mut(SHORT), Err(HostError::Shared));
    drop(piece);
    let mut back = vec![0; 1000];
    target.copy_to_slice(&mut back, &stream).unwrap();
    assert!(back.iter().all(|&value| value == 11));
    // A slice of pinned memory is read late, so this waits.
    target.copy_from_slice(source.host_mut(LONG).unwrap(), &stream).unwrap();
    source.host_mut(LONG).unwrap().fill(13);
    target.copy_to_slice(&mut back, &stream).unwrap();
    assert!(back.iter().all(|&value| value == 12));
}

fn sizes_are_checked(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    assert!(matches!(pool.alloc::<i64>(usize::MAX / 4, &stream), Err(AllocError::TooLarge { .. })));
    let (short, long): (Buffer<u8>, Buffer<u8>) =
        (pool.alloc(10, &stream).unwrap(), pool.alloc(20, &stream).unwrap());
    let invalid = Some(CudaError::INVALID_VALUE);
    assert_eq!(short.copy_from(&long, &stream).unwrap_err().code(), invalid);
    assert_eq!(short.copy_from_slice(&[0; 11], &stream).unwrap_err().code(), invalid);
    assert_eq!(long.copy_to_slice(&mut [0; 19], &stream).unwrap_err().code(), invalid);
    let overlapping = long.slice(5..15).unwrap();
    assert_eq!(long.copy_from(&overlapping, &stream).unwrap_err().code(), invalid);
    let nothing: Buffer<u8> = pool.alloc(0, &stream).unwrap();
    assert!(nothing.is_empty());
    nothing.copy_from_slice(&[], &stream).unwrap();
    nothing.fill(0, &stream).unwrap();
}

fn buffers_outlive_their_pool(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    drop(pool);
    buffer.fill(3, &stream).unwrap();
    let mut back = [0; 1000];
    buffer.copy_to_slice(&mut back, &stream).unwrap();
    assert_eq!(back, [3; 1000]);
}

fn a_closed_pool_names_what_is_alive(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let resource = wharf::memory::DeviceMemoryResource::new(&context, SPAN).unwrap();
    let pool = builder().track(true).build(resource).unwrap();
    let (kept, gone): (Buffer<u8>, Buffer<u8>) =
        (pool.alloc(1000, &stream).unwrap(), pool.alloc(1000, &stream).unwrap());
    gone.fill(1, &stream).unwrap();
    drop(gone);
    let report = pool.close(LONG).unwrap_err();
    assert_eq!((report.buffers.len(), report.buffers[0].asked), (1, 1000));
    let text = report.to_string();
    assert!(text.contains("basics.rs") && text.contains("1 buffers of 1000 bytes"), "{text}");
    drop(kept);
}

fn every_state_is_seen(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    assert_eq!(buffer.info().state, BufferState::Allocated);
    buffer.fill(1, &stream).unwrap();
    let info = buffer.info();
    assert_eq!(
        (info.state, info.uses.len(), info.asked, info.size),
        (BufferState::InUse, 1, 1000, 1024)
    );
    assert_eq!(info.uses[0].stream, stream.as_raw().addr());
    drop(buffer);
    let blocks = pool.blocks();
    assert_eq!((blocks.len(), blocks[0].state, pool.retired()), (1, BufferState::Retired, 1024));
    stream.synchronize().unwrap();
    while pool.retired() > 0 {
        pool.trim(Duration::ZERO, 0);
    }
    assert!(pool.blocks().is_empty());
}

fn specs_choose_their_pool(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool: Box<dyn BufferPool<Buffer = Buffer<u8>>> = Box::new(device_pool(&context));
    let spec = |kind| BufferSpec::new(&[16, 100], DType::BF16, kind).unwrap();
    let buffer = pool.allocate(&spec(MemoryKind::Device).on(0), &stream).unwrap();
    assert_eq!(buffer.len(), 3200);
    assert!(pool.allocate(&spec(MemoryKind::Pinned), &stream).is_err());
    assert!(pool.allocate(&spec(MemoryKind::Device).on(7), &stream).is_err());
    let other = device_pool(&context);
    let buffer = other.release(buffer).unwrap_err().0;
    pool.release(buffer).unwrap();
    pool.clear();
}
