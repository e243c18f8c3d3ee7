//! Every origin of a stream, every use of one, late and in 200 random orders: right bytes, and no
//! two accesses that nothing orders.
//!
//! An origin says which two streams a use gets, one after the other; a use is a function of
//! [`USES`].

use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use softcuda::{Checks, Grace, Schedule};
use wharf::memory::{DeviceMemoryResource, PinnedMemoryResource, PinnedOptions};
use wharf::pool::{Buffer, Pool};
use wharf::slab::PoolOptions;
use wharf::sys::constants::STREAM_LEGACY;
use wharf::tier::{Tier, TieredPool};
use wharf::{Context, Stream};

use super::{borrow, context, destroy, foreign};
use crate::backend::{Config, Simulator, binder, on_machine};
use crate::deadline::LONG;

/// A use of two streams, one after the other.
type Use = fn(&Rig<'_>);

/// What a stream can be used for.
const USES: [(&str, Use); 3] = [("pool reuse", pool_reuse), ("ticket", ticket), ("tier", tier)];

#[test]
fn owned_streams() {
    in_every_order(Origin::Owned);
}

#[test]
fn the_legacy_stream_by_null() {
    in_every_order(Origin::Null);
}

#[test]
fn the_legacy_stream_by_0x1() {
    in_every_order(Origin::Legacy);
}

#[test]
fn per_thread_streams_of_two_threads() {
    in_every_order(Origin::PerThread);
}

#[test]
fn a_stream_whose_handle_comes_back() {
    in_every_order(Origin::Recycled);
}

#[test]
fn a_stream_that_is_borrowed_twice() {
    in_every_order(Origin::BorrowedTwice);
}

/// A block is written for one stream after the other, and each reads what it wrote.
fn pool_reuse(rig: &Rig<'_>) {
    // Room for one block, so that the second stream gets what the first one still uses.
    let resource = DeviceMemoryResource::new(rig.context, 64 << 20).unwrap();
    let options = PoolOptions::default().thread_cache_bytes(0);
    let pool =
        Pool::builder().slabs(options).max_bytes(2 << 20).wait(LONG).build(resource).unwrap();
    let results = pinned(rig.context);
    let step = |value: u8, stream: &Stream| {
        let buffer: Buffer<u8> = pool.alloc(1 << 20, stream).unwrap();
        buffer.fill(value, stream).unwrap();
        let result: Buffer<u8> = results.alloc(LEN, stream).unwrap();
        result.copy_from(&buffer.slice(..LEN).unwrap(), stream).unwrap();
        (value, result)
    };
    let mut all = Vec::new();
    for round in 0..3 {
        let second = |stream: &Stream, first| [first, step(2 * round + 1, stream)];
        all.extend(rig.two(|stream| step(2 * round, stream), second));
    }
    for (value, mut result) in all {
        assert_eq!(result.host_mut(LONG).unwrap(), [value; LEN]);
    }
}

/// The host writes to a source again when the ticket behind its copy is complete.
fn ticket(rig: &Rig<'_>) {
    let (device, host) = (super::device_pool(rig.context), pinned(rig.context));
    let own = Stream::new(rig.context).unwrap();
    let mut source: Buffer<u8> = host.alloc(LEN, &own).unwrap();
    let step = |value: u8, mut source: Buffer<u8>, stream: &Stream| {
        source.host_mut(LONG).unwrap().fill(value);
        let target: Buffer<u8> = device.alloc(LEN, stream).unwrap();
        target.copy_from(&source, stream).unwrap();
        let ticket = stream.ticket().unwrap();
        let result: Buffer<u8> = host.alloc(LEN, stream).unwrap();
        result.copy_from(&target, stream).unwrap();
        ticket.wait(LONG).unwrap();
        (source, (value, result))
    };
    let mut all = Vec::new();
    for round in 0..3 {
        let second = |stream: &Stream, (source, first)| {
            let (source, second) = step(2 * round + 1, source, stream);
            (source, [first, second])
        };
        let results;
        (source, results) = rig.two(|stream| step(2 * round, source, stream), second);
        all.extend(results);
    }
    for (value, mut result) in all {
        assert_eq!(result.host_mut(LONG).unwrap(), [value; LEN]);
    }
}

/// An object is written by one stream and read by the other, in another tier.
fn tier(rig: &Rig<'_>) {
    let pool = TieredPool::builder(rig.context)
        .device(4 << 20)
        .pinned(4 << 20)
        .wait(LONG)
        .build()
        .unwrap();
    let mut object = pool.alloc(LEN, Tier::Pinned).unwrap();
    for round in 0..3_u8 {
        let shared = &mut object;
        rig.two(
            move |stream| {
                let mut held = shared.pin_mut(Tier::Pinned, stream).unwrap();
                held.copy_from_slice(&[round; LEN]).unwrap();
                drop(held);
                shared
            },
            |stream, object| {
                let mut bytes = [0xff; LEN];
                object.pin(Tier::Device, stream).unwrap().copy_to_slice(&mut bytes).unwrap();
                assert_eq!(bytes, [round; LEN]);
            },
        );
    }
}

/// Where the two streams of a use come from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Owned,
    /// The legacy stream, and one of wharf's own.
    Null,
    Legacy,
    PerThread,
    /// The second has the handle of the first, which was dropped with work in it.
    Recycled,
    /// One stream of an engine's, by two objects one after the other.
    BorrowedTwice,
}

/// A machine, and the streams of an origin on it.
struct Rig<'a> {
    context: &'a Context,
    origin: Origin,
}

impl Rig<'_> {
    /// Calls `first` with one stream, and `second` with the other and what `first` returned.
    fn two<A: Send, B: Send>(
        &self,
        first: impl FnOnce(&Stream) -> A + Send,
        second: impl FnOnce(&Stream, A) -> B + Send,
    ) -> B {
        let new = || Stream::new(self.context).unwrap();
        match self.origin {
            Origin::Owned => {
                let (one, two) = (new(), new());
                second(&two, first(&one))
            }
            Origin::Null => {
                let (one, two) = (borrow(ptr::null_mut(), self.context), new());
                second(&two, first(&one))
            }
            Origin::Legacy => {
                let (one, two) = (new(), borrow(STREAM_LEGACY, self.context));
                second(&two, first(&one))
            }
            Origin::PerThread => {
                let one = Stream::per_thread(self.context);
                let (done, bind) = (first(&one), binder());
                let elsewhere = || {
                    let _bound = bind();
                    second(&Stream::per_thread(self.context), done)
                };
                thread::scope(|scope| scope.spawn(elsewhere).join().unwrap())
            }
            Origin::Recycled => {
                let one = new();
                let (raw, done) = (one.as_raw(), first(&one));
                drop(one);
                let two = new();
                assert_eq!(two.as_raw(), raw, "the driver gives the handle again");
                second(&two, done)
            }
            Origin::BorrowedTwice => {
                let raw = foreign(self.context);
                let done = first(&borrow(raw, self.context));
                let result = second(&borrow(raw, self.context), done);
                self.context.forget_stream(raw).unwrap();
                destroy(raw, self.context);
                result
            }
        }
    }
}

/// Every use with streams of an origin, under every schedule.
fn in_every_order(origin: Origin) {
    for schedule in [Schedule::Late].into_iter().chain((0..SEEDS).map(Schedule::Random)) {
        for (name, test) in USES {
            let config = Config {
                schedule,
                checks: Checks::ALL,
                grace: Grace::After(Duration::from_micros(100)),
                print_violations: false,
                ..Config::default()
            };
            let machine = Arc::new(Simulator::new(config));
            on_machine(&machine, |driver| test(&Rig { context: &context(driver), origin }));
            let violations = machine.violations();
            assert!(violations.is_empty(), "{origin:?}, {name}, {schedule:?}: {violations:?}");
        }
    }
}

fn pinned(context: &Context) -> Pool {
    let resource = PinnedMemoryResource::new(context, 4 << 20, PinnedOptions::default()).unwrap();
    Pool::builder().build(resource).unwrap()
}

const LEN: usize = 1000;
const SEEDS: u64 = 200;
