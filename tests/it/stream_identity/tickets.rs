//! Tickets complete when what they name completes, not when later work does.

use std::time::Duration;

use wharf::memory::{PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::tier::{Tier, TieredPool};
use wharf::{Driver, Stream};

use super::{context, device_pool, gate, machine};
use crate::backend::{on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(
    results_in_pinned_memory_are_the_hosts_before_the_next_step_ends,
    a_pinned_source_is_the_hosts_before_the_next_step_ends,
    an_object_written_from_a_slice_is_free_before_the_next_step_ends,
    an_object_read_to_a_slice_is_free_before_the_next_step_ends,
    a_buffer_that_is_polled_becomes_idle,
    synchronised_streams_hold_back_nothing_from_the_first_trim,
    a_true_query_completes_tickets,
    a_block_taken_over_belongs_to_its_new_stream_when_dropped_unused,
);

fn pinned_pool(stream: &Stream) -> Pool {
    let resource = PinnedMemoryResource::new(stream.context(), 64 << 20, PinnedOptions::default());
    Pool::builder().build(resource.unwrap()).unwrap()
}

fn results_in_pinned_memory_are_the_hosts_before_the_next_step_ends(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    let (device, pinned) = (device_pool(stream.context()), pinned_pool(&stream));
    let sampled: Buffer<u8> = device.alloc(1000, &stream).unwrap();
    let mut results: Buffer<u8> = pinned.alloc(1000, &stream).unwrap();
    sampled.fill(7, &stream).unwrap();
    results.copy_from(&sampled, &stream).unwrap();
    let next_step = gate(&stream);
    assert_eq!(results.host_mut(LONG).unwrap(), [7; 1000]);
    drop(next_step);
}

fn a_pinned_source_is_the_hosts_before_the_next_step_ends(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    let (device, pinned) = (device_pool(stream.context()), pinned_pool(&stream));
    let mut source: Buffer<u8> = pinned.alloc(1000, &stream).unwrap();
    let target: Buffer<u8> = device.alloc(1000, &stream).unwrap();
    source.host_mut(LONG).unwrap().fill(3);
    target.copy_from(&source, &stream).unwrap();
    let next_step = gate(&stream);
    source.host_mut(LONG).unwrap().fill(4);
    drop(next_step);
    let mut arrived = [0; 1000];
    target.copy_to_slice(&mut arrived, &stream).unwrap();
    assert_eq!(arrived, [3; 1000]);
}

fn tiers(stream: &Stream) -> TieredPool {
    TieredPool::builder(stream.context())
        .device(8 << 20)
        .pinned(8 << 20)
        .wait(LONG)
        .build()
        .unwrap()
}

fn an_object_written_from_a_slice_is_free_before_the_next_step_ends(driver: &Driver) {
    let (stream, other) =
        (Stream::new(&context(driver)).unwrap(), Stream::new(&context(driver)).unwrap());
    let pool = tiers(&stream);
    let mut adapter = pool.alloc(1000, Tier::Pinned).unwrap();
    adapter.pin_mut(Tier::Pinned, &stream).unwrap().copy_from_slice(&[5; 1000]).unwrap();
    let model = gate(&stream);
    // Moves, which it cannot while it is held.
    let held = adapter.pin(Tier::Device, &other).unwrap();
    let mut bytes = [0; 1000];
    held.copy_to_slice(&mut bytes).unwrap();
    assert_eq!(bytes, [5; 1000]);
    drop((held, model));
}

fn an_object_read_to_a_slice_is_free_before_the_next_step_ends(driver: &Driver) {
    let (stream, other) =
        (Stream::new(&context(driver)).unwrap(), Stream::new(&context(driver)).unwrap());
    let pool = tiers(&stream);
    let mut adapter = pool.alloc(1000, Tier::Pinned).unwrap();
    adapter.pin_mut(Tier::Pinned, &other).unwrap().copy_from_slice(&[5; 1000]).unwrap();
    let mut bytes = [0; 1000];
    adapter.pin(Tier::Pinned, &stream).unwrap().copy_to_slice(&mut bytes).unwrap();
    let model = gate(&stream);
    adapter.pin_mut(Tier::Pinned, &other).unwrap().copy_from_slice(&[6; 1000]).unwrap();
    drop(model);
}

fn a_buffer_that_is_polled_becomes_idle(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    let pool = device_pool(stream.context());
    let buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
    let held = gate(&stream);
    buffer.fill(1, &stream).unwrap();
    assert!(!buffer.poll().unwrap() && !buffer.is_idle());
    drop(held);
    stream.context().synchronize().unwrap();
    assert!(buffer.poll().unwrap() && buffer.is_idle());
}

fn synchronised_streams_hold_back_nothing_from_the_first_trim(driver: &Driver) {
    let context = context(driver);
    let pool = device_pool(&context);
    let streams: Vec<_> = (0..16).map(|_| Stream::new(&context).unwrap()).collect();
    for (number, stream) in streams.iter().enumerate() {
        let buffer: Buffer<u8> = pool.alloc((number + 1) << 20, stream).unwrap();
        buffer.fill(1, stream).unwrap();
    }
    streams.iter().for_each(|stream| stream.synchronize().unwrap());
    assert!(pool.retired() > 0);
    pool.trim(Duration::ZERO, 0);
    assert_eq!((pool.retired(), pool.slab_stats().reserved), (0, 0));
}

fn a_true_query_completes_tickets(driver: &Driver) {
    let stream = Stream::new(&context(driver)).unwrap();
    let held = gate(&stream);
    let ticket = stream.ticket().unwrap();
    assert!(!stream.query().unwrap() && !ticket.is_complete());
    drop(held);
    stream.context().synchronize().unwrap();
    assert!(!ticket.is_complete(), "nothing has told the timeline");
    assert!(stream.query().unwrap());
    assert!(ticket.is_complete());
    // Of work that is submitted afterwards nothing is known.
    let held = gate(&stream);
    assert!(!stream.ticket().unwrap().is_complete());
    drop(held);
}

fn a_block_taken_over_belongs_to_its_new_stream_when_dropped_unused(driver: &Driver) {
    let context = context(driver);
    let (old, new) = (Stream::new(&context).unwrap(), Stream::new(&context).unwrap());
    let resource = wharf::memory::DeviceMemoryResource::new(&context, 256 << 20).unwrap();
    let options = wharf::slab::PoolOptions::default().thread_cache_bytes(0);
    let pool = Pool::builder()
        .slabs(options)
        .max_bytes(16 << 20)
        .wait(Duration::ZERO)
        .build(resource)
        .unwrap();
    let held = gate(&old);
    pool.alloc::<u8>(16 << 20, &old).unwrap().fill(1, &old).unwrap();
    // The limit is one block, so the new stream waits on the device for the old one.
    drop(pool.alloc::<u8>(16 << 20, &new).unwrap());
    let taken = pool.stats().cross_stream;
    assert_eq!(taken, 1);
    for _ in 0..3 {
        drop(pool.alloc::<u8>(16 << 20, &new).unwrap());
    }
    assert_eq!(pool.stats().cross_stream, taken, "taken over once");
    drop(held);
}

#[test]
fn waiting_for_results_puts_in_no_event_and_asks_none() {
    let machine = machine();
    on_machine(&machine, |driver| {
        let context = context(driver);
        let stream = Stream::new(&context).unwrap();
        let (device, pinned) = (device_pool(&context), pinned_pool(&stream));
        let sampled: Buffer<u8> = device.alloc(1000, &stream).unwrap();
        let mut results: Buffer<u8> = pinned.alloc(1000, &stream).unwrap();
        sampled.fill(7, &stream).unwrap();
        results.copy_from(&sampled, &stream).unwrap();
        results.host_mut(LONG).unwrap();
        assert_eq!((machine.calls("cuEventRecord"), machine.calls("cuEventQuery")), (0, 0));
        assert_eq!(machine.calls("cuStreamWriteValue64"), 1);
    });
}
