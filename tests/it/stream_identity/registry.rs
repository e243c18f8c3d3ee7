#![expect(unsafe_code, reason = "borrows streams by handle")]
//! One stream is one stream, however often it is borrowed, and never another's.

use std::any::Any;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use ::softcuda::Schedule;
use wharf::pool::Buffer;
use wharf::sys::bindings::CUstream;
use wharf::sys::constants::{STREAM_LEGACY, STREAM_PER_THREAD};
use wharf::{Context, Driver, Error, Stream};

use super::{alloc_of, borrow, context, destroy, device_pool, foreign, gate, late, machine};
use crate::backend::{Config, Simulator, binder, on_each_driver, on_machine};
use crate::deadline::LONG;

on_each_driver!(
    objects_of_one_stream_are_one_stream,
    null_and_0x1_are_one_stream,
    per_thread_streams_of_two_threads_are_two,
    a_stream_that_is_taken_over_while_borrowed_stays_itself,
    a_forgotten_stream_is_another_one_afterwards,
    an_object_of_a_forgotten_stream_refuses_every_call,
    an_owner_is_kept_as_long_as_a_pool_knows_its_stream,
    a_context_keeps_its_owner,
);

fn objects_of_one_stream_are_one_stream(driver: &Driver) {
    let context = context(driver);
    let owner = Stream::new(&context).unwrap();
    let (one, two) = (borrow(owner.as_raw(), &context), borrow(owner.as_raw(), &context));
    assert_eq!((one.id(), two.id()), (owner.id(), owner.id()));
    assert_ne!(owner.id(), Stream::new(&context).unwrap().id());
    // A marker by one object completes what another object's ticket names.
    let ticket = one.ticket().unwrap();
    assert!(two.mark().unwrap());
    drop((one, two));
    ticket.wait(LONG).unwrap();
    let ticket = owner.ticket().unwrap();
    borrow(owner.as_raw(), &context).synchronize().unwrap();
    assert!(ticket.is_complete());
}

fn null_and_0x1_are_one_stream(driver: &Driver) {
    let context = context(driver);
    let (null, legacy) = (borrow(ptr::null_mut(), &context), borrow(STREAM_LEGACY, &context));
    assert_eq!(null.id(), legacy.id());
    assert_eq!(null.id(), Stream::legacy(&context).id());
    assert_eq!((null.as_raw(), legacy.as_raw()), (ptr::null_mut(), STREAM_LEGACY));
    assert_ne!(null.id(), borrow(STREAM_PER_THREAD, &context).id());
    let ticket = null.ticket().unwrap();
    legacy.synchronize().unwrap();
    assert!(ticket.is_complete());
}

fn per_thread_streams_of_two_threads_are_two(driver: &Driver) {
    let context = context(driver);
    let here = Stream::per_thread(&context);
    assert_eq!(here.id(), borrow(STREAM_PER_THREAD, &context).id());
    let bind = binder();
    let there = thread::scope(|scope| {
        let id = || {
            let _bound = bind();
            borrow(STREAM_PER_THREAD, &context).id()
        };
        scope.spawn(id).join().unwrap()
    });
    assert_ne!(here.id(), there);
}

fn a_stream_that_is_taken_over_while_borrowed_stays_itself(driver: &Driver) {
    let context = context(driver);
    let raw = foreign(&context);
    let borrowed = borrow(raw, &context);
    let ticket = borrowed.ticket().unwrap();
    // SAFETY: nothing else destroys it.
    let owned = unsafe { Stream::from_raw(raw, &context) };
    assert_eq!(owned.id(), borrowed.id());
    drop(borrowed);
    drop(owned);
    ticket.wait(LONG).unwrap();
    assert_eq!(context.drop_errors(), 0);
}

fn a_forgotten_stream_is_another_one_afterwards(driver: &Driver) {
    let context = context(driver);
    let raw = foreign(&context);
    let borrowed = borrow(raw, &context);
    let held = gate(&borrowed);
    let (id, ticket) = (borrowed.id(), borrowed.ticket().unwrap());
    drop(borrowed);
    assert!(context.forget_stream(raw).unwrap());
    assert!(!context.forget_stream(raw).unwrap(), "it is not known any more");
    assert_ne!(borrow(raw, &context).id(), id);
    assert!(!ticket.poll().unwrap());
    drop(held);
    // By the last marker.
    ticket.wait(LONG).unwrap();
    context.forget_stream(raw).unwrap();
    destroy(raw, &context);
}

fn an_object_of_a_forgotten_stream_refuses_every_call(driver: &Driver) {
    let context = context(driver);
    let pool = device_pool(&context);
    let raw = foreign(&context);
    let borrowed = borrow(raw, &context);
    let buffer: Buffer<u8> = pool.alloc(100, &borrowed).unwrap();
    context.forget_stream(raw).unwrap();
    destroy(raw, &context);
    assert_eq!(borrowed.query(), Err(Error::StreamForgotten));
    assert_eq!(borrowed.ticket().unwrap_err(), Error::StreamForgotten);
    assert_eq!(buffer.fill(1, &borrowed), Err(Error::StreamForgotten));
    assert!(pool.alloc::<u8>(100, &borrowed).is_err());
}

fn an_owner_is_kept_as_long_as_a_pool_knows_its_stream(driver: &Driver) {
    let context = context(driver);
    let ended = Arc::new(AtomicU32::new(0));
    let lend = |stream: &Context| {
        let raw = foreign(stream);
        let owner: Arc<dyn Any + Send + Sync> =
            Arc::new(Lender(raw.addr(), context.clone(), Arc::clone(&ended)));
        // SAFETY: the owner destroys it.
        unsafe { Stream::borrow_with_owner(raw, owner, &context) }
    };
    let pool = device_pool(&context);
    let stream = lend(&context);
    pool.alloc::<u8>(1000, &stream).unwrap().fill(1, &stream).unwrap();
    drop(stream);
    assert_eq!(ended.load(Ordering::Relaxed), 0, "the pool may still put a marker in");
    pool.close(LONG).unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    let stream = lend(&context);
    let ticket = stream.ticket().unwrap();
    context.forget_stream(stream.as_raw()).unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 2, "what is forgotten is given back");
    drop(stream);
    ticket.wait(LONG).unwrap();
    assert_eq!(context.drop_errors(), 0);
}

fn a_context_keeps_its_owner(driver: &Driver) {
    let owner = Arc::new(context(driver));
    let raw = owner.as_raw();
    let kept: Arc<dyn Any + Send + Sync> = owner.clone();
    // SAFETY: the owner keeps it.
    let borrowed = unsafe { Context::borrow_with_owner(raw, kept, driver) }.unwrap();
    let stream = Stream::new(&borrowed).unwrap();
    let ticket = stream.ticket().unwrap();
    drop((borrowed, stream));
    assert_eq!(Arc::strong_count(&owner), 2);
    ticket.wait(LONG).unwrap();
    drop(ticket);
    assert_eq!(Arc::strong_count(&owner), 1);
}

/// An engine's stream, which its drop destroys.
struct Lender(usize, Context, Arc<AtomicU32>);

impl Drop for Lender {
    fn drop(&mut self) {
        destroy(ptr::with_exposed_provenance_mut(self.0), &self.1);
        self.2.fetch_add(1, Ordering::Relaxed);
    }
}

/// Borrows a stream anew for each use, as a wrapper without state does.
fn wrap_at_every_call(raw: CUstream, times: usize) {
    let machine = machine();
    on_machine(&machine, |driver| {
        let context = context(driver);
        let _scope = context.enter().unwrap();
        let pool = device_pool(&context);
        let call = || {
            let stream = borrow(raw, &context);
            let buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
            buffer.record_use(&stream).unwrap();
            stream.id()
        };
        let first = call();
        let before = machine.all_calls();
        assert!((0..times).all(|_| call() == first));
        assert_eq!(machine.all_calls(), before);
        assert_eq!(machine.calls("cuMemHostRegister"), 1);
        assert_eq!(pool.blocks().len(), 1, "each call finds what the last one dropped");
    });
}

#[test]
fn borrowing_a_stream_100_000_times_registers_once_and_calls_the_driver_not_at_all() {
    wrap_at_every_call(ptr::null_mut(), 100_000);
    let machine = machine();
    on_machine(&machine, |driver| {
        let context = context(driver);
        let _scope = context.enter().unwrap();
        let (raw, pool) = (foreign(&context), device_pool(&context));
        drop(pool.alloc::<u8>(1000, &borrow(raw, &context)).unwrap());
        let before = machine.all_calls();
        for _ in 0..100_000 {
            let stream = borrow(raw, &context);
            pool.alloc::<u8>(1000, &stream).unwrap().record_use(&stream).unwrap();
        }
        assert_eq!(machine.all_calls(), before);
        assert_eq!((machine.calls("cuMemHostRegister"), pool.blocks().len()), (1, 1));
        context.forget_stream(raw).unwrap();
        destroy(raw, &context);
    });
}

/// Also where nothing keeps it.
#[test]
fn wrapping_a_stream_that_nothing_else_knows_pins_no_page_each_time() {
    let machine = machine();
    on_machine(&machine, |driver| {
        let context = context(driver);
        let _scope = context.enter().unwrap();
        let raw = foreign(&context);
        let wrap = || borrow(raw, &context).ticket().map(drop).unwrap();
        wrap();
        let before = machine.all_calls();
        (0..1000).for_each(|_| wrap());
        assert_eq!(machine.all_calls(), before);
        destroy(raw, &context);
    });
}

#[test]
fn a_handle_that_comes_back_is_another_stream() {
    on_machine(&late(), |driver| {
        let context = context(driver);
        let pool = device_pool(&context);
        let first = Stream::new(&context).unwrap();
        let (raw, id, held) = (first.as_raw(), first.id(), gate(&first));
        let buffer: Buffer<u8> = pool.alloc(1000, &first).unwrap();
        buffer.fill(1, &first).unwrap();
        let address = buffer.info().address;
        drop((buffer, first));
        let second = Stream::new(&context).unwrap();
        assert_eq!(second.as_raw(), raw, "the driver gives the handle again");
        assert_ne!(second.id(), id);
        let buffer: Buffer<u8> = pool.alloc(1000, &second).unwrap();
        assert_ne!(buffer.info().address, address, "the first stream still writes there");
        drop(held);
    });
}

/// An engine that forgets to say so is found out where wharf itself makes the next stream.
#[test]
fn a_new_stream_is_never_taken_for_one_that_was_not_forgotten() {
    on_machine(&late(), |driver| {
        let context = context(driver);
        let raw = foreign(&context);
        let borrowed = borrow(raw, &context);
        let (id, ticket) = (borrowed.id(), borrowed.ticket().unwrap());
        drop(borrowed);
        destroy(raw, &context);
        let new = Stream::new(&context).unwrap();
        assert_eq!(new.as_raw(), raw, "the driver gives the handle again");
        assert_ne!(new.id(), id);
        assert_eq!(borrow(raw, &context).id(), new.id());
        // Nothing can be known of it any more, and the new stream must not be asked; in doubt it is
        // not complete.
        assert!(!ticket.poll().unwrap());
        new.synchronize().unwrap();
        assert!(!ticket.poll().unwrap());
    });
}

#[test]
fn a_pool_outlives_5000_streams_that_were_last_to_use_what_it_keeps() {
    let machine = machine();
    on_machine(&machine, |driver| {
        let context = context(driver);
        let _scope = context.enter().unwrap();
        let pool = device_pool(&context);
        let mut kept: Vec<Buffer<u8>> = Vec::new();
        for number in 0..5000 {
            let stream = Stream::new(&context).unwrap();
            let buffer = alloc_of(number, &pool, &stream, &context);
            buffer.fill(1, &stream).unwrap();
            kept.push(buffer);
        }
        assert!(kept.iter().all(|buffer| buffer.wait(LONG).is_ok()));
        assert!(machine.calls("cuMemHostRegister") <= 5, "dead streams share their pages");
    });
}

/// There is no number of streams after which a pool refuses, and what is dead leaves nothing.
#[test]
fn a_pool_outlives_100_000_streams_that_were_last_to_use_what_it_keeps() {
    let machine =
        Arc::new(Simulator::new(Config { schedule: Schedule::Eager, ..Config::default() }));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let _scope = context.enter().unwrap();
        let pool = device_pool(&context);
        let mut kept: Vec<Buffer<u8>> = Vec::new();
        let net = || machine.calls("cuEventCreate") - machine.calls("cuEventDestroy");
        let mut early = (0, 0);
        for number in 0..100_000 {
            let stream = Stream::new(&context).unwrap();
            let buffer: Buffer<u8> = pool.alloc(256, &stream).unwrap();
            buffer.fill(1, &stream).unwrap();
            kept.push(buffer);
            if number == 1000 {
                early = (machine.calls("cuMemHostRegister"), net());
            }
        }
        assert!(kept.iter().all(|buffer| buffer.wait(LONG).is_ok()));
        let late = (machine.calls("cuMemHostRegister"), net());
        assert_eq!(late, early, "dead streams leave nothing");
        drop(kept);
        pool.close(LONG).unwrap();
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

/// Uses of an earlier stream are complete for ever, and those of a later one are not taken for
/// them.
#[test]
fn a_slot_that_is_given_on_keeps_what_is_complete() {
    on_machine(&machine(), |driver| {
        let context = context(driver);
        let pool = device_pool(&context);
        let kept: Vec<Buffer<u8>> = (0..3)
            .map(|number| {
                let stream = Stream::new(&context).unwrap();
                let buffer: Buffer<u8> = pool.alloc(1000, &stream).unwrap();
                (0..=number).for_each(|_| assert!(stream.mark().unwrap()));
                buffer.fill(1, &stream).unwrap();
                stream.synchronize().unwrap();
                buffer
            })
            .collect();
        context.synchronize().unwrap();
        let last = Stream::new(&context).unwrap();
        let held = gate(&last);
        let buffer: Buffer<u8> = pool.alloc(1000, &last).unwrap();
        buffer.fill(2, &last).unwrap();
        assert!(kept.iter().all(Buffer::is_idle), "they are past all uses");
        assert!(!buffer.poll().unwrap(), "its stream is held up");
        drop(held);
        buffer.wait(LONG).unwrap();
    });
}

#[test]
fn a_pool_outlives_5000_borrowed_streams_that_nothing_forgot() {
    on_machine(&machine(), |driver| {
        let context = context(driver);
        let _scope = context.enter().unwrap();
        let pool = device_pool(&context);
        let mut engine = Vec::new();
        for number in 0..5000 {
            let owner = Stream::new(&context).unwrap();
            let stream = borrow(owner.as_raw(), &context);
            let buffer = alloc_of(number, &pool, &stream, &context);
            buffer.fill(1, &stream).unwrap();
            engine.push((owner.into_raw(), buffer));
        }
        for (raw, buffer) in engine {
            buffer.wait(LONG).unwrap();
            context.forget_stream(raw).unwrap();
            destroy(raw, &context);
        }
    });
}

#[test]
fn streams_beyond_4096_at_once_are_refused_by_name() {
    on_machine(&machine(), |driver| {
        let context = context(driver);
        let _scope = context.enter().unwrap();
        let pool = device_pool(&context);
        let streams: Vec<_> = (0..4096).map(|_| Stream::new(&context).unwrap()).collect();
        let buffers: Vec<Buffer<u8>> =
            streams.iter().map(|stream| pool.alloc(256, stream).unwrap()).collect();
        let one_more = Stream::new(&context).unwrap();
        let refused = pool.alloc::<u8>(256, &one_more).unwrap_err();
        assert_eq!(refused, Error::TooManyStreams { max: 4096 }.into(), "{refused}");
        assert_eq!(buffers[0].fill(1, &one_more), Err(Error::TooManyStreams { max: 4096 }));
        drop(streams);
        pool.alloc::<u8>(256, &one_more).unwrap();
    });
}
