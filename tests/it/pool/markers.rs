//! What a pool asks of the driver to know how far streams are, by words and by events.

use std::sync::Arc;
use std::time::Duration;

use wharf::DeviceAttribute;
use wharf::pool::{Buffer, Pool};

use super::{context, device_pool, streams};
use crate::backend::{Config, Simulator, on_machine};

#[test]
fn the_steady_state_asks_the_driver_nothing() {
    let without = vec![(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS.as_raw(), 0)];
    for attributes in [Vec::new(), without] {
        let machine = Arc::new(Simulator::new(Config { attributes, ..Config::default() }));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let _scope = context.enter().unwrap();
            let [one, two] = streams(&context);
            let pool = device_pool(&context);
            let round = |size| {
                for stream in [&one, &two] {
                    let buffers: Vec<Buffer<u8>> =
                        (0..4).map(|_| pool.alloc(size, stream).unwrap()).collect();
                    buffers.iter().for_each(|buffer| buffer.record_use(stream).unwrap());
                }
            };
            let sizes = [100, 5000, 70_000, 3 << 20];
            // All at once, so that each stream has dropped what it needs of each size.
            let use_all = |stream| {
                let buffers = sizes.iter().flat_map(|size| [*size; 4]);
                let buffers = buffers.map(|size| pool.alloc::<u8>(size, stream).unwrap());
                buffers.inspect(|buffer| buffer.record_use(stream).unwrap()).collect::<Vec<_>>()
            };
            drop([&one, &two].map(use_all));
            let before = machine.all_calls();
            (0..100).for_each(|_| sizes.into_iter().for_each(round));
            assert_eq!(machine.all_calls(), before);
        });
    }
}

#[test]
fn both_kinds_of_markers_give_the_same_memory() {
    let addresses = |attributes: Vec<_>| {
        let machine = Arc::new(Simulator::new(Config { attributes, ..Config::default() }));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let [one, two] = streams(&context);
            let pool = device_pool(&context);
            let base = pool.alloc::<u8>(1, &one).unwrap().info().address;
            let mut seen = Vec::new();
            for round in 0..50_usize {
                let (user, other) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
                let buffer: Buffer<u8> = pool.alloc(1000 * (1 + round % 7), user).unwrap();
                buffer.slice(..500).unwrap().fill(1, user).unwrap();
                buffer.slice(500..).unwrap().fill(2, other).unwrap();
                seen.push(buffer.info().address - base);
                drop(buffer);
                one.synchronize().unwrap();
                two.synchronize().unwrap();
                // Marks, then asks.
                pool.trim(Duration::MAX, usize::MAX);
                one.synchronize().unwrap();
                two.synchronize().unwrap();
                pool.trim(Duration::MAX, usize::MAX);
            }
            let words = machine.calls("cuStreamWriteValue64") > 0;
            (seen, words, Pool::stats(&pool).blocks_drained)
        })
    };
    let words = addresses(Vec::new());
    let events = addresses(vec![(DeviceAttribute::CAN_USE_64_BIT_STREAM_MEM_OPS.as_raw(), 0)]);
    assert_eq!((&words.0, words.2), (&events.0, events.2));
}
