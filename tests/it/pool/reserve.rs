//! Memory committed ahead, alignments, and how many addresses a pool has.

use std::sync::Arc;
use std::time::Duration;

use wharf::memory::{DeviceMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::report::Snapshot;
use wharf::slab::AllocError;
use wharf::{DeviceAttribute, Driver};

use super::{BLOCK, context, device_pool, pinned_pool, small_pool, streams};
use crate::backend::{Config, Simulator, on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(
    buffers_start_where_they_are_asked_to,
    what_is_reserved_serves_every_size,
    a_pool_of_a_limit_has_addresses_to_spare,
    a_report_tells_others_memory_from_the_pools,
);

const MIB: usize = 1 << 20;

fn buffers_start_where_they_are_asked_to(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    for pool in [device_pool(&context), pinned_pool(&context)] {
        let mut held: Vec<Buffer<u8>> = Vec::new();
        for align in (0..=24).map(|power| 1_usize << power) {
            for size in [0, 1, 300, 5000, 33_000, 130_000, 200_000, MIB + 1, 5 * MIB] {
                let buffer: Buffer<u8> = pool.alloc_aligned(size, align, &stream).unwrap();
                let info = buffer.info();
                // SAFETY: nothing is submitted with the address.
                #[expect(unsafe_code, reason = "looks at addresses")]
                let address = unsafe { buffer.as_device_ptr() }.unwrap();
                assert_eq!((address % align as u64, buffer.len()), (0, size), "{size} at {align}");
                assert!(address + size as u64 <= info.address + info.size as u64);
                if size > 128 << 10 {
                    let most = size.next_multiple_of(16 << 10) + align.saturating_sub(16 << 10);
                    assert!(info.size <= most, "{} for {size} at {align}", info.size);
                }
                buffer.fill(u8::try_from(held.len() % 251).unwrap(), &stream).unwrap();
                if held.len() < 40 {
                    held.push(buffer);
                }
            }
        }
        // None lies in another.
        for (number, buffer) in held.iter().enumerate() {
            let mut back = vec![0; buffer.len()];
            buffer.copy_to_slice(&mut back, &stream).unwrap();
            assert!(back.iter().all(|byte| usize::from(*byte) == number % 251), "buffer {number}");
        }
        let max = 1 << pool.span().start.trailing_zeros();
        for align in [0, 3, 2 * max] {
            let refused = pool.alloc_aligned::<u8>(1, align, &stream).unwrap_err();
            assert_eq!(refused, AllocError::Unaligned { align, max });
        }
        let huge = pool.alloc_aligned::<u64>(usize::MAX / 4, 4096, &stream);
        assert!(matches!(huge, Err(AllocError::TooLarge { .. })));
        let huge = pool.alloc_aligned::<u8>(usize::MAX - 5, MIB, &stream);
        assert!(matches!(huge, Err(AllocError::TooLarge { .. })));
        // A part of a block is a handle like any other.
        let raw = pool.alloc_aligned::<u8>(100, MIB, &stream).unwrap().into_raw().unwrap();
        assert_eq!(raw.address() % (1 << 20), 0);
        drop(pool.take_raw(raw).unwrap());
        drop(held);
        pool.close(LONG).unwrap();
    }
}

fn what_is_reserved_serves_every_size(driver: &Driver) {
    let context = context(driver);
    let [one, two] = streams(&context);
    let pool = small_pool(&context, 4);
    assert_eq!(pool.reserve_bytes(0), Ok(0));
    assert_eq!(pool.reserve_bytes(3 * BLOCK), Ok(3 * BLOCK));
    assert_eq!(pool.slab_stats().reserved, 3 * BLOCK);
    assert_eq!(pool.reserve_bytes(2 * BLOCK), Ok(2 * BLOCK), "what is free counts");
    let stats = pool.slab_stats();
    assert_eq!((stats.reserved, stats.empty + stats.unused), (3 * BLOCK, 3 * BLOCK));
    let held: Vec<Buffer<u8>> = [100, 200_000, BLOCK, 9 * MIB, MIB]
        .iter()
        .zip([&one, &two].into_iter().cycle())
        .map(|(&size, stream)| pool.alloc(size, stream).unwrap())
        .collect();
    assert_eq!(pool.slab_stats().reserved, 3 * BLOCK, "nothing is committed for them");
    // As far as the limit goes, beside what is held.
    let left = pool.reserve_bytes(100 * BLOCK).unwrap();
    let stats = pool.slab_stats();
    assert_eq!(stats.reserved, stats.limit);
    assert!(left > BLOCK && left <= stats.empty + stats.unused, "{left} of {stats:?}");
    drop(held);
    for stream in [&one, &two] {
        stream.synchronize().unwrap();
    }
    assert_eq!(pool.trim(Duration::ZERO, 0).released, stats.limit);
    pool.close(LONG).unwrap();
}

fn a_pool_of_a_limit_has_addresses_to_spare(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let device = Pool::builder().build_on_device(&context, 64 * MIB).unwrap();
    let pinned = Pool::builder().build_pinned(&context, 64 * MIB, PinnedOptions::default());
    for pool in [device, pinned.unwrap()] {
        let span = pool.span();
        assert_eq!((span.end - span.start, pool.slab_stats().limit), (256 << 20, 64 * MIB));
        // Blocks all over what is committed leave no range, and there is one behind.
        let mut held: Vec<Option<Buffer<u8>>> =
            (0..32).map(|_| Some(pool.alloc(2 * MIB, &stream).unwrap())).collect();
        held.iter_mut().step_by(2).for_each(|buffer| *buffer = None);
        stream.synchronize().unwrap();
        let large: Buffer<u8> = pool.alloc(30 * MIB, &stream).unwrap();
        drop((held, large));
        pool.close(LONG).unwrap();
    }
}

/// Where a span is memory, it is no longer than the limit.
#[test]
fn a_span_that_is_memory_is_clamped_to_the_limit() {
    let without = [
        DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
        DeviceAttribute::HOST_REGISTER_SUPPORTED,
    ];
    let attributes = without.map(|attribute| (attribute.as_raw(), 0)).to_vec();
    let (device_memory, host_memory) = (80 << 20, 80 << 20);
    let config = Config { attributes, device_memory, host_memory, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let device = Pool::builder().build_on_device(&context, 64 * MIB).unwrap();
        let pinned = Pool::builder().build_pinned(&context, 64 * MIB, PinnedOptions::default());
        for pool in [device, pinned.unwrap()] {
            let span = pool.span();
            assert_eq!(span.end - span.start, 64 << 20);
            drop(pool.alloc::<u8>(60 * MIB, &stream).unwrap());
        }
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

/// The pool's account against the driver's.
fn a_report_tells_others_memory_from_the_pools(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let others = || Snapshot::of(&pool).used_by_others().unwrap();
    let before = others();
    let held: Buffer<u8> = pool.alloc(9 * MIB, &stream).unwrap();
    // On a shared device others come and go meanwhile; that of softcuda is this test's.
    let is_alone = crate::backend::machine().is_some();
    assert!(!is_alone || others() == before, "what the pool has is not others'");
    let foreign = DeviceMemoryResource::new(&context, 64 << 20).unwrap();
    let second = Pool::builder().build(foreign).unwrap();
    let taken: Buffer<u8> = second.alloc(5 * MIB, &stream).unwrap();
    let reserved = second.slab_stats().reserved;
    assert!(!is_alone || others() == before + reserved);
    let text = Snapshot::of(&pool).to_string();
    assert!(text.contains("used by others"), "{text}");
    drop((held, taken));
    second.close(LONG).unwrap();
    pool.close(LONG).unwrap();
}
