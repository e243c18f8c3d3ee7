//! A pool of so many buffers.

use wharf::element::DType;
use wharf::manager::{BufferPool, BufferSpec, SimplePool};
use wharf::memory::MemoryKind;
use wharf::{Driver, Stream};

use super::{SPAN, context, gate, streams};
use crate::backend::on_each_driver;

on_each_driver!(a_simple_pool_holds_so_many, a_simple_pool_gives_up_the_oldest_that_is_complete);

fn simple(driver: &Driver, max_buffers: usize) -> (SimplePool, [Stream; 2]) {
    let context = context(driver);
    let resource = wharf::memory::DeviceMemoryResource::new(&context, SPAN).unwrap();
    (SimplePool::new(resource, max_buffers).unwrap(), streams(&context))
}

fn bytes(len: usize) -> BufferSpec {
    BufferSpec::new(&[len], DType::U8, MemoryKind::Device).unwrap()
}

fn a_simple_pool_holds_so_many(driver: &Driver) {
    let (pool, [stream, _]) = simple(driver, 3);
    let held: Vec<_> = (1..=3).map(|n| pool.allocate(&bytes(n * 1000), &stream).unwrap()).collect();
    let error = pool.allocate(&bytes(1000), &stream).unwrap_err();
    assert!(error.to_string().contains("3 blocks"), "{error}");
    drop(held);
    let first = pool.allocate(&bytes(1000), &stream).unwrap();
    assert_eq!(first.info().generation, 2);
    let held: Vec<_> = (0..2).map(|_| pool.allocate(&bytes(50_000), &stream).unwrap()).collect();
    assert!(pool.allocate(&bytes(1), &stream).is_err());
    drop((first, held));
}

fn a_simple_pool_gives_up_the_oldest_that_is_complete(driver: &Driver) {
    let (pool, [stream, other]) = simple(driver, 3);
    let held = gate(&stream);
    let busy = pool.allocate(&bytes(1000), &stream).unwrap();
    busy.fill(1, &stream).unwrap();
    let (older, newer) = (
        pool.allocate(&bytes(2000), &other).unwrap(),
        pool.allocate(&bytes(3000), &other).unwrap(),
    );
    let addresses = [&busy, &older, &newer].map(|buffer| buffer.info().address);
    pool.release(busy).unwrap();
    pool.release(older).unwrap();
    pool.release(newer).unwrap();
    let large = pool.allocate(&bytes(100_000), &other).unwrap();
    let left: Vec<u64> = pool.pool().blocks().iter().map(|block| block.address).collect();
    assert!(
        left.contains(&addresses[0])
            && !left.contains(&addresses[1])
            && left.contains(&addresses[2])
    );
    let larger = pool.allocate(&bytes(200_000), &other).unwrap();
    assert!(pool.allocate(&bytes(300_000), &other).is_err(), "the device reads the last one");
    drop((large, larger, held));
}
