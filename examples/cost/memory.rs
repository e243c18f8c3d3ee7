//! Buffers, pins, tickets and scopes.

use std::hint::black_box;

use softcuda::{Config, Simulator};
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::slab::{PoolOptions, SlabPool};
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Driver, Stream};

use crate::count::counted;

const SIZE: usize = 4096;

/// Runs a row.
pub(crate) fn row(name: &str, rounds: u64) {
    let machine = Simulator::new(Config::default());
    let _bound = machine.bind();
    let driver = Driver::from_api(machine.api().unwrap()).unwrap();
    let context = Context::retain(&driver.device(0).unwrap()).unwrap();
    let _current = context.enter().unwrap();
    let stream = Stream::new(&context).unwrap();
    let device = || DeviceMemoryResource::new(&context, 64 << 20).unwrap();
    match name {
        "SlabPool alloc and dealloc" => {
            let resource =
                PinnedMemoryResource::new(&context, 64 << 20, PinnedOptions::default()).unwrap();
            let pool = SlabPool::new(resource, PoolOptions::default()).unwrap();
            warm(rounds, &mut || {
                pool.dealloc(black_box(pool.alloc(black_box(SIZE)).unwrap())).unwrap();
            });
        }
        "Pool::alloc and drop" => {
            let pool = Pool::builder().build(device()).unwrap();
            warm(rounds, &mut || drop(black_box(alloc(&pool, &stream))));
        }
        "the same, used" => {
            let pool = Pool::builder().build(device()).unwrap();
            warm(rounds, &mut || {
                let buffer = alloc(&pool, &stream);
                use_it(&buffer, &stream);
                drop(black_box(buffer));
            });
        }
        "Stream::ticket and drop" => {
            warm(rounds, &mut || drop(black_box(stream.ticket().unwrap())));
        }
        "Timeline::ticket_ref" => {
            let timeline = stream.timeline().unwrap();
            warm(rounds, &mut || {
                black_box(timeline.ticket_ref().unwrap());
            });
        }
        "Context::enter nested, end" => warm(rounds, &mut || {
            let _inner = black_box(context.enter().unwrap());
        }),
        "TieredObject::pin and drop" => {
            // As many as there are rounds: no hold has to be looked for.
            let tiers = TieredPool::builder(&context).device(8 << 20).max_pins(4096);
            let tiers = tiers.build().unwrap();
            let object = tiers.alloc(SIZE, Tier::Device).unwrap();
            warm(rounds, &mut || {
                black_box(object.pin(Tier::Device, &stream).unwrap());
            });
        }
        _ => panic!("no row {name}"),
    }
}

fn warm(rounds: u64, operation: &mut dyn FnMut()) {
    (0..64).for_each(|_| operation());
    counted(rounds, operation);
}

#[inline(never)]
fn alloc(pool: &Pool, stream: &Stream) -> Buffer<u8> {
    pool.alloc(black_box(SIZE), stream).unwrap()
}

#[inline(never)]
#[expect(unsafe_code, reason = "takes an address that nothing is submitted with")]
fn use_it(buffer: &Buffer<u8>, stream: &Stream) {
    // SAFETY: nothing is submitted with the address.
    black_box(unsafe { buffer.as_device_ptr() }.unwrap());
    buffer.record_use(stream).unwrap();
}
