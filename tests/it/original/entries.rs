//! States, specs and entries.

use std::collections::HashSet;
use std::thread;
use std::time::Instant;

use wharf::element::DType;
use wharf::manager::{BufferSpec, SpecError};
use wharf::memory::MemoryKind;
use wharf::pool::{Buffer, BufferState, Pool, RawBuffer, RawError, StreamUse};
use wharf::{Driver, Stream};

use super::{context_and_stream, device_pool};
use crate::backend::on_each_driver;
use crate::deadline::LONG;
use crate::graph_rig::Gate;

on_each_driver!(
    buffer_state_is_reached_in_every_value,
    buffer_entry_has_last_use_use_count_and_generation,
    buffer_entry_refuses_a_double_and_a_stale_release,
);

/// Trims until the block of a handle is free.
fn until_free(pool: &Pool, raw: RawBuffer, stream: &Stream) {
    stream.synchronize().unwrap();
    let start = Instant::now();
    while pool.inspect(raw).unwrap().state != BufferState::Free {
        assert!(start.elapsed() < LONG, "{:?}", pool.inspect(raw));
        pool.trim(std::time::Duration::ZERO, 0);
        thread::yield_now();
    }
}

/// The original never sets ALLOCATED and STAGED.
fn buffer_state_is_reached_in_every_value(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let pool = device_pool(&context);
    let buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    let mut seen = vec![buffer.info().state];
    buffer.fill(1, &stream).unwrap();
    seen.push(buffer.info().state);
    let raw = buffer.into_raw().unwrap();
    drop(pool.take_raw(raw).unwrap());
    seen.push(pool.inspect(raw).unwrap().state);
    until_free(&pool, raw, &stream);
    seen.push(pool.inspect(raw).unwrap().state);
    let all = [BufferState::Allocated, BufferState::InUse, BufferState::Retired, BufferState::Free];
    assert_eq!(seen, all);
}

/// The original counts 4 bytes for a type that it does not know, and does not look for overflow.
#[test]
fn buffer_spec_has_the_size_of_every_dtype_or_an_error() {
    let sizes = [1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8, 1, 1];
    assert_eq!(DType::ALL.len(), sizes.len());
    let mut specs = HashSet::new();
    for (dtype, size) in DType::ALL.into_iter().zip(sizes) {
        let spec = BufferSpec::new(&[3, 5], dtype, MemoryKind::Device).unwrap();
        assert_eq!((spec.size_bytes(), dtype.size()), (Ok(15 * size), size), "{dtype}");
        assert!(specs.insert(spec) && !specs.insert(spec), "{spec} is a key");
        let huge = BufferSpec::new(&[usize::MAX / 2, 3], dtype, MemoryKind::Device).unwrap();
        assert_eq!(huge.size_bytes(), Err(SpecError::Overflow), "{dtype}");
    }
    let pinned = BufferSpec::new(&[3, 5], DType::U8, MemoryKind::Pinned).unwrap();
    assert!(specs.insert(pinned) && specs.insert(pinned.on(1)), "kind and device count");
    assert_eq!(
        BufferSpec::new(&[1; 9], DType::U8, MemoryKind::Device),
        Err(SpecError::Rank { rank: 9 })
    );
}

fn buffer_entry_has_last_use_use_count_and_generation(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let pool = device_pool(&context);
    let buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    let entry = buffer.info();
    assert_eq!((entry.generation, entry.use_count, entry.uses.len()), (1, 0, 0));
    for count in 1..=3 {
        buffer.fill(1, &stream).unwrap();
        assert_eq!(buffer.info().use_count, count);
    }
    let gate = Gate::close(&stream);
    buffer.fill(1, &stream).unwrap();
    let entry = buffer.info();
    let [StreamUse { stream: user, complete: is_over, .. }] = entry.uses[..] else {
        panic!("{entry:?}")
    };
    assert_eq!(
        (user, is_over),
        (stream.as_raw().addr(), false),
        "the device has not come to the last use"
    );
    gate.open();
    stream.synchronize().unwrap();
    buffer.wait(LONG).unwrap();
    assert!(buffer.info().uses[0].complete, "the last use is over");
    drop(buffer);
    let again: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    let entry = again.info();
    assert_eq!((entry.generation, entry.use_count), (2, 0), "a new life");
}

/// In the original a second release is silent, and so is one of a buffer that has another owner by
/// then.
fn buffer_entry_refuses_a_double_and_a_stale_release(driver: &Driver) {
    let (context, stream) = context_and_stream(driver);
    let (pool, other) = (device_pool(&context), device_pool(&context));
    let raw = pool.alloc::<u8>(1000, &stream).unwrap().into_raw().unwrap();
    let address = raw.address();
    let foreign = other.take_raw(raw).unwrap_err();
    assert_eq!(foreign, RawError::WrongPool { address });
    drop(pool.take_raw(raw).unwrap());
    let twice = pool.take_raw(raw).unwrap_err();
    assert_eq!(twice, RawError::Stale { address, generation: 1, current: 1 });
    let next = pool.alloc::<u8>(1000, &stream).unwrap();
    assert_eq!(next.info().address, address, "the block has another owner now");
    let stale = pool.take_raw(raw).unwrap_err();
    assert_eq!(stale, RawError::Stale { address, generation: 1, current: 2 });
    assert!(stale.to_string().contains(&format!("{address:#x}")), "{stale}");
    assert_eq!(next.info().handles, 1, "and stays theirs");
}
