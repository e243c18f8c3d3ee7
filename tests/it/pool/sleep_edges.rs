//! Sleep where it is refused, where a call fails, and beside what other threads do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ::softcuda::Schedule;
use wharf::memory::{DeviceMemoryResource, Piece, Wire, WiredResource};
use wharf::pool::{Buffer, Contents, Pool, SleepError};
use wharf::slab::AllocError;
use wharf::{Context, CudaError, DeviceAttribute, Error, ErrorKind, Stream};

use super::{SPAN, builder, context, device_pool, gate, pinned_pool, streams};
use crate::backend::{Config, Simulator, binder, on_machine};
use crate::deadline::LONG;

const MIB: usize = 1 << 20;

/// More than a sleep takes that waits for nothing. Only a failure waits for so long.
const HANGS: Duration = Duration::from_secs(60);

/// A transport that does nothing.
#[derive(Debug)]
struct Silent;

impl Wire for Silent {
    type Key = ();

    fn attach(&self, _piece: &Piece) -> Result<(), Error> {
        Ok(())
    }

    fn detach(&self, _piece: &Piece, _key: ()) -> Result<(), Error> {
        Ok(())
    }
}

/// How often contents were copied, and pinned memory was made for them.
fn copies(machine: &Simulator) -> [u64; 3] {
    ["cuMemcpyDtoHAsync", "cuMemcpyHtoDAsync", "cuMemHostRegister"].map(|name| machine.calls(name))
}

/// A live buffer with contents.
fn filled(pool: &Pool, stream: &Stream) -> Buffer<u8> {
    let buffer: Buffer<u8> = pool.alloc(MIB, stream).unwrap();
    buffer.fill(3, stream).unwrap();
    stream.synchronize().unwrap();
    buffer
}

/// The contents of memory that cannot sleep are neither copied nor written: a peer may write there.
fn cannot_sleep(machine: &Arc<Simulator>, make: impl FnOnce(&Context) -> Pool) {
    on_machine(machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = make(&context);
        let buffer = filled(&pool, &stream);
        let before = copies(machine);
        let refused = pool.sleep(Contents::Kept, &stream, LONG).unwrap_err();
        assert_eq!((refused.kind(), refused.is_asleep()), (ErrorKind::Unsupported, false));
        assert_eq!(copies(machine), before, "contents were copied");
        assert!(!pool.is_asleep());
        drop((buffer, pool.alloc::<u8>(MIB, &stream).unwrap()));
        stream.synchronize().unwrap();
        pool.close(LONG).unwrap();
    });
    assert_eq!(machine.leaks(), Vec::<String>::new());
}

#[test]
fn the_sleep_of_a_wired_pool_is_refused_before_anything_is_copied() {
    cannot_sleep(&Arc::new(Simulator::new(Config::default())), |context| {
        let device = DeviceMemoryResource::new(context, SPAN).unwrap();
        builder().build(WiredResource::new(device, Silent)).unwrap()
    });
}

#[test]
fn the_sleep_of_a_whole_span_is_refused_before_anything_is_copied() {
    let attribute = DeviceAttribute::VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED.as_raw();
    let config = Config { attributes: vec![(attribute, 0)], ..Config::default() };
    cannot_sleep(&Arc::new(Simulator::new(config)), device_pool);
}

/// The first piece stays mapped: what is in it is newer than what was kept, if a peer writes there.
#[test]
fn nothing_is_restored_where_nothing_was_suspended() {
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream] = streams(&context);
        let pool = device_pool(&context);
        let buffer = filled(&pool, &stream);
        let before = machine.calls("cuMemcpyHtoDAsync");
        machine.fail("cuMemUnmap", 1, CudaError::UNKNOWN);
        let failed = pool.sleep(Contents::Kept, &stream, LONG).unwrap_err();
        assert_eq!((failed.is_asleep(), pool.is_asleep()), (false, false), "{failed}");
        assert_eq!(machine.calls("cuMemcpyHtoDAsync"), before, "contents were restored");
        pool.sleep(Contents::Kept, &stream, LONG).unwrap();
        pool.wake(&stream).unwrap();
        drop(buffer);
    });
}

/// A copy that waits for a stream that is held up: a sleep with a limit keeps to it.
fn sleeps_beside(call: &str, copy: fn(&Buffer<u8>, &mut [u8], &Stream)) {
    let config = Config { schedule: Schedule::Async, ..Config::default() };
    let machine = Arc::new(Simulator::new(config));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream, other] = streams(&context);
        let (pool, pinned) = (device_pool(&context), pinned_pool(&context));
        let buffer = filled(&pool, &stream);
        let mut host: Buffer<u8> = pinned.alloc(MIB, &stream).unwrap();
        let host = host.host_mut(LONG).unwrap();
        let (held, before, bind) = (gate(&stream), machine.calls(call), binder());
        let outcome = thread::scope(|scope| {
            let (copier, sleeper) = (bind.clone(), bind);
            let (buffer, stream, other, pool) = (&buffer, &stream, &other, &pool);
            scope.spawn(move || {
                let _bound = copier();
                copy(buffer, host, stream);
            });
            while machine.calls(call) == before {
                thread::yield_now();
            }
            let (tell, told) = channel();
            scope.spawn(move || {
                let _bound = sleeper();
                tell.send(pool.sleep(Contents::Kept, other, Duration::ZERO)).unwrap();
            });
            let outcome = told.recv_timeout(HANGS);
            drop(held);
            outcome
        });
        assert!(matches!(outcome, Ok(Err(SleepError::Busy(_)))), "{outcome:?}");
        drop(buffer);
    });
}

#[test]
fn a_sleep_does_not_wait_for_a_copy_to_a_slice() {
    sleeps_beside("cuMemcpyDtoHAsync", |buffer, host, stream| {
        buffer.copy_to_slice(host, stream).unwrap();
    });
}

#[test]
fn a_sleep_does_not_wait_for_a_copy_from_a_pinned_slice() {
    sleeps_beside("cuMemcpyHtoDAsync", |buffer, host, stream| {
        buffer.copy_from_slice(host, stream).unwrap();
    });
}

/// A wake that has nothing to do must not make copies and fills believe that the pool sleeps.
#[test]
fn a_wake_of_an_awake_pool_refuses_no_fill() {
    const FILLS: usize = 20_000;
    let machine = Arc::new(Simulator::new(Config::default()));
    on_machine(&machine, |driver| {
        let context = context(driver);
        let [stream, other] = streams(&context);
        let pool = device_pool(&context);
        let buffer = filled(&pool, &stream);
        let (is_done, bind) = (AtomicBool::new(false), binder());
        let refused = thread::scope(|scope| {
            let (is_done, other, pool) = (&is_done, &other, &pool);
            scope.spawn(move || {
                let _bound = bind();
                while !is_done.load(Relaxed) {
                    assert_eq!(pool.wake(other), Ok(0));
                }
            });
            let refused = (0..FILLS).filter(|_| buffer.fill(1, &stream).is_err()).count();
            is_done.store(true, Relaxed);
            refused
        });
        assert_eq!(refused, 0, "of {FILLS}");
        drop(buffer);
    });
}

/// The device's fault is found by sleep or wake: nothing is allocated after it.
#[test]
fn a_fault_in_sleep_or_wake_ends_the_pool() {
    let fault = CudaError::ILLEGAL_ADDRESS;
    for (call, in_wake) in [
        ("cuMemUnmap", false),
        ("cuMemcpyDtoHAsync", false),
        ("cuStreamIsCapturing", false),
        ("cuMemCreate", true),
        ("cuMemcpyHtoDAsync", true),
    ] {
        let machine = Arc::new(Simulator::new(Config::default()));
        on_machine(&machine, |driver| {
            let context = context(driver);
            let [stream] = streams(&context);
            let pool = device_pool(&context);
            let buffer = filled(&pool, &stream);
            let outcome = if in_wake {
                pool.sleep(Contents::Kept, &stream, LONG).unwrap();
                machine.fail(call, 1, fault);
                pool.wake(&stream).map(drop)
            } else {
                machine.fail(call, 1, fault);
                pool.sleep(Contents::Kept, &stream, LONG).map(drop)
            };
            let SleepError::Failed { error, is_asleep } = outcome.unwrap_err() else {
                panic!("{call}: the pool is in use");
            };
            assert_eq!((error.code(), is_asleep), (Some(fault), in_wake), "{call}");
            let refused = pool.alloc::<u8>(MIB, &stream).unwrap_err();
            assert_eq!(refused, AllocError::Upstream(error), "{call}");
            drop(buffer);
        });
    }
}
