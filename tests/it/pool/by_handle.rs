//! Blocks that are freed by bare handles and by addresses, and host memory that is shared.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use wharf::graph::{CaptureMode, CaptureScope};
use wharf::pool::{Buffer, FreeError, HostError, RawBuffer, RawError};
use wharf::{Driver, Error, ErrorKind, Stream};

use super::{BLOCK, context, device_pool, gate, pinned_pool, small_pool, streams};
use crate::backend::{binder, on_each_driver};
use crate::deadline::{LONG, SHORT};

on_each_driver!(
    a_block_is_freed_once_by_its_address,
    what_is_no_address_of_a_block_is_refused,
    a_record_with_another_block_is_not_found,
    a_block_that_is_freed_by_handle_waits_for_its_uses,
    a_block_that_its_stream_frees_by_handle_waits_for_the_stream,
    a_refused_free_leaves_the_block,
    a_shared_block_outlives_its_handle,
    a_graph_keeps_a_block_that_foreign_code_frees,
    one_of_many_threads_frees_an_address,
    views_share_host_memory_and_nothing_writes_it,
);

fn a_block_is_freed_once_by_its_address(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    for pool in [device_pool(&context), pinned_pool(&context)] {
        let sizes = [0, 1, 256, 5000, 100_000, 3 << 20, 20 << 20];
        let addresses: Vec<_> =
            sizes.iter().map(|size| pool.alloc_address(*size, &stream).unwrap()).collect();
        assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), sizes.len());
        for (address, size) in addresses.iter().zip(sizes) {
            let found = pool.find_address(*address).unwrap();
            assert_eq!((found.address(), found.size()), (*address, size));
            let buffer = pool.take_address(*address).unwrap();
            assert_eq!((buffer.size(), buffer.info().address), (size, *address));
            assert_eq!(
                pool.take_address(*address).unwrap_err(),
                RawError::NotLive { address: *address }
            );
        }
        // The stream has the memory of the last one back at once, and the new owner's address is
        // good once again.
        let again = pool.alloc_address(20 << 20, &stream).unwrap();
        assert_eq!(again, addresses[6]);
        pool.free_address(again, &stream).unwrap();
        assert_eq!(pool.free_address(again, &stream).unwrap_err().kind(), ErrorKind::Stale);
    }
}

fn what_is_no_address_of_a_block_is_refused(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let (pool, other) = (device_pool(&context), device_pool(&context));
    let none = pool.span().start;
    assert_eq!(pool.find_address(none), Err(RawError::NotLive { address: none }));
    let address = pool.alloc_address(5000, &stream).unwrap();
    let typed: Buffer<u8> = pool.alloc(5000, &stream).unwrap();
    let held = typed.info().address;
    for wrong in [0, address - 256, address + 1, address + 256, held, u64::MAX, pool.span().end] {
        let refused = pool.free_address(wrong, &stream).unwrap_err();
        assert_eq!(refused, FreeError::Handle(RawError::NotLive { address: wrong }));
    }
    assert!(other.take_address(address).is_err());
    // A handle is not an address, and an address has a handle.
    let raw = pool.alloc_raw(5000, &stream).unwrap();
    assert!(pool.take_address(raw.address()).is_err());
    pool.free_raw(raw, &stream).unwrap();
    let raw = pool.find_address(address).unwrap();
    pool.free_raw(RawBuffer::from_words(raw.to_words()), &stream).unwrap();
    assert!(pool.take_address(address).is_err());
}

fn a_record_with_another_block_is_not_found(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let places = [(); 2].map(|()| pool.alloc_address(20 << 20, &stream).unwrap());
    for place in places {
        pool.free_address(place, &stream).unwrap();
    }
    stream.synchronize().unwrap();
    pool.trim(Duration::ZERO, 0);
    // The records of both are those of smaller blocks now, one of which at most is at an old place.
    let next = [300, 200_000].map(|size| pool.alloc_address(size, &stream).unwrap());
    for place in places.into_iter().filter(|place| !next.contains(place)) {
        assert_eq!(pool.find_address(place), Err(RawError::NotLive { address: place }));
    }
    for address in next {
        pool.free_address(address, &stream).unwrap();
    }
}

fn a_block_that_is_freed_by_handle_waits_for_its_uses(driver: &Driver) {
    let context = context(driver);
    let [busy, other] = streams(&context);
    let pool = device_pool(&context);
    let raw = pool.alloc_raw(4096, &other).unwrap();
    let hold = gate(&busy);
    pool.free_raw(raw, &busy).unwrap();
    assert_eq!(pool.free_raw(raw, &busy).unwrap_err().kind(), ErrorKind::Stale);
    let elsewhere = pool.alloc_raw(4096, &other).unwrap();
    assert_ne!(elsewhere.address(), raw.address(), "the other stream would write beside its use");
    let again = pool.alloc_raw(4096, &busy).unwrap();
    assert_eq!(again.address(), raw.address());
    pool.free_raw(again, &busy).unwrap();
    pool.free_raw(elsewhere, &other).unwrap();
    drop(hold);
    busy.synchronize().unwrap();
}

fn a_block_that_its_stream_frees_by_handle_waits_for_the_stream(driver: &Driver) {
    let context = context(driver);
    let [busy, other] = streams(&context);
    let pool = small_pool(&context, 1);
    let raw = pool.alloc_raw(BLOCK, &busy).unwrap();
    let hold = gate(&busy);
    pool.free_raw(raw, &busy).unwrap();
    // The other stream may have the block, where it waits for this one.
    let elsewhere = pool.alloc_raw(BLOCK, &other).unwrap();
    assert_eq!(elsewhere.address(), raw.address());
    assert!(!other.query().unwrap());
    drop(hold);
    other.synchronize().unwrap();
    pool.free_raw(elsewhere, &other).unwrap();
}

fn a_refused_free_leaves_the_block(driver: &Driver) {
    let context = context(driver);
    let [stream, gone] = streams(&context);
    let pool = device_pool(&context);
    let raw = pool.alloc_raw(4096, &stream).unwrap();
    context.forget_stream(gone.as_raw()).unwrap();
    let refused = pool.free_raw(raw, &gone).unwrap_err();
    assert_eq!(refused, FreeError::Stream(Error::StreamForgotten));
    assert_eq!(refused.kind(), ErrorKind::Stale);
    pool.free_raw(raw, &stream).unwrap();
}

fn a_shared_block_outlives_its_handle(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let raw = pool.alloc_raw(64, &stream).unwrap();
    let shared = pool.share_raw(raw).unwrap();
    shared.fill(7, &stream).unwrap();
    pool.free_raw(raw, &stream).unwrap();
    assert!(matches!(pool.share_raw(raw), Err(RawError::Stale { .. })));
    let next = pool.alloc_raw(64, &stream).unwrap();
    assert_ne!(next.address(), raw.address());
    let mut back = [0; 64];
    shared.copy_to_slice(&mut back, &stream).unwrap();
    assert_eq!(back, [7; 64]);
    drop(shared);
    let again = pool.alloc_raw(64, &stream).unwrap();
    assert_eq!(again.address(), raw.address());
    for raw in [next, again] {
        pool.free_raw(raw, &stream).unwrap();
    }
}

fn a_graph_keeps_a_block_that_foreign_code_frees(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = device_pool(&context);
    let address = pool.alloc_address(64, &stream).unwrap();
    let capture = CaptureScope::begin(&stream, CaptureMode::default()).unwrap();
    capture.keep_alive(pool.share_raw(pool.find_address(address).unwrap()).unwrap()).unwrap();
    let graph = capture.end().unwrap();
    pool.free_address(address, &stream).unwrap();
    let next = pool.alloc_address(64, &stream).unwrap();
    assert_ne!(next, address, "the graph may be launched");
    drop(graph);
    driver.wait_deferred(LONG).unwrap();
    assert_eq!(pool.alloc_address(64, &stream).unwrap(), address);
    for address in [next, address] {
        pool.free_address(address, &stream).unwrap();
    }
}

fn one_of_many_threads_frees_an_address(driver: &Driver) {
    const THREADS: usize = 4;
    let context = context(driver);
    let pool = device_pool(&context);
    let owners: Vec<Stream> = (0..THREADS).map(|_| Stream::new(&context).unwrap()).collect();
    let (bind, freed) = (binder(), Arc::new(AtomicUsize::new(0)));
    for round in 0..20 {
        let addresses: Vec<_> = (0..50)
            .map(|block| pool.alloc_address(256 << (block % 5), &owners[round % THREADS]).unwrap())
            .collect();
        freed.store(0, Relaxed);
        thread::scope(|scope| {
            for stream in &owners {
                let (bind, freed, pool, addresses) = (&bind, &freed, &pool, &addresses);
                scope.spawn(move || {
                    let _bound = bind();
                    for address in addresses {
                        let outcome = pool.free_address(*address, stream);
                        freed.fetch_add(usize::from(outcome.is_ok()), Relaxed);
                    }
                });
            }
        });
        assert_eq!(freed.load(Relaxed), addresses.len(), "each is freed by one");
    }
    let live = pool.blocks().into_iter().filter(|block| block.handles > 0).count();
    assert_eq!(live, 0);
}

fn views_share_host_memory_and_nothing_writes_it(driver: &Driver) {
    let context = context(driver);
    let [stream] = streams(&context);
    let pool = pinned_pool(&context);
    let device: Buffer<i32> = device_pool(&context).alloc(100, &stream).unwrap();
    let (device, kind) = device.into_host(Duration::ZERO).unwrap_err();
    assert_eq!(kind.kind(), ErrorKind::Invalid);
    let buffer: Buffer<i32> = pool.alloc(100, &stream).unwrap();
    device.fill(3, &stream).unwrap();
    let hold = gate(&stream);
    buffer.copy_from(&device, &stream).unwrap();
    let (buffer, busy) = buffer.into_host(SHORT).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::TimedOut);
    drop(hold);
    let piece = buffer.slice(..10).unwrap();
    let (buffer, shared) = buffer.into_host(LONG).unwrap_err();
    assert_eq!(shared, HostError::Shared);
    drop(piece);
    let view = buffer.into_host(LONG).map_err(|(_, error)| error).unwrap();
    let other = view.try_clone().unwrap();
    assert_eq!((&view[..], other.len()), (&[3; 100][..], 100));
    let view = view.into_buffer().unwrap_err();
    drop(other);
    let address = view.as_ptr().addr() as u64;
    let mut buffer = view.into_buffer().unwrap();
    buffer.host_mut(LONG).unwrap()[99] = 4;
    let view = buffer.into_host(LONG).map_err(|(_, error)| error).unwrap();
    view.acquire(&stream).unwrap();
    view.record_use(&stream).unwrap();
    assert_eq!(view[99], 4);
    drop(view);
    // The memory was the view's, and is free behind the use.
    let again: Buffer<i32> = pool.alloc(100, &stream).unwrap();
    assert_eq!(again.info().address, address);
}
